//! A status as people read it. Pure.

use crate::cli::document::{Entry, Status};
use crate::cli::format::{self, plain};
use crate::cli::table::{Cell, Table, cut};
use crate::cli::terminal::{Look, Paint};
use crate::node::EntryState;
use crate::types::GpuPhase;

/// The header and the table of entries.
pub(super) fn render(status: &Status, look: Look) -> String {
    let mut text = String::new();
    for (key, value, paint) in header(status) {
        let room = look.width.map(|width| width.saturating_sub(KEY_WIDTH));
        text.push_str(&format!("{key:<KEY_WIDTH$}{}\n", paint.on(&cut(&value, room), look.colour)));
    }
    text.push('\n');
    if status.entries.is_empty() {
        text.push_str("Nothing is listed for this node.\n");
    } else {
        text.push_str(&entries(&status.entries).render(look));
    }
    text
}

const KEY_WIDTH: usize = 9;

/// Keys (empty where a line goes on) and values.
fn header(status: &Status) -> Vec<(&'static str, String, Paint)> {
    let mut lines = Vec::new();
    let (gpu, list) = (&status.gpu, &status.list);
    let ready = if status.ready && status.ready_by.as_deref() == Some("MaxWaitPassed") {
        ("yes, since --max-wait has passed", Paint::Waiting)
    } else if status.ready {
        ("yes", Paint::Good)
    } else if status.settled {
        ("not yet", Paint::Waiting)
    } else {
        ("not yet: the agent has only just started", Paint::Waiting)
    };
    lines.push(("Ready", ready.0.to_owned(), ready.1));

    let mut words = format!("{:?} ({})", gpu.phase, plain(&gpu.reason));
    words.push_str(if gpu.open { ", gate open" } else { ", gate closed" });
    if gpu.expected > 0 || gpu.devices > 0 {
        words.push_str(&format!(", {} of {} devices", gpu.devices, gpu.expected));
    }
    if let Some(version) = &gpu.driver_version {
        words.push_str(&format!(", driver {}", plain(version)));
    }
    lines.push(("GPU", words, gpu_paint(gpu.phase)));
    if !gpu.message.is_empty() {
        lines.push(("", plain(&gpu.message), Paint::Plain));
    }

    let mut words = list.content.as_deref().map_or("none was read yet", format::short).to_owned();
    let flags = [
        (list.paused, "paused"),
        (list.stale, "past its validUntil: nothing new is started"),
        (list.removals_held, "nothing is removed until it is mended"),
    ];
    flags.iter().filter(|(set, _)| *set).for_each(|(_, flag)| words.push_str(&format!(", {flag}")));
    lines.push(("List", words, Paint::Plain));
    lines.extend(list.errors.iter().map(|error| ("", format!("error: {}", plain(error)), Paint::Bad)));
    lines.extend(
        list.warnings.iter().map(|warning| ("", format!("warning: {}", plain(warning)), Paint::Waiting)),
    );

    lines.extend(labels(status));
    lines.push((
        "Agent",
        format!("{}, boot {}", plain(&status.version), plain(&status.boot_id)),
        Paint::Faint,
    ));
    lines
}

/// What the Node carries or is to carry, and what may still be there and is to go.
fn labels(status: &Status) -> Vec<(&'static str, String, Paint)> {
    let is_sure = |key: &String| !status.unconfirmed_labels.contains(key);
    let mut labels: Vec<(String, Paint)> = Vec::new();
    labels.extend(status.labels.iter().map(|(key, value)| {
        let label = format!("{}={}", plain(key), plain(value));
        if is_sure(key) {
            (label, Paint::Plain)
        } else {
            (format!("{label} (the API server has not confirmed it yet)"), Paint::Waiting)
        }
    }));
    let leaving = status.unconfirmed_labels.iter().filter(|key| !status.labels.contains_key(*key));
    labels.extend(
        leaving.map(|key| (format!("{} is to go, and may still be there", plain(key)), Paint::Waiting)),
    );
    if labels.is_empty() {
        labels.push(("none".to_owned(), Paint::Plain));
    }
    let titles = std::iter::once("Labels").chain(std::iter::repeat(""));
    titles.zip(labels).map(|(title, (label, paint))| (title, label, paint)).collect()
}

fn entries(entries: &[Entry]) -> Table<7> {
    let mut table = Table::new(["ID", "KIND", "REQUIRED", "STATE", "PROGRESS", "REVISION", "REASON"]);
    for entry in entries {
        table.row([
            entry.id.as_str().into(),
            entry.kind_word().into(),
            match (entry.required, entry.requested) {
                (true, false) => "yes",
                (true, true) => "yes, asked for",
                (false, true) => "asked for",
                (false, false) => "-",
            }
            .into(),
            Cell::new(entry.state_word(), state_paint(entry.state)),
            progress(entry).as_str().into(),
            entry.revision.as_deref().map_or("-", format::short).into(),
            reason(entry).as_str().into(),
        ]);
    }
    table
}

