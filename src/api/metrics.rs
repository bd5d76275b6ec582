//! What is scraped: the rooms' counters, and gauges that are read off the latest report and off /proc at that
//! moment.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::node::{EntryReport, EntryState, GoodsKind, Reason, Report};
use crate::rt::Metrics;
use crate::rt::metrics::name;

/// The media type of [`render`]'s text (OpenMetrics 1.0, "Text format").
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const STATES: [EntryState; 7] = [
    EntryState::Pending,
    EntryState::Fetching,
    EntryState::Warm,
    EntryState::Failed,
    EntryState::Skipped,
    EntryState::Invalid,
    EntryState::OverLimit,
];

/// One whole scrape, in the OpenMetrics text format.
pub(super) fn render(
    metrics: &Metrics,
    report: &Report,
    process: Option<&Process>,
) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(8 << 10);
    metrics.encode(&mut text)?;
    encode_registry(&mut text, &gauges(report))?;
    if let Some(process) = process {
        encode_registry(&mut text, &process.registry())?;
    }
    encode_eof(&mut text)?;
    Ok(text)
}

/// The report as gauges. Pure.
fn gauges(report: &Report) -> Registry {
    let mut registry = Registry::default();
    registry.register(name::ENTRIES, "Listed entries by state and kind", entries(report));
    let info = Family::<[(&str, &str); 1], Gauge>::default();
    info.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register(name::BUILD_INFO, "The version that runs", info);
    let recorded = report.entries.iter().filter(|entry| entry.revision.is_some() && !entry.verified).count();
    let broken = report.entries.iter().filter(|entry| is_broken(entry)).count();
    let numbers: [(&str, &str, i64); 8] = [
        (
            name::READY,
            "Whether stoker.dev/ready was reached in this boot and the gate is open",
            report.ready.into(),
        ),
        (name::GPU_GATE_OPEN, "Whether the GPU gate is open", report.gpu.open.into()),
        (name::GPU_DEVICES, "GPUs that answered the last probe", report.gpu.devices.into()),
        (name::GPU_EXPECTED, "GPUs that should answer", report.gpu.expected.into()),
        (name::LIST_ERRORS, "Problems of the list as a whole", count(report.list.errors.len())),
        (name::LIST_BROKEN_ENTRIES, "Entries that the newest list says badly", count(broken)),
        (name::LIST_STALE, "Whether the list is past its validUntil", report.list.stale.into()),
        (name::RECORDED, "Warm entries that no published digest vouches for", count(recorded)),
    ];
    for (name, help, value) in numbers {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    registry
}

/// One that was good once is worked on as it was then: its state alone doesn't tell.
fn is_broken(entry: &EntryReport) -> bool {
    let outdated = |reason: &Reason| reason.code == Reason::LAST_GOOD_VERSION;
    entry.state == EntryState::Invalid || entry.reason.as_ref().is_some_and(outdated)
}

/// All combinations, with their zeros: a state that is left must not linger at its last value.
fn entries(report: &Report) -> Family<[(&'static str, &'static str); 2], Gauge> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for state in STATES {
        for kind in [Some(GoodsKind::Image), Some(GoodsKind::Weights)] {
            counts.insert((state_word(state), kind_word(kind)), 0);
        }
    }
    for entry in &report.entries {
        *counts.entry((state_word(entry.state), kind_word(entry.kind))).or_default() += 1;
    }
    let family = Family::default();
    for ((state, kind), entries) in counts {
        let gauge: &Gauge = &family.get_or_create(&[("state", state), ("kind", kind)]);
        gauge.set(count(entries));
    }
    family
}

fn state_word(state: EntryState) -> &'static str {
    match state {
        EntryState::Pending => "pending",
        EntryState::Fetching => "fetching",
        EntryState::Warm => "warm",
        EntryState::Failed => "failed",
        EntryState::Skipped => "skipped",
        EntryState::Invalid => "invalid",
        EntryState::OverLimit => "over_limit",
    }
}

