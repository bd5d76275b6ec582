//! Where NVIDIA's library lives. Only names are looked at here; nothing is loaded.

use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

const NAME: &str = "libnvidia-ml.so.1";
/// What the GPU Operator's validator writes once the driver works; shell assignments.
const DRIVER_READY: &str = "run/nvidia/validations/driver-ready";
/// Where the GPU Operator's driver container shows its root.
const DRIVER_CONTAINER: &str = "run/nvidia/driver";

#[cfg(target_arch = "aarch64")]
const MULTIARCH: &str = "aarch64-linux-gnu";
#[cfg(not(target_arch = "aarch64"))]
const MULTIARCH: &str = "x86_64-linux-gnu";

/// The library to load, or where it was looked for in vain. `explicit` alone counts when it's given; a bare file
/// name is left to the dynamic linker.
pub(super) fn find(explicit: Option<&Path>, host_root: &Path) -> Result<PathBuf, Vec<PathBuf>> {
    if let Some(path) = explicit {
        let bare = path.components().count() == 1 && path.is_relative();
        return if bare || path.is_file() { Ok(path.to_owned()) } else { Err(vec![path.to_owned()]) };
    }
    let places = places(hinted_root(host_root).as_deref());
    let found = places.iter().find_map(|place| inside(host_root, place));
    found.ok_or_else(|| places.iter().map(|place| host_root.join(place)).collect())
}

/// All places, the likeliest to be in use first, relative to the host's root: the root that the GPU Operator says
/// it uses, its driver container, GKE, preinstalled drivers, Bottlerocket, and the rarer ones.
fn places(hinted: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    for root in hinted.into_iter().chain([Path::new(DRIVER_CONTAINER)]) {
        places.extend(system_dirs().iter().map(|dir| root.join(dir)));
    }
    places.push("home/kubernetes/bin/nvidia/lib64".into());
    places.extend(system_dirs());
    places.extend(
        [
            "usr/lib/nvidia/tesla",
            "usr/lib/nvidia",
            "usr/lib/wsl/lib",
            "opt/nvidia/current/usr/lib",
            "usr/local/glibc/usr/lib",
            "run/opengl-driver/lib",
        ]
        .map(PathBuf::from),
    );
    let mut seen = std::collections::HashSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places.iter().map(|dir| dir.join(NAME)).collect()
}

fn system_dirs() -> [PathBuf; 5] {
    [
        Path::new("usr/lib").join(MULTIARCH),
        "usr/lib64".into(),
        "usr/lib".into(),
        Path::new("lib").join(MULTIARCH),
        "lib64".into(),
    ]
}

/// `NVIDIA_DRIVER_ROOT` of the validator's file, relative to the host's root.
fn hinted_root(host_root: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(host_root.join(DRIVER_READY)).ok()?;
    let root = text.lines().find_map(|line| line.trim().strip_prefix("NVIDIA_DRIVER_ROOT="))?;
    let root = Path::new(root.trim_matches(['"', '\'']));
    let plain = root.is_absolute() && !root.components().any(|part| part == Component::ParentDir);
    plain.then(|| root.strip_prefix("/").ok().map(Path::to_owned)).flatten()
}

/// The real file behind `place` under `root`. An absolute link in it (Debian's alternatives) means the host's root,
/// not ours.
fn inside(root: &Path, place: &Path) -> Option<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root_fd = rustix::fs::openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let real = match rustix::fs::openat2(&root_fd, place, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => {
            use std::os::fd::AsRawFd as _;
            std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return None,
        // Before Linux 5.6, or a seccomp profile from then.
        Err(_) => root.join(place),
    };
    real.is_file().then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, place: &str) -> PathBuf {
        let file = root.join(place).join("libnvidia-ml.so.1");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        file.canonicalize().unwrap()
    }

    #[test]
    fn the_likelier_place_wins() {
        let root = tempfile::tempdir().unwrap();
        let find = || find(None, root.path());
        let missing = find().unwrap_err();
        assert!(missing.contains(&root.path().join("usr/lib64/libnvidia-ml.so.1")), "{missing:?}");
        for place in [
            "run/opengl-driver/lib",
            "usr/lib/nvidia/tesla",
            "usr/lib64",
            "home/kubernetes/bin/nvidia/lib64",
            "run/nvidia/driver/usr/lib64",
        ] {
            let library = put(root.path(), place);
            assert_eq!(find().unwrap(), library);
        }
        let hinted = put(root.path(), "opt/driver/usr/lib64");
        let validations = root.path().join("run/nvidia/validations");
        std::fs::create_dir_all(&validations).unwrap();
        let assignments = "IS_HOST_DRIVER=false\nNVIDIA_DRIVER_ROOT=/opt/driver\n";
        std::fs::write(validations.join("driver-ready"), assignments).unwrap();
        assert_eq!(find().unwrap(), hinted);
    }

    #[test]
    fn an_absolute_link_stays_under_the_host_root() {
        let root = tempfile::tempdir().unwrap();
        let real = put(root.path(), "etc/alternatives");
        let dir = root.path().join("usr/lib64");
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("/etc/alternatives/libnvidia-ml.so.1", dir.join(NAME)).unwrap();
        assert_eq!(find(None, root.path()).unwrap(), real);
    }

    #[test]
    fn a_dangling_link_is_no_library() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("usr/lib64");
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::symlink("libnvidia-ml.so.550.54.15", dir.join(NAME)).unwrap();
        find(None, root.path()).unwrap_err();
    }

    #[test]
    fn an_explicit_path_is_the_only_one() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "usr/lib64");
        let named = root.path().join("nowhere.so");
        assert_eq!(find(Some(&named), root.path()).unwrap_err(), std::slice::from_ref(&named));
        assert_eq!(find(Some(Path::new(NAME)), root.path()).unwrap(), Path::new(NAME));
    }
}
