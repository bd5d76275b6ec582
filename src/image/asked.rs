use super::ImageError;
use crate::source::SourceError;
use crate::types::{ErrorKind, ImageRef};

/// What is asked of a registry, and as whom, for errors to say what to do next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) reference: &'a ImageRef,
    /// The name that the entry gives its credentials.
    pub(super) credentials: Option<&'a str>,
    /// How many of them fit the image.
    pub(super) keys: usize,
}

impl Asked<'_> {
    /// The registry's failure as the image's.
    pub(super) fn failed(self, cause: SourceError) -> ImageError {
        let advice = self.advice(cause.kind());
        ImageError::Registry { image: self.reference.to_string(), advice, cause: Box::new(cause) }
    }

    /// What to do about a pull that failed.
    pub(super) fn advice(self, kind: ErrorKind) -> String {
        let host = self.reference.domain();
        match kind {
            ErrorKind::NotFound => "no such image; check the name, the tag and the registry".to_owned(),
            ErrorKind::Denied => match (self.credentials, self.keys) {
                (None, _) => {
                    format!(
                        "{host} denied it without credentials; name a mounted Secret for it under `credentials`"
                    )
                }
                (Some(name), 0) => format!(
                    "{host} denied it without credentials: {name:?} holds none that fit this image; add {host} to \
                     its auths"
                ),
                (Some(name), _) => {
                    format!(
                        "{host} denied it with the credentials {name:?}; check them and what they may read"
                    )
                }
            },
            ErrorKind::Throttled { .. } => {
                format!("{host} asks for fewer requests; it is tried again later")
            }
            ErrorKind::NoSpace => "the disk of containerd is full; free space or list less".to_owned(),
            ErrorKind::Unsupported => "this image can't be used on this node".to_owned(),
            ErrorKind::Invalid => {
                "what it answers can't be used; check the image and the registry".to_owned()
            }
            ErrorKind::Transient
            | ErrorKind::Changed
            | ErrorKind::Corrupt
            | ErrorKind::Cancelled
            | ErrorKind::Local => {
                format!(
                    "the pull failed; check that this node reaches {host} (containerd's hosts.toml, proxy, CA)"
                )
            }
        }
    }
}
