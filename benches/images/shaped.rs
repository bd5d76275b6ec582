//! Behind a link of 20 ms and so many MB/s a connection: how much of what its connections allow is used. The layers
//! aren't packed, so that the processor has little to do beside hashing.

use std::time::Duration;

use tokio::time::Instant;

use crate::made::Made;
use crate::measure::paced_server::Pace;
use crate::measure::usage::{self, Machine};
use crate::settings::Settings;
use crate::sides::{Side, verify};
use crate::slow_registry;
use crate::store::Store;

const ROUND_TRIP: Duration = Duration::from_millis(20);
const MB: u64 = 1_000_000;

/// Runs it.
pub(crate) async fn run(settings: &Settings, made: &Made) {
    let image = made.image("E");
    println!("\nbehind a link of {} ms: {}", ROUND_TRIP.as_millis(), image.line().trim_start());
    let sides = [Side::Tuned, Side::Ours].into_iter().filter(|side| settings.wants_side(side.name()));
    let sides: Vec<Side> = sides.collect();
    for rate in &settings.link {
        println!("  {rate} MB/s a connection");
        for _ in 0..settings.rounds.min(3) {
            for side in &sides {
                once(made, *side, *rate).await;
            }
        }
    }
    println!(
        "  - \"of what they allow\": bytes over (the most connections that sent at once x the rate x the time), for the \
         transfer\n    from its first byte to its last, and for the whole pull; where the processor is busy, it is \
         the limit, and not the link"
    );
}

async fn once(made: &Made, side: Side, rate: u64) {
    let image = made.image("E");
    let containerd = side.containerd().await;
    let registry = slow_registry::start(made, image, Pace { round_trip: ROUND_TRIP, rate: Some(rate * MB) });
    containerd.trust(&registry.host(), &format!("http://{}", registry.host()));
    usage::drop_page_cache();
    let store = Store::at(&made.directory);
    for layer in &image.layers {
        let mut file = tokio::fs::File::open(store.blob(layer.digest)).await.expect("the blob is there");
        tokio::io::copy(&mut file, &mut tokio::io::sink()).await.expect("it can be read");
    }
    side.warm_up(&containerd, image).await;
    let reference = image.reference(&registry.host());
    let machine = Machine::watch(&containerd.root());
    let served = usage::cpu_of_this();
    let begun = Instant::now();
    side.pull(&containerd, &reference).await;
    let wall = begun.elapsed();
    let busy = machine.busy();
    let served = usage::cpu_of_this().saturating_sub(served);
    verify(&containerd, image, &reference).await;
    let told = registry.told();
    let transfer = told.first.zip(told.last).map_or(wall, |(first, last)| last - first);
    let allowed = (told.connections * rate * MB) as f64;
    let part = |time: Duration| told.bytes as f64 / (allowed * time.as_secs_f64()) * 100.0;
    println!(
        "    {:<40} {:>6.2} s, {} connections, {:.0} MB/s while it moved: {:.0} % of what they allow, {:.0} % over the \
         whole; busy: CPU {:.0} % (the link itself {:.1} s), disk {:.0} %",
        side.label(),
        wall.as_secs_f64(),
        told.connections,
        told.bytes as f64 / transfer.as_secs_f64() / 1e6,
        part(transfer),
        part(wall),
        busy.cpu * 100.0,
        served.as_secs_f64(),
        busy.disk * 100.0,
    );
}
