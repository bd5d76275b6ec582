use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::{Code, Status};

use super::scrub::scrub;
use crate::rt;
use crate::types::ErrorKind;

/// Why containerd didn't do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ContainerdError {
    #[error(
        "cannot reach containerd at {} ({cause}); check that it runs and that --containerd-address names its socket",
        address.display()
    )]
    Unreachable { address: PathBuf, cause: String },
    #[error("containerd at {} did not {what} within {} s; check its log and its disk", address.display(), after.as_secs())]
    Late { address: PathBuf, what: String, after: Duration },
    #[error(
        "containerd at {} cannot {what}: it does not serve that; take \"cri\" off disabled_plugins in its \
         configuration",
        address.display()
    )]
    NotServed { address: PathBuf, what: String },
    #[error("containerd could not {what}: {message}")]
    Call { what: String, code: Code, message: String },
    #[error("containerd says: {message}")]
    Pull { message: String, kind: ErrorKind },
    #[error("containerd's answer to \"{what}\" can't be used: {problem}")]
    Answer { what: String, problem: String },
    #[error("containerd could not {what}: somebody is writing the same blob just now; it is tried again")]
    Locked { what: String },
}

impl ContainerdError {
    /// What `status` means for the call that is described by `what`.
    pub(super) fn of(address: &Path, what: &str, status: &Status) -> Self {
        let (address, what) = (address.to_path_buf(), what.to_owned());
        // A status with a source was made here, from a broken connection; those of the daemon have none.
        if let Some(cause) = std::error::Error::source(status) {
            return Self::Unreachable { address, cause: rt::chain(cause) };
        }
        match status.code() {
            Code::Unimplemented => Self::NotServed { address, what },
            code => Self::Call { what, code, message: scrub(status.message()) },
        }
    }

    /// The same error, if it came from a write to the content store: a blob under that reference that somebody holds open
    /// is reported as Unavailable, as is a daemon that is shutting down (containerd, `content/local/locks.go`).
    pub(super) fn of_write(self) -> Self {
        match self {
            Self::Call { what, code: Code::Unavailable, message } if message.contains(" locked for ") => {
                Self::Locked { what }
            }
            other => other,
        }
    }

    /// The same error, if it came from a pull: CRI hands the registry's answer on as text.
    pub(super) fn of_pull(self) -> Self {
        match self {
            Self::Call { code, message, .. } => Self::Pull {
                kind: kind_of_pull(code, &message),
                message: without_preamble(&message).to_owned(),
            },
            other => other,
        }
    }

    /// The name of the half-written blob whose bytes turned out wrong, if that is why a pull failed. containerd leaves
    /// it lying there complete, and every further pull fails on it without asking the registry, until its garbage
    /// collection or [`Containerd::abort_ingest`](super::Containerd::abort_ingest) takes it away.
    #[must_use]
    pub fn spoiled_ingest(&self) -> Option<&str> {
        let Self::Pull { message, .. } = self else { return None };
        let (_, rest) = message.split_once("failed commit on ref \"")?;
        let (name, problem) = rest.split_once("\": ")?;
        problem.starts_with("unexpected commit ").then_some(name)
    }

    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } => ErrorKind::Local,
            Self::NotServed { .. } => ErrorKind::Unsupported,
            Self::Call { code, message, .. } => kind_of_call(*code, message),
            Self::Pull { kind, .. } => *kind,
            Self::Answer { .. } => ErrorKind::Invalid,
            Self::Locked { .. } => ErrorKind::Transient,
        }
    }

    /// Whether it is the daemon that is away, not ready or drowning, so that nothing is known about any image just now.
    /// Other failures are about the one thing that was asked for.
    #[must_use]
    pub fn is_daemon_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::NotServed { .. } => true,
            Self::Call { code, message, .. } => {
                let away =
                    [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::ResourceExhausted];
                away.contains(code) || message.contains(STARTING)
            }
            Self::Pull { kind, .. } => *kind == ErrorKind::Local,
            Self::Answer { .. } | Self::Locked { .. } => false,
        }
    }

    /// The reason's word for machines, where what containerd was asked for isn't a pull.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self.kind() {
            _ if self.is_daemon_away() => "ContainerdUnavailable",
            ErrorKind::NoSpace => "NoSpace",
            _ => "ContainerdError",
        }
    }

    /// Whether what was to be made is there already: made by somebody else, or by an earlier try.
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        matches!(self, Self::Call { code: Code::AlreadyExists, .. })
    }

    /// Whether what the call was about isn't there, be it the thing itself, the one below it or the lease.
    #[must_use]
    pub fn is_not_there(&self) -> bool {
        matches!(self, Self::Call { code: Code::NotFound, .. })
    }
}

