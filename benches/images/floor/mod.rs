//! The floor: what this machine can't do an image in less than, from each step measured by itself, just before the
//! race. The disk's time and the processors' time can overlap, so the larger of the two counts.

mod bare;

use std::time::Duration;

use crate::made::{Image, Made};
use crate::measure::disk::{self, Disk};
use crate::measure::loopback::{self, Loopback};
use crate::measure::usage;
use crate::parts::{Registry, Scratch};

pub(crate) use bare::Bare;

/// One image's floor, with its terms.
pub(crate) struct Floor {
    /// Which image.
    pub(crate) image: String,
    disk: Duration,
    cpu: Duration,
    cores: u32,
}

impl Floor {
    /// max(disk, CPU / cores), in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.disk.max(self.cpu / self.cores).as_secs_f64()
    }
}

/// Measures all that is needed, and prints the terms. What it unpacks stays in `scratch`: see `Graveyard`.
pub(crate) async fn measure(
    made: &Made,
    images: &[&Image],
    registry: &Registry,
    scratch: &Scratch,
) -> Vec<Floor> {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let disk = disk::measure(scratch.path());
    println!("\nthe floor on {cores} cores; {}", disk.line());
    println!("  floor = max(disk, (inflate + SHA-256 of blob and diff + unpack + loopback) / {cores})");
    let mut floors = Vec::new();
    for image in images.iter().filter(|image| image.name != "E") {
        usage::drop_page_cache();
        let loopback = loopback::measure(&registry.host(), registry.pid(), &blobs(image));
        let bare = {
            let (directory, image) = (made.directory.clone(), (*image).clone());
            let place = scratch.dir(&image.name);
            tokio::task::spawn_blocking(move || bare::run(&directory, &image, &place))
                .await
                .expect("it is unpacked")
        };
        floors.push(report(image, &disk, &bare, &loopback, cores));
    }
    floors
}

/// Where the registry has an image's blobs, and their sizes.
fn blobs(image: &Image) -> Vec<(String, u64)> {
    let path = |digest| format!("/v2/{}/blobs/{digest}", image.repository());
    image.layers.iter().map(|layer| (path(layer.digest), layer.size)).collect()
}

fn report(image: &Image, disk: &Disk, bare: &Bare, loopback: &Loopback, cores: u32) -> Floor {
    let (unpacked, blobs) = (image.unpacked(), image.compressed());
    let own = disk.writing(unpacked);
    let kept = disk.writing(blobs);
    let cpu = bare.inflate + bare.blob_hash + bare.diff_hash + bare.unpack + loopback.cpu();
    let floor = Floor { image: image.name.clone(), disk: own + kept, cpu, cores };
    let s = |time: Duration| time.as_secs_f64();
    let rate = |bytes: u64, time: Duration| bytes as f64 / 1e6 / s(time).max(1e-9);
    println!(
        "  {}: {:.2} s = max(disk {:.2} unpacked + {:.2} blobs, (inflate {:.2} + SHA-256 {:.2} + {:.2} + unpack {:.2} \
         + loopback {:.2} client + {:.2} registry) / {cores} = {:.2})",
        image.name,
        floor.seconds(),
        s(own),
        s(kept),
        s(bare.inflate),
        s(bare.blob_hash),
        s(bare.diff_hash),
        s(bare.unpack),
        s(loopback.client),
        s(loopback.server),
        s(cpu / cores),
    );
    println!(
        "     inflate {:.0} MB/s of output, SHA-256 {:.0} MB/s, download by 8 ranges {:.0} MB/s; the same program alone, \
         one thread, from memory: {:.2} s, then syncfs {:.2} s; the registry's reading of the same disk, {:.2} s, isn't \
         in the floor",
        rate(unpacked, bare.inflate),
        rate(unpacked + blobs, bare.blob_hash + bare.diff_hash),
        rate(blobs, loopback.wall),
        s(bare.wall),
        s(bare.sync),
        s(disk.reading(blobs)),
    );
    floor
}
