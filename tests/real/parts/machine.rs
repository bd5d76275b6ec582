//! What a node of the test cluster believes to be its machine: this one's programs and devices, but directories and
//! a process tree of its own, at the paths that a real node has them at.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cgroup::{cgroup_of, cgroups_of, make_cgroup, processes_in};
use super::namespaces::Namespaces;
use super::scratch::Scratch;

/// The paths that a machine has to itself. What is below one of them lies in the machine's scratch directory.
const OWN: [&str; 11] = [
    "/etc/cni/net.d",
    "/etc/containerd",
    "/opt/cni/bin",
    "/run/containerd",
    "/run/stoker",
    "/var/cache/stoker",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/stoker",
    "/var/log/containers",
    "/var/log/pods",
];
/// Settings of the kernel that kubelet makes. It finds files of its own in their place, so that none is changed.
const KERNEL_SETTINGS: [&str; 6] = [
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

/// Such a machine. It shares the network of this one, and so its ports, with all others. Dropped, all that runs
/// there ends, and its mounts, cgroups and directories go.
#[derive(Debug)]
pub(crate) struct Machine {
    // Dropped in this order.
    namespaces: Namespaces,
    scratch: Scratch,
}

impl Machine {
    /// Makes one. `binds` are files and directories of this machine that are to be seen there, each with its path
    /// there, which is made if it lies below `/etc`, `/opt`, `/run` or `/var`.
    pub(crate) async fn make(name: &str, binds: &[(PathBuf, String)]) -> Self {
        let scratch = Scratch::new(name);
        scratch.dir("layers");
        scratch.file("etc-hosts", format!("127.0.0.1 localhost {name}\n"));
        let script = script(scratch.path(), binds);
        let namespaces = Namespaces::hold(&scratch, &script).await;
        make_cgroup(&cgroup_of(scratch.path()));
        Self { namespaces, scratch }
    }

    /// A command that runs `program` there.
    pub(crate) fn enter(&self, program: &Path) -> Command {
        self.namespaces.enter(program)
    }

    /// Where a path of that machine is on this one.
    ///
    /// # Panics
    /// When it isn't below one of those that the machine has to itself.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        assert!(
            OWN.iter().any(|own| Path::new(path).starts_with(own)),
            "{path} isn't a node's own: only what is below {OWN:?} is"
        );
        self.scratch.join(format!("own{path}"))
    }

    /// The cgroup that everything there belongs into, as kubelet and containerd name it.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}", cgroup_of(self.scratch.path()))
    }

    /// The containers' processes there, as this machine sees them: pids and command lines.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let cgroups = cgroups_of(self.scratch.path());
        let mut pids: Vec<u32> = cgroups.iter().flat_map(|cgroup| processes_in(cgroup)).collect();
        // With v1 each is in every hierarchy.
        pids.sort_unstable();
        pids.dedup();
        let command = |pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
        pids.into_iter().map(|pid| (pid, text(command(pid)))).collect()
    }

    /// Its own directory, with the logs of what runs there.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

/// What the first process there does: it mounts.
fn script(scratch: &Path, binds: &[(PathBuf, String)]) -> String {
    let place = scratch.display();
    // Directories that may lack a mount point get one in a layer above them, in memory.
    let mut script = format!(
        "mount -t tmpfs tmpfs {place}/layers
        for dir in etc opt var/cache var/lib var/log; do
            mkdir -p {place}/layers/upper/$dir {place}/layers/work/$dir
            mount -t overlay overlay -o lowerdir=/$dir,upperdir={place}/layers/upper/$dir,workdir={place}/layers/work/$dir /$dir
        done
        mount -t tmpfs tmpfs /run
        rm -f /etc/hosts /etc/resolv.conf
        cp {place}/etc-hosts /etc/hosts
        : > /etc/resolv.conf\n"
    );
    for own in OWN {
        let _ = writeln!(script, "mkdir -p {place}/own{own} {own}; mount --bind {place}/own{own} {own}");
    }
    for (number, setting) in KERNEL_SETTINGS.iter().enumerate() {
        let (real, fake) = (format!("/proc/sys/{setting}"), format!("{place}/layers/setting-{number}"));
        let _ =
            writeln!(script, "if [ -e {real} ]; then cat {real} > {fake}; mount --bind {fake} {real}; fi");
    }
    for (source, path) in binds {
        let make = if source.is_dir() {
            format!("mkdir -p '{path}'")
        } else {
            format!("mkdir -p \"$(dirname '{path}')\"; [ -e '{path}' ] || : > '{path}'")
        };
        let _ = writeln!(script, "{make}; mount --bind '{}' '{path}'", source.display());
    }
    // As on a real node: what is mounted there shows in pods that ask for it.
    script + "mount --make-rshared /\n"
}
