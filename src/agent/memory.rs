//! What the agent keeps over its own restarts, and what must be kept before it is said.
//!
//! That the gate was passed and that ready was reached is said to the cluster, and a restart must not take it back: so
//! it is kept first. Both hold for one boot, and what a power cut takes doesn't matter to the next; but what was asked
//! for on this node and which image was warm hold longer, so every write is durable. It's done by a job, because a
//! disk that is busy with weights takes its time, and the loop has none.

use std::time::Duration;

use tokio::time::Instant;

use super::boot::BootState;

/// How long what should be kept first holds up what is said: a disk that hangs must not keep a node closed for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A state directory that can't be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Memory {
    /// What is on the disk.
    kept: BootState,
    writing: bool,
    not_before: Option<Instant>,
    /// Why the last write failed, as it was logged.
    problem: Option<String>,
    held_since: Option<Instant>,
}

impl Memory {
    pub(super) fn new(kept: BootState) -> Self {
        Self { kept, writing: false, not_before: None, problem: None, held_since: None }
    }

    pub(super) fn kept(&self) -> &BootState {
        &self.kept
    }

    /// Whether `state` is to be written now; then it's under way. One write at a time.
    pub(super) fn begins(&mut self, state: &BootState, now: Instant) -> bool {
        let begins = !self.writing && *state != self.kept && self.not_before.is_none_or(|at| now >= at);
        self.writing |= begins;
        begins
    }

    pub(super) fn ended(&mut self, result: Result<BootState, String>, now: Instant) {
        self.writing = false;
        match result {
            Ok(state) => {
                self.kept = state;
                (self.problem, self.not_before) = (None, None);
            }
            Err(problem) => {
                if self.problem.as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.problem = Some(problem);
                self.not_before = Some(now + AGAIN);
            }
        }
    }

    /// Until when what is said must wait for `state` to be kept. Where it can't be kept, it's said all the same.
    pub(super) fn holds_until(&mut self, state: &BootState, now: Instant) -> Option<Instant> {
        let kept = &self.kept;
        let is_first_said =
            (state.gate_opened && !kept.gate_opened) || (state.ready_reached && !kept.ready_reached);
        if !is_first_said || self.problem.is_some() {
            self.held_since = None;
            return None;
        }
        let until = *self.held_since.get_or_insert(now) + PATIENCE;
        (until > now).then_some(until)
    }

    #[cfg(test)]
    pub(super) fn is_writing(&self) -> bool {
        self.writing
    }

    /// When to look again, though nothing happens.
    pub(super) fn retry_at(&self, now: Instant) -> Option<Instant> {
        // Once it has passed, either a write is under way or there is nothing to write.
        self.not_before.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> BootState {
        BootState { boot_id: "one".to_owned(), gate_opened: true, gate_open: true, ..BootState::default() }
    }

    fn memory() -> (Memory, Instant) {
        let kept = BootState { boot_id: "one".to_owned(), ..BootState::default() };
        (Memory::new(kept), Instant::now())
    }

    #[test]
    fn what_is_first_said_waits_until_it_is_kept() {
        let (mut memory, now) = memory();
        assert!(memory.holds_until(&opened(), now).is_some());
        assert!(memory.begins(&opened(), now) && !memory.begins(&opened(), now), "one write at a time");
        memory.ended(Ok(opened()), now);
        assert_eq!((memory.holds_until(&opened(), now), memory.begins(&opened(), now)), (None, false));

        let closed = BootState { gate_open: false, ..opened() };
        assert_eq!(memory.holds_until(&closed, now), None, "what takes something back is said at once");
        assert!(memory.begins(&closed, now));
    }

    #[test]
    fn a_disk_that_fails_or_hangs_does_not_keep_the_node_closed() {
        let (mut memory, now) = memory();
        assert!(memory.holds_until(&opened(), now).is_some() && memory.begins(&opened(), now));
        assert_eq!(memory.holds_until(&opened(), now + PATIENCE), None, "it hangs");
        memory.ended(Err("read-only".to_owned()), now);
        assert_eq!(memory.holds_until(&opened(), now), None);
        assert!(!memory.begins(&opened(), now), "not again at once");
        assert_eq!(memory.retry_at(now), Some(now + AGAIN));
        assert_eq!(memory.retry_at(now + AGAIN), None, "what is over wakes nobody without end");
        assert!(memory.begins(&opened(), now + AGAIN));
    }
}
