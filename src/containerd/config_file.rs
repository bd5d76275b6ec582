//! containerd's own configuration files, for what a version doesn't tell over its socket.
//!
//! They are found by the daemon's command line, and believed only where they are older than its socket: what was
//! written later it hasn't read. What two of them say differently isn't known; which of them wins differs by version.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::daemon::{ImageSettings, RegistrySetup};
use crate::rt::host_path;

/// Where it looks unless it's told otherwise (`defaults.DefaultConfigDir`).
const DEFAULT_PATH: &str = "/etc/containerd/config.toml";

/// The directories that it takes from 2.2 on where none is set (`plugins/cri/images/plugin.go`).
const DEFAULT_HOSTS: [&str; 2] = ["/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// Where it keeps its data unless it's told otherwise (`defaults.DefaultRootDir`).
const DEFAULT_ROOT: &str = "/var/lib/containerd";

const LONGEST: u64 = 1 << 20;
const MOST_FILES: usize = 100;

/// The plugin that pulls images, in configurations of version 3 on; version 2 has it in CRI's one plugin.
const IMAGES: &str = "io.containerd.cri.v1.images";
const CRI: &str = "io.containerd.grpc.v1.cri";
const VERIFIERS: &str = "io.containerd.image-verifier.v1.bindir";

/// Why the files don't tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigFileError {
    #[error("process {pid} isn't seen as containerd")]
    NotSeen { pid: u64 },
    #[error("{} is of a containerd that keeps its data in {}", path.display(), root.display())]
    Another { path: PathBuf, root: PathBuf },
    #[error("{} can't be read ({cause})", path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    /// Without what stands there, which may be a password.
    #[error("{} isn't TOML: {message}", path.display())]
    NotToml { path: PathBuf, message: String },
    #[error("{} has been changed since containerd was started; restart containerd", path.display())]
    Newer { path: PathBuf },
    #[error("its imports are beyond us: {}", import.display())]
    Import { import: PathBuf },
    #[error("it's of version {0}, and not of 2, 3 or 4")]
    Version(i64),
    #[error("containerd doesn't tell its own version")]
    NoLine,
    #[error("two files differ in {0}")]
    Differ(&'static str),
}

/// The configuration files of a running containerd, the main one first, and then what it imports.
#[derive(Debug, Default)]
pub(super) struct ConfigFiles(Vec<Table>);

impl ConfigFiles {
    /// Those of the process `pid`, which made its `socket` when it had read them, and has its content in `content_root`.
    /// Their paths are the host's, which has its `/` at `host_root`.
    pub(super) fn read(
        host_root: &Path,
        pid: u64,
        socket: &Path,
        content_root: Option<&Path>,
    ) -> Result<Self, ConfigFileError> {
        let started = std::fs::metadata(socket)
            .map_err(|cause| ConfigFileError::Unreadable { path: socket.to_owned(), cause })?;
        let arguments = std::fs::read(host_root.join(format!("proc/{pid}/cmdline"))).unwrap_or_default();
        let line = CommandLine::of(&arguments).ok_or(ConfigFileError::NotSeen { pid })?;
        let path = line.config.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        let is_there = || host_path(Some(host_root), &path).is_ok_and(|here| here.exists());
        let files = if line.config.is_none() && !is_there() {
            Self::default()
        } else {
            Self::with_imports(host_root, path.clone(), (started.mtime(), started.mtime_nsec()))?
        };
        // In another process namespace the number may be another containerd's.
        let named =
            files.0.iter().filter_map(|file| file.get("root")?.as_str()).filter(|root| !root.is_empty());
        let named = the_one("root", named)?.map(PathBuf::from);
        let root = line.root.or(named).unwrap_or_else(|| DEFAULT_ROOT.into());
        if content_root.is_some_and(|content| !content.starts_with(&root)) {
            return Err(ConfigFileError::Another { path, root });
        }
        Ok(files)
    }

    fn with_imports(host_root: &Path, path: PathBuf, started: (i64, i64)) -> Result<Self, ConfigFileError> {
        let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
        let mut ahead = VecDeque::from([path]);
        while let Some(path) = ahead.pop_front() {
            if !seen.insert(path.clone()) {
                continue;
            }
            if seen.len() > MOST_FILES {
                return Err(ConfigFileError::Import { import: path });
            }
            let table = read_one(host_root, &path, started)?;
            let imports = table.get("imports").and_then(Value::as_array).into_iter().flatten();
            for import in imports.filter_map(Value::as_str) {
                ahead.extend(resolve(host_root, &path, import)?);
            }
            files.push(table);
        }
        Ok(Self(files))
    }

    /// What CRI does with images by these files. `line` is the version of containerd.
    pub(super) fn image_settings(&self, line: Option<(u32, u32)>) -> Result<ImageSettings, ConfigFileError> {
        let version = self.version()?;
        let sections: &[&str] = if version < 3 { &[IMAGES, CRI] } else { &[IMAGES] };
        let registries: Vec<&Table> = sections
            .iter()
            .flat_map(|section| self.plugin(section))
            .filter_map(|plugin| plugin.get("registry")?.as_table())
            .collect();
        let is_set = |key: &&str| {
            let has =
                |table: &&Table| table.get(*key).and_then(Value::as_table).is_some_and(|map| !map.is_empty());
            registries.iter().any(has)
        };
        let path = the_one(
            "config_path",
            registries
                .iter()
                .filter_map(|table| table.get("config_path")?.as_str())
                .filter(|path| !path.is_empty()),
        )?;
        let registries = match path {
            _ if ["mirrors", "configs", "auths"].iter().any(is_set) => RegistrySetup::Legacy,
            Some(path) => RegistrySetup::of_path(path),
            None if line.is_none() => return Err(ConfigFileError::NoLine),
            None if line >= Some((2, 2)) => RegistrySetup::HostsDirs(DEFAULT_HOSTS.map(PathBuf::from).into()),
            None => RegistrySetup::HostsDirs(Vec::new()),
        };
        Ok(ImageSettings { discards_layers: self.discards_layers(version)?, registries })
    }

    /// Where image verifiers are looked for, if the files say so.
    pub(super) fn verifier_dir(&self) -> Result<Option<PathBuf>, ConfigFileError> {
        let named = self.plugin(VERIFIERS).filter_map(|plugin| plugin.get("bin_dir")?.as_str());
        Ok(the_one("the image verifiers' bin_dir", named)?.map(PathBuf::from))
    }

    /// Without files it runs on its defaults, which are the newest version's.
    fn version(&self) -> Result<i64, ConfigFileError> {
        let versions = self.0.iter().map(|file| file.get("version").and_then(Value::as_integer).unwrap_or(1));
        match the_one("their version", versions)? {
            None => Ok(4),
            Some(version @ 2..=4) => Ok(version),
            Some(version) => Err(ConfigFileError::Version(version)),
        }
    }

    /// From version 2, containerd 2 takes the setting over only where there are runtimes beside it (`migrateConfig`).
    fn discards_layers(&self, version: i64) -> Result<bool, ConfigFileError> {
        let old: Vec<&Table> =
            self.plugin(CRI).filter_map(|plugin| plugin.get("containerd")?.as_table()).collect();
        let counts = version < 3 && old.iter().any(|table| table.contains_key("runtimes"));
        let old = old.into_iter().filter(|_| counts);
        let said = self
            .plugin(IMAGES)
            .chain(old)
            .filter_map(|table| table.get("discard_unpacked_layers")?.as_bool());
        Ok(the_one("discard_unpacked_layers", said)?.unwrap_or(false))
    }

    fn plugin(&self, name: &str) -> impl Iterator<Item = &Table> {
        self.0.iter().filter_map(move |file| file.get("plugins")?.get(name)?.as_table())
    }
}

fn the_one<T: Ord>(
    what: &'static str,
    values: impl Iterator<Item = T>,
) -> Result<Option<T>, ConfigFileError> {
    let mut values: BTreeSet<T> = values.collect();
    let first = values.pop_first();
    if values.is_empty() { Ok(first) } else { Err(ConfigFileError::Differ(what)) }
}

/// What containerd's command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct CommandLine {
    config: Option<PathBuf>,
    root: Option<PathBuf>,
}

