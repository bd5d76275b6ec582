use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use super::rule::value;

/// The first line and the headers of a request or an answer.
pub(super) struct Head {
    pub(super) first: String,
    headers: Vec<String>,
}

impl Head {
    /// Reads one; `None` at the connection's end.
    pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let first = lines.remove(0);
        Ok(Some(Self { first, headers: lines }))
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }

    /// All of them, a line each.
    pub(super) fn headers(&self) -> &[String] {
        &self.headers
    }

    /// How long a request's body is.
    pub(super) fn length(&self) -> u64 {
        self.value("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub(super) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Its bytes, without some headers and with more lines.
    pub(super) fn with(&self, without: &[&str], more: &str) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for line in &self.headers {
            let name = line.split(':').next().unwrap_or_default();
            if !without.iter().any(|unwanted| name.eq_ignore_ascii_case(unwanted)) {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        text.push_str(more);
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }
}
