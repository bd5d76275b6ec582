use std::fmt;

use super::wire::{RawConfig, RawPlatform};

/// What machine an image is for, in the words of Go (OCI image spec, image-index.md).
///
/// Which image an index gives a node is containerd's to say, as it looks the choice up again by its own rules: they are
/// followed here to the letter (its package `platforms`: `Normalize`, `Only`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    /// Empty where the architecture has only one, or means the usual one: amd64 of level 1, arm64 of v8.
    pub(crate) variant: String,
}

/// Where versions of containerd differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Up to 1.7: features of the operating system aren't looked at.
    Old,
    /// An image that needs features that the node hasn't got isn't for it. A Linux node has none.
    New,
}

impl Platform {
    /// The one that containerd takes for this machine: it tells no levels of amd64, and calls every arm64 v8.
    pub(crate) fn of_this_node() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "x86" => "386",
            other => other,
        };
        Self::normalized(Rules::New, Some("linux"), Some(architecture), None)
    }

    /// One spelling for what has several.
    fn normalized(rules: Rules, os: Option<&str>, architecture: Option<&str>, variant: Option<&str>) -> Self {
        let lower = |text: Option<&str>| text.unwrap_or_default().to_lowercase();
        let os = match lower(os).as_str() {
            "" => "linux".to_owned(),
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = (lower(architecture), lower(variant));
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", level) => ("amd64", level),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64" | "arm64", "v8.0") if rules == Rules::New => ("arm64", ""),
            ("aarch64" | "arm64", version) => ("arm64", version),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// All that runs on this node, the best first.
    fn runs(&self) -> Vec<Self> {
        let also = |architecture: &str, variant: &str| Self {
            os: self.os.clone(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        };
        let mut all = vec![self.clone()];
        match self.architecture.as_str() {
            "amd64" => all.push(also("386", "")),
            "arm64" => all.extend(["v8", "v7", "v6", "v5"].map(|variant| also("arm", variant))),
            _ => {}
        }
        all
    }

    /// How good an image for `offered` is on this node: 0 is best, `None` is not at all.
    pub(super) fn rank(&self, offered: &RawPlatform, rules: Rules) -> Option<usize> {
        if rules == Rules::New && offered.os_features.count > 0 {
            return None;
        }
        let offered = Self::normalized(
            rules,
            offered.os.as_deref(),
            offered.architecture.as_deref(),
            offered.variant.as_deref(),
        );
        self.runs().iter().position(|runs| *runs == offered)
    }

    /// Whether an image for `offered` runs on this node.
    pub(super) fn takes(&self, offered: &Self) -> bool {
        self.runs().contains(offered)
    }
}

impl From<&RawConfig> for Platform {
    fn from(config: &RawConfig) -> Self {
        Self::normalized(
            Rules::New,
            config.os.as_deref(),
            config.architecture.as_deref(),
            config.variant.as_deref(),
        )
    }
}

impl From<&RawPlatform> for Platform {
    fn from(platform: &RawPlatform) -> Self {
        Self::normalized(
            Rules::New,
            platform.os.as_deref(),
            platform.architecture.as_deref(),
            platform.variant.as_deref(),
        )
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}
