//! Which artifact of an index is meant. Pure.

use super::layer::RawDescriptor;
use super::quote::quote;
use crate::source::index::MOST_FILES;
use crate::types::Descriptor;

/// What a ModelPack's manifest is called (model-spec, `specs-go/v1/mediatype.go`).
const MODEL_PACK: &str = "application/vnd.cncf.model.manifest.v1+json";

/// The most manifests that a message names.
const NAMED: usize = 6;

/// Several artifacts under one name.
#[derive(Debug)]
pub(super) struct Index {
    offers: Vec<Offer>,
}

#[derive(Debug)]
struct Offer {
    descriptor: Descriptor,
    is_model: bool,
    /// For people.
    kind: String,
}

impl Index {
    /// What it offers; attestations are none that anybody asks for.
    pub(super) fn new(manifests: Vec<RawDescriptor>) -> Result<Self, String> {
        if manifests.len() > MOST_FILES {
            return Err(format!("its index has more than {MOST_FILES} manifests"));
        }
        let wanted = manifests.iter().filter(|raw| !is_attestation(raw));
        let offers = wanted.map(Offer::new).collect::<Result<_, _>>()?;
        Ok(Self { offers })
    }

    /// The only manifest; of several the only ModelPack. `name` is the reference, for the message. A node's platform
    /// means nothing for weights, so nothing is chosen by it.
    ///
    /// # Errors
    /// When there is none, or nobody can say which of several is meant.
    pub(super) fn choose(&self, name: &str) -> Result<Descriptor, String> {
        let models: Vec<&Offer> = self.offers.iter().filter(|offer| offer.is_model).collect();
        match (self.offers.as_slice(), models.as_slice()) {
            ([], _) => Err("its index names no manifest; push the artifact again".to_owned()),
            ([only], _) => Ok(only.descriptor.clone()),
            (_, [model]) => Ok(model.descriptor.clone()),
            (all, _) => {
                let mut named: Vec<String> = all
                    .iter()
                    .take(NAMED)
                    .map(|offer| format!("{} ({})", offer.descriptor.digest, offer.kind))
                    .collect();
                if all.len() > NAMED {
                    named.push("more".to_owned());
                }
                Err(format!(
                    "it is an index of {} manifests: {}; name one of them by its digest, as oci://{name}@sha256:…",
                    all.len(),
                    named.join(", ")
                ))
            }
        }
    }
}

impl Offer {
    fn new(raw: &RawDescriptor) -> Result<Self, String> {
        let kind = match (&raw.artifact_type, &raw.platform) {
            (Some(kind), _) => kind.clone(),
            (None, Some(platform)) => format!("{}/{}", platform.os, platform.architecture),
            (None, None) => raw.media_type.clone(),
        };
        Ok(Self {
            descriptor: raw.descriptor()?,
            is_model: raw.artifact_type.as_deref() == Some(MODEL_PACK),
            kind: quote(&kind),
        })
    }
}

/// What buildkit adds about an image: by its annotation, and for a platform that doesn't exist.
fn is_attestation(raw: &RawDescriptor) -> bool {
    let says_so = raw.annotations.as_ref().is_some_and(|it| it.reference_type.is_some());
    says_so || raw.platform.as_ref().is_some_and(|it| it.os == "unknown" && it.architecture == "unknown")
}
