//! One bit of one answer turned over on the way, once: who notices.

use crate::figures::named;
use crate::made::Made;
use crate::measure::child;
use crate::parts::{Fault, FaultProxy, Rule, Scratch};
use crate::place::Place;
use crate::race::{course, entrants};
use crate::servers::{Server, Servers};
use crate::settings::Settings;
use crate::sides::{Course, Purpose, Side};

/// The file that it happens to, and the byte of its answer.
const FILE: &str = "model-00002";
const AT: u64 = 100_000;
/// Many bytes of its log would tell nothing more.
const SHOWN: usize = 200;

/// Runs it, once for each side.
pub(crate) async fn run(settings: &Settings, made: &Made, servers: &Servers) {
    let set = &made.model;
    println!("\none byte of {FILE} changed on the way, once: {}", set.line());
    for (server, side) in entrants(settings).into_iter().filter(|(_, side)| *side != Side::Limited) {
        let proxy = FaultProxy::start(&servers.host(server));
        proxy.add(Rule::get(FILE, Fault::FlipByte(AT)).after(probes(server, side)));
        let desk = Scratch::new("desk");
        let course = Course { host: proxy.host(), ..course(servers, server, set, &desk) };
        println!("  {} {}", named(side, server), once(side, &course, &proxy).await);
    }
    println!("  - each with the checks that it has by default");
}

/// GETs of one byte, which ours begins with where only a GET tells a file's version.
fn probes(server: Server, side: Side) -> usize {
    usize::from(server == Server::Nginx && side == Side::Pull)
}

async fn once(side: Side, course: &Course<'_>, proxy: &FaultProxy) -> String {
    let place = Place::new(side, course);
    let used = child::to_its_end(side.label(), &place.command(course, Purpose::Check), &place.log()).await;
    let hit = proxy.seen().into_iter().find(|seen| seen.fault.is_some());
    let (_, wrong) = tokio::task::block_in_place(|| place.check(course.set));
    let sent = proxy.body_bytes() as f64 / course.set.bytes() as f64;
    match (hit, used.status.success(), wrong.is_empty()) {
        (None, ..) => "nothing was changed: it asked otherwise than expected".to_owned(),
        (Some(seen), true, true) if seen.range.as_deref() == Some("bytes=0-0") => {
            "nothing was changed: the answer had one byte".to_owned()
        }
        (_, true, true) => format!("noticed, fetched again, all files right; {sent:.2} x the set was sent"),
        (_, true, false) => format!("NOT noticed: it says success, and {} is wrong", wrong.join(", ")),
        (_, false, _) => {
            format!("noticed, and failed ({}); {sent:.2} x the set was sent: {}", used.status, said(&place))
        }
    }
}

/// The last line of its log.
fn said(place: &Place) -> String {
    let log = std::fs::read(place.log()).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().chars().take(SHOWN).collect()
}
