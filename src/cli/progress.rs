//! How far things are, on standard error: bars on a terminal, a line now and then elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::document::Status;
use super::table::cut;
use super::tracker::{Item, Moving, Sight, Tracker, items};
use crate::node::Report;
use crate::types::Progress;

/// Bars are redrawn this often: they seem to flow and cost nothing.
const REDRAW: Duration = Duration::from_millis(200);
/// A log gets a line this often for each job.
const LINE: Duration = Duration::from_secs(3);

/// A bar leaves room for its numbers.
const LONGEST_NAME: usize = 32;

/// Shows progress until it's told to stop. A display that can't be written to is given up; the work goes on.
pub struct ProgressDisplay {
    screen: Screen,
}

/// A job that is under way, where there is no report to read it from.
#[derive(Debug, Clone)]
pub struct Job {
    /// What it's called: a reference or a URI without its query.
    pub name: String,
    /// Its bytes.
    pub progress: Arc<Progress>,
}

enum Screen {
    Bars(Bars),
    Lines(Box<dyn Write + Send>),
}

#[derive(Debug)]
enum Subject {
    Agent(watch::Receiver<Arc<Report>>),
    Jobs(Vec<Job>),
}

impl ProgressDisplay {
    /// On standard error: bars where that's a terminal, else lines.
    #[must_use]
    pub fn on_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            // No more redraws than we ask for.
            Self::bars(ProgressDrawTarget::stderr())
        } else {
            Self::lines(std::io::stderr())
        }
    }

    /// Lines on `out`.
    #[must_use]
    pub fn lines(out: impl Write + Send + 'static) -> Self {
        Self { screen: Screen::Lines(Box::new(out)) }
    }

    fn bars(target: ProgressDrawTarget) -> Self {
        Self {
            screen: Screen::Bars(Bars {
                all: MultiProgress::with_draw_target(target),
                jobs: BTreeMap::new(),
            }),
        }
    }

    /// Shows what the agent does, until `stop` or the agent's end. The last changes are shown before it returns.
    pub async fn show(self, reports: watch::Receiver<Arc<Report>>, stop: CancellationToken) {
        self.run(Subject::Agent(reports), stop).await;
    }

    /// Shows these jobs until `stop`.
    pub async fn show_jobs(self, jobs: Vec<Job>, stop: CancellationToken) {
        self.run(Subject::Jobs(jobs), stop).await;
    }

    async fn run(mut self, mut subject: Subject, stop: CancellationToken) {
        let mut tracker = Tracker::default();
        let mut tick = tokio::time::interval(self.screen.pace());
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let (timed, last) = tokio::select! {
                biased;
                () = stop.cancelled() => (false, true),
                more = subject.changed() => (false, !more),
                _ = tick.tick() => (true, false),
            };
            let sight = tracker.look(Instant::now(), &subject.items());
            if self.screen.draw(&sight, timed).is_err() || last {
                break;
            }
        }
        self.screen.clear();
    }
}

impl Subject {
    /// Waits for a change; false when there will be none any more.
    async fn changed(&mut self) -> bool {
        match self {
            Self::Agent(reports) => reports.changed().await.is_ok(),
            Self::Jobs(_) => pending().await,
        }
    }

    fn items(&self) -> Vec<Item> {
        match self {
            Self::Agent(reports) => {
                let report = reports.borrow().clone();
                items(&Status::of(&report, BTreeMap::new()))
            }
            Self::Jobs(jobs) => jobs
                .iter()
                .map(|Job { name, progress }| Item {
                    name: name.clone(),
                    state: String::new(),
                    bytes: Some((progress.done(), progress.total())),
                })
                .collect(),
        }
    }
}

impl Screen {
    fn pace(&self) -> Duration {
        match self {
            Self::Bars(_) => REDRAW,
            Self::Lines(_) => LINE,
        }
    }

    /// `timed`: it's time for how far the jobs are, and not only for what changed.
    fn draw(&mut self, sight: &Sight, timed: bool) -> std::io::Result<()> {
        match self {
            Self::Bars(bars) => bars.draw(sight),
            Self::Lines(out) => {
                for change in &sight.changes {
                    writeln!(out, "{change}")?;
                }
                // A job that was just seen has nothing to tell yet.
                for job in sight.moving.iter().filter(|job| timed && job.elapsed >= LINE / 2) {
                    writeln!(out, "{}: {}", job.name, job.numbers())?;
                }
                out.flush()
            }
        }
    }

    fn clear(&mut self) {
        if let Self::Bars(bars) = self {
            // Nothing is left to be done about a terminal that is gone.
            let _ = bars.all.clear();
        }
    }
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    jobs: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn draw(&mut self, sight: &Sight) -> std::io::Result<()> {
        let moving: BTreeSet<&str> = sight.moving.iter().map(|job| job.name.as_str()).collect();
        self.jobs.retain(|name, bar| {
            let stays = moving.contains(name.as_str());
            if !stays {
                bar.finish_and_clear();
                self.all.remove(bar);
            }
            stays
        });
        for change in &sight.changes {
            self.all.println(change)?;
        }
        let names: Vec<String> = sight.moving.iter().map(|job| cut(&job.name, Some(LONGEST_NAME))).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for (job, name) in sight.moving.iter().zip(&names) {
            self.draw_job(job, format!("{name:<width$}"));
        }
        Ok(())
    }

