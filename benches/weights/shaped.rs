//! Behind a link of 20 ms and so many MB/s a connection: how much of what its connections allow is used, and how many
//! each side opens by itself.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::made::{Made, Set};
use crate::measure::child;
use crate::measure::paced_server::{Pace, PacedServer, Served};
use crate::measure::usage::{self, Machine};
use crate::parts::Scratch;
use crate::place::Place;
use crate::servers::Server;
use crate::settings::Settings;
use crate::sides::{Course, Purpose, Side};

const ROUND_TRIP: Duration = Duration::from_millis(20);
const MB: u64 = 1_000_000;
/// Above this the processor is the limit, and not the link.
const FULL: f64 = 0.85;

/// Runs it.
pub(crate) async fn run(settings: &Settings, made: &Made) {
    let set = &made.model;
    println!("\nbehind a link of {} ms: {}", ROUND_TRIP.as_millis(), set.line());
    let sides: Vec<Side> = Side::of(Server::Nginx)
        .iter()
        .copied()
        .filter(|side| settings.wants_side(side.name()) && side.missing(Server::Nginx).is_none())
        .collect();
    for rate in &settings.link {
        println!("  {rate} MB/s a connection");
        for _ in 0..settings.rounds.min(3) {
            for side in &sides {
                once(made, set, *side, *rate).await;
            }
        }
    }
    println!(
        "  - \"of what they allow\": bytes over (the most connections that sent at once x the rate x the time), for the \
         transfer\n    from its first byte to its last, and for the whole run; the link is a server that paces each \
         connection and\n    delays each answer, because not every kernel here has netem; stoker has no flag for any of it"
    );
}

async fn once(made: &Made, set: &Set, side: Side, rate: u64) {
    let server =
        PacedServer::start(served(made, set), Pace { round_trip: ROUND_TRIP, rate: Some(rate * MB) });
    let desk = Scratch::new("desk");
    let (host, desk) = (server.host(), desk.path());
    let course = Course { server: Server::Nginx, host, set, s3: Vec::new(), desk: desk.to_owned() };
    let place = Place::new(side, &course);
    place.sync();
    tokio::task::block_in_place(|| set.read_once(made));
    let machine = Machine::watch(place.root());
    let link = usage::cpu_of_this();
    let used = child::must_do(side.label(), &place.command(&course, Purpose::Race), &place.log()).await;
    let busy = machine.busy();
    let link = usage::cpu_of_this().saturating_sub(link);
    let (_, wrong) = tokio::task::block_in_place(|| place.check(set));
    assert!(wrong.is_empty(), "{}: wrong: {wrong:?}", side.label());
    let told = server.told();
    let transfer = told.first.zip(told.last).map_or(used.wall, |(first, last)| last - first);
    let allowed = (told.connections * rate * MB) as f64;
    let part = |time: Duration| told.bytes as f64 / (allowed * time.as_secs_f64()) * 100.0;
    let limit = match (busy.cpu >= FULL, busy.disk >= FULL) {
        (true, true) => "CPU and disk",
        (true, false) => "CPU",
        (false, true) => "disk",
        (false, false) => "network",
    };
    println!(
        "    {:<20} {:>6.2} s, {} connections, {:.0} MB/s while it moved: {:.0} % of what they allow, {:.0} % over the whole; \
         limited by {limit} (CPU {:.0} %, the link itself {:.1} s; disk {:.0} %)",
        side.label(),
        used.wall.as_secs_f64(),
        told.connections,
        told.bytes as f64 / transfer.as_secs_f64() / 1e6,
        part(transfer),
        part(used.wall),
        busy.cpu * 100.0,
        link.as_secs_f64(),
        busy.disk * 100.0,
    );
}

/// What nginx serves, as it does: the files, the index, and the listing.
fn served(made: &Made, set: &Set) -> HashMap<String, Served> {
    let bucket = made.buckets.join(crate::made::BUCKET);
    let index = format!("/{}", set.index());
    let mut served = HashMap::from([(index.clone(), tagged(Served::file(bucket.join(set.index())), &index))]);
    let mut listing = String::from("<html><body><pre><a href=\"../\">../</a>\n");
    for file in &set.files {
        let path = format!("/{}/{}", set.name, file.path);
        let _ = writeln!(listing, "<a href=\"{0}\">{0}</a>", file.path);
        let one = tagged(Served::file(made.path(set, file)), &file.sha256.hex());
        served.insert(path, one);
    }
    listing += "</pre></body></html>";
    let listing = Served::bytes(listing).header("Content-Type", "text/html");
    served.insert(format!("/{}/", set.name), listing);
    served
}

fn tagged(served: Served, tag: &str) -> Served {
    served
        .header("ETag", format!("\"{}\"", tag.trim_start_matches('/')))
        .header("Content-Type", "application/octet-stream")
}
