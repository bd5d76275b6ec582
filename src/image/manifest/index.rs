use super::error::{ManifestError, quote};
use super::platform::{Platform, Rules};
use super::wire::{self, Exact, RawDescriptor, RawPlatform};
use crate::types::Descriptor;

/// How many indexes may be followed from one to the next until a manifest comes. containerd knows no such limit; nobody
/// nests them deeper than two.
pub(crate) const INDEX_DEPTH: usize = 4;

/// The most platforms that a message names.
const NAMED: usize = 12;

/// A choice of images.
#[derive(Debug)]
pub(crate) struct Index {
    offers: Vec<Offer>,
}

#[derive(Debug)]
struct Offer {
    media_type: String,
    digest: Option<String>,
    size: Option<i64>,
    platform: Option<RawPlatform>,
}

impl Index {
    pub(super) fn new(manifests: Vec<Exact<RawDescriptor>>) -> Self {
        let offer = |Exact(raw): Exact<RawDescriptor>| Offer {
            media_type: raw.media_type.unwrap_or_default(),
            digest: raw.digest,
            size: raw.size,
            platform: raw.platform.map(|platform| platform.0),
        };
        Self { offers: manifests.into_iter().map(offer).collect() }
    }

    /// What the index has for a node: a manifest, or another index (see [`INDEX_DEPTH`]). The best platform wins, then
    /// the first; what names no platform comes last, and its configuration decides (`FilterPlatforms` and
    /// `LimitManifests` in containerd's core/images/handlers.go). Attestations are for the platform unknown/unknown,
    /// which no node is.
    ///
    /// # Errors
    /// When there is nothing, or versions of containerd don't agree on what it is, or its digest or size can't be.
    pub(crate) fn choose(&self, platform: &Platform) -> Result<Descriptor, ManifestError> {
        let chosen = self.first(platform, Rules::New);
        if chosen != self.first(platform, Rules::Old) {
            return Err(ManifestError::DependsOnVersion { wanted: platform.to_string() });
        }
        let chosen = chosen.and_then(|at| self.offers.get(at)).ok_or_else(|| ManifestError::NoPlatform {
            wanted: platform.to_string(),
            offered: self.platforms(),
        })?;
        chosen.descriptor()
    }

    /// All that it names with a sha256 digest, in its order: what containerd's labels for garbage collection list.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = Descriptor> + '_ {
        self.offers.iter().filter_map(|offer| offer.descriptor().ok())
    }

    fn first(&self, platform: &Platform, rules: Rules) -> Option<usize> {
        let rank = |offer: &Offer| match &offer.platform {
            None => Some(usize::MAX),
            Some(offered) => platform.rank(offered, rules),
        };
        let ranked = self.offers.iter().enumerate().filter_map(|(at, offer)| Some((rank(offer)?, at)));
        ranked.min().map(|(_, at)| at)
    }

    /// For a message: each platform once.
    fn platforms(&self) -> String {
        let mut names: Vec<String> = Vec::new();
        for offered in self.offers.iter().filter_map(|offer| offer.platform.as_ref()).map(Platform::from) {
            if offered.os == "unknown" || offered.architecture == "unknown" {
                continue;
            }
            let name = quote(&offered.to_string());
            if !names.contains(&name) {
                if names.len() == NAMED {
                    names.push("more".to_owned());
                    break;
                }
                names.push(name);
            }
        }
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }
}

impl Offer {
    fn descriptor(&self) -> Result<Descriptor, ManifestError> {
        let what = "index";
        Ok(Descriptor {
            media_type: self.media_type.clone(),
            digest: wire::digest(what, self.digest.as_deref())?,
            size: wire::size(what, self.size)?,
        })
    }
}
