use super::State;

/// What is done to one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Flips the lowest bit of the body's byte at this offset.
    FlipByte(u64),
    /// Closes the connection after so many bytes of the body.
    CutBody(u64),
    /// Closes the connection after the first half of the body.
    HalfBody,
    /// Resets the connection after at most so many bytes of the body: the client may lose some that were sent.
    Reset(u64),
    /// Sends the first so many bytes of the body at a pace of their own.
    SlowStart { bytes: u64, per_second: u64 },
    /// Sends so many bytes of the body, then nothing more until the stall is released.
    Stall(u64),
    /// Answers with this status instead of asking the server.
    Status { code: u16, retry_after: Option<u32> },
    /// Answers 401, with the challenge that the server itself gave last.
    Unauthorized,
    /// Sends the client to the same path at this base URL (another proxy's), signed: a number of its own is added to
    /// the query.
    Redirect(String),
    /// Answers 403, as an object store does when a signed URL has expired: for this one and every later request with
    /// the same path and query.
    Expired,
    /// Takes off `Range`: the server answers 200 with everything.
    IgnoreRange,
    /// Closes the connection without an answer.
    Close,
    /// Puts this in place of the answer's header of that name.
    Header(&'static str, String),
    /// Says in `Content-Range` that the bytes lie one further than they do.
    OtherRange,
    /// Says in `Content-Range` that the whole is one byte longer than it is.
    OtherTotal,
}

/// The name of what [`Fault::Redirect`] adds to a query.
pub(super) const SIGNATURE: &str = "X-Signature";

/// Which requests have a fault.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    method: &'static str,
    path: String,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// The first GET whose path (with its query) contains `path`.
    pub(crate) fn get(path: &str, fault: Fault) -> Self {
        Self::on("GET", path, fault)
    }

    /// The first request of this method whose path contains `path`.
    pub(crate) fn on(method: &'static str, path: &str, fault: Fault) -> Self {
        Self { method, path: path.to_owned(), skip: 0, times: 1, fault }
    }

    /// Not the first such request but the one after `skip` of them.
    pub(crate) fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// So many requests in a row.
    pub(crate) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Every one from there on.
    pub(crate) fn always(self) -> Self {
        self.times(usize::MAX)
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        self.method == method && path.contains(&self.path)
    }
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// `GET`, …
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// The value of `Range`.
    pub(crate) range: Option<String>,
    /// The value of `If-Match`.
    pub(crate) if_match: Option<String>,
    /// All that was sent with it.
    pub(crate) headers: Headers,
    /// What was answered; `None` before that, and where the connection was closed instead.
    pub(crate) status: Option<u16>,
    /// What was done to it.
    pub(crate) fault: Option<Fault>,
}

/// The headers of a request. They say little to somebody who reads why a test failed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(super) Vec<String>);

impl Headers {
    /// The value of the first header of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        value(&self.0, name)
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} headers", self.0.len())
    }
}

/// The value of the first of these lines that has this name.
pub(super) fn value<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Notes a request, and gives its number and its fault.
pub(super) fn note(state: &mut State, mut seen: Seen) -> (usize, Option<Fault>) {
    let ruled = take_fault(&mut state.rules, &seen.method, &seen.path);
    seen.fault = if state.expired.contains(&seen.path) {
        Some(Fault::Expired)
    } else {
        ruled.or_else(|| state.trouble.as_mut()?.draw(&seen))
    };
    if seen.fault == Some(Fault::Expired) {
        state.expired.insert(seen.path.clone());
    }
    let fault = seen.fault.clone();
    state.seen.push(seen);
    (state.seen.len() - 1, fault)
}

/// Every rule that matches counts the request; the first whose turn it is gives its fault.
fn take_fault(rules: &mut [Rule], method: &str, path: &str) -> Option<Fault> {
    for rule in rules.iter_mut().filter(|rule| rule.matches(method, path)) {
        if rule.skip > 0 {
            rule.skip -= 1;
        } else if rule.times > 0 {
            rule.times -= 1;
            return Some(rule.fault.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Fault, Rule, take_fault};

    #[test]
    fn a_rule_has_its_turn_and_is_then_used_up() {
        let mut rules = [Rule::get("model", Fault::Close).after(1).times(2)];
        let mut turns = || take_fault(&mut rules, "GET", "/model.bin").is_some();
        assert_eq!([turns(), turns(), turns(), turns()], [false, true, true, false]);
        assert_eq!(take_fault(&mut [Rule::get("model", Fault::Close)], "HEAD", "/model"), None);
        assert_eq!(take_fault(&mut [Rule::get("model", Fault::Close)], "GET", "/other"), None);
    }
}
