//! What is left to containerd: it brings the image all the same, and the reason is said.

use rustix::mount::{MountFlags, mount_bind, mount_remount};
use stoker::types::ImageRef;

use crate::hostile::forged::{Forged, Image, descriptor};
use crate::on_each_version::on_each_version;
use crate::parts::{Options, Registry, Version};
use crate::pulling::Pulling;
use crate::unpack::tape::{Item, Tape};

on_each_version! {
    another_snapshotter_is_containerds
    registries_in_its_own_configuration_are_containerds
    a_hosts_file_that_cannot_be_read_is_containerds
    unusual_layers_are_containerds
    a_directory_that_cannot_be_written_is_containerds
}

fn image() -> Image {
    Image::of([Forged::packed(&Tape::of([Item::dir("etc"), Item::file("etc/base", "base")]))])
}

/// It's warm, by containerd, for this reason.
async fn left(pulling: &Pulling, tag: &ImageRef, code: &str, words: &str) {
    let warm =
        pulling.pull(tag).await.unwrap_or_else(|error| panic!("{code}: {}", stoker::rt::chain(&error)));
    let unable = warm.unable.unwrap_or_else(|| panic!("{code}: nothing was left to containerd"));
    assert_eq!(unable.code(), code);
    assert!(unable.to_string().contains(words), "{code}: {unable}");
    assert!(pulling.bench.client.image_status(tag).await.unwrap().is_some(), "{code}");
    assert!(pulling.bench.containerd.log().contains(&format!("PullImage \\\"{tag}\\\"")), "{code}");
}

mod scenario {
    use super::*;

    pub(super) async fn another_snapshotter_is_containerds(version: Version) {
        let native = Options { snapshotter: Some("native"), ..Options::default() };
        let (pulling, registry) = tokio::join!(Pulling::start_with(version, native), Registry::start());
        pulling.bench.containerd.trust(&registry.host(), &registry.url());
        let tag = image().push(&registry, "team/app").await;
        left(&pulling, &tag, "OtherSnapshotter", "native").await;
        pulling.end().await;
    }

    pub(super) async fn registries_in_its_own_configuration_are_containerds(version: Version) {
        let registry = Registry::start().await;
        let mirrors: &'static str = Box::leak(registry.host().into_boxed_str());
        let old = Options { mirrors: Some(mirrors), ..Options::default() };
        let pulling = Pulling::start_with(version, old).await;
        let tag = image().push(&registry, "team/app").await;
        left(&pulling, &tag, "LegacyRegistries", "hosts.toml").await;
        pulling.end().await;
    }

    pub(super) async fn a_hosts_file_that_cannot_be_read_is_containerds(version: Version) {
        let (pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        let dir = pulling.bench.containerd.directory().join("certs.d").join(registry.host());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), "[host.\n").unwrap();
        let tag = image().push(&registry, "team/app").await;
        left(&pulling, &tag, "HostsUnreadable", "hosts.toml").await;
        pulling.end().await;
    }

    pub(super) async fn unusual_layers_are_containerds(version: Version) {
        let (pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        pulling.bench.containerd.trust(&registry.host(), &registry.url());
        let good = image();
        let of = |media_type: &str| {
            let layers =
                good.layers.iter().map(|layer| descriptor(media_type, layer.digest(), layer.size)).collect();
            Image { manifest: Some(good.manifest_of(layers).to_string().into_bytes()), ..good.clone() }
        };
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        let tag = of(foreign).push(&registry, "team/foreign").await;
        left(&pulling, &tag, "UnusualImage", foreign).await;
        pulling.bench.client.remove_image(&tag).await.unwrap();
        // What containerd can't do either is its own to tell.
        for (name, media_type) in [
            ("encrypted", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            ("unknown", "application/vnd.example.layer.v1.tar+lz4"),
        ] {
            let tag = of(media_type).push(&registry, &format!("team/{name}")).await;
            let error = pulling.pull(&tag).await.map(|warm| warm.unable).unwrap_err();
            let told = stoker::rt::chain(&error);
            assert!(told.contains("containerd") && told.contains(&tag.to_string()), "{name}: {told}");
            let asked = format!("PullImage \\\"{tag}\\\"");
            assert!(pulling.bench.containerd.log().contains(&asked), "{name}: {told}");
        }
        pulling.end().await;
    }

    pub(super) async fn a_directory_that_cannot_be_written_is_containerds(version: Version) {
        let (pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        pulling.bench.containerd.trust(&registry.host(), &registry.url());
        let tag = image().push(&registry, "team/app").await;
        // Ours alone: containerd has a mount namespace of its own.
        let root = pulling.bench.containerd.root();
        mount_bind(&root, &root).unwrap();
        mount_remount(&root, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
        left(&pulling, &tag, "NoSnapshotAccess", "").await;
        pulling.end().await;
    }
}
