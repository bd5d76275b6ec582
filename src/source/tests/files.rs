use std::path::Path;

use tempfile::TempDir;

use super::http::{config, goods, read};
use crate::source::{RemoteFile, SourceConfig, SourceError, Sources};
use crate::types::{ErrorKind, Globs};

/// A directory that may be read.
struct Volume(TempDir);

impl Volume {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        for (path, bytes) in files {
            let path = volume.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        volume
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn uri(&self, path: &str) -> String {
        format!("file://{}/{path}", self.path().display())
    }

    fn sources(&self) -> Sources {
        Sources::new(SourceConfig { file_root: Some(self.path().to_owned()), ..config() }).unwrap()
    }

    async fn resolve(&self, path: &str) -> Result<Vec<RemoteFile>, SourceError> {
        Ok(self.sources().resolve(&goods(&self.uri(path), false), None).await?.files)
    }

    async fn invalid(&self, path: &str) -> String {
        let error = self.resolve(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    }
}

#[tokio::test]
async fn a_directory_and_one_file_are_read_in_ranges() {
    let blob: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let volume =
        Volume::new(&[("m/a.bin", &blob), ("m/sub/b c.json", b"{}"), ("m/empty", b""), ("other", b"x")]);
    std::os::unix::fs::symlink("../../m/a.bin", volume.path().join("m/sub/link.bin")).unwrap();
    let files = volume.resolve("m/").await.unwrap();
    let shown: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    let expected = [("a.bin", 3_000_000), ("empty", 0), ("sub/b c.json", 2), ("sub/link.bin", 3_000_000)];
    assert_eq!(shown, expected);
    assert!(files.iter().all(|file| file.version.is_some() && file.digest.is_none()));
    assert_eq!(files[0].version, files[3].version, "a link to a file is that file");
    assert!(read(&*files[0].bytes, 0, 3_000_000).await.unwrap() == blob);
    assert!(read(&*files[3].bytes, 999_999, 2_500_001).await.unwrap() == blob[999_999..2_500_001]);
    let one = volume.resolve("m/sub/b c.json").await.unwrap().remove(0);
    assert_eq!((one.path.as_str(), one.size), ("b c.json", 2));
    assert_eq!(read(&*one.bytes, 0, 2).await.unwrap(), b"{}");
}

#[tokio::test]
async fn what_is_no_file_is_told_unless_it_is_not_wanted() {
    let volume = Volume::new(&[("m/a.bin", b"a")]);
    let at = |path: &str| volume.path().join(path);
    rustix::fs::mknodat(rustix::fs::CWD, at("m/pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(volume.invalid("m/").await.contains("pipe is a pipe"));
    assert!(volume.invalid("m/pipe").await.contains("is a pipe"));
    std::fs::remove_file(at("m/pipe")).unwrap();
    for (target, word) in [("/etc", "leads out"), ("nothing", "to nothing"), (".", "to a directory")] {
        std::os::unix::fs::symlink(target, at("m/odd")).unwrap();
        let problem = volume.invalid("m/").await;
        assert!(problem.contains("odd is a link") && problem.contains(word), "{problem}");
        std::fs::remove_file(at("m/odd")).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", at("m/odd")).unwrap();
    let mut wanted = goods(&volume.uri("m/"), false);
    wanted.globs = Globs::new(&["*.bin".to_owned()], &[]).unwrap();
    let files = volume.sources().resolve(&wanted, None).await.unwrap().files;
    assert_eq!(files.len(), 1, "what isn't wanted disturbs nobody");
}

#[tokio::test]
async fn what_is_outside_or_elsewhere_is_refused_with_the_next_step() {
    let volume = Volume::new(&[("m/a.bin", b"a")]);
    std::os::unix::fs::symlink("/", volume.path().join("all")).unwrap();
    assert!(volume.invalid("all/etc/passwd").await.contains("leads out of --file-root"));
    assert!(volume.invalid("m").await.contains("write a / at its end"));
    assert!(volume.invalid("m/a.bin/").await.contains("leave out the /"));
    let sources = volume.sources();
    let outside = sources.resolve(&goods("file:///etc/passwd", false), None).await.unwrap_err();
    assert!(outside.to_string().contains("--file-root"), "{outside}");
    let absent = volume.resolve("m/nothing").await.unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.to_string().contains("mounted"), "{absent}");
    let nowhere = Sources::new(config()).unwrap().resolve(&goods(&volume.uri("m/"), false), None).await;
    assert!(nowhere.unwrap_err().to_string().contains("--file-root"));
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_changed() {
    let volume = Volume::new(&[("m/a.bin", &[1; 3_000_000])]);
    let path = volume.path().join("m/a.bin");
    let seen = || async { volume.resolve("m/a.bin").await.unwrap().remove(0).bytes };
    let changed = |result: Result<Vec<u8>, SourceError>| result.unwrap_err().kind() == ErrorKind::Changed;

    let grows = seen().await;
    std::io::Write::write_all(&mut std::fs::File::options().append(true).open(&path).unwrap(), b"more")
        .unwrap();
    assert!(changed(read(&*grows, 0, 10).await));

    let shrinks = seen().await;
    std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(changed(read(&*shrinks, 0, 10).await));

    let replaced = seen().await;
    std::fs::write(volume.path().join("new"), [2; 10]).unwrap();
    std::fs::rename(volume.path().join("new"), &path).unwrap();
    assert!(changed(read(&*replaced, 0, 10).await));

    let gone = seen().await;
    std::fs::remove_file(&path).unwrap();
    assert!(changed(read(&*gone, 0, 10).await));
}

#[tokio::test]
async fn a_change_in_the_middle_of_a_range_ends_it() {
    use futures::StreamExt as _;
    let volume = Volume::new(&[("m/a.bin", &[1; 3_000_000])]);
    let file = volume.resolve("m/a.bin").await.unwrap().remove(0);
    let mut body = file.bytes.get(crate::types::ByteRange::new(0, 3_000_000).unwrap()).await.unwrap().bytes;
    assert!(body.next().await.unwrap().is_ok());
    let written = std::fs::File::options().write(true).open(volume.path().join("m/a.bin")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&written, b"x", 2_500_000).unwrap();
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert!(body.next().await.is_none());
}
