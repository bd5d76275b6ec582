//! A cgroup with limits as a container has them, with cgroup v1 and v2.

use std::path::{Path, PathBuf};

use super::cgroup::{cgroup_of, cgroups_of, make_cgroup};
use super::scratch::Scratch;

/// One period of the CPU limit, as container runtimes set it.
const PERIOD_MICROS: f64 = 100_000.0;

/// Such a cgroup. It goes when dropped; nothing may run in it by then.
#[derive(Debug)]
pub(crate) struct Cgroup {
    scratch: Scratch,
}

impl Cgroup {
    /// One with at most so many bytes of memory, the page cache of what is written included, and so many cores.
    ///
    /// # Panics
    /// When the limits can't be set.
    pub(crate) fn limited(memory: u64, cores: Option<f64>) -> Self {
        let scratch = Scratch::new("limited");
        make_cgroup(&cgroup_of(scratch.path()));
        let cgroup = Self { scratch };
        cgroup.set(&["memory.max", "memory.limit_in_bytes"], &memory.to_string());
        // No swap: a pod has none either, unless kubelet is told so.
        cgroup.try_set(&["memory.swap.max"], "0");
        if let Some(cores) = cores {
            let quota = (cores * PERIOD_MICROS) as u64;
            let v2 = cgroup.try_set(&["cpu.max"], &format!("{quota} {PERIOD_MICROS}"));
            assert!(v2 || cgroup.try_set(&["cpu.cfs_quota_us"], &quota.to_string()), "no limit on CPU");
        }
        cgroup
    }

    /// Its own directory, which goes with it.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// A process that writes its pid into each of these files is inside.
    pub(crate) fn doors(&self) -> Vec<PathBuf> {
        let one = |cgroup: PathBuf| cgroup.join("cgroup.procs");
        // With v1 only the hierarchies that limit or count something matter here.
        let matters = |cgroup: &PathBuf| {
            ["memory.max", "memory.limit_in_bytes", "cpu.cfs_quota_us"]
                .iter()
                .any(|file| cgroup.join(file).exists())
        };
        let mut doors: Vec<PathBuf> =
            cgroups_of(self.scratch.path()).into_iter().filter(matters).map(one).collect();
        // A hierarchy may be there under two names.
        doors.dedup_by_key(|door| door.canonicalize().unwrap_or_default());
        doors
    }

    /// The largest amount of memory that was in use, with the page cache, in bytes; `None` where the kernel doesn't say.
    pub(crate) fn peak(&self) -> Option<u64> {
        self.read(&["memory.peak", "memory.max_usage_in_bytes"])?.trim().parse().ok()
    }

    /// How often something waited for memory or was killed for it.
    pub(crate) fn at_the_limit(&self) -> u64 {
        if let Some(count) = self.read(&["memory.failcnt"]) {
            return count.trim().parse().unwrap_or_default();
        }
        let events = self.read(&["memory.events"]).unwrap_or_default();
        let max = events.lines().find_map(|line| line.strip_prefix("max "));
        max.and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    fn set(&self, files: &[&str], value: &str) {
        assert!(self.try_set(files, value), "no cgroup here takes {value} for any of {files:?}");
    }

    fn try_set(&self, files: &[&str], value: &str) -> bool {
        self.find(files).is_some_and(|file| std::fs::write(file, value).is_ok())
    }

    fn read(&self, files: &[&str]) -> Option<String> {
        std::fs::read_to_string(self.find(files)?).ok()
    }

    fn find(&self, files: &[&str]) -> Option<PathBuf> {
        let cgroups = cgroups_of(self.scratch.path());
        let in_one = |cgroup: &Path| files.iter().map(|file| cgroup.join(file)).find(|file| file.exists());
        cgroups.iter().find_map(|cgroup| in_one(cgroup))
    }
}
