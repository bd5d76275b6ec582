//! One layer: directories of the disk as a tar stream, packed in one or more ways at once.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use stoker::types::{Digest, Hasher};
use tar::{EntryType, Header};

// 2026-01-01: layers made of the same files are the same, byte for byte.
const MTIME: u64 = 1_767_225_600;
/// Where a Python image has its packages.
const SITE_PACKAGES: &str = "usr/local/lib/python3.12/site-packages";
/// What `docker build` and BuildKit do without being told.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Packing {
    /// One gzip stream, level 6, as Docker's.
    Gzip,
    /// zstd, level 3.
    Zstd,
    /// Not at all.
    Plain,
}

impl Packing {
    /// The media type (OCI image spec, layer.md).
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
        }
    }
}

/// A layer that was made; its blob is in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Layer {
    /// How it is packed.
    pub(crate) packing: Packing,
    /// Of the blob.
    pub(crate) digest: Digest,
    /// Of the tar inside.
    pub(crate) diff_id: Digest,
    /// Of the blob, in bytes.
    pub(crate) size: u64,
    /// Of the tar, in bytes.
    pub(crate) tar_size: u64,
    /// How many regular files it has.
    pub(crate) files: u64,
}

/// Makes one layer of all that is in `dirs`, once for each packing. The blobs lie in `stage`, by their names there.
///
/// # Panics
/// When a file can't be read or written.
pub(crate) fn make(
    dirs: &[PathBuf],
    packings: &[Packing],
    stage: &Path,
    name: &str,
) -> Vec<(Layer, PathBuf)> {
    let failed = |error| -> ! { panic!("layer {name}: {error}") };
    let path = |packing: &Packing| stage.join(format!("{name}-{packing:?}"));
    let packers: io::Result<Vec<Packer>> =
        packings.iter().map(|packing| Packer::create(*packing, &path(packing))).collect();
    let all = All { packers: packers.unwrap_or_else(|error| failed(error)), diff: Hasher::new(), size: 0 };
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, all));
    let mut files = 0;
    let written = add_parents(&mut tar).and_then(|()| {
        dirs.iter().try_for_each(|dir| add_dir(&mut tar, dir, Path::new(SITE_PACKAGES), &mut files))
    });
    let all = written.and_then(|()| tar.into_inner()).unwrap_or_else(|error| failed(error));
    let all = all.into_inner().unwrap_or_else(|error| failed(error.into_error()));
    let (diff_id, tar_size) = (all.diff.finish(), all.size);
    let packed = packings.iter().zip(all.packers).map(|(packing, packer)| {
        let (digest, size) = packer.finish().unwrap_or_else(|error| failed(error));
        (Layer { packing: *packing, digest, diff_id, size, tar_size, files }, path(packing))
    });
    packed.collect()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add_parents(tar: &mut tar::Builder<impl Write>) -> io::Result<()> {
    let mut parents: Vec<&Path> = Path::new(SITE_PACKAGES).ancestors().collect();
    parents.pop();
    parents
        .into_iter()
        .rev()
        .try_for_each(|dir| tar.append_data(&mut header(EntryType::Directory, 0o755, 0), dir, io::empty()))
}

fn add_dir(tar: &mut tar::Builder<impl Write>, dir: &Path, inside: &Path, files: &mut u64) -> io::Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let name = inside.join(path.file_name().unwrap_or_default());
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            tar.append_data(&mut header(EntryType::Directory, 0o755, 0), &name, io::empty())?;
            add_dir(tar, &path, &name, files)?;
        } else if meta.is_file() {
            let mode = if meta.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            tar.append_data(&mut header(EntryType::Regular, mode, meta.len()), &name, File::open(&path)?)?;
            *files += 1;
        }
    }
    Ok(())
}

/// The tar stream, hashed and given to each packer.
struct All {
    packers: Vec<Packer>,
    diff: Hasher,
    size: u64,
}

impl Write for All {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.diff.update(bytes);
        self.size += bytes.len() as u64;
        for packer in &mut self.packers {
            packer.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Packer {
    Gzip(GzEncoder<Blob>),
    Zstd(zstd::stream::write::Encoder<'static, Blob>),
    Plain(Blob),
}

impl Packer {
    fn create(packing: Packing, path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let blob = Blob { file, hasher: Hasher::new(), size: 0 };
        Ok(match packing {
            Packing::Gzip => Self::Gzip(GzEncoder::new(blob, Compression::new(GZIP_LEVEL))),
            Packing::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(blob, ZSTD_LEVEL)?),
            Packing::Plain => Self::Plain(blob),
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(packer) => packer.write_all(bytes),
            Self::Zstd(packer) => packer.write_all(bytes),
            Self::Plain(packer) => packer.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<(Digest, u64)> {
        let mut blob = match self {
            Self::Gzip(packer) => packer.finish()?,
            Self::Zstd(packer) => packer.finish()?,
            Self::Plain(blob) => blob,
        };
        blob.file.flush()?;
        Ok((blob.hasher.finish(), blob.size))
    }
}

/// A packed layer on its way onto the disk.
struct Blob {
    file: BufWriter<File>,
    hasher: Hasher,
    size: u64,
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
