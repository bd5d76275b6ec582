//! The last words of a run: what is warm, what isn't, and the labels.

use std::io::{self, Write};

use super::document::{Entry, Status};
use super::format;
use super::table::{Cell, Table};
use super::terminal::{Look, Paint};
use crate::node::EntryState;

/// Says what is warm, what isn't and why, and which labels the Node gets for it.
///
/// # Errors
/// When `out` fails.
pub fn print_summary(status: &Status, look: Look, out: &mut impl Write) -> io::Result<()> {
    let (warm, cold): (Vec<&Entry>, Vec<&Entry>) =
        status.entries.iter().partition(|entry| entry.state == Some(EntryState::Warm));
    if status.entries.is_empty() {
        writeln!(out, "Nothing is listed for this node.")?;
    } else {
        writeln!(out, "{} of {} entries are warm.", warm.len(), status.entries.len())?;
        out.write_all(table(&warm, &cold).render(look).as_bytes())?;
    }
    if status.labels.is_empty() {
        writeln!(out, "\nThe Node would carry no labels of ours.")?;
    } else {
        writeln!(out, "\nThe labels of the Node:")?;
    }
    for (key, value) in &status.labels {
        writeln!(out, "  {}={}", format::plain(key), format::plain(value))?;
    }
    out.flush()
}

fn table(warm: &[&Entry], cold: &[&Entry]) -> Table<5> {
    let mut table = Table::new(["ID", "KIND", "STATE", "REVISION", "SOURCE OR REASON"]);
    for entry in warm {
        table.row([
            entry.id.as_str().into(),
            entry.kind_word().into(),
            Cell::new(entry.state_word(), Paint::Good),
            entry.revision.as_deref().map_or("-", format::short).into(),
            Cell::new(&entry.source, Paint::Plain),
        ]);
    }
    for entry in cold {
        let reason = entry.reason.as_ref().map(|reason| format!("{}: {}", reason.code, reason.message));
        table.row([
            entry.id.as_str().into(),
            entry.kind_word().into(),
            Cell::new(entry.state_word(), Paint::Bad),
            "-".into(),
            Cell::new(reason.as_deref().unwrap_or(&entry.source), Paint::Plain),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::tests::sample;

    fn text(status: &Status) -> String {
        let mut out = Vec::new();
        print_summary(status, Look::default(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn warm_entries_reasons_and_labels_are_told() {
        assert_eq!(
            text(&sample()),
            "2 of 4 entries are warm.\n\
             ID         KIND     STATE     REVISION      SOURCE OR REASON\n\
             vllm       image    Warm      cdcdcdcdcdcd  docker.io/vllm/vllm-openai:v0.9\n\
             caches     weights  Warm      efefefefefef  s3://bucket/caches/\n\
             llama-70b  weights  Fetching  -             s3://bucket/llama-70b/\n\
             typo       -        Invalid   -             Invalid: image: not a reference: \"a b\"\n\
             \n\
             The labels of the Node:\n  \
               image.stoker.dev/vllm=cdcdcdcdcdcd\n  \
               stoker.dev/gpu=ready\n"
        );
    }

    #[test]
    fn nothing_at_all_is_told_too() {
        let mut status = sample();
        status.entries.clear();
        status.labels.clear();
        assert_eq!(
            text(&status),
            "Nothing is listed for this node.\n\nThe Node would carry no labels of ours.\n"
        );
    }
}
