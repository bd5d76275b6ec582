//! One page to look at: no scripts, nothing loaded, everything escaped.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::node::{EntryReport, EntryState, GoodsKind, Report};

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">
<meta name=\"viewport\" content=\"width=device-width\"><title>Stoker</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2em;color:#222;background:#fff}
h1{font-size:1.4em}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1.2em}dt{color:#666}dd{margin:0}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35em .8em;border-bottom:1px solid #ddd;
vertical-align:top}th{color:#666;font-weight:500}code{font-size:.92em}progress{width:8em}
.Warm{color:#17692b}.Failed,.Invalid{color:#a8201a}.Fetching{color:#1450a0}.small{color:#666;font-size:.9em}
@media (prefers-color-scheme:dark){body{background:#16181c;color:#ddd}th,td{border-color:#333}
.Warm{color:#6c7}.Failed,.Invalid{color:#f77}.Fetching{color:#7af}dt,th,.small{color:#999}}
</style></head><body><h1>Stoker</h1>
";

/// The page for a report and the labels that it puts on the Node.
pub(super) fn render(report: &Report, labels: &BTreeMap<String, String>) -> String {
    let mut page = String::from(HEAD);
    // Writing to a string doesn't fail.
    let _ = write_header(&mut page, report, labels);
    let _ = write_entries(&mut page, &report.entries);
    page.push_str("</body></html>\n");
    page
}

fn write_header(page: &mut String, report: &Report, labels: &BTreeMap<String, String>) -> fmt::Result {
    let gpu = &report.gpu;
    let list = &report.list;
    writeln!(page, "<dl><dt>version<dd>{}", env!("CARGO_PKG_VERSION"))?;
    let ready = if report.ready { "<span class=\"Warm\">yes</span>" } else { "not yet" };
    writeln!(page, "<dt>ready<dd>{ready}")?;
    let gate = if gpu.open { "open" } else { "closed" };
    let message = if gpu.message.is_empty() { gpu.reason.advice() } else { &gpu.message };
    writeln!(
        page,
        "<dt>GPU<dd>{:?} ({:?}), gate {gate}, {} of {} devices{}<div class=\"small\">{}</div>",
        gpu.phase,
        gpu.reason,
        gpu.devices,
        gpu.expected,
        gpu.driver_version
            .as_ref()
            .map(|version| format!(", driver {}", Escaped(version)))
            .unwrap_or_default(),
        Escaped(message),
    )?;
    let content = list.content.map_or_else(|| "none read yet".to_owned(), |content| short(&content.hex()));
    write!(page, "<dt>list<dd><code>{content}</code>")?;
    let flags =
        [(list.paused, "paused"), (list.stale, "past its validUntil"), (list.removals_held, "removals held")];
    for (_, flag) in flags.iter().filter(|(set, _)| *set) {
        write!(page, ", {flag}")?;
    }
    for error in &list.errors {
        write!(page, "<div class=\"Failed\">{}</div>", Escaped(error))?;
    }
    for warning in &list.warnings {
        write!(page, "<div class=\"small\">{}</div>", Escaped(warning))?;
    }
    write!(page, "\n<dt>labels<dd>")?;
    for (key, value) in labels {
        write!(page, "<code>{}={}</code><br>", Escaped(key), Escaped(value))?;
    }
    writeln!(page, "\n<dt>boot<dd><code>{}</code></dl>", Escaped(&report.boot_id))
}

fn write_entries(page: &mut String, entries: &[EntryReport]) -> fmt::Result {
    if entries.is_empty() {
        return writeln!(page, "<p>Nothing is listed for this node.</p>");
    }
    writeln!(
        page,
        "<table><tr><th>entry<th>kind<th>state<th>progress<th>revision<th>source and reason</tr>"
    )?;
    for entry in entries {
        let kind = match entry.kind {
            Some(GoodsKind::Image) => "image",
            Some(GoodsKind::Weights) => "weights",
            None => "?",
        };
        let required = if entry.required { " <span class=\"small\">required</span>" } else { "" };
        let state = entry.state;
        write!(page, "<tr><td>{}{required}<td>{kind}", Escaped(entry.id.as_str()))?;
        let recorded = if entry.state == EntryState::Warm && !entry.verified {
            " <span class=\"small\">recorded</span>"
        } else {
            ""
        };
        write!(page, "<td class=\"{state:?}\">{state:?}{recorded}<td>")?;
        match entry.progress.as_deref().map(|job| (job.done(), job.total())) {
            None => {}
            Some((done, 0)) => write!(page, "{} MiB", done >> 20)?,
            Some((done, total)) => write!(
                page,
                "<progress max=\"{total}\" value=\"{done}\"></progress><div class=\"small\">{} of {} MiB</div>",
                done >> 20,
                total >> 20
            )?,
        }
        let revision = entry.revision.map(|revision| revision.short()).unwrap_or_default();
        write!(page, "<td><code>{revision}</code><td><code>{}</code>", Escaped(&entry.source))?;
        if let Some(reason) = &entry.reason {
            write!(
                page,
                "<div class=\"small\">{}: {}</div>",
                Escaped(&reason.code),
                Escaped(&reason.message)
            )?;
        }
        writeln!(page, "</tr>")?;
    }
    writeln!(page, "</table>")
}

fn short(hex: &str) -> String {
    hex.chars().take(12).collect()
}

/// Text that stays text, in content and in quoted attributes alike.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;
    use crate::node::Reason;

    #[test]
    fn the_page_says_what_the_report_says() {
        let report = sample::report();
        let page = render(&report, &sample::labels(&report));
        let revision = report.entries[0].revision.unwrap().short();
        for part in [
            "Ready (DriverReady), gate open, 8 of 8 devices, driver 570.86.15",
            "removals held",
            "1024 of 4096 MiB",
            "max=\"4294967296\" value=\"1073741824\"",
            &format!("image.stoker.dev/vllm={revision}"),
            "Invalid: image:",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }

    #[test]
    fn no_text_becomes_markup() {
        let evil = "<script>alert(1)</script>\"'&";
        let mut report = sample::report();
        report.boot_id = evil.to_owned();
        report.gpu.message = evil.to_owned();
        report.gpu.driver_version = Some(evil.to_owned());
        report.list.errors = vec![evil.to_owned()];
        report.list.warnings = vec![evil.to_owned()];
        report.entries[0].source = evil.to_owned();
        report.entries[0].reason = Some(Reason::new(evil, evil));
        let page = render(&report, &BTreeMap::from([(evil.to_owned(), evil.to_owned())]));
        assert!(!page.contains("<script"));
        let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;";
        assert_eq!(page.matches(escaped).count(), 10);
    }
}
