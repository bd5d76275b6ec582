//! The rounds: each side fetches all files of a set into an empty place, from a server that has them in memory.

use std::time::Duration;

use crate::figures;
use crate::made::{Made, Set};
use crate::measure::child;
use crate::measure::limits::{InCgroup, Limits};
use crate::measure::usage::{Busy, Machine};
use crate::parts::Scratch;
use crate::place::Place;
use crate::servers::{Server, Servers};
use crate::settings::Settings;
use crate::sides::{Course, Purpose, Side};

/// One set's race.
pub(crate) struct Race {
    /// What was fetched.
    pub(crate) set: Set,
    /// Each side at each server, with its runs.
    pub(crate) entrants: Vec<Entrant>,
}

/// One side at one server.
pub(crate) struct Entrant {
    pub(crate) server: Server,
    pub(crate) side: Side,
    /// How it was started.
    pub(crate) flags: String,
    pub(crate) runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// What a syncfs takes right after.
    pub(crate) sync: Duration,
    /// What SHA-256 of all files takes after that.
    pub(crate) sums: Duration,
    /// Its own processor time.
    pub(crate) cpu: Duration,
    /// The server's.
    pub(crate) server_cpu: Duration,
    /// Its largest resident size, in bytes.
    pub(crate) peak: u64,
    /// What its cgroup says, if it had one.
    pub(crate) in_cgroup: Option<InCgroup>,
    /// What the machine did meanwhile.
    pub(crate) busy: Busy,
}

impl Run {
    /// Until the data is durable and verified. Ours is when it ends.
    pub(crate) fn whole(&self, side: Side) -> Duration {
        if side.is_peer() { self.wall + self.sync + self.sums } else { self.wall }
    }
}

/// The sides that run here; says of the others why they don't.
pub(crate) fn entrants(settings: &Settings) -> Vec<(Server, Side)> {
    let mut entrants = Vec::new();
    for server in Server::ALL {
        for side in Side::of(server).iter().filter(|side| settings.wants_side(side.name())) {
            match side.missing(server) {
                None => entrants.push((server, *side)),
                Some(why) => println!("  left out at {}: {}: {why}", server.label(), side.label()),
            }
        }
    }
    entrants
}

/// The course from a server to a side, with nothing between.
pub(crate) fn course<'a>(servers: &Servers, server: Server, set: &'a Set, desk: &Scratch) -> Course<'a> {
    let s3 = servers.s3.env().to_vec();
    Course { server, host: servers.host(server), set, s3, desk: desk.path().to_owned() }
}

/// Races with one set.
pub(crate) async fn run(settings: &Settings, made: &Made, set: &Set, servers: &Servers) -> Race {
    println!("\nrace with {}; {} rounds", set.line(), settings.rounds);
    let desk = Scratch::new("desk");
    let graveyard = Scratch::new("graveyard");
    let mut race = Race { set: set.clone(), entrants: Vec::new() };
    for (server, side) in entrants(settings) {
        let flags = side.flags(&course(servers, server, set, &desk));
        race.entrants.push(Entrant { server, side, flags, runs: Vec::new() });
    }
    if race.entrants.iter().any(|entrant| entrant.side == Side::Limited) {
        println!("  the DaemonSet's limits: {}", Limits::shipped().line());
    }
    let count = race.entrants.len();
    for round in 0..settings.rounds {
        for turn in 0..count {
            // Each begins in its turn: what ran before changes what comes after.
            let entrant = &mut race.entrants[(round + turn) % count];
            let course = course(servers, entrant.server, set, &desk);
            let (run, place) = once(made, entrant.side, &course, servers).await;
            // Large files are too many bytes to keep, and too few inodes to matter.
            if set.files.len() > 100 {
                place.bury(graveyard.path());
            }
            println!("  {}", figures::run_line(entrant, &run));
            entrant.runs.push(run);
        }
    }
    race
}

async fn once(made: &Made, side: Side, course: &Course<'_>, servers: &Servers) -> (Run, Place) {
    let place = Place::new(side, course);
    // What the last run left in the page cache went with its files.
    place.sync();
    tokio::task::block_in_place(|| course.set.read_once(made));
    let before = servers.cpu(course.server);
    let machine = Machine::watch(place.root());
    let used = child::must_do(side.label(), &place.command(course, Purpose::Race), &place.log()).await;
    let busy = machine.busy();
    let server_cpu = servers.cpu(course.server).saturating_sub(before);
    let in_cgroup = place.in_cgroup();
    let (sync, (sums, wrong)) = tokio::task::block_in_place(|| (place.sync(), place.check(course.set)));
    assert!(wrong.is_empty(), "{} at {}: wrong: {wrong:?}", side.label(), course.server.label());
    let run =
        Run { wall: used.wall, sync, sums, cpu: used.cpu, server_cpu, peak: used.peak, in_cgroup, busy };
    (run, place)
}
