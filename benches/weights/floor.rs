//! The floor: what this machine can't do a set in less than, from each step measured by itself, just before the race.
//! The disk's time and the processors' time can overlap, so the larger of the two counts.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use stoker::types::Hasher;

use crate::made::{BUCKET, Made, Set};
use crate::measure::disk::{self, Disk};
use crate::measure::loopback::{self, Loopback};
use crate::measure::usage::cpu_of_thread;
use crate::parts::Scratch;
use crate::servers::{Server, Servers};

const HASHED: u64 = 1 << 30;
const PIECE: usize = 8 << 20;

/// The terms.
pub(crate) struct Floor {
    disk: Disk,
    /// Bytes that a core hashes in a second.
    hash: f64,
    /// Seconds of processor time for each byte over loopback, both ends, by server.
    loopback: Vec<(Server, f64)>,
    cores: u32,
}

impl Floor {
    /// max(disk, (SHA-256 + loopback) / cores), in seconds. The fake Hub's is nginx's.
    pub(crate) fn seconds(&self, server: Server, bytes: u64) -> f64 {
        self.disk.writing(bytes).as_secs_f64().max(self.cpu(server, bytes))
    }

    /// Which of the two it is.
    pub(crate) fn term(&self, server: Server, bytes: u64) -> &'static str {
        let disk = self.disk.writing(bytes).as_secs_f64();
        if disk >= self.cpu(server, bytes) { "disk" } else { "CPU" }
    }

    fn cpu(&self, server: Server, bytes: u64) -> f64 {
        let like = if server == Server::Hub { Server::Nginx } else { server };
        let loopback = self.loopback.iter().find(|(of, _)| *of == like).map_or(0.0, |(_, each)| *each);
        bytes as f64 * (1.0 / self.hash + loopback) / f64::from(self.cores)
    }
}

/// Measures all terms, and prints them.
pub(crate) async fn measure(made: &Made, servers: &Servers) -> Floor {
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let scratch = Scratch::new("floor");
    let disk = tokio::task::block_in_place(|| disk::measure(scratch.path()));
    let hash = tokio::task::block_in_place(hash);
    println!("\nthe floor on {cores} cores = max(disk, (SHA-256 + loopback of both ends) / {cores})");
    println!("  {}", disk.line());
    println!("  SHA-256: {:.0} MB/s a core", hash / 1e6);
    let set = &made.model;
    tokio::task::block_in_place(|| set.read_once(made));
    let mut each = Vec::new();
    for server in [Server::S3, Server::Nginx] {
        let paths = paths(servers, server, set).await;
        let cost = loopback::measure(&servers.host(server), servers.pid(server), &paths);
        println!("  {}", line(server, &cost, set.bytes()));
        each.push((server, cost.cpu().as_secs_f64() / set.bytes() as f64));
    }
    let floor = Floor { disk, hash, loopback: each, cores };
    for set in [&made.model, &made.small] {
        for server in [Server::S3, Server::Nginx] {
            let (seconds, term) = (floor.seconds(server, set.bytes()), floor.term(server, set.bytes()));
            println!("  {} from {}: {seconds:.2} s, by the {term}", set.name, server.label());
        }
    }
    floor
}

fn line(server: Server, cost: &Loopback, bytes: u64) -> String {
    let each = |time: Duration| time.as_secs_f64() / (bytes as f64 / 1e9);
    format!(
        "loopback from {}: {:.3} + {:.3} CPU s a GB (client + server); {:.2} GB/s by 8 ranges, to nowhere",
        server.label(),
        each(cost.client),
        each(cost.server),
        bytes as f64 / 1e9 / cost.wall.as_secs_f64(),
    )
}

/// Bytes that one core hashes in a second.
fn hash() -> f64 {
    let mut piece = vec![0; PIECE];
    fastrand::Rng::with_seed(7).fill(&mut piece);
    let begun = cpu_of_thread();
    let mut hasher = Hasher::new();
    for _ in 0..HASHED / PIECE as u64 {
        hasher.update(&piece);
    }
    let time = cpu_of_thread() - begun;
    assert_ne!(hasher.finish().hex(), "");
    HASHED as f64 / time.as_secs_f64()
}

/// Where a server has a set's files, with their sizes; signed where it asks for that.
async fn paths(servers: &Servers, server: Server, set: &Set) -> Vec<(String, u64)> {
    let mut paths = Vec::new();
    for file in &set.files {
        let path = format!("{}/{}", set.name, file.path);
        let path = match server {
            Server::S3 => {
                let hour = PresigningConfig::expires_in(Duration::from_secs(3600)).expect("an hour");
                let get = servers.s3.client().get_object().bucket(BUCKET).key(path);
                let url = get.presigned(hour).await.expect("a URL can be signed").uri().to_owned();
                url.trim_start_matches(&servers.s3.endpoint()).to_owned()
            }
            Server::Nginx | Server::Hub => format!("/{path}"),
        };
        paths.push((path, file.size));
    }
    paths
}
