//! The rounds: each side pulls each image into a containerd that has nothing, with an empty page cache.

use std::fs::File;
use std::time::Duration;

use tokio::time::Instant;

use crate::figures;
use crate::made::{Image, Made};
use crate::measure::limits::Limits;
use crate::measure::usage::{self, Busy, Machine};
use crate::parts::{Containerd, Registry, Scratch};
use crate::settings::Settings;
use crate::sides::{Own, Side, verify};
use crate::store::Store;

/// One image's race.
pub(crate) struct Race {
    /// The image.
    pub(crate) image: Image,
    /// Each side's runs.
    pub(crate) sides: Vec<(Side, Vec<Run>)>,
}

/// One pull.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From its start until the image can be used; ours is on the disk by then.
    pub(crate) wall: Duration,
    /// What a syncfs takes right after.
    pub(crate) sync: Duration,
    /// What ran beside containerd.
    pub(crate) own: Own,
    /// containerd's processor time, its children's included.
    pub(crate) containerd_cpu: Duration,
    /// containerd's largest resident size, in bytes.
    pub(crate) containerd_peak: u64,
    /// The registry's processor time.
    pub(crate) registry_cpu: Duration,
    /// What the machine did meanwhile.
    pub(crate) busy: Busy,
}

impl Run {
    /// All processor time of the pull.
    pub(crate) fn cpu(&self) -> Duration {
        self.own.cpu + self.containerd_cpu
    }
}

/// Races with all images that are wanted.
pub(crate) async fn all(
    settings: &Settings,
    made: &Made,
    images: &[&Image],
    registry: &Registry,
) -> Vec<Race> {
    let wanted =
        |side: &Side| settings.wants_side(side.name()) && (*side != Side::Limited || settings.limited);
    let sides: Vec<Side> = Side::ALL.into_iter().filter(wanted).collect();
    if sides.contains(&Side::Limited) {
        println!("\nthe DaemonSet's limits: {}", Limits::shipped().line());
    }
    let mut races = Vec::new();
    // E is for the shaped link.
    for image in images.iter().filter(|image| image.name != "E") {
        println!("\nrace with {}, {} rounds", image.name, settings.rounds);
        let mut race =
            Race { image: (*image).clone(), sides: sides.iter().map(|side| (*side, Vec::new())).collect() };
        let graveyard = Graveyard::open();
        for round in 0..settings.rounds {
            for turn in 0..sides.len() {
                // Each begins in its turn: what ran before changes what comes after.
                let at = (round + turn) % sides.len();
                let (side, runs) = &mut race.sides[at];
                let run = once(settings, made, *side, image, registry, &graveyard).await;
                println!("  {}", figures::run_line(*side, &run));
                runs.push(run);
            }
        }
        races.push(race);
    }
    races
}

async fn once(
    settings: &Settings,
    made: &Made,
    side: Side,
    image: &Image,
    registry: &Registry,
    graveyard: &Graveyard,
) -> Run {
    let containerd = side.containerd().await;
    containerd.trust(&registry.host(), &registry.url());
    usage::drop_page_cache();
    if settings.registry_warm {
        read_blobs(made, image).await;
    }
    side.warm_up(&containerd, image).await;
    let run = timed(side, &containerd, image, &image.reference(&registry.host()), registry.pid()).await;
    verify(&containerd, image, &image.reference(&registry.host())).await;
    graveyard.bury(containerd);
    run
}

/// What is left of runs, until the race is over. ext4 gives no file the inode of one that was deleted within some
/// minutes (`recently_deleted` in `fs/ext4/ialloc.c`), and looks at each: a run after one whose 80,000 files were
/// deleted would measure that, which no node has to do.
struct Graveyard(Scratch);

/// The disk is left so much, in bytes: two runs at once need 10 GB.
const LEFT: u64 = 20 << 30;

impl Graveyard {
    fn open() -> Self {
        Self(Scratch::new("graveyard"))
    }

    /// Ends a containerd, and keeps what it has where there is room.
    fn bury(&self, containerd: Containerd) {
        let root = containerd.root();
        let disk = rustix::fs::statvfs(self.0.path()).expect("the disk can be asked");
        if disk.f_bavail * disk.f_frsize > LEFT {
            let plot = self.0.join(format!("{:016x}", fastrand::u64(..)));
            // Its daemon still has files of it open; it goes next.
            std::fs::rename(root, plot).expect("a rename within one file system");
        }
        drop(containerd);
    }
}

/// The pull itself, and what it used.
async fn timed(side: Side, containerd: &Containerd, image: &Image, reference: &str, registry: u32) -> Run {
    let daemon = containerd.pid();
    let root = File::open(containerd.root()).expect("containerd has a root");
    usage::forget_peak(daemon);
    let before = (usage::cpu(daemon), usage::cpu(registry));
    let machine = Machine::watch(&containerd.root());
    let begun = Instant::now();
    let own = side.pull(containerd, reference).await;
    let wall = begun.elapsed();
    let busy = machine.busy();
    let containerd_cpu = usage::cpu(daemon).saturating_sub(before.0);
    let registry_cpu = usage::cpu(registry).saturating_sub(before.1);
    let begun = Instant::now();
    rustix::fs::syncfs(&root).unwrap_or_else(|error| panic!("image {}: syncfs: {error}", image.name));
    let sync = begun.elapsed();
    Run { wall, sync, own, containerd_cpu, containerd_peak: usage::peak(daemon), registry_cpu, busy }
}

/// Has the kernel keep the image's blobs in memory, as a registry elsewhere would not load this machine's disk.
async fn read_blobs(made: &Made, image: &Image) {
    let store = Store::at(&made.directory);
    for layer in &image.layers {
        let mut file = tokio::fs::File::open(store.blob(layer.digest)).await.expect("the blob is there");
        tokio::io::copy(&mut file, &mut tokio::io::sink()).await.expect("it can be read");
    }
}