fn kind_word(kind: Option<GoodsKind>) -> &'static str {
    match kind {
        Some(GoodsKind::Image) => "image",
        Some(GoodsKind::Weights) => "weights",
        None => "unknown",
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What the kernel says of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Process {
    /// Bytes of memory that are in RAM.
    resident: u64,
    /// Seconds of CPU time, in user space and in the kernel.
    cpu: f64,
    /// Open file descriptors.
    open_fds: usize,
}

impl Process {
    /// Reads /proc/self, which never waits for a disk. `None` where it can't be read.
    pub(super) fn read() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let open_fds = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Self::parse(&status, &stat, open_fds)
    }

    /// proc(5): `VmRSS` in kB; `utime` and `stime` are fields 14 and 15, in ticks of a hundredth of a second. The
    /// name in parentheses may hold anything, so fields are counted from its end.
    fn parse(status: &str, stat: &str, open_fds: usize) -> Option<Self> {
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut ticks = after_name.split_whitespace().skip(11).map(str::parse::<u32>);
        let (user, kernel) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
        Some(Self { resident: resident * 1024, cpu: (f64::from(user) + f64::from(kernel)) / 100.0, open_fds })
    }

    /// Under the names that every Prometheus client library uses.
    fn registry(self) -> Registry {
        let mut registry = Registry::default();
        let resident: Gauge = Gauge::default();
        resident.set(i64::try_from(self.resident).unwrap_or(i64::MAX));
        registry.register_with_unit("process_resident_memory", "Memory in RAM", Unit::Bytes, resident);
        let cpu = Counter::<f64, std::sync::atomic::AtomicU64>::default();
        cpu.inc_by(self.cpu);
        registry.register_with_unit("process_cpu", "CPU time used", Unit::Seconds, cpu);
        let fds: Gauge = Gauge::default();
        fds.set(count(self.open_fds));
        registry.register("process_open_fds", "Open file descriptors", fds);
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    fn line(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }

    #[test]
    fn a_scrape_holds_counters_gauges_and_the_end() {
        let metrics = Metrics::new();
        metrics.list_invalid();
        let process = Process { resident: 4096, cpu: 1.5, open_fds: 9 };
        let text = render(&metrics, &sample::report(), Some(&process)).unwrap();
        for expected in [
            "stoker_list_invalid_total 1",
            "stoker_entries{state=\"warm\",kind=\"image\"} 1",
            "stoker_entries{state=\"fetching\",kind=\"weights\"} 1",
            "stoker_entries{state=\"invalid\",kind=\"unknown\"} 1",
            "stoker_entries{state=\"failed\",kind=\"image\"} 0",
            concat!("stoker_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "stoker_ready 0",
            "stoker_gpu_gate_open 1",
            "stoker_gpu_devices 8",
            "stoker_list_errors 0",
            "stoker_entries_recorded 0",
            "process_resident_memory_bytes 4096",
            "process_cpu_seconds_total 1.5",
            "process_open_fds 9",
        ] {
            line(&text, expected);
        }
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(text.matches("# EOF").count(), 1);
    }

    #[test]
    fn an_entry_that_is_kept_as_it_was_once_good_counts_as_broken() {
        let mut report = sample::report();
        let broken = |report: &Report| {
            let text = render(&Metrics::new(), report, None).unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix("stoker_list_broken_entries "));
            value.unwrap().parse::<usize>().unwrap()
        };
        let before = broken(&report);
        let warm = report.entries.iter_mut().find(|entry| entry.state == EntryState::Warm).unwrap();
        warm.reason = Some(Reason::new(Reason::LAST_GOOD_VERSION, "weights: unknown scheme"));
        assert_eq!(broken(&report), before + 1);
    }

    #[test]
    fn no_metric_is_described_twice_and_every_sample_is_described() {
        let text = render(&Metrics::new(), &sample::report(), Process::read().as_ref()).unwrap();
        let mut types = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                assert!(types.insert(described.split(' ').next().unwrap()), "twice: {line}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(types.contains(name.trim_end_matches("_total")), "not described: {line}");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
            }
        }
    }

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1";
        let process = Process::parse("Name:\tx\nVmRSS:\t   30 kB\n", stat, 3);
        assert_eq!(process, Some(Process { resident: 30 << 10, cpu: 2.0, open_fds: 3 }));
        assert!(Process::read().is_some_and(|process| process.resident > 0 && process.open_fds > 0));
    }
}