fn progress(entry: &Entry) -> String {
    match (entry.bytes_done, entry.bytes_total) {
        (0, 0) => "-".to_owned(),
        (done, 0) => format::size(done),
        (done, total) => format!("{} {}%", format::sizes(done, "/", total), format::percent(done, total)),
    }
}

fn reason(entry: &Entry) -> String {
    match &entry.reason {
        Some(reason) => format!("{}: {}", reason.code, reason.message),
        None if entry.state == Some(EntryState::Warm) && !entry.verified => {
            "recorded: no digest was published to check it against".to_owned()
        }
        None => String::new(),
    }
}

fn state_paint(state: Option<EntryState>) -> Paint {
    match state {
        Some(EntryState::Warm) => Paint::Good,
        Some(EntryState::Fetching) => Paint::Busy,
        Some(EntryState::Pending) => Paint::Waiting,
        Some(EntryState::Failed | EntryState::Invalid | EntryState::OverLimit) => Paint::Bad,
        Some(EntryState::Skipped) | None => Paint::Faint,
    }
}

fn gpu_paint(phase: GpuPhase) -> Paint {
    match phase {
        GpuPhase::Ready => Paint::Good,
        GpuPhase::Waiting | GpuPhase::Unknown => Paint::Waiting,
        GpuPhase::Degraded | GpuPhase::Failed => Paint::Bad,
        GpuPhase::NotApplicable => Paint::Plain,
    }
}

/// `text` in place of what the terminal shows, without a flicker: each line overwrites one and clears its rest
/// (ECMA-48: CUP, EL, ED). What doesn't fit is counted, since a screen that scrolls can't be overwritten.
pub(super) fn redraw(text: &str, look: Look) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let height = look.height.unwrap_or(usize::MAX);
    let fits = if lines.len() < height { lines.len() } else { height.saturating_sub(2) };
    let mut screen = String::from("\x1b[H");
    for line in lines.iter().take(fits) {
        screen.push_str(line);
        screen.push_str("\x1b[K\n");
    }
    if fits < lines.len() {
        screen.push_str(&format!("… {} more lines\x1b[K\n", lines.len() - fits));
    }
    screen.push_str("\x1b[J");
    screen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::tests::sample;

    #[test]
    fn a_status_at_a_look() {
        assert_eq!(
            render(&sample(), Look::default()),
            "Ready    not yet\n\
             GPU      Ready (DriverReady), gate open, 8 of 8 devices, driver 570.86.15\n\
             List     abababababab, paused\n         \
                      warning: entry vllm: the field \"pins\" is not known\n\
             Labels   image.stoker.dev/vllm=cdcdcdcdcdcd\n         \
                      stoker.dev/gpu=ready\n\
             Agent    1.2.3, boot 7c9e6679-7425-40de-944b-e07fc1f90ae7\n\
             \n\
             ID         KIND     REQUIRED  STATE     PROGRESS         REVISION      REASON\n\
             vllm       image    yes       Warm      -                cdcdcdcdcdcd\n\
             llama-70b  weights  -         Fetching  1.2/4.0 GiB 30%  -\n\
             caches     weights  -         Warm      -                efefefefefef  recorded: no digest was published to check it against\n\
             typo       -        -         Invalid   -                -             Invalid: image: not a reference: \"a b\"\n"
        );
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let mut status = sample();
        status.gpu.message = "x".repeat(300);
        let look = Look { width: Some(100), height: Some(24), colour: false };
        let widest = render(&status, look).lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(100));
    }

    #[test]
    fn text_from_elsewhere_commands_no_terminal() {
        let mut status = sample();
        status.entries[3].reason = Some(crate::node::Reason::new("X", "\x1b]0;owned\x07\nnext"));
        status.gpu.message = "\x1b[2J".to_owned();
        status.list.errors = vec!["\x1b[2J".to_owned()];
        assert!(!render(&status, Look::default()).contains(['\x1b', '\x07']));
    }

    #[test]
    fn a_redraw_never_scrolls() {
        let look = Look { width: Some(80), height: Some(5), colour: false };
        let text = "1\n2\n3\n4\n5\n6\n";
        let screen = redraw(text, look);
        assert_eq!(screen, "\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\n… 3 more lines\x1b[K\n\x1b[J");
        assert_eq!(screen.matches('\n').count(), 4, "the fifth row is left free");
        assert_eq!(redraw("1\n", look), "\x1b[H1\x1b[K\n\x1b[J");
    }
}
