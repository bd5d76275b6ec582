use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeSeed, Error as _, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::{Deserialize, Deserializer};

use super::error::{ManifestError, quote};
use super::limits;
use crate::types::Digest;

/// Reads a document. Names must be spelled exactly and stand once: Go's JSON takes `Layers` for `layers` and the last of
/// two, and then containerd would see another image in the same bytes.
pub(super) fn read<T>(what: &'static str, bytes: &[u8]) -> Result<T, ManifestError>
where
    T: for<'de> Deserialize<'de> + Named,
{
    let read: Result<Exact<T>, _> = serde_json::from_slice(bytes);
    read.map(|exact| exact.0)
        .map_err(|error| ManifestError::Malformed { what, problem: quote(&error.to_string()) })
}

/// A digest as documents have it: `sha256:` and lower-case hex (OCI image spec, descriptor.md, "Digests").
pub(super) fn digest(what: &'static str, text: Option<&str>) -> Result<Digest, ManifestError> {
    let text = text.unwrap_or_default();
    let malformed = || ManifestError::Malformed { what, problem: format!("{:?} is no digest", quote(text)) };
    match text.split_once(':') {
        Some(("sha256", hex)) if !hex.bytes().any(|b| b.is_ascii_uppercase()) => {
            text.parse().map_err(|_| malformed())
        }
        Some(("sha384" | "sha512" | "blake3", _)) => {
            Err(ManifestError::OtherDigest { what, digest: quote(text) })
        }
        _ => Err(malformed()),
    }
}

/// A size as documents have it. One that isn't there is 0, as in Go.
pub(super) fn size(what: &'static str, size: Option<i64>) -> Result<u64, ManifestError> {
    u64::try_from(size.unwrap_or(0))
        .map_err(|_| ManifestError::Malformed { what, problem: "a size is negative".to_owned() })
}

/// The fields of both kinds of documents in one, so that what is both can be told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawDocument {
    pub(super) schema_version: Option<i64>,
    pub(super) media_type: Option<String>,
    pub(super) config: Given<Option<Exact<RawDescriptor>>>,
    pub(super) layers: Given<List<Exact<RawDescriptor>, { limits::LAYERS }>>,
    pub(super) manifests: Given<List<Exact<RawDescriptor>, { limits::IMAGES }>>,
    pub(super) fs_layers: Given<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    pub(super) media_type: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) size: Option<i64>,
    pub(super) urls: List<IgnoredAny, 0>,
    pub(super) platform: Option<Exact<RawPlatform>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPlatform {
    pub(super) os: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) variant: Option<String>,
    #[serde(rename = "os.features")]
    pub(super) os_features: List<IgnoredAny, 0>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawConfig {
    pub(super) os: Option<String>,
    pub(super) architecture: Option<String>,
    pub(super) variant: Option<String>,
    pub(super) rootfs: Option<Exact<RawRootFs>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawRootFs {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) diff_ids: List<String, { limits::LAYERS }>,
}

/// An object of which some names are read.
pub(super) trait Named {
    /// Those names. No other may look like one of them.
    const NAMES: &'static [&'static str];
}

impl Named for RawDocument {
    const NAMES: &'static [&'static str] =
        &["schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers"];
}

impl Named for RawDescriptor {
    const NAMES: &'static [&'static str] = &["mediaType", "digest", "size", "urls", "platform"];
}

impl Named for RawPlatform {
    const NAMES: &'static [&'static str] = &["os", "architecture", "variant", "os.features"];
}

impl Named for RawConfig {
    const NAMES: &'static [&'static str] = &["os", "architecture", "variant", "rootfs"];
}

impl Named for RawRootFs {
    const NAMES: &'static [&'static str] = &["type", "diff_ids"];
}

/// An object whose names are spelled exactly. (serde itself refuses a name that it reads twice.)
#[derive(Debug, Default)]
pub(super) struct Exact<T>(pub(super) T);

impl<'de, T: Deserialize<'de> + Named> Deserialize<'de> for Exact<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Named> Visitor<'de> for Object<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(ExactNames { map, names: T::NAMES }))
            }
        }
        deserializer.deserialize_map(Object(PhantomData)).map(Self)
    }
}

/// Passes an object on, and ends at a name that only looks like one that is read.
struct ExactNames<A> {
    map: A,
    names: &'static [&'static str],
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ExactNames<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.map.next_key::<String>()? else { return Ok(None) };
        if !self.names.contains(&name.as_str()) && self.names.iter().any(|read| looks_like(&name, read)) {
            return Err(A::Error::custom(format_args!("the name {:?} is misspelled", quote(&name))));
        }
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Whether Go's JSON could take one for the other: it folds case as Unicode does, where ſ is an s and the Kelvin sign a k.
fn looks_like(name: &str, read: &str) -> bool {
    let folded = |text: &str| -> String {
        text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
    };
    // No fold makes a character more than four bytes longer or shorter.
    name.len() <= read.len() * 4 && folded(name) == folded(read)
}

/// Whether a name stands in the object at all, and with what; null counts, as in containerd's check for ambiguity.
#[derive(Debug)]
pub(super) struct Given<T>(pub(super) Option<T>);

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Given<T> {
    pub(super) fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

/// A list, or null, as Go writes an empty one. What exceeds `KEPT` is counted and dropped, so that a document's
/// meaning takes no more memory than a real one's.
#[derive(Debug)]
pub(super) struct List<T, const KEPT: usize> {
    pub(super) kept: Vec<T>,
    pub(super) count: usize,
}

impl<T, const KEPT: usize> Default for List<T, KEPT> {
    fn default() -> Self {
        Self { kept: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>, const KEPT: usize> Deserialize<'de> for List<T, KEPT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const KEPT: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const KEPT: usize> Visitor<'de> for Items<T, KEPT> {
            type Value = List<T, KEPT>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(List::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = List::default();
                while list.kept.len() < KEPT {
                    let Some(item) = items.next_element()? else { break };
                    list.kept.push(item);
                }
                list.count = list.kept.len();
                while items.next_element::<IgnoredAny>()?.is_some() {
                    list.count += 1;
                }
                Ok(list)
            }
        }
        deserializer.deserialize_any(Items(PhantomData))
    }
}
