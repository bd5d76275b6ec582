//! What containerd's services do for us: blobs, and what the daemon tells of itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use stoker::containerd::{RegistrySetup, Snapshotter, Verifiers};
use stoker::image::CommitError;
use stoker::types::{Descriptor, Digest, ErrorKind};

use super::bench::{Bench, is_locked, small};
use crate::on_each_version::on_each_version;
use crate::parts::{Options, Version};

on_each_version! {
    the_daemon_tells_what_it_is_set_to
    a_blob_is_written_whole_or_not_at_all
    a_blob_is_written_by_its_file
    a_file_that_was_checked_is_taken_over_unread
    a_file_that_is_nobodys_is_taken_over
    a_blob_is_read_in_ranges
    where_layers_cannot_be_written_it_is_told_first
}

mod scenario {
    use super::*;

    pub(super) async fn the_daemon_tells_what_it_is_set_to(version: Version) {
        for discard in [false, true] {
            let bench = Bench::start_with(
                version,
                Options { discard_unpacked_layers: discard, ..Options::default() },
            )
            .await;
            let host_root = bench.containerd.host_root();
            let daemon = bench.client.daemon(&host_root).await.unwrap();
            assert_eq!(daemon.discards_layers, discard);
            let hosts = bench.containerd.directory().join("certs.d");
            assert_eq!(daemon.registries, RegistrySetup::HostsDirs(vec![hosts.clone()]));
            assert!(!daemon.user_namespace);
            assert_eq!(daemon.snapshotter.name, "overlayfs");
            assert_eq!(Some(&*daemon.snapshotter.root), bench.containerd.snapshots().parent());
            let directory = Verifiers::Directory(bench.containerd.directory().join("verifiers"));
            let (line, verifiers) = match version {
                Version::V2_4 => ((2, 4), directory),
                Version::V2_2 => ((2, 2), directory),
                Version::V1_7 => ((1, 7), Verifiers::None),
                Version::V1_6 => ((1, 6), Verifiers::None),
            };
            assert_eq!((daemon.version.line(), daemon.verifiers), (Some(line), verifiers));

            // What is written into its file later it hasn't read; only 2.2 has to be asked that way.
            let file = std::fs::OpenOptions::new().append(true).open(bench.containerd.config());
            file.unwrap().write_all(b"# changed\n").unwrap();
            let registries = bench.client.daemon(&host_root).await.unwrap().registries;
            match (version, registries) {
                (Version::V2_2, RegistrySetup::Unknown(reason)) => {
                    assert!(reason.contains("changed since containerd was started"), "{reason}");
                }
                (_, registries) => assert_eq!(registries, RegistrySetup::HostsDirs(vec![hosts])),
            }
        }
    }

