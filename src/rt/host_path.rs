use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many as Linux follows.
const MOST_LINKS: usize = 40;

/// Where a path of the host is for us, when the host's `/` is mounted at `root`; without a `root` it's the path itself.
///
/// Symbolic links are followed as the host does: an absolute one leads from the host's `/`, not from ours, and none leads
/// out of it. What isn't there stays as it's written. For configuration that the host's administrator owns; it is no
/// protection against somebody who changes the tree meanwhile. It asks the file system: don't call it where blocking
/// hurts.
///
/// # Errors
/// When links lead in a circle.
pub fn host_path(root: Option<&Path>, path: &Path) -> io::Result<PathBuf> {
    let Some(root) = root else { return Ok(path.to_owned()) };
    let mut ahead: VecDeque<OsString> = VecDeque::new();
    queue(&mut ahead, path);
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == "/" {
            done = PathBuf::new();
            continue;
        }
        if name == ".." {
            done.pop();
            continue;
        }
        // What is no link, or isn't there, is a name like any other.
        let Ok(target) = std::fs::read_link(root.join(&done).join(&name)) else {
            done.push(name);
            continue;
        };
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other("too many symbolic links"));
        }
        queue(&mut ahead, &target);
    }
    Ok(root.join(done))
}

/// Puts the parts of `path` before what is queued.
fn queue(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::CurDir | Component::Prefix(_) => {}
            Component::RootDir => ahead.push_front("/".into()),
            Component::ParentDir => ahead.push_front("..".into()),
            Component::Normal(name) => ahead.push_front(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_where_the_host_follows_them() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/static/certs")).unwrap();
        std::fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        symlink("/etc/static/certs", root.path().join("etc/certs")).unwrap();
        symlink("usr/lib", root.path().join("lib")).unwrap();
        symlink("../../../../../../etc", root.path().join("usr/out")).unwrap();
        symlink("around", root.path().join("around")).unwrap();
        let there = |path: &str| {
            let found = host_path(Some(root.path()), Path::new(path)).unwrap();
            found.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned()
        };
        for (path, found) in [
            ("/etc/certs/a.io", "etc/static/certs/a.io"),
            ("/lib/x", "usr/lib/x"),
            ("/usr/out/certs", "etc/static/certs"),
            ("/not/there/../at/./all", "not/at/all"),
            ("../../../x", "x"),
            ("/", ""),
        ] {
            assert_eq!(there(path), found, "{path}");
        }
        assert!(host_path(Some(root.path()), Path::new("/around/x")).is_err());
        assert_eq!(host_path(None, Path::new("/a/../b")).unwrap(), Path::new("/a/../b"));
    }
}
