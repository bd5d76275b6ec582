//! What a part has left behind.

use std::path::Path;

use super::cgroup::{cgroups_of, processes_in};

/// What is left of a part whose directory is or was `dir`: the directory, processes that name it or have a file of
/// it open, mounts, cgroups and the processes in them.
pub(crate) fn left_of(dir: &Path) -> Vec<String> {
    let cgroups = cgroups_of(dir);
    let dir = dir.to_string_lossy();
    let mut left: Vec<String> = std::fs::metadata(&*dir).map(|_| dir.to_string()).into_iter().collect();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let open = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let holds = open.flat_map(|fd| fd.path().read_link()).any(|file| file.starts_with(&*dir));
        if command.contains(&*dir) || holds {
            left.push(command);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    left.extend(mounts.lines().filter(|line| line.contains(&*dir)).map(str::to_owned));
    let inside = cgroups.iter().flat_map(|cgroup| processes_in(cgroup));
    left.extend(inside.map(|pid| format!("process {pid} in its cgroup")));
    left.extend(cgroups.iter().map(|cgroup| cgroup.display().to_string()));
    left
}
