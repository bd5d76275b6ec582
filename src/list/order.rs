use std::cmp::Ordering;

use super::Entry;

/// Which of two entries is worked on first: the required one, then the one needed sooner (never needed comes
/// last), then the one of higher priority. A stable sort by this keeps the list's own order among equals.
#[must_use]
pub fn by_urgency(a: &Entry, b: &Entry) -> Ordering {
    let deadline = |entry: &Entry| (entry.needed_by.is_none(), entry.needed_by);
    b.required
        .cmp(&a.required)
        .then_with(|| deadline(a).cmp(&deadline(b)))
        .then_with(|| b.priority.cmp(&a.priority))
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    #[test]
    fn required_then_deadline_then_priority_then_the_lists_order() {
        let sooner = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let later = Some("2026-01-02T00:00:00Z".parse().unwrap());
        let mut entries = [
            Entry { ..entry("plain-1") },
            Entry { priority: 900, ..entry("high") },
            Entry { needed_by: later, priority: 1000, ..entry("later") },
            Entry { needed_by: sooner, priority: 0, ..entry("sooner") },
            Entry { required: true, priority: 0, ..entry("required") },
            Entry { required: true, needed_by: later, ..entry("required-later") },
            Entry { ..entry("plain-2") },
        ];
        entries.sort_by(by_urgency);
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["required-later", "required", "sooner", "later", "high", "plain-1", "plain-2"]);
    }
}
