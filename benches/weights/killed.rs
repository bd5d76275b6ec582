//! Killed with SIGKILL when the server has sent half, then run again: what both runs had sent to them, and whether
//! anything stood under its final name, of its full length, that wasn't right.

use std::time::Duration;

use crate::figures::named;
use crate::made::{Made, Set};
use crate::measure::child;
use crate::parts::{Process, Scratch, until};
use crate::place::Place;
use crate::race::{course, entrants};
use crate::servers::{Server, Servers};
use crate::settings::Settings;
use crate::sides::{Course, Purpose, Side};

/// No side takes as long for half of it.
const LONGEST: Duration = Duration::from_secs(600);

/// Runs it, once for each side.
pub(crate) async fn run(settings: &Settings, made: &Made, servers: &Servers) {
    let set = &made.model;
    println!("\nkilled with -9 at half way, then run again: {}", set.line());
    for (server, side) in entrants(settings).into_iter().filter(|(_, side)| *side != Side::Limited) {
        let desk = Scratch::new("desk");
        let course = course(servers, server, set, &desk);
        println!("  {} {}", named(side, server), once(made, side, &course, servers).await);
    }
    println!(
        "  - sent: what the kernel counted for the server's process, what was still in sockets when the side was killed \
         included"
    );
}

async fn once(made: &Made, side: Side, course: &Course<'_>, servers: &Servers) -> String {
    let (server, set) = (course.server, course.set);
    let place = Place::new(side, course);
    place.sync();
    tokio::task::block_in_place(|| set.read_once(made));
    let begin = servers.sent(server);
    let process = Process::start(side.label(), &place.command(course, Purpose::Race), &place.log());
    let half = async || {
        (servers.sent(server) - begin >= set.bytes() / 2 || process.exit_status().is_some()).then_some(())
    };
    until("half of it to be sent", LONGEST, half).await;
    if process.exit_status().is_some() {
        return format!("ended before half was sent{}", process.last_lines());
    }
    process.kill9();
    drop(process);
    // A server notices only when it writes.
    let settled = settled(servers, server).await;
    let first = settled - begin;
    let ready = full_length(&place, set);
    let (_, wrong) = tokio::task::block_in_place(|| place.check(set));
    let early: Vec<&str> =
        ready.iter().map(String::as_str).filter(|path| wrong.iter().any(|wrong| wrong == path)).collect();
    let used = child::to_its_end(side.label(), &place.command(course, Purpose::Again), &place.log()).await;
    let all = servers.sent(server) - begin;
    let (_, wrong) = tokio::task::block_in_place(|| place.check(set));
    let ended = match (used.status.success(), wrong.is_empty()) {
        (true, true) => "right".to_owned(),
        (true, false) => format!("WRONG, and it said success: {}", wrong.join(", ")),
        (false, _) => format!("failed ({})", used.status),
    };
    let early = if early.is_empty() {
        String::new()
    } else {
        format!("; when killed, of full length under their final names and wrong: {}", early.join(", "))
    };
    let part = |bytes: u64| bytes as f64 / set.bytes() as f64;
    format!(
        "sent {:.2} + {:.2} = {:.2} x the set; ends {ended}{early}",
        part(first),
        part(all - first),
        part(all)
    )
}

/// What a server has sent, once that doesn't change any more.
async fn settled(servers: &Servers, server: Server) -> u64 {
    let mut last = servers.sent(server);
    let mut since = tokio::time::Instant::now();
    until("the server to notice", LONGEST, async || {
        let now = servers.sent(server);
        if now != last {
            (last, since) = (now, tokio::time::Instant::now());
        }
        (since.elapsed() >= Duration::from_millis(300)).then_some(last)
    })
    .await
}

/// The files that are there under their final names with all their bytes, as `ls -l` tells.
fn full_length(place: &Place, set: &Set) -> Vec<String> {
    let dir = place.files();
    let whole = set
        .files
        .iter()
        .filter(|file| dir.join(&file.path).metadata().is_ok_and(|meta| meta.len() == file.size));
    whole.map(|file| file.path.clone()).collect()
}