    fn draw_job(&mut self, job: &Moving, name: String) {
        // What is set before a bar is added isn't drawn.
        let bar = self.jobs.entry(job.name.clone()).or_insert_with(|| {
            let bar = ProgressBar::new(0).with_style(style(false)).with_message(job.numbers());
            self.all.add(bar.with_prefix(name.clone()))
        });
        if bar.prefix() != name {
            bar.set_prefix(name);
        }
        bar.set_message(job.numbers());
        // The total may come later, and it may change.
        if bar.length() != Some(job.total) {
            bar.set_style(style(job.total > 0));
            bar.set_length(job.total);
        }
        bar.set_position(job.done);
        bar.tick();
    }
}

fn style(total_known: bool) -> ProgressStyle {
    let template = if total_known { "{prefix} [{bar:24}] {msg}" } else { "{prefix} {spinner} {msg}" };
    // A template of ours that doesn't parse is found by a test; its display would only be plainer.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{EntryReport, EntryState, GoodsKind, ListReport};
    use crate::types::{Digest, GpuState, Revision};
    use indicatif::TermLike;
    use std::sync::Mutex;

    #[derive(Debug, Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Out {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn report(state: EntryState, progress: Option<Arc<Progress>>) -> Arc<Report> {
        Arc::new(Report {
            gpu: GpuState::unknown(),
            list: ListReport::default(),
            entries: vec![EntryReport {
                id: "llama".parse().unwrap(),
                kind: Some(GoodsKind::Weights),
                required: false,
                state,
                reason: None,
                revision: (state == EntryState::Warm).then(|| Revision::of_image(Digest::of(b"x"))),
                source: "s3://bucket/llama/".to_owned(),
                verified: true,
                requested: false,
                progress,
            }],
            gate_passed: true,
            ready: false,
            settled: true,
            ready_by: None,
            left_alone: BTreeMap::new(),
            labels_version: 1,
            done: false,
            boot_id: String::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn elsewhere_a_line_every_three_seconds_and_at_each_change() {
        let progress = Arc::new(Progress::default());
        progress.set_total(1000);
        let (sender, reports) = watch::channel(report(EntryState::Fetching, Some(progress.clone())));
        let out = Out::default();
        let stop = CancellationToken::new();
        let shown = tokio::spawn(ProgressDisplay::lines(out.clone()).show(reports, stop.clone()));
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            progress.add(100);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        sender.send(report(EntryState::Warm, None)).unwrap();
        // Stopping shows what was sent just before.
        stop.cancel();
        shown.await.unwrap();
        let lines = out.lines();
        assert_eq!(lines[0], "llama: Fetching from s3://bucket/llama/");
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(lines[1].starts_with("llama: ") && lines[1].contains("of 1000 B ("), "{lines:#?}");
        assert!(lines[2].ends_with(" s left") && lines[2].contains(" B/s, "), "{lines:#?}");
        let revision = Revision::of_image(Digest::of(b"x")).short();
        assert_eq!(lines[3], format!("llama: Warm, revision {revision} (after 6 s)"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_agent_and_with_its_reader() {
        let (sender, reports) = watch::channel(report(EntryState::Warm, None));
        let shown =
            tokio::spawn(ProgressDisplay::lines(Out::default()).show(reports, CancellationToken::new()));
        drop(sender);
        shown.await.unwrap();

        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (_sender, reports) = watch::channel(report(EntryState::Warm, None));
        ProgressDisplay::lines(Closed).show(reports, CancellationToken::new()).await;
    }

    /// A terminal that remembers what was written to it, without what moved the cursor.
    impl TermLike for Out {
        fn width(&self) -> u16 {
            100
        }
        fn height(&self) -> u16 {
            10
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> std::io::Result<()> {
            writeln!(&mut self.clone(), "{line}")
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.clone().write_all(text.as_bytes())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn on_a_terminal_a_bar_per_job_and_a_line_per_change() {
        let terminal = Out::default();
        let display = ProgressDisplay::bars(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        let Screen::Bars(mut bars) = display.screen else { panic!("not bars") };
        let mut tracker = Tracker::default();
        let start = Instant::now();
        let mut shown = |seconds, llama: Item, vllm: Option<Item>| {
            terminal.0.lock().unwrap().clear();
            let items: Vec<Item> = [llama].into_iter().chain(vllm).collect();
            bars.draw(&tracker.look(start + Duration::from_secs(seconds), &items)).unwrap();
            terminal.lines().join("\n")
        };
        let item =
            |name: &str, state: &str, bytes| Item { name: name.to_owned(), state: state.to_owned(), bytes };
        let vllm = || Some(item("vllm", "", Some((0, 0))));

        let first = shown(0, item("llama", "Fetching", Some((0, 0))), vllm());
        assert!(first.contains("llama: Fetching"), "{first}");
        let second = shown(2, item("llama", "Fetching", Some((512 << 20, 1 << 30))), vllm());
        let bar = "llama [============>           ] 0.5 of 1.0 GiB (50%), 268 MB/s, 2 s left";
        assert!(
            second.contains(bar) && second.contains("vllm  ") && second.contains("2 s so far"),
            "{second}"
        );
        let last = shown(4, item("llama", "Warm", None), None);
        assert!(last.contains("llama: Warm (after 4 s)") && bars.jobs.is_empty(), "{last}");
    }

    #[test]
    fn the_templates_are_read() {
        for template in ["{prefix} [{bar:24}] {msg}", "{prefix} {spinner} {msg}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
