//! Where the parts' programs are.

use std::path::{Path, PathBuf};

/// Where `tests/setup/bring-parts.sh` keeps what it built.
pub(crate) fn parts_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("STOKER_PARTS") {
        return PathBuf::from(dir);
    }
    let home = std::env::var_os("HOME").expect("HOME or STOKER_PARTS must be set");
    PathBuf::from(home).join(".cache/stoker-parts")
}

/// The program `name` of a part that was built, such as `registry-3.1.2`.
pub(crate) fn part(dir: &str, name: &str) -> PathBuf {
    let path = parts_dir().join(dir).join(name);
    assert!(path.is_file(), "{} isn't there: run `make setup`, which builds it", path.display());
    path
}

/// A program of the system. Those that only root needs may be outside the `PATH`.
pub(crate) fn system(name: &str) -> PathBuf {
    find_system(name).unwrap_or_else(|| panic!("{name} isn't installed: run `make setup`, which installs it"))
}

/// The same, if it is installed.
pub(crate) fn find_system(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
