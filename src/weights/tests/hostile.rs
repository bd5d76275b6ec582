use std::os::unix::fs::symlink;

use super::super::Retired;
use super::super::{CacheError, WeightsError};
use super::bed::{Bed, file, id, large, mode, served, set_mode};
use crate::source::RemoteFile;
use crate::types::Digest;

#[tokio::test]
async fn a_truncated_blob_is_not_warm_and_is_mended_for_all_who_share_it() {
    let bed = Bed::new();
    let model = served(large(1));
    let files = [model.listed("model"), file("config.json", "{}")];
    bed.ensure("one", &files).await.unwrap();
    bed.ensure("two", &files).await.unwrap();
    let blob = bed.blob(Digest::of(&large(1)));
    std::fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(5).unwrap();
    for name in ["one", "two"] {
        let named = bed.named(name).unwrap();
        assert_eq!(named.current, None);
        assert!(named.problem.unwrap().contains("model"));
    }
    let mended = bed.ensure("one", &files).await.unwrap();
    assert_eq!((mended.fetched_bytes, model.gets()), (large(1).len() as u64, 2));
    assert!(bed.read("weights/one/current/model") == large(1));
    assert!(bed.current("two").is_none());
    assert_eq!(bed.ensure("two", &files).await.unwrap().fetched_bytes, 0);
    assert_eq!(bed.inode("weights/one/current/model"), bed.inode("weights/two/current/model"));
    bed.assert_tidy();
}

#[tokio::test]
async fn a_missing_or_foreign_file_in_a_tree_is_seen_and_mended() {
    let bed = Bed::new();
    let model = served(large(1));
    let files = [model.listed("deep/model"), file("config.json", "{}")];
    bed.ensure("llama", &files).await.unwrap();
    let breaks: [&dyn Fn(); 5] = [
        &|| std::fs::remove_file(bed.path("weights/llama/current/config.json")).unwrap(),
        &|| std::fs::remove_dir_all(bed.path("weights/llama/current/deep")).unwrap(),
        &|| std::fs::write(bed.path("weights/llama/current/deep/more"), "x").unwrap(),
        &|| {
            // The same bytes, but a file of its own.
            let path = bed.path("weights/llama/current/config.json");
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "{}").unwrap();
            set_mode(&path, 0o444);
        },
        &|| set_mode(bed.path("weights/llama/current/deep"), 0o700),
    ];
    for harm in breaks {
        harm();
        assert_eq!(bed.current("llama"), None);
        assert_eq!(bed.ensure("llama", &files).await.unwrap().fetched_bytes, 0);
        assert!(bed.current("llama").is_some());
        assert_eq!(bed.read("weights/llama/current/config.json"), b"{}");
    }
    assert_eq!(model.gets(), 1);
    bed.assert_tidy();
}

#[tokio::test]
async fn a_blob_that_others_could_write_is_read_again() {
    let bed = Bed::new();
    let model = served(large(1));
    let files = [model.listed("model")];
    bed.ensure("llama", &files).await.unwrap();
    let blob = bed.blob(Digest::of(&large(1)));
    set_mode(&blob, 0o666);
    assert_eq!(bed.current("llama"), None);
    assert_eq!(bed.ensure("llama", &files).await.unwrap().fetched_bytes, 0);
    assert_eq!(mode(&blob), 0o444);
    assert!(bed.current("llama").is_some());

    set_mode(&blob, 0o666);
    let mut wrong = large(1);
    wrong[7] ^= 1;
    std::fs::write(&blob, &wrong).unwrap();
    assert!(bed.ensure("llama", &files).await.unwrap().fetched_bytes > 0);
    assert!(bed.read("weights/llama/current/model") == large(1));
}

#[tokio::test]
async fn directories_get_their_modes_back_at_the_start() {
    let mut bed = Bed::new();
    bed.ensure("llama", &[file("a", "x")]).await.unwrap();
    set_mode(bed.path("weights"), 0o777);
    set_mode(bed.path("v1"), 0o700);
    bed.reopen();
    assert_eq!((mode(bed.path("weights")), mode(bed.path("v1"))), (0o755, 0o755));
    assert!(bed.current("llama").is_some());
}

