//! Paths of a layer, resolved below its root as containerd resolves them (continuity's `fs.RootPath`): links followed
//! within the root, absolute ones from the root, and what isn't there yet is taken to be no link.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::trouble::Trouble;

/// As containerd: so many links in one path, and not more.
const LINKS: usize = 255;

/// Components looked at for one path. Links of links can name more than any honest layer has.
const STEPS: usize = 8192;

/// Below the root, through no link at all.
pub(super) const BENEATH: ResolveFlags =
    ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);

/// Opens `path`, which no link may be part of (`ELOOP`); a last one can be opened itself (`O_PATH | O_NOFOLLOW`).
pub(super) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    loop {
        match fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH) {
            // A rename elsewhere in the system raced with `..`, or a signal came (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Opens a directory that no link leads to.
pub(super) fn open_dir(root: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Names of a path, without empty ones and `.`, and with `..` taken back from what stands before it: Go's
/// `filepath.Clean`, below a root that nothing leads out of.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let mut cleaned = Vec::with_capacity(path.len());
    for name in names(path) {
        step(&mut cleaned, name);
    }
    cleaned
}

/// The last name of a clean path, and what stands before it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// `path` without any link in it. What isn't there stands for itself.
pub(super) fn resolve(root: impl AsFd, path: &[u8]) -> Result<Vec<u8>, Trouble> {
    let mut resolved = Vec::new();
    let mut ahead: Vec<Vec<u8>> = names(path).rev().map(<[u8]>::to_vec).collect();
    let (mut links, mut steps) = (0, 0);
    while let Some(name) = ahead.pop() {
        steps += 1;
        if steps > STEPS {
            return Err(Trouble::OverLimit(format!("more than {STEPS} steps through its links")));
        }
        let before = resolved.len();
        step(&mut resolved, &name);
        if name == b".." {
            continue;
        }
        let Some(target) = link(&root, &resolved)? else { continue };
        links += 1;
        if links > LINKS {
            return Err(Trouble::malformed(format!("more than {LINKS} links in its path")));
        }
        resolved.truncate(if target.first() == Some(&b'/') { 0 } else { before });
        ahead.extend(names(&target).rev().map(<[u8]>::to_vec));
    }
    Ok(resolved)
}

/// What the link at `path` says; `None` where there is no link.
fn link(root: impl AsFd, path: &[u8]) -> Result<Option<Vec<u8>>, Trouble> {
    let found = match open(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(fs::fstat(&found)?.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    Ok(Some(fs::readlinkat(&found, "", Vec::new())?.into_bytes()))
}

fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn step(path: &mut Vec<u8>, name: &[u8]) {
    if name == b".." {
        path.truncate(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
        return;
    }
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_are_cleaned_and_never_lead_up() {
        for (path, cleaned) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("./a//b/./c/", "a/b/c"),
            ("../../a", "a"),
            ("a/../../b", "b"),
            ("/../a/..", ""),
            ("a/b/../c", "a/c"),
            ("...", "..."),
        ] {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("usr/lib/deep")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        for (target, name) in [
            ("usr/lib", "lib"),
            ("/etc/passwd", "absolute"),
            ("../../../../usr", "up"),
            ("loop", "loop"),
            ("lib/deep", "twice"),
            ("../..", "usr/lib/deep/out"),
            ("nowhere/x", "dangling"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        let root = std::fs::File::open(home.path()).unwrap();
        for (path, resolved) in [
            ("lib/x", "usr/lib/x"),
            ("/lib/../y", "usr/y"),
            ("absolute", "etc/passwd"),
            ("absolute/more", "etc/passwd/more"),
            ("up/lib", "usr/lib"),
            ("twice", "usr/lib/deep"),
            ("twice/out/z", "usr/z"),
            ("dangling", "nowhere/x"),
            ("new/thing", "new/thing"),
            ("", ""),
        ] {
            let found = resolve(&root, path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), resolved, "{path}");
        }
        assert!(matches!(resolve(&root, b"loop"), Err(Trouble::Malformed(_))));
        assert!(resolve(&root, b"file/x").is_err());
    }
}