impl CommandLine {
    /// `None` when it's another program's, or a path depends on where that was started.
    fn of(arguments: &[u8]) -> Option<Self> {
        let mut arguments = arguments.split(|byte| *byte == 0);
        let program = arguments.next()?.rsplit(|byte| *byte == b'/').next()?;
        if !program.starts_with(b"containerd") {
            return None;
        }
        let mut found = Self::default();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix(b"--").or_else(|| argument.strip_prefix(b"-")) else {
                continue;
            };
            let (flag, value) = match flag.iter().position(|byte| *byte == b'=') {
                Some(at) => (&flag[..at], Some(&flag[at + 1..])),
                None => (flag, None),
            };
            let place = match flag {
                b"config" | b"c" => &mut found.config,
                b"root" => &mut found.root,
                _ => continue,
            };
            let path = PathBuf::from(OsStr::from_bytes(value.or_else(|| arguments.next())?));
            *place = Some(path).filter(|path| path.is_absolute());
            place.as_ref()?;
        }
        Some(found)
    }
}

fn read_one(host_root: &Path, path: &Path, started: (i64, i64)) -> Result<Table, ConfigFileError> {
    let read = || {
        let file = File::open(host_path(Some(host_root), path)?)?;
        let found = file.metadata()?;
        let mut text = String::new();
        file.take(LONGEST + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LONGEST {
            return Err(io::Error::other("it's over 1 MiB"));
        }
        io::Result::Ok((text, (found.ctime(), found.ctime_nsec())))
    };
    let (text, changed) =
        read().map_err(|cause| ConfigFileError::Unreadable { path: path.to_owned(), cause })?;
    if changed > started {
        return Err(ConfigFileError::Newer { path: path.to_owned() });
    }
    text.parse().map_err(|error: toml::de::Error| ConfigFileError::NotToml {
        path: path.to_owned(),
        message: error.message().to_owned(),
    })
}

/// The files that `import` in the file `parent` means (`resolveImports`): a relative one is meant from its directory, and
/// one with a star is a pattern.
fn resolve(host_root: &Path, parent: &Path, import: &str) -> Result<Vec<PathBuf>, ConfigFileError> {
    let path = parent.parent().unwrap_or(parent).join(import);
    let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    if !import.contains('*') {
        return Ok(vec![path]);
    }
    let beyond_us = || ConfigFileError::Import { import: path.clone() };
    let (Some(dir), Some(pattern)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(beyond_us());
    };
    // Of what Go's patterns can say, only a star is of use here.
    let is_plain = |text: &str| !text.contains(['?', '[', '\\']);
    if dir.to_string_lossy().contains('*') || !is_plain(import) {
        return Err(beyond_us());
    }
    let unreadable = |cause| ConfigFileError::Unreadable { path: dir.to_owned(), cause };
    let here = host_path(Some(host_root), dir).map_err(unreadable)?;
    let names = match std::fs::read_dir(here) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(unreadable)?,
    };
    let mut found = Vec::new();
    for name in names {
        let name = name.map_err(unreadable)?.file_name();
        if name.to_str().is_some_and(|name| matches(pattern, name)) {
            found.push(dir.join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `name` is what `pattern` says, in which a star stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    (0..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| matches(rest, &name[at..]))
}

#[cfg(test)]
#[path = "config_file_tests.rs"]
mod tests;
