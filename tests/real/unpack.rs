//! Layers unpacked by us and by containerd's own unpack, of each line: the trees must be the same, and what one refuses
//! the other must refuse, but for the differences that are listed with their reasons.

mod look;
mod random;
#[path = "../../src/image/unpack/tests/tape.rs"]
#[allow(dead_code, reason = "the unit tests use all of it")]
pub(crate) mod tape;
mod theirs;
mod zoo;

use std::os::fd::OwnedFd;
use std::time::SystemTime;

use look::{Look, look};
use theirs::Theirs;
use zoo::{Case, Differs};

use super::parts::{Containerd, Scratch, Version};

/// How many stacks of random layers. They are the same in every run; 300 were tried when this was written.
const RANDOM: usize = 40;

#[tokio::test]
async fn every_layer_is_unpacked_as_by_the_newer_containerd() {
    compare(Version::newer()).await;
}

#[tokio::test]
async fn every_layer_is_unpacked_as_by_the_older_containerd() {
    compare(Version::older()).await;
}

async fn compare(version: Version) {
    let begun = SystemTime::now();
    let containerd = Containerd::start(version).await;
    let theirs = Theirs::new(&containerd);
    let (mut wrong, mut taken, mut refused) = (Vec::new(), 0, 0);
    let random = random::stacks(RANDOM).into_iter();
    for case in zoo::cases().into_iter().chain(random) {
        let scratch = Scratch::new("unpack");
        let ours = unpack(&scratch, &case);
        let theirs = theirs.unpack(&case.layers).await;
        match (&ours, &theirs) {
            (Ok(_), Ok(_)) => taken += 1,
            _ => refused += 1,
        }
        let ours = ours.map(|roots| roots.iter().map(|root| look(root, begun)).collect());
        let theirs = theirs.map(|roots| roots.iter().map(|root| look(root, begun)).collect());
        wrong.extend(judge(&case, version, ours, theirs));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Else the comparison says little.
    assert!(taken > 60 && refused > 25, "{taken} taken, {refused} refused");
}

/// Unpacks the layers, the lowest first, each into a directory of its own.
fn unpack(scratch: &Scratch, case: &Case) -> Result<Vec<std::path::PathBuf>, String> {
    let mut roots = Vec::new();
    for (number, layer) in case.layers.iter().enumerate() {
        let root = scratch.dir(format!("{number}/fs"));
        let open = |path: &std::path::PathBuf| OwnedFd::from(std::fs::File::open(path).expect("a directory"));
        let lowers: Vec<OwnedFd> = roots.iter().rev().map(open).collect();
        // Pieces of a prime number of bytes, so that they end anywhere.
        stoker::image::unpack_layer(open(&root), layer.chunks(4093), &lowers)
            .map_err(|error| stoker::rt::chain(&error))?;
        roots.push(root);
    }
    Ok(roots)
}

/// What is wrong, if anything is.
fn judge(
    case: &Case,
    version: Version,
    ours: Result<Vec<Look>, String>,
    theirs: Result<Vec<Look>, String>,
) -> Vec<String> {
    let name = format!("{} on {version:?}", case.name);
    let differs = case.differs.iter().find(|(on, _)| on.is_none_or(|on| on == version));
    let differs = differs.map(|(_, differs)| differs);
    match (ours, theirs, differs) {
        (Err(_), Err(_), None | Some(Differs::MayOnlyWeTake(..))) => Vec::new(),
        (Err(_), Ok(_), Some(Differs::WeRefuse(_))) => Vec::new(),
        (Ok(_), Err(_), Some(Differs::OnlyWeTake(_))) => Vec::new(),
        (Ok(_), Err(error), Some(Differs::MayOnlyWeTake(words, _))) if error.contains(words) => Vec::new(),
        (Ok(ours), Ok(theirs), differs) => {
            let allowed: &[&str] = match differs {
                Some(Differs::At(paths, _)) => paths,
                None | Some(Differs::MayOnlyWeTake(..)) => &[],
                Some(other) => {
                    return vec![format!("{name}: both take it, and the list says: {}", other.reason())];
                }
            };
            differences(&name, allowed, &ours, &theirs)
        }
        (Err(error), Ok(_), _) => vec![format!("{name}: only containerd takes it; we say {error}")],
        (Ok(_), Err(error), _) => vec![format!("{name}: only we take it; containerd says {error}")],
        (Err(error), Err(_), Some(listed)) => {
            vec![format!("{name}: both refuse it, and the list says: {}; we say {error}", listed.reason())]
        }
    }
}

fn differences(name: &str, allowed: &[&str], ours: &[Look], theirs: &[Look]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        for path in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
            let (ours, theirs) = (ours.get(path), theirs.get(path));
            let same = match (ours, theirs) {
                (Some(ours), Some(theirs)) => ours.same(theirs),
                _ => false,
            };
            let place = format!("{number}:{path}");
            if !same && allowed.contains(&&place[..]) {
                seen.push(place);
            } else if !same {
                wrong.push(format!("{name}, {place}:\n  ours   {ours:?}\n  theirs {theirs:?}"));
            }
        }
    }
    let missing = allowed.iter().filter(|place| !seen.iter().any(|seen| seen == *place));
    wrong.extend(missing.map(|place| format!("{name}, {place}: is the same, and listed as different")));
    wrong
}
