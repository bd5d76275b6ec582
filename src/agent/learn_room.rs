//! What the loop makes of news about the cache's room.

use tokio::time::Instant;

use super::step::Stays;
use super::task::Agent;
use crate::types::EntryId;
use crate::weights::{GiveWay, Room};

impl Agent {
    pub(super) fn dropped_old(&mut self, id: &EntryId, result: Result<(), Stays>) {
        self.world.superseded.ended(id, Instant::now());
        self.outdate_scan();
        self.rescan_at = Instant::now();
        match result {
            Ok(()) => tracing::info!(entry = %id, "removed the names of older revisions"),
            Err(Stays::InUse(user)) => {
                tracing::debug!(entry = %id, user, "an older revision is in use, and stays")
            }
            Err(Stays::Stuck(problem)) => {
                tracing::error!(entry = %id, "could not remove older revisions: {problem}")
            }
        }
    }

    /// Who gives way loses its label with the next report.
    pub(super) fn room_found(&mut self, newcomer: &EntryId, result: Result<GiveWay, String>) {
        self.world.yielding.looking = false;
        let found = match result {
            Ok(found) => found,
            Err(problem) => return self.say_why(newcomer, &problem),
        };
        for id in &found.go {
            tracing::warn!(entry = %id, %newcomer, "gives way: the cache has no room for both");
            self.world.yielding.to.insert(id.clone(), newcomer.clone());
        }
        if found.go.is_empty() {
            let users: Vec<String> = found.in_use.iter().map(|(id, user)| format!("{id}: {user}")).collect();
            let users =
                if users.is_empty() { String::new() } else { format!(" (in use: {})", users.join("; ")) };
            self.say_why(newcomer, &format!("no less urgent set of weights can give way{users}"));
        }
    }

    /// Adds to an entry's reason why nobody gives way to it.
    fn say_why(&mut self, newcomer: &EntryId, why: &str) {
        let Some(failure) = self.world.failures.get_mut(newcomer) else { return };
        let message = &mut failure.reason.message;
        // One search after another says it anew.
        let own = message.find(WHY).unwrap_or(message.len());
        message.truncate(own);
        message.push_str(WHY);
        message.push_str(why);
    }

    /// What failed for want of room is tried again when there is enough, and wasn't before.
    pub(super) fn measured(&mut self, result: Result<Room, String>) {
        self.measuring = false;
        let room = match result {
            Ok(room) => room,
            Err(problem) => return tracing::error!("cannot measure the cache's room: {problem}"),
        };
        for failure in self.world.failures.values_mut() {
            let Some(lack) = &mut failure.lack else { continue };
            if room.in_all() >= lack.needed && lack.had < lack.needed {
                failure.retry_at = Some(Instant::now());
                failure.for_good = false;
            }
            lack.had = room.in_all();
        }
        self.world.room = Some(room);
    }

    /// The labels of what was in it go; nothing is fetched into it.
    pub(super) fn cache_moved(&mut self, problem: String) {
        self.scanning = None;
        if self.world.cache_problem.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
        }
        self.world.cache_problem = Some(problem);
        self.world.weights = Some(std::collections::BTreeMap::new());
    }
}

/// Parts what an entry lacks from why nobody gives way to it.
const WHY: &str = " — ";
