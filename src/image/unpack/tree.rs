//! What the entries make of the directory: containerd's `archive.Apply`, entry by entry.

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::attributes::{Defaults, dress, dress_file, mode, times};
use super::content::Content;
use super::entry::{Entry, Kind};
use super::implied::Implied;
use super::number::Moment;
use super::place::{Dir, Place, deep, remove};
use super::resolve::{clean, resolve, split};
use super::stream::Layer;
use super::trouble::{Trouble, shown};
use super::{ImpliedDir, Limits};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// PATH_MAX, with the NUL that ends a path.
const PATH_LIMIT: usize = 4096;

/// The layer's directory as it grows.
#[derive(Debug)]
pub(super) struct Tree {
    place: Place,
    implied: Implied,
    defaults: Defaults,
    limits: Limits,
    /// There is no layer below.
    lowest: bool,
    /// Directories and the times that they get at the end.
    dirs: Vec<(Vec<u8>, Moment, Moment)>,
    /// Something was removed, so a path may lead elsewhere than when it was used.
    replaced: bool,
    /// The file whose content comes.
    file: Option<(Arc<Dir>, Content)>,
    bytes: u64,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, limits: Limits, lowest: bool) -> Result<Self, Trouble> {
        let place = Place::new(root, limits.depth)?;
        let defaults = Defaults::of(place.root())?;
        Ok(Self {
            place,
            implied: Implied::default(),
            defaults,
            limits,
            lowest,
            dirs: Vec::new(),
            replaced: false,
            file: None,
            bytes: 0,
        })
    }

    /// Bytes of content, holes included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the times of directories, now that nothing is made in them any more.
    pub(super) fn finish(&mut self) -> Result<Vec<ImpliedDir>, (Vec<u8>, Trouble)> {
        for (path, accessed, modified) in std::mem::take(&mut self.dirs) {
            self.time(&path, accessed, modified).map_err(|trouble| (path, trouble))?;
        }
        Ok(self.implied.take())
    }

    fn time(&mut self, path: &[u8], accessed: Moment, modified: Moment) -> Result<(), Trouble> {
        let resolved = if self.replaced { resolve(self.place.root(), path)? } else { path.to_vec() };
        let (parent, name) = split(&resolved);
        let times = times(accessed, modified);
        if name.is_empty() {
            // It was replaced by a link to the root.
            return Ok(fs::futimens(self.place.root().open_self()?, &times)?);
        }
        let dir = self.place.existing(parent)?;
        Ok(fs::utimensat(&*dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn whiteout(&mut self, dir: &Arc<Dir>, name: &[u8], entry: &Entry) -> Result<(), Trouble> {
        if name == OPAQUE {
            // In the lowest layer nothing is there to be hidden.
            if !self.lowest {
                fs::fsetxattr(dir.open_self()?, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
            }
            return Ok(());
        }
        let hidden = &name[WHITEOUT.len()..];
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Trouble::malformed("a whiteout that names nothing in its directory"));
        }
        if self.lowest {
            return self.remove(dir, hidden);
        }
        fs::mknodat(&**dir, hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
        let (uid, gid) = (entry.uid, entry.gid);
        let uid = (uid != u32::MAX).then(|| Uid::from_raw(uid));
        let gid = (gid != u32::MAX).then(|| Gid::from_raw(gid));
        Ok(fs::chownat(&**dir, hidden, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn remove(&mut self, dir: &Dir, name: &[u8]) -> Result<(), Trouble> {
        self.replaced = true;
        self.place.forget();
        if !self.implied.is_empty() {
            self.implied.removed(&dir.path_of(name));
        }
        Ok(remove(dir, name)?)
    }

    /// Makes something that replaces what has its name.
    fn make<T>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        mut make: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Trouble> {
        match make() {
            Err(Errno::EXIST) => {}
            done => return Ok(done?),
        }
        self.remove(dir, name)?;
        Ok(make()?)
    }

    fn directory(
        &mut self,
        dir: &Arc<Dir>,
        name: &[u8],
        path: Vec<u8>,
        entry: &Entry,
    ) -> Result<(), Trouble> {
        let make = || fs::mkdirat(&**dir, name, mode(entry));
        let new = match make() {
            Err(Errno::EXIST) => {
                let stat = fs::statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let stays = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if stays {
                    // It may have another group, or be setgid, from now on.
                    self.place.forget();
                } else {
                    self.remove(dir, name)?;
                    make()?;
                }
                !stays
            }
            done => done.map(|()| true)?,
        };
        if !self.implied.is_empty() {
            self.implied.described(&dir.path_of(name));
        }
        self.implied.remember(&path)?;
        self.dirs.push((path, entry.accessed, entry.modified));
        Ok(dress(dir, name, entry, &mut self.defaults, new)?)
    }

    fn file(&mut self, dir: Arc<Dir>, name: &[u8], entry: &Entry) -> Result<(), Trouble> {
        self.admit(entry.size)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.make(&dir, name, || fs::openat(&*dir, name, flags, mode(entry)))?;
        self.file = Some((dir, Content::new(file, entry)));
        Ok(())
    }

    fn hard_link(&mut self, dir: &Arc<Dir>, name: &[u8], entry: &Entry) -> Result<(), Trouble> {
        let (parent, target) = split(&entry.link);
        let (from, target) = match target {
            // A directory then, or, with a slash after a file's name, whatever that leads to.
            b"" | b"." | b".." => {
                let resolved = resolve(self.place.root(), &entry.link)?;
                let (parent, target) = split(&resolved);
                if target.is_empty() {
                    return Err(Trouble::malformed("a hard link to the layer's root"));
                }
                (self.linked(parent, entry)?, target.to_vec())
            }
            target => (self.linked(parent, entry)?, target.to_vec()),
        };
        let link = || fs::linkat(&*from, &target[..], &**dir, name, AtFlags::empty());
        self.make(dir, name, link).map_err(|trouble| absent(trouble, entry))?;
        Ok(dress(dir, name, entry, &mut self.defaults, false)?)
    }

    /// The directory of what a hard link leads to.
    fn linked(&mut self, parent: &[u8], entry: &Entry) -> Result<Arc<Dir>, Trouble> {
        self.place.existing(parent).map_err(|trouble| absent(trouble, entry))
    }

    fn device(&mut self, dir: &Arc<Dir>, name: &[u8], entry: &Entry, kind: FileType) -> Result<(), Trouble> {
        // What a device number can't hold would be cut, and the device another one (mknod(2): 12 and 20 bits).
        let part = |number: i64, bits: u32| u32::try_from(number).ok().filter(|part| part >> bits == 0);
        let (Some(major), Some(minor)) = (part(entry.major, 12), part(entry.minor, 20)) else {
            let problem = format!("the device number {}:{} is out of range", entry.major, entry.minor);
            return Err(Trouble::Malformed(problem));
        };
        let number = if kind == FileType::Fifo { 0 } else { fs::makedev(major, minor) };
        self.make(dir, name, || fs::mknodat(&**dir, name, kind, mode(entry), number))?;
        Ok(dress(dir, name, entry, &mut self.defaults, true)?)
    }

    fn admit(&mut self, size: u64) -> Result<(), Trouble> {
        let left_of = |limit: u64| {
            let left = limit.saturating_sub(self.bytes);
            format!("{size} bytes of content, and {left} are left of {limit}")
        };
        let sum = self.bytes.saturating_add(size);
        if sum > self.limits.bytes {
            return Err(Trouble::OverLimit(left_of(self.limits.bytes)));
        }
        if sum > self.limits.room {
            return Err(std::io::Error::new(ErrorKind::StorageFull, left_of(self.limits.room)).into());
        }
        self.bytes = sum;
        Ok(())
    }

    /// The entry's name, cleaned; `None` where it is the root, which a layer can't describe.
    fn path(&self, entry: &Entry) -> Result<Option<Vec<u8>>, Trouble> {
        let path = clean(&entry.name);
        if path.len() >= PATH_LIMIT {
            return Err(Trouble::OverLimit(format!(
                "a name of {} bytes; {PATH_LIMIT} are too many",
                path.len()
            )));
        }
        deep(&path, self.limits.depth)?;
        Ok((!path.is_empty()).then_some(path))
    }
}

/// What a hard link leads to isn't there: the layer's own fault, and no trouble with the disk.
fn absent(trouble: Trouble, entry: &Entry) -> Trouble {
    match trouble {
        Trouble::Write(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let target = shown(&entry.link);
            Trouble::Malformed(format!("a hard link to {target:?}, which isn't in the layer"))
        }
        trouble => trouble,
    }
}

impl Layer for Tree {
    fn begin(&mut self, entry: &Entry) -> Result<bool, Trouble> {
        let Some(path) = self.path(entry)? else { return Ok(false) };
        let (parent, name) = split(&path);
        let dir = self.place.make(parent, &mut self.implied)?;
        if name.starts_with(WHITEOUT) {
            self.whiteout(&dir, name, entry)?;
            return Ok(false);
        }
        match entry.kind {
            Kind::File => {
                self.file(dir, name, entry)?;
                return Ok(true);
            }
            Kind::Directory => {
                let name = name.to_vec();
                self.directory(&dir, &name, path, entry)?;
            }
            Kind::Symlink => {
                self.make(&dir, name, || fs::symlinkat(&entry.link[..], &*dir, name))?;
                dress(&dir, name, entry, &mut self.defaults, true)?;
            }
            Kind::HardLink => self.hard_link(&dir, name, entry)?,
            Kind::CharDevice => self.device(&dir, name, entry, FileType::CharacterDevice)?,
            Kind::BlockDevice => self.device(&dir, name, entry, FileType::BlockDevice)?,
            Kind::Fifo => self.device(&dir, name, entry, FileType::Fifo)?,
            // containerd removes what has its name, and makes nothing.
            Kind::Global => self.remove(&dir, name)?,
            Kind::Other(flag) => {
                let flag = char::from(flag);
                return Err(Trouble::Malformed(format!(
                    "an entry of type {flag:?}; containerd takes none either"
                )));
            }
        }
        Ok(false)
    }

    fn content(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let Some((_, content)) = &mut self.file else { return Ok(()) };
        Ok(content.write(offset, bytes)?)
    }

    fn end(&mut self, entry: &Entry) -> Result<(), Trouble> {
        let Some((dir, content)) = self.file.take() else { return Ok(()) };
        let file = content.finish()?;
        Ok(dress_file(file.as_fd(), &dir, entry, &self.defaults)?)
    }
}
