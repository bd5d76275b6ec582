//! What stands behind standard output: a terminal with a width and colours, or not.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

/// How output may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// A terminal's columns; `None` where nothing is to be cut.
    pub width: Option<usize>,
    /// A terminal's rows; `None` where it's no terminal, and nothing is redrawn.
    pub height: Option<usize>,
    /// Whether colours are wanted.
    pub colour: bool,
}

impl Look {
    /// What fits `stream`. Colours need a terminal that isn't `dumb` and no `NO_COLOR` (no-color.org: set, and
    /// not empty).
    pub fn of(stream: &(impl IsTerminal + AsFd)) -> Self {
        if !stream.is_terminal() {
            return Self::default();
        }
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let size =
            rustix::termios::tcgetwinsize(stream).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        Self {
            width: Some(size.map_or(80, |size| size.ws_col.into())),
            height: Some(size.map_or(24, |size| size.ws_row.into())),
            colour: !dumb && !set("NO_COLOR"),
        }
    }
}

/// What a text means, and so what colour it has on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Paint {
    #[default]
    Plain,
    Heading,
    Good,
    Busy,
    Waiting,
    Bad,
    Faint,
}

impl Paint {
    /// `text` in its colour (ECMA-48, SGR).
    pub(super) fn on(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Heading => "1",
            Self::Good => "32",
            Self::Busy => "36",
            Self::Waiting => "33",
            Self::Bad => "31",
            Self::Faint => "2",
            Self::Plain => return text.to_owned(),
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A reader that has seen enough (`| head`) isn't an error: `Ok(false)`.
///
/// # Errors
/// Any other failure to write.
pub fn unless_closed(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_neither_colours_nor_cuts() {
        assert_eq!(Look::of(&tempfile::tempfile().unwrap().as_fd()), Look::default());
        assert_eq!(Paint::Bad.on("x", false), "x");
        assert_eq!(Paint::Bad.on("x", true), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn only_a_closed_pipe_is_forgiven() {
        assert!(unless_closed(Ok(())).unwrap());
        assert!(!unless_closed(Err(io::ErrorKind::BrokenPipe.into())).unwrap());
        assert!(unless_closed(Err(io::ErrorKind::StorageFull.into())).is_err());
    }
}