/// `message` without the frames that only repeat which image it is about.
fn without_preamble(message: &str) -> &str {
    let mut rest = message;
    for frame in ["failed to pull and unpack image \"", "failed to resolve reference \""] {
        rest =
            rest.strip_prefix(frame).and_then(|rest| rest.split_once("\": ")).map_or(rest, |(_, rest)| rest);
    }
    rest.strip_prefix("failed to resolve image: ").unwrap_or(rest)
}

/// 1.7 says it without a code of its own; later versions say Unavailable (`internal/cri/instrument`).
const STARTING: &str = "server is not initialized";

fn kind_of_call(code: Code, message: &str) -> ErrorKind {
    if message.contains(STARTING) {
        return ErrorKind::Local;
    }
    if says_no_space(&message.to_ascii_lowercase()) {
        return ErrorKind::NoSpace;
    }
    match code {
        Code::NotFound => ErrorKind::NotFound,
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Internal
        | Code::Unknown
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::DataLoss
        | Code::Ok => ErrorKind::Local,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition | Code::OutOfRange => {
            ErrorKind::Invalid
        }
    }
}

/// What Go says of ENOSPC and EDQUOT: containerd has no code for them, also where its own database can't be written.
fn says_no_space(message: &str) -> bool {
    ["no space left on device", "disk quota exceeded"].iter().any(|words| message.contains(words))
}

/// CRI reports most failures of a pull as Unknown with the registry's words inside, different in each version, so the
/// words are looked at. What isn't recognised is Transient: trying again later is harmless, giving up is not.
fn kind_of_pull(code: Code, message: &str) -> ErrorKind {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[STARTING]) {
        return ErrorKind::Local;
    }
    if says_no_space(&message) {
        return ErrorKind::NoSpace;
    }
    match http_status(&message) {
        Some(429) => return ErrorKind::Throttled { retry_after: None },
        Some(401 | 403) => return ErrorKind::Denied,
        Some(404) => return ErrorKind::NotFound,
        Some(500..=599) => return ErrorKind::Transient,
        _ => {}
    }
    if says(&["too many requests", "toomanyrequests"]) {
        ErrorKind::Throttled { retry_after: None }
    } else if says(&["connection refused", "i/o timeout", "no such host", "connection reset"]) {
        // Before the words about authorization: those also frame a token server that can't be reached.
        ErrorKind::Transient
    } else if says(&[
        "pull access denied",
        "insufficient_scope",
        "authorization failed",
        "no basic auth credentials",
        "image verifier",
    ]) {
        ErrorKind::Denied
    } else if says(&["no match for platform", "schema 1 image", "unsupported manifest media type"]) {
        ErrorKind::Unsupported
    } else if code == Code::NotFound || says(&["manifest unknown", "name unknown"]) {
        ErrorKind::NotFound
    } else if says(&["failed to parse image reference", "invalid reference format"]) {
        ErrorKind::Invalid
    } else {
        ErrorKind::Transient
    }
}

