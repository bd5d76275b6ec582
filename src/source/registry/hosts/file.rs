use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::HostTable;

/// What a `hosts.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostsFile {
    /// The mirrors, as they are first mentioned.
    pub(super) mirrors: Vec<HostTable>,
    /// The registry itself: `server`, and the keys outside any table.
    pub(super) server: HostTable,
}

/// Text that isn't a `hosts.toml`: where, and what is wrong. It never holds a value from the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct MalformedHosts {
    /// Counted from one.
    pub line: usize,
    /// What is wrong there.
    pub problem: String,
}

/// What is wrong, and with which bytes of the text.
pub(super) struct Problem {
    pub(super) at: Range<usize>,
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new<T>(at: &Spanned<T>, text: impl Into<String>) -> Self {
        Self { at: at.span(), text: text.into() }
    }
}

impl HostsFile {
    /// Reads the text of a `hosts.toml`. Keys that are not known are left alone, as containerd does.
    ///
    /// # Errors
    /// When it isn't TOML, or a known key has a value of the wrong kind.
    pub fn parse(text: &str) -> Result<Self, MalformedHosts> {
        let malformed = |at: Range<usize>, problem: String| {
            let before = text.as_bytes().get(..at.start).unwrap_or(text.as_bytes());
            MalformedHosts { line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(), problem }
        };
        let root = DeTable::parse(text).map_err(|error| {
            malformed(error.span().unwrap_or_default(), format!("not TOML: {}", error.message()))
        })?;
        read(root.get_ref()).map_err(|problem| malformed(problem.at, problem.text))
    }
}

fn read(root: &DeTable<'_>) -> Result<HostsFile, Problem> {
    let server = match root.get("server") {
        None => None,
        Some(server) => match server.get_ref() {
            DeValue::String(text) if text.is_empty() => None,
            DeValue::String(text) => Some((text.as_ref(), server.span())),
            _ => return Err(Problem::new(server, "`server` must be text")),
        },
    };
    let server = HostTable::read(server, root)?;
    let mut mirrors = Vec::new();
    if let Some(hosts) = root.get("host") {
        let DeValue::Table(hosts) = hosts.get_ref() else {
            return Err(Problem::new(hosts, "`host` must be tables, each as [host.\"https://…\"]"));
        };
        for (name, table) in hosts {
            let DeValue::Table(table) = table.get_ref() else {
                return Err(Problem::new(table, "a host must be a table, as [host.\"https://…\"]"));
            };
            let read = HostTable::read(Some((name.get_ref().as_ref(), name.span())), table)?;
            mirrors.push((name.span().start, read));
        }
    }
    // The table is sorted by name, and the file's order is what counts.
    mirrors.sort_by_key(|(start, _)| *start);
    Ok(HostsFile { mirrors: mirrors.into_iter().map(|(_, table)| table).collect(), server })
}
