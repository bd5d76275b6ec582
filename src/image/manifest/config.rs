use super::document::Manifest;
use super::error::{ManifestError, quote};
use super::limits;
use super::platform::Platform;
use super::wire::{self, Exact, RawConfig};
use crate::types::Digest;

const WHAT: &str = "configuration";

/// What is needed of an image's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// The digests of the inflated layers, the lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// The machine that the image is for.
    pub(crate) platform: Platform,
}

/// Reads a configuration, of Docker's or the OCI's kind.
///
/// # Errors
/// When it's too large, isn't one, or names layers in a way that isn't supported.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<Config, ManifestError> {
    limits::check_size(WHAT, bytes.len() as u64, limits::CONFIG)?;
    let raw: RawConfig = wire::read(WHAT, bytes)?;
    let platform = Platform::from(&raw);
    let Exact(rootfs) = raw.rootfs.unwrap_or_default();
    match rootfs.kind.as_deref() {
        None | Some("" | "layers") => {}
        Some(other) => return Err(ManifestError::OtherRootFs { found: quote(other) }),
    }
    let layers = rootfs.diff_ids;
    limits::check_layers(WHAT, layers.count)?;
    let diff_ids = layers.kept.iter().map(|text| wire::digest(WHAT, Some(text))).collect::<Result<_, _>>()?;
    Ok(Config { diff_ids, platform })
}

impl Config {
    /// Whether it belongs to this manifest, and the image to this node. containerd checks both again when it unpacks.
    ///
    /// # Errors
    /// When it doesn't.
    pub(crate) fn fits(&self, manifest: &Manifest, node: &Platform) -> Result<(), ManifestError> {
        if manifest.layers.len() != self.diff_ids.len() {
            return Err(ManifestError::LayerCount {
                layers: manifest.layers.len(),
                diff_ids: self.diff_ids.len(),
            });
        }
        if node.takes(&self.platform) {
            Ok(())
        } else {
            Err(ManifestError::OtherPlatform {
                wanted: node.to_string(),
                found: quote(&self.platform.to_string()),
            })
        }
    }
}
