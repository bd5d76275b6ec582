use super::error::{ManifestError, quote};
use super::index::Index;
use super::limits;
use super::media_type::{Class, DOCKER_SCHEMA_1, LayerType, is_config};
use super::unusual::Unusual;
use super::wire::{self, Exact, RawDescriptor, RawDocument};
use crate::image::layer::Compression;
use crate::types::Descriptor;

/// What a reference points at.
#[derive(Debug)]
pub(crate) enum Document {
    /// Images for several platforms.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// One image.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// The lowest first. The same one may stand there twice.
    pub(crate) layers: Vec<Layer>,
    unusual: Option<Unusual>,
}

/// One layer, as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) descriptor: Descriptor,
    /// By its media type, and only where the manifest isn't [unusual](Manifest::unusual).
    pub(crate) compression: Compression,
}

/// Reads an index or a manifest.
///
/// The type is that of the descriptor. The document needn't name its own; but one of the other kind, or fields of both
/// kinds, are refused, as containerd does it (`validateMediaType` in its core/images/image.go).
///
/// # Errors
/// When it's none of the four types, or not what its type says, or over a limit.
pub(crate) fn parse(descriptor: &Descriptor, bytes: &[u8]) -> Result<Document, ManifestError> {
    let announced = descriptor.media_type.as_str();
    if DOCKER_SCHEMA_1.contains(&announced) {
        return Err(ManifestError::Schema1);
    }
    let unknown = |media_type: &str| ManifestError::UnknownType { media_type: quote(media_type) };
    let class = Class::of(announced).ok_or_else(|| unknown(announced))?;
    limits::check_size(class.name(), bytes.len() as u64, limits::DOCUMENT)?;
    let raw: RawDocument = wire::read(class.name(), bytes)?;
    if raw.fs_layers.is_given() || raw.schema_version == Some(1) {
        return Err(ManifestError::Schema1);
    }
    let own = match raw.media_type.as_deref() {
        None | Some("") => class,
        Some(own) => Class::of(own).ok_or_else(|| unknown(own))?,
    };
    let of_the_other = match class {
        Class::Manifest => raw.manifests.is_given(),
        Class::Index => raw.config.is_given() || raw.layers.is_given(),
    };
    if own != class || of_the_other {
        return Err(ManifestError::Ambiguous { announced: announced.to_owned() });
    }
    match class {
        Class::Manifest => manifest(raw).map(Document::Manifest),
        Class::Index => index(raw).map(Document::Index),
    }
}

fn index(raw: RawDocument) -> Result<Index, ManifestError> {
    let manifests = raw.manifests.0.unwrap_or_default();
    if manifests.count > limits::IMAGES {
        let problem = format!("it has {} images, and {} are the most", manifests.count, limits::IMAGES);
        return Err(ManifestError::Malformed { what: "index", problem });
    }
    Ok(Index::new(manifests.kept))
}

fn manifest(raw: RawDocument) -> Result<Manifest, ManifestError> {
    const WHAT: &str = "manifest";
    let Some(Some(Exact(config))) = raw.config.0 else {
        let problem = "it names no configuration".to_owned();
        return Err(ManifestError::Malformed { what: WHAT, problem });
    };
    let layers = raw.layers.0.unwrap_or_default();
    limits::check_layers(WHAT, layers.count)?;
    let unusual = unusual(&config, &layers.kept);
    let config = config.descriptor(WHAT)?;
    limits::check_size("configuration", config.size, limits::CONFIG)?;
    let layers: Vec<Layer> =
        layers.kept.into_iter().map(|Exact(raw)| raw.layer(WHAT)).collect::<Result<_, _>>()?;
    let bytes = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.descriptor.size));
    if bytes > limits::IMAGE {
        return Err(ManifestError::TooManyBytes { bytes, limit: limits::IMAGE });
    }
    Ok(Manifest { config, layers, unusual })
}

impl Manifest {
    /// What makes the image one for containerd itself, if anything.
    pub(crate) fn unusual(&self) -> Option<&Unusual> {
        self.unusual.as_ref()
    }
}

fn unusual(config: &RawDescriptor, layers: &[Exact<RawDescriptor>]) -> Option<Unusual> {
    let media_type = config.media_type.as_deref().unwrap_or_default();
    if !is_config(media_type) {
        return Some(Unusual::with(Unusual::UnknownConfigType, media_type));
    }
    if config.urls.count > 0 {
        return Some(Unusual::with(Unusual::Foreign, media_type));
    }
    layers.iter().find_map(|Exact(layer)| {
        let media_type = layer.media_type.as_deref().unwrap_or_default();
        let make = match LayerType::of(media_type) {
            LayerType::Encrypted => Unusual::Encrypted,
            LayerType::Unknown => Unusual::UnknownLayerType,
            LayerType::Foreign => Unusual::Foreign,
            // containerd goes to a layer's URLs first, whatever its type.
            _ if layer.urls.count > 0 => Unusual::Foreign,
            LayerType::Undeclared => Unusual::UndeclaredCompression,
            LayerType::Tar(_) => return None,
        };
        Some(Unusual::with(make, media_type))
    })
}

impl RawDescriptor {
    fn descriptor(self, what: &'static str) -> Result<Descriptor, ManifestError> {
        Ok(Descriptor {
            digest: wire::digest(what, self.digest.as_deref())?,
            size: wire::size(what, self.size)?,
            media_type: self.media_type.unwrap_or_default(),
        })
    }

    fn layer(self, what: &'static str) -> Result<Layer, ManifestError> {
        let descriptor = self.descriptor(what)?;
        let compression = match LayerType::of(&descriptor.media_type) {
            LayerType::Tar(compression) => compression,
            _ => Compression::Plain,
        };
        Ok(Layer { descriptor, compression })
    }
}
