use std::os::unix::fs::symlink;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::super::WeightsError;
use super::super::pull::{Pulled, Puller, open};
use super::bed::{engine, file, goods, large, mode, served, sources};
use crate::source::RemoteFile;
use crate::types::Progress;

async fn pull(dir: &Path, files: &[RemoteFile]) -> Result<Pulled, WeightsError> {
    let puller = Puller::new(engine(), sources(), false);
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let opened = open(dir)?;
    let pulled = puller.pull_files(&opened, &goods("pulled"), files.to_vec(), &progress, &stop).await?;
    assert_eq!((progress.done(), progress.total()), (pulled.fetched_bytes, pulled.fetched_bytes));
    Ok(pulled)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_come_complete_and_are_kept_when_their_digest_is_right() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("a/b");
    let (model, recorded) = (served(large(1)), served(large(2)));
    let files = [model.listed("unet/model"), recorded.recorded("other", Some("e1")), file("empty", "")];
    let first = pull(&dir, &files).await.unwrap();
    assert_eq!((first.kept, first.files, first.verified), (0, 3, false));
    assert!(std::fs::read(dir.join("unet/model")).unwrap() == large(1));
    assert!(std::fs::read(dir.join("other")).unwrap() == large(2));
    assert_eq!(mode(dir.join("unet/model")), 0o644);

    // Same length, one wrong byte: read, not believed.
    let mut wrong = large(1);
    wrong[9] ^= 1;
    std::fs::write(dir.join("unet/model"), wrong).unwrap();
    std::fs::write(dir.join("mine"), "stays").unwrap();
    let second = pull(&dir, &files).await.unwrap();
    assert_eq!((second.kept, second.revision), (1, first.revision));
    assert!(std::fs::read(dir.join("unet/model")).unwrap() == large(1));

    let third = pull(&dir, &files).await.unwrap();
    assert_eq!((third.kept, model.gets(), recorded.gets()), (2, 2, 3));
    assert_eq!(names(&dir), ["empty", "mine", "other", "unet"]);
    assert_eq!(names(&dir.join("unet")), ["model"]);
}

#[tokio::test]
async fn what_fails_leaves_no_half_a_file_and_what_was_killed_is_swept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(".stoker-part-0123"), "half").unwrap();
    let model = served(large(1));
    model.flips.store(3, std::sync::atomic::Ordering::SeqCst);
    let error = pull(dir.path(), &[model.listed("model")]).await.unwrap_err();
    assert!(matches!(error, WeightsError::Corrupt { .. }), "{error}");
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn no_link_below_the_directory_is_followed() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("b"), "precious").unwrap();
    symlink(outside.path(), dir.path().join("a")).unwrap();
    symlink(outside.path().join("b"), dir.path().join("c")).unwrap();
    assert!(pull(dir.path(), &[file("a/b", "new")]).await.is_err());
    pull(dir.path(), &[file("c", "new")]).await.unwrap();
    assert_eq!(std::fs::read(outside.path().join("b")).unwrap(), b"precious");
    assert!(std::fs::symlink_metadata(dir.path().join("c")).unwrap().is_file());
}

#[tokio::test]
async fn two_pulls_into_one_directory_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path()).unwrap();
    let error = pull(dir.path(), &[file("a", "x")]).await.unwrap_err();
    assert!(matches!(error, WeightsError::Busy { .. }), "{error}");
}
