use std::path::{Path, PathBuf};

/// How a snapshot is to be mounted, in containerd's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `bind` or `overlay`, mostly.
    pub kind: String,
    /// Of a bind mount: the directory.
    pub source: PathBuf,
    /// `name` or `name=value`, in any order: it differs between versions.
    pub options: Vec<String>,
}

impl Mount {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    }

    fn has(&self, flag: &str) -> bool {
        self.options.iter().any(|option| option == flag)
    }
}

/// The directory that holds what a writable snapshot of the overlayfs snapshotter adds to those below it. `None` for
/// mounts of another kind: several of them, read-only ones, and those whose whiteouts or owners are of another form than
/// the plain one (`userxattr`, `uidmap`).
#[must_use]
pub fn upper_dir(mounts: &[Mount]) -> Option<PathBuf> {
    let [mount] = mounts else { return None };
    if ["ro", "userxattr"].iter().any(|flag| mount.has(flag))
        || ["uidmap", "gidmap"].iter().any(|name| mount.option(name).is_some())
    {
        return None;
    }
    let dir = match mount.kind.as_str() {
        // A snapshot without a parent is a plain directory.
        "bind" => mount.source.clone(),
        "overlay" => PathBuf::from(mount.option("upperdir")?),
        _ => return None,
    };
    is_plain(&dir).then_some(dir)
}

/// The directories of the snapshots below, the nearest first, as overlayfs orders them.
#[must_use]
pub fn lower_dirs(mounts: &[Mount]) -> Vec<PathBuf> {
    let [mount] = mounts else { return Vec::new() };
    // containerd escapes nothing here, so a colon always separates.
    mount.option("lowerdir").map(|dirs| dirs.split(':').map(PathBuf::from).collect()).unwrap_or_default()
}

/// An absolute path that says where it goes.
fn is_plain(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Mount { kind: kind.to_owned(), source: source.into(), options }
    }

    #[test]
    fn a_first_layer_is_a_bind_mount_and_a_later_one_an_overlay_in_any_order() {
        let first = [mount("bind", "/r/snapshots/1/fs", &["rw", "rbind"])];
        assert_eq!(upper_dir(&first), Some("/r/snapshots/1/fs".into()));
        assert_eq!(lower_dirs(&first), Vec::<PathBuf>::new());
        for options in [
            ["workdir=/r/3/work", "upperdir=/r/3/fs", "lowerdir=/r/2/fs:/r/1/fs", "index=off"],
            ["index=off", "lowerdir=/r/2/fs:/r/1/fs", "upperdir=/r/3/fs", "workdir=/r/3/work"],
        ] {
            let later = [mount("overlay", "overlay", &options)];
            assert_eq!(upper_dir(&later), Some("/r/3/fs".into()));
            assert_eq!(lower_dirs(&later), ["/r/2/fs", "/r/1/fs"].map(PathBuf::from));
        }
    }

    #[test]
    fn mounts_of_other_kinds_have_no_upper_directory() {
        let overlay = |option| mount("overlay", "overlay", &["upperdir=/r/3/fs", option]);
        for other in [
            vec![],
            vec![mount("ext4", "/dev/sda", &[])],
            vec![mount("erofs", "/x", &["upperdir=/r/3/fs"])],
            vec![mount("bind", "/r/1/fs", &["ro", "rbind"])],
            vec![mount("bind", "r/1/fs", &["rw"])],
            vec![mount("overlay", "overlay", &["lowerdir=/a:/b"])],
            vec![mount("overlay", "overlay", &["upperdir=/r/../../etc"])],
            vec![overlay("userxattr")],
            vec![overlay("uidmap=0:1000:1")],
            vec![mount("bind", "/r/1/fs", &[]), overlay("index=off")],
        ] {
            assert_eq!(upper_dir(&other), None, "{other:?}");
        }
    }
}
