use std::fmt;

use crate::types::EntryId;

/// Where something stands in a document. Both count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column in that line.
    pub column: u32,
}

/// Whether a problem stops something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The entry, or the whole document, isn't taken over.
    Error,
    /// Something is ignored.
    Warning,
}

/// How an entry is named in a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryName {
    /// By its id.
    Id(EntryId),
    /// Its id can't be read: by its position in the list, from 1.
    Position(usize),
}

/// One thing that is wrong with a list, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it's known.
    pub place: Option<Place>,
    /// In which entry; `None` is the document itself.
    pub entry: Option<EntryName>,
    /// In which field; dots lead into nested ones (`nodes.fraction`).
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
    /// Whether it stops something.
    pub severity: Severity,
}

impl Problem {
    /// The problem on one line, for a status or a log: entry, field, message, fix, line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let subject = self.subject();
        let colon = if subject.is_empty() { "" } else { ": " };
        let place = self.place.map(|place| format!(" (line {})", place.line)).unwrap_or_default();
        format!("{subject}{colon}{}; {}{place}", self.message, self.fix)
    }

    /// The same without the entry's name, for where that is plain.
    #[must_use]
    pub fn sentence_in_entry(&self) -> String {
        Self { entry: None, ..self.clone() }.sentence()
    }

    /// Entry and field: `entry "vllm", field "priority"`; empty for the document itself.
    #[must_use]
    pub fn subject(&self) -> String {
        match (&self.entry, &self.field) {
            (Some(entry), Some(field)) => format!("entry {entry}, field {field:?}"),
            (Some(entry), None) => format!("entry {entry}"),
            (None, Some(field)) => format!("field {field:?}"),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "\"{id}\""),
            Self::Position(position) => write!(f, "#{position}"),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}
