use std::io;

use rustix::io::Errno;

use super::UnpackError;

/// An [`UnpackError`] that doesn't know its entry yet.
#[derive(Debug)]
pub(super) enum Trouble {
    Malformed(String),
    OverLimit(String),
    Write(io::Error),
}

/// So much of a name is shown.
const SHOWN: usize = 200;

impl Trouble {
    pub(super) fn malformed(problem: impl Into<String>) -> Self {
        Self::Malformed(problem.into())
    }

    /// Says whose it is.
    pub(super) fn at(self, name: &[u8]) -> UnpackError {
        let entry = shown(name);
        match self {
            Self::Malformed(problem) => UnpackError::Malformed { entry, problem },
            Self::OverLimit(problem) => UnpackError::OverLimit { entry, problem },
            Self::Write(cause) => UnpackError::Write { entry, cause },
        }
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NAMETOOLONG => {
                Self::OverLimit("a name or a link is longer than the file system takes".to_owned())
            }
            errno => Self::Write(errno.into()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// A name for a message.
pub(super) fn shown(name: &[u8]) -> String {
    let cut = name.get(..SHOWN).unwrap_or(name);
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < name.len() {
        text.push('…');
    }
    text
}