    pub(super) async fn a_blob_is_written_whole_or_not_at_all(version: Version) {
        let bench = Bench::start(version).await;
        let workplace = bench.open(&small(&["a"]).build()).await;
        let bytes: Vec<u8> = (0..9_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let blob = Descriptor { media_type: "application/x".to_owned(), digest, size };
        let labels = |value: &str| BTreeMap::from([("stoker.dev/test".to_owned(), value.to_owned())]);
        assert!(!workplace.has_blob(&blob).await.unwrap());

        let mut writer = workplace.write_blob(&blob).await.unwrap().unwrap();
        writer.write(&bytes[..2_000_000]).await.unwrap();
        // Nobody else may write it meanwhile.
        match workplace.write_blob(&blob).await {
            Err(CommitError::Containerd(error)) => {
                assert!(is_locked(&error) && !error.is_daemon_away(), "{error}");
                assert_eq!(error.kind(), ErrorKind::Transient);
            }
            other => panic!("{other:?}"),
        }
        // Too few bytes aren't a blob.
        let error = writer.commit(&labels("few")).await.unwrap_err();
        assert!(error.to_string().contains("size"), "{error}");
        assert!(!workplace.has_blob(&blob).await.unwrap());

        // What was thrown away is really gone; what was only left isn't, so far as containerd has got it.
        let mut writer = workplace.write_blob(&blob).await.unwrap().unwrap();
        assert_eq!(writer.offset(), 0);
        writer.write(&bytes[..8_000_000]).await.unwrap();
        drop(writer);
        let writer = loop {
            match workplace.write_blob(&blob).await {
                Ok(writer) => break writer,
                // containerd is yet to notice.
                Err(CommitError::Containerd(error)) if is_locked(&error) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let mut writer = writer.unwrap();
        let there = usize::try_from(writer.offset()).unwrap();
        assert!((1_000_000..=8_000_000).contains(&there), "{there}");
        writer.write(&bytes[there..]).await.unwrap();
        writer.commit(&labels("whole")).await.unwrap();
        assert!(workplace.has_blob(&blob).await.unwrap());
        assert!(workplace.write_blob(&blob).await.unwrap().is_none());
        let info = bench.client.blob_info(digest).await.unwrap().unwrap();
        assert_eq!((info.size, info.labels), (size, labels("whole")));

        // Wrong bytes, from the beginning and to the end, and then thrown away by us.
        let other = Descriptor { digest: Digest::of(b"other"), size: 5, ..blob.clone() };
        let mut writer = workplace.write_blob(&other).await.unwrap().unwrap();
        writer.write(b"wrong").await.unwrap();
        assert!(writer.commit(&labels("wrong")).await.is_err());
        let mut writer = workplace.write_blob(&other).await.unwrap().unwrap();
        writer.write(b"oth").await.unwrap();
        writer.abort().await.unwrap();
        let error = workplace.put_document(&other, b"wrong".to_vec(), labels("wrong")).await.unwrap_err();
        assert!(error.to_string().contains(&other.digest.to_string()), "{error}");
        workplace.put_document(&other, b"other".to_vec(), labels("right")).await.unwrap();
        // Once more: it gets the labels.
        workplace.put_document(&other, b"other".to_vec(), labels("again")).await.unwrap();
        let info = bench.client.blob_info(other.digest).await.unwrap().unwrap();
        assert_eq!(info.labels, labels("again"));
        workplace.abandon().await;
        assert!(bench.blobs().await.is_empty());
    }

    pub(super) async fn a_blob_is_written_by_its_file(version: Version) {
        let bench = Bench::start(version).await;
        let root = content_root(&bench).await;
        let workplace = bench.open(&small(&["a"]).build()).await;
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let blob = Descriptor { media_type: "application/x".to_owned(), digest, size };
        let labels = BTreeMap::from([("stoker.dev/test".to_owned(), "file".to_owned())]);
        let mut wrong = bytes.clone();
        wrong[1_000_000] ^= 1;

        // Too few, too many and wrong ones aren't the blob, and are in nobody's way.
        for written in [&bytes[..2_999_999], &[&bytes[..], b"x"].concat(), &wrong] {
            let mut writer = workplace.write_blob(&blob).await.unwrap().unwrap();
            let mut file = writer.file(&root).await.unwrap().expect("its file is seen");
            file.write_all(written).unwrap();
            writer.commit_file(&labels).await.unwrap_err();
            assert!(!workplace.has_blob(&blob).await.unwrap());
        }
        let mut writer = workplace.write_blob(&blob).await.unwrap().unwrap();
        let mut file = writer.file(&root).await.unwrap().unwrap();
        file.write_all(&bytes).unwrap();
        writer.commit_file(&labels).await.unwrap();
        let info = bench.client.blob_info(digest).await.unwrap().unwrap();
        assert_eq!((info.size, info.labels), (size, labels.clone()));
        let there = bench.client.read_blob(digest).await.unwrap().expect("it's there");
        assert!(there == bytes);

        // Where its store isn't seen, neither is the file.
        let other = Descriptor { digest: Digest::of(b"other"), size: 5, ..blob };
        let mut writer = workplace.write_blob(&other).await.unwrap().unwrap();
        assert!(writer.file(bench.containerd.directory()).await.unwrap().is_none());
        writer.abort().await.unwrap();
        workplace.abandon().await;
        assert!(bench.blobs().await.is_empty());
    }

    pub(super) async fn a_file_that_was_checked_is_taken_over_unread(version: Version) {
        for isolated in [false, true] {
            let bench = Bench::start_with(version, Options { isolated, ..Options::default() }).await;
            let root = content_root(&bench).await;
            let workplace = bench.open(&small(&["a"]).build()).await;
            let bytes: Vec<u8> = (0..7_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
            let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
            let blob = Descriptor { media_type: "application/x".to_owned(), digest, size };
            let labels = BTreeMap::from([("stoker.dev/test".to_owned(), "file".to_owned())]);
            let fill = async |bytes: &[u8]| {
                let mut writer = workplace.write_blob(&blob).await.unwrap().unwrap();
                let mut file = writer.file(&root).await.unwrap().expect("its file is seen");
                file.write_all(bytes).unwrap();
                writer
            };
            // Another number of bytes isn't the blob, whoever has checked it.
            fill(&bytes[1..]).await.adopt_file(&labels).await.unwrap_err();
            assert!(!workplace.has_blob(&blob).await.unwrap());
            assert!(!root.join("blobs/sha256").join(digest.hex()).exists());

            let writer = fill(&bytes).await;
            let before = bytes_read(bench.containerd.pid());
            writer.adopt_file(&labels).await.unwrap();
            let read = bytes_read(bench.containerd.pid()) - before;
            assert_eq!(read >= size, isolated, "it has read {read} bytes");
            let info = bench.client.blob_info(digest).await.unwrap().unwrap();
            assert_eq!((info.size, info.labels), (size, labels.clone()));
            assert!(bench.client.read_blob(digest).await.unwrap().expect("it's there") == bytes);
            let file = std::fs::metadata(root.join("blobs/sha256").join(digest.hex())).unwrap();
            assert_eq!((file.mode() & 0o777, file.nlink()), (0o444, 1));
            // It hangs on the lease, and only on that.
            bench.collect().await;
            assert_eq!(bench.blobs().await.len(), 1);
            workplace.abandon().await;
            assert!(bench.blobs().await.is_empty());
        }
    }

    pub(super) async fn a_file_that_is_nobodys_is_taken_over(version: Version) {
        for isolated in [false, true] {
            let bench = Bench::start_with(version, Options { isolated, ..Options::default() }).await;
            let root = content_root(&bench).await;
            let workplace = bench.open(&small(&["a"]).build()).await;
            let bytes = b"whole".to_vec();
            let blob = Descriptor {
                media_type: "application/x".to_owned(),
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
            };
            let labels = BTreeMap::from([("stoker.dev/test".to_owned(), "file".to_owned())]);
            assert!(!workplace.adopt_blob(&blob, &root, &labels).await.unwrap(), "there is none");

            // As it's left by whoever is killed when the file has its place, and nobody was told yet.
            let mut writer = workplace.write_blob(&blob).await.unwrap().unwrap();
            writer.file(&root).await.unwrap().expect("its file is seen").write_all(&bytes).unwrap();
            writer.let_go().await;
            let data = std::fs::read_dir(root.join("ingest")).unwrap().next().unwrap().unwrap().path();
            let place = root.join("blobs/sha256").join(blob.digest.hex());
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::hard_link(data.join("data"), &place).unwrap();
            let mut again = workplace.write_blob(&blob).await.unwrap().unwrap();
            assert!(again.file(&root).await.unwrap().is_none(), "what has its place isn't written any more");
            again.let_go().await;
            assert_eq!(std::fs::read(&place).unwrap(), bytes);

            assert_eq!(workplace.adopt_blob(&blob, &root, &labels).await.unwrap(), !isolated);
            let info = bench.client.blob_info(blob.digest).await.unwrap();
            assert_eq!(info.map(|info| info.labels), (!isolated).then_some(labels));
            workplace.abandon().await;
            bench.collect_all().await;
            assert!(bench.blobs().await.is_empty());
        }
    }

    /// How many bytes a process has read so far, from wherever.
    fn bytes_read(pid: u32) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }

    async fn content_root(bench: &Bench) -> PathBuf {
        let daemon = bench.client.daemon(&bench.containerd.host_root()).await.unwrap();
        daemon.content_root.expect("containerd tells it")
    }

    pub(super) async fn a_blob_is_read_in_ranges(version: Version) {
        let bench = Bench::start(version).await;
        let workplace = bench.open(&small(&["a"]).build()).await;
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let blob = Descriptor { media_type: "application/x".to_owned(), digest, size };
        workplace.put_document(&blob, bytes.clone(), BTreeMap::new()).await.unwrap();
        let read = async |offset: u64, length: u64| {
            let mut reader = bench.client.read_range(digest, offset, length).await.unwrap().unwrap();
            let mut read = Vec::new();
            while let Some(piece) = reader.next().await.unwrap() {
                read.extend(piece);
            }
            read
        };
        assert_eq!(read(0, size).await, bytes);
        assert_eq!(read(0, u64::MAX).await, bytes);
        assert_eq!(read(100_001, 70_000).await, bytes[100_001..170_001]);
        assert_eq!(read(size - 1, 10).await, bytes[bytes.len() - 1..]);
        assert_eq!(read(size, 10).await, b"");
        assert!(bench.client.read_range(digest, 0, 0).await.is_err());
        let absent = bench.client.read_range(Digest::of(b"absent"), 0, 10).await;
        let absent = match absent {
            Ok(Some(mut reader)) => reader.next().await.map(|piece| piece.is_none()),
            other => other.map(|reader| reader.is_none()),
        };
        assert!(absent.unwrap());
        assert_eq!(bench.client.blob_info(Digest::of(b"absent")).await.unwrap(), None);
        let missing =
            bench.client.label_blob(Digest::of(b"absent"), &BTreeMap::from([Default::default()])).await;
        assert!(missing.is_err());
    }

    pub(super) async fn where_layers_cannot_be_written_it_is_told_first(version: Version) {
        let mut bench = Bench::start(version).await;
        let image = small(&["a"]).build();
        let real = bench.snapshotter.clone();
        let elsewhere = bench.containerd.directory().join("elsewhere");
        bench.maker.snapshotter = Snapshotter { root: elsewhere.clone(), ..real.clone() };
        let error = bench.try_open(&image).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("NoAccess", ErrorKind::Unsupported));
        assert!(stoker::rt::chain(&error).contains(elsewhere.to_str().unwrap()), "{error}");
        // Another directory is mounted where containerd's should be.
        std::fs::create_dir_all(elsewhere.join("snapshots")).unwrap();
        let workplace = bench.open(&image).await;
        let error = workplace.scratch().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        workplace.abandon().await;
        bench.maker.snapshotter = Snapshotter { name: "native".to_owned(), ..real };
        let error = bench.try_open(&image).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        bench.collect().await;
        assert_eq!(std::fs::read_dir(bench.containerd.snapshots()).unwrap().count(), 0);
        assert_eq!(bench.containerd.ctr_ok(&["leases", "ls", "-q"]).await, "");
    }
}
