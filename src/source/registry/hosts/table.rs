use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::Address;
use super::file::Problem;
use crate::types::parse_go_duration;

/// Headers that Go's HTTP client takes from elsewhere, so that containerd doesn't send what a file says of them.
const IGNORED_HEADERS: [&str; 4] = ["host", "content-length", "transfer-encoding", "trailer"];

/// What a `hosts.toml` says of one server. Paths are as they're written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostTable {
    /// Where it is. Only the registry itself may leave that open.
    pub(super) address: Option<Address>,
    pub(super) can_pull: bool,
    pub(super) can_resolve: bool,
    pub(super) ca: Vec<PathBuf>,
    pub(super) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(super) skip_verify: bool,
    pub(super) headers: HeaderMap,
    pub(super) dial_timeout: Option<Duration>,
}

impl Default for HostTable {
    fn default() -> Self {
        Self {
            address: None,
            can_pull: true,
            can_resolve: true,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: HeaderMap::new(),
            dial_timeout: None,
        }
    }
}

impl HostTable {
    /// Reads the keys of one server, whose address stands elsewhere.
    pub(super) fn read(address: Option<(&str, Range<usize>)>, table: &DeTable<'_>) -> Result<Self, Problem> {
        let override_path = flag(table, "override_path")?;
        let address = match address {
            None => None,
            Some((text, at)) => Some(Address::parse(text, override_path).ok_or_else(|| Problem {
                at,
                text: "not the address of a registry, as https://host:port/path".to_owned(),
            })?),
        };
        let (can_pull, can_resolve) = capabilities(table)?;
        Ok(Self {
            address,
            can_pull,
            can_resolve,
            ca: certificate_authorities(table)?,
            client: client_certificates(table)?,
            skip_verify: flag(table, "skip_verify")?,
            headers: headers(table)?,
            dial_timeout: dial_timeout(table)?,
        })
    }
}

fn flag(table: &DeTable<'_>, key: &str) -> Result<bool, Problem> {
    match table.get(key) {
        None => Ok(false),
        Some(value) => match value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(Problem::new(value, format!("`{key}` must be true or false"))),
        },
    }
}

/// Whether it can pull, and resolve. None named is all of them. Of a tag, containerd asks only who can do both.
fn capabilities(table: &DeTable<'_>) -> Result<(bool, bool), Problem> {
    let Some(value) = table.get("capabilities") else { return Ok((true, true)) };
    let DeValue::Array(names) = value.get_ref() else {
        return Err(Problem::new(value, "`capabilities` must be a list"));
    };
    if names.is_empty() {
        return Ok((true, true));
    }
    let (mut can_pull, mut can_resolve) = (false, false);
    for name in names {
        match name.get_ref().as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("pull") => can_pull = true,
            Some("resolve") => can_resolve = true,
            Some("push" | "referrers") => {}
            _ => {
                return Err(Problem::new(name, "`capabilities` may have pull, resolve, push and referrers"));
            }
        }
    }
    Ok((can_pull, can_pull && can_resolve))
}

/// One file, or a list of files.
fn certificate_authorities(table: &DeTable<'_>) -> Result<Vec<PathBuf>, Problem> {
    let Some(value) = table.get("ca") else { return Ok(Vec::new()) };
    let wrong = |at: &Spanned<DeValue<'_>>| Problem::new(at, "`ca` must be a path or a list of paths");
    match value.get_ref() {
        DeValue::String(path) => Ok(vec![path.as_ref().into()]),
        DeValue::Array(paths) => paths.iter().map(|path| path_of(path).ok_or_else(|| wrong(path))).collect(),
        _ => Err(wrong(value)),
    }
}

/// One file with a certificate and its key, or a list of such files and of pairs of files.
fn client_certificates(table: &DeTable<'_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, Problem> {
    let Some(value) = table.get("client") else { return Ok(Vec::new()) };
    let wrong = |at: &Spanned<DeValue<'_>>| {
        Problem::new(at, "`client` must be a path, or a list of paths and of pairs [certificate, key]")
    };
    let one = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::String(path) => Ok((path.as_ref().into(), None)),
        DeValue::Array(pair) => match &pair[..] {
            [certificate, key] => {
                let pair = path_of(certificate).zip(path_of(key));
                pair.map(|(certificate, key)| (certificate, Some(key))).ok_or_else(|| wrong(value))
            }
            _ => Err(wrong(value)),
        },
        _ => Err(wrong(value)),
    };
    match value.get_ref() {
        DeValue::String(_) => Ok(vec![one(value)?]),
        DeValue::Array(items) => items.iter().map(one).collect(),
        _ => Err(wrong(value)),
    }
}

fn path_of(value: &Spanned<DeValue<'_>>) -> Option<PathBuf> {
    value.get_ref().as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Names, each with a text or a list of texts.
fn headers(table: &DeTable<'_>) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    let Some(value) = table.get("header") else { return Ok(headers) };
    let DeValue::Table(lines) = value.get_ref() else {
        return Err(Problem::new(value, "`header` must be a table of names and values"));
    };
    for (key, value) in lines {
        let Ok(name) = key.get_ref().parse::<HeaderName>() else {
            return Err(Problem::new(key, "not the name of a header"));
        };
        if IGNORED_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let values = match value.get_ref() {
            DeValue::Array(values) => &values[..],
            _ => std::slice::from_ref(value),
        };
        for value in values {
            let text = value.get_ref().as_str();
            let Some(mut line) = text.and_then(|text| HeaderValue::from_str(text).ok()) else {
                return Err(Problem::new(
                    value,
                    format!("the header {name} must be text, or a list of texts, on one line each"),
                ));
            };
            // It may be a key of somebody's: with this no Debug shows it.
            line.set_sensitive(true);
            if headers.try_append(name.clone(), line).is_err() {
                return Err(Problem::new(value, "too many headers"));
            }
        }
    }
    Ok(headers)
}

/// Zero is no limit, as in Go.
fn dial_timeout(table: &DeTable<'_>) -> Result<Option<Duration>, Problem> {
    let Some(value) = table.get("dial_timeout") else { return Ok(None) };
    let text = value.get_ref().as_str();
    if text == Some("") {
        return Ok(None);
    }
    let nanoseconds =
        text.and_then(parse_go_duration).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
    let Some(nanoseconds) = nanoseconds else {
        return Err(Problem::new(value, "`dial_timeout` must be a duration, as \"30s\""));
    };
    Ok((nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds)))
}