/// The status that a registry or its token server answered: the number in `unexpected status … <URL>: 403 Forbidden`.
fn http_status(message: &str) -> Option<u16> {
    let (_, rest) = message.rsplit_once("unexpected status")?;
    rest.split(": ").find_map(|part| {
        let number = part.split_whitespace().next()?;
        (number.len() == 3).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_failed_pull_tell_what_to_do() {
        let throttled = ErrorKind::Throttled { retry_after: None };
        for (code, message, kind) in [
            (
                Code::NotFound,
                "failed to pull and unpack image \"h/a:1\": failed to resolve image: h/a:1: not found",
                ErrorKind::NotFound,
            ),
            (
                Code::NotFound,
                "failed to pull and unpack image \"h/a:1\": no match for platform in manifest: not found",
                ErrorKind::Unsupported,
            ),
            (Code::Unknown, "pull access denied, repository does not exist", ErrorKind::Denied),
            (
                Code::Unknown,
                "unexpected status from HEAD request to https://h: 403 Forbidden",
                ErrorKind::Denied,
            ),
            (
                Code::Unknown,
                "failed to authorize: failed to fetch anonymous token: Get \"https://h\": connection refused",
                ErrorKind::Transient,
            ),
            (
                Code::Unknown,
                "failed to authorize: failed to fetch oauth token: unexpected status from POST request to https://h: 401",
                ErrorKind::Denied,
            ),
            (
                Code::Unknown,
                "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to \
                 https://h:4034/t?…: 503 Service Unavailable",
                ErrorKind::Transient,
            ),
            (Code::Unknown, "unexpected status code https://h/v2: 429 Too Many Requests", throttled),
            (Code::Unknown, "toomanyrequests: You have reached your pull rate limit", throttled),
            (Code::Unknown, "write /x: no space left on device", ErrorKind::NoSpace),
            (Code::Unknown, "unexpected status: 503 Service Unavailable", ErrorKind::Transient),
            (Code::Cancelled, "context canceled", ErrorKind::Transient),
            (Code::Unknown, "server is not initialized yet", ErrorKind::Local),
            (Code::FailedPrecondition, "unexpected commit digest", ErrorKind::Transient),
        ] {
            assert_eq!(kind_of_pull(code, message), kind, "{message}");
        }
    }

    #[test]
    fn what_only_repeats_the_name_is_left_out() {
        for message in [
            "failed to pull and unpack image \"h/a:1\": failed to resolve reference \"h/a:1\": gone: not found",
            "failed to pull and unpack image \"h/a:1\": failed to resolve image: gone: not found",
            "gone: not found",
        ] {
            assert_eq!(without_preamble(message), "gone: not found");
        }
    }

    #[test]
    fn a_blob_that_came_wrong_is_named() {
        let ingest = |message: &str| {
            let error = ContainerdError::Pull { message: message.to_owned(), kind: ErrorKind::Transient };
            error.spoiled_ingest().map(str::to_owned)
        };
        for problem in
            ["unexpected commit digest sha256:1, expected sha256:2", "unexpected commit size 1, expected 2"]
        {
            let message = format!(
                "failed to x: failed commit on ref \"layer-sha256:2\": {problem}: failed precondition"
            );
            assert_eq!(ingest(&message).as_deref(), Some("layer-sha256:2"));
        }
        assert_eq!(ingest("failed commit on ref \"layer-sha256:2\": no space left on device"), None);
        assert_eq!(ingest("not found"), None);
    }

    #[test]
    fn a_disk_that_is_full_is_told_whatever_containerd_was_at() {
        let call = |message: &str| ContainerdError::Call {
            what: "commit the snapshot x".to_owned(),
            code: Code::Unknown,
            message: message.to_owned(),
        };
        let full =
            call("write /var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db: no space left on device");
        assert_eq!((full.kind(), full.is_daemon_away()), (ErrorKind::NoSpace, false));
        assert_eq!(call("mkdir x: disk quota exceeded").kind(), ErrorKind::NoSpace);
        assert_eq!(call("write x: input/output error").kind(), ErrorKind::Local);
    }

    #[test]
    fn a_daemon_that_starts_up_is_away_and_a_bad_answer_is_not() {
        let call = |code, message: &str| ContainerdError::Call {
            what: String::new(),
            code,
            message: message.to_owned(),
        };
        assert!(call(Code::Unknown, "server is not initialized yet").is_daemon_away());
        assert!(call(Code::Unavailable, "x").is_daemon_away());
        assert!(!call(Code::Unknown, "input/output error").is_daemon_away());
        assert!(!call(Code::NotFound, "x").is_daemon_away());
        assert!(!call(Code::InvalidArgument, "x").is_daemon_away());
    }
}