#[tokio::test]
async fn a_link_in_an_entrys_place_is_not_followed() {
    let mut bed = Bed::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("current"), "precious").unwrap();
    std::fs::create_dir(outside.path().join("0123456789ab")).unwrap();
    symlink(outside.path(), bed.path("weights/llama")).unwrap();
    assert_eq!(bed.named("llama"), None);
    let error = bed.ensure("llama", &[file("a", "x")]).await.unwrap_err();
    assert!(matches!(&error, WeightsError::Cache(CacheError::Op(_))), "{error}");
    assert!(
        error.to_string().contains("weights/llama") && error.to_string().contains("remove it"),
        "{error}"
    );
    assert!(bed.cache().retire(&id("llama")).is_err());
    bed.reopen();
    let mut left: Vec<_> =
        std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["0123456789ab", "current"]);
}

#[tokio::test]
async fn links_in_a_trees_place_are_replaced_and_lead_nowhere() {
    let bed = Bed::new();
    let outside = tempfile::tempdir().unwrap();
    let files = [file("deep/a", "x")];
    let name = bed.ensure("llama", &files).await.unwrap().revision.short();
    std::fs::write(outside.path().join("a"), "x").unwrap();
    let entry = bed.path("weights/llama");

    std::fs::remove_file(entry.join("current")).unwrap();
    symlink(outside.path(), entry.join("current")).unwrap();
    assert!(bed.named("llama").unwrap().problem.unwrap().contains("no revision"));
    bed.ensure("llama", &files).await.unwrap();
    assert_eq!(std::fs::read_link(entry.join("current")).unwrap().to_str(), Some(&*name));

    std::fs::rename(entry.join(&name), outside.path().join("moved")).unwrap();
    symlink(outside.path().join("moved"), entry.join(&name)).unwrap();
    assert_eq!(bed.current("llama"), None);
    bed.ensure("llama", &files).await.unwrap();
    assert!(std::fs::symlink_metadata(entry.join(&name)).unwrap().is_dir());

    std::fs::remove_dir_all(entry.join(&name).join("deep")).unwrap();
    symlink(outside.path(), entry.join(&name).join("deep")).unwrap();
    assert_eq!(bed.current("llama"), None);
    bed.ensure("llama", &files).await.unwrap();
    assert!(bed.current("llama").is_some());
    assert_eq!(std::fs::read(outside.path().join("a")).unwrap(), b"x");
    bed.assert_tidy();
}

#[tokio::test]
async fn a_listing_with_a_wrong_length_harms_no_blob() {
    let bed = Bed::new();
    let good = file("a", "shared");
    bed.ensure("good", std::slice::from_ref(&good)).await.unwrap();
    let lie = RemoteFile { size: 3, ..good.clone() };
    assert!(bed.ensure("bad", &[lie]).await.is_err());
    assert!(bed.current("good").is_some());
    assert_eq!(bed.read("weights/good/current/a"), b"shared");
    assert!(bed.current("bad").is_none());
}

#[tokio::test]
async fn what_else_is_under_weights_is_left_alone() {
    let mut bed = Bed::new();
    std::fs::write(bed.path("weights/README"), "hands off").unwrap();
    std::fs::create_dir(bed.path("weights/-odd-")).unwrap();
    std::fs::create_dir(bed.path("weights/llama")).unwrap();
    std::fs::write(bed.path("weights/llama/notes"), "mine").unwrap();
    bed.ensure("llama", &[file("a", "x")]).await.unwrap();
    assert_eq!(bed.cache().names().unwrap().keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["llama"]);
    let stays = bed.cache().retire(&id("llama")).unwrap();
    assert_eq!(stays, Retired::Foreign(bed.path("weights/llama")));
    bed.reopen();
    assert_eq!(bed.read("weights/llama/notes"), b"mine");
    assert_eq!(bed.read("weights/README"), b"hands off");
    assert!(bed.path("weights/-odd-").is_dir());
}

#[tokio::test]
async fn what_is_wrong_with_one_entry_does_not_hide_the_others() {
    let bed = Bed::new();
    bed.ensure("broken", &[file("a", "x")]).await.unwrap();
    bed.ensure("fine", &[file("b", "y")]).await.unwrap();
    let fan = bed.blob(Digest::of(b"x")).parent().unwrap().to_owned();
    std::fs::rename(&fan, bed.path("moved")).unwrap();
    symlink(bed.path("moved"), &fan).unwrap();
    let names = bed.cache().names().unwrap();
    assert!(names[&id("fine")].current.is_some());
    let broken = &names[&id("broken")];
    assert_eq!(broken.current, None);
    assert!(broken.problem.as_ref().unwrap().contains("a link or a file stands"), "{broken:?}");
}
