use std::fmt;

/// Why an image is left to containerd's own PullImage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unable {
    /// `--image-pull containerd` says so.
    Told,
    /// Images go to a snapshotter whose directories we don't know how to fill.
    Snapshotter(String),
    /// This containerd verifies images by plugins before it unpacks them; we must not go round them.
    Verifiers(String),
    /// containerd runs in a user namespace, where files have other owners.
    UserNamespace,
    /// Its registries are set up in its own configuration and not in hosts.toml files, so we can't tell them.
    LegacyRegistries,
    /// Neither it nor its configuration file tells where its registries are set up.
    RegistriesUnknown(String),
    /// A hosts.toml that we can't read, or can't make sense of. containerd may go on without it.
    Hosts(String),
    /// Our process can't write where containerd keeps its snapshots.
    NoAccess(String),
    /// The image has something that only containerd can handle.
    Unusual(String),
}

impl Unable {
    /// Every [`Self::code`].
    pub const CODES: [&'static str; 9] = [
        "PulledByContainerd",
        "OtherSnapshotter",
        "ImageVerifiers",
        "UserNamespace",
        "LegacyRegistries",
        "RegistriesUnknown",
        "HostsUnreadable",
        "NoSnapshotAccess",
        "UnusualImage",
    ];

    /// The word for it in an entry's reason: CamelCase, stable, low-cardinality.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Told => "PulledByContainerd",
            Self::Snapshotter(_) => "OtherSnapshotter",
            Self::Verifiers(_) => "ImageVerifiers",
            Self::UserNamespace => "UserNamespace",
            Self::LegacyRegistries => "LegacyRegistries",
            Self::RegistriesUnknown(_) => "RegistriesUnknown",
            Self::Hosts(_) => "HostsUnreadable",
            Self::NoAccess(_) => "NoSnapshotAccess",
            Self::Unusual(_) => "UnusualImage",
        }
    }
}

impl fmt::Display for Unable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("containerd pulls it, which is slower: ")?;
        match self {
            Self::Told => f.write_str("--image-pull says so"),
            Self::Snapshotter(name) => write!(f, "its snapshotter is {name}, not overlayfs"),
            Self::Verifiers(which) => write!(f, "it has image verifiers ({which}), which only it can ask"),
            Self::UserNamespace => f.write_str("it runs in a user namespace"),
            Self::LegacyRegistries => f.write_str(
                "its configuration names registries by `mirrors` and `configs`; move them to hosts.toml files \
                 (config_path), which are read from outside too",
            ),
            Self::RegistriesUnknown(problem) => write!(
                f,
                "it doesn't tell where its registries are set up, and its configuration file doesn't either ({problem})"
            ),
            Self::Hosts(problem) => write!(f, "which hosts serve it can't be told ({problem}); correct the file"),
            Self::NoAccess(problem) => write!(
                f,
                "its snapshots can't be written from here ({problem}); in a pod, mount containerd's root directory from \
                 the host at the same path, writable, with the capabilities of the shipped DaemonSet"
            ),
            Self::Unusual(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_code_of_its_own() {
        let text = String::new;
        let all = [
            Unable::Told,
            Unable::Snapshotter(text()),
            Unable::Verifiers(text()),
            Unable::UserNamespace,
            Unable::LegacyRegistries,
            Unable::RegistriesUnknown(text()),
            Unable::Hosts(text()),
            Unable::NoAccess(text()),
            Unable::Unusual(text()),
        ];
        assert_eq!(all.map(|unable| unable.code()), Unable::CODES);
    }
}
