//! What a run used of the machine, as the kernel tells it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// The kernel's unit for processor times shown to programs, on every architecture that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process and the children that it has waited for have used.
pub(crate) fn cpu(pid: u32) -> Duration {
    ticks(&format!("/proc/{pid}/stat"), 11, 4)
}

/// The processor time of the children that this process has waited for.
pub(crate) fn cpu_of_children() -> Duration {
    ticks("/proc/self/stat", 13, 2)
}

/// The processor time of this process itself.
pub(crate) fn cpu_of_this() -> Duration {
    ticks("/proc/self/stat", 11, 2)
}

/// The processor time of the calling thread.
pub(crate) fn cpu_of_thread() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The sum of some fields of a `stat`, counted from the one after the name.
fn ticks(path: &str, first: usize, count: usize) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks: u32 =
        fields.split(' ').skip(first).take(count).filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}

/// The bytes that a process has written, to sockets and files, also by sendfile (proc(5), `/proc/PID/io`, `wchar`).
pub(crate) fn written(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// The largest resident size that a process has had, in bytes; 0 when it is gone.
pub(crate) fn peak(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

/// The resident size of a process, in bytes; 0 when it is gone.
pub(crate) fn resident(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Has the kernel begin anew with [`peak`].
pub(crate) fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process's peak can be forgotten");
}

/// Writes what is dirty, and drops the whole page cache.
pub(crate) fn drop_page_cache() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("root can drop the page cache");
}

/// The machine's processors and the disk below a directory, from one moment on.
pub(crate) struct Machine {
    begun: Instant,
    busy: Duration,
    disk: Disk,
    device: Option<(u32, u32)>,
}

/// What the machine did since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busy {
    /// Of all cores, 0 to 1.
    pub(crate) cpu: f64,
    /// Of the time, how much the disk had something to do, 0 to 1.
    pub(crate) disk: f64,
    /// Bytes written to the disk.
    pub(crate) written: u64,
    /// Bytes read from it.
    pub(crate) read: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Disk {
    busy: Duration,
    read: u64,
    written: u64,
}

impl Machine {
    /// Begins.
    pub(crate) fn watch(dir: &Path) -> Self {
        let device = std::fs::metadata(dir).ok().map(|meta| meta.dev());
        let device = device.map(|device| (rustix::fs::major(device), rustix::fs::minor(device)));
        Self { begun: Instant::now(), busy: busy(), disk: disk(device), device }
    }

    /// What it did since.
    pub(crate) fn busy(&self) -> Busy {
        let time = self.begun.elapsed().as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let disk = disk(self.device);
        Busy {
            cpu: (busy().saturating_sub(self.busy)).as_secs_f64() / time / cores,
            disk: disk.busy.saturating_sub(self.disk.busy).as_secs_f64() / time,
            written: disk.written - self.disk.written,
            read: disk.read - self.disk.read,
        }
    }
}

/// The time that all processors have worked: user, nice, system, irq, softirq (proc(5), `/proc/stat`).
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u32> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default();
    TICK * (field(0) + field(1) + field(2) + field(5) + field(6))
}

/// A line of `/proc/diskstats` (the kernel's `Documentation/admin-guide/iostats.rst`; sectors of 512 bytes).
fn disk(device: Option<(u32, u32)>) -> Disk {
    let Some((major, minor)) = device else { return Disk::default() };
    let text = std::fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let fields = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = fields
        .into_iter()
        .find(|fields| fields.len() > 12 && fields[0] == major.to_string() && fields[1] == minor.to_string());
    let Some(own) = own else { return Disk::default() };
    let number = |at: usize| own[at].parse::<u64>().unwrap_or_default();
    Disk { busy: Duration::from_millis(number(12)), read: number(5) * 512, written: number(9) * 512 }
}
