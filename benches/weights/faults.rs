//! One request in twenty meets trouble on the way: how much longer the set takes than by the same way without.
//!
//! Only ours: of the peers some end with an error, and what others end with isn't compared.

use std::time::Duration;

use crate::made::{Made, Set};
use crate::measure::{child, median};
use crate::parts::{FaultProxy, Scratch, Trouble};
use crate::place::Place;
use crate::race::course;
use crate::servers::{Server, Servers};
use crate::settings::Settings;
use crate::sides::{Course, Purpose, Side};

/// Of the requests.
const SHARE: f64 = 0.05;

/// Runs it, in rounds of one clean run and one with trouble, through the same proxy.
pub(crate) async fn run(settings: &Settings, made: &Made, servers: &Servers) {
    let set = &made.model;
    println!("\n{:.0} % of the requests meet trouble on the way: {}", SHARE * 100.0, set.line());
    for server in [Server::S3, Server::Nginx] {
        let (mut clean, mut troubled) = (Vec::new(), Vec::new());
        let mut spoilt = 0;
        for round in 0..settings.rounds {
            clean.push(once(servers, server, set, None).await.0);
            let seed = u64::try_from(round).unwrap_or_default() + 1;
            let trouble = Trouble::passing(SHARE, seed);
            let trouble = if server == Server::S3 { trouble.of_signed_requests() } else { trouble };
            let (time, met) = once(servers, server, set, Some(trouble)).await;
            troubled.push(time);
            spoilt += met;
        }
        let [clean, troubled] = [median(&clean), median(&troubled)].map(|time| time.as_secs_f64());
        println!(
            "  from {}: {clean:.1} s without, {troubled:.1} s with, {:.2} x; {} requests spoilt a run; every file \
             right and verified",
            server.label(),
            troubled / clean.max(f64::EPSILON),
            spoilt / settings.rounds.max(1),
        );
    }
    println!("  - a relay of one thread stands in between, so the times say nothing of the server or of us");
}

/// How long it took, and how many requests were spoilt.
async fn once(servers: &Servers, server: Server, set: &Set, trouble: Option<Trouble>) -> (Duration, usize) {
    let proxy = FaultProxy::start(&servers.host(server));
    if let Some(trouble) = trouble {
        proxy.trouble(trouble);
    }
    let desk = Scratch::new("desk");
    let course = Course { host: proxy.host(), ..course(servers, server, set, &desk) };
    let place = Place::new(Side::Pull, &course);
    let used =
        child::to_its_end(Side::Pull.label(), &place.command(&course, Purpose::Check), &place.log()).await;
    let (_, wrong) = tokio::task::block_in_place(|| place.check(set));
    let log = || std::fs::read_to_string(place.log()).unwrap_or_default();
    assert!(used.status.success() && wrong.is_empty(), "{} {wrong:?}:\n{}", used.status, log());
    (used.wall, proxy.spoilt().len())
}
