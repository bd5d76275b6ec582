//! Buckets whose readers pay ("Using Requester Pays general purpose buckets" in S3's user guide): every request must say
//! so, or is refused.

use aws_sdk_s3::types::RequestPayer;

use crate::source::SourceError;
use crate::source::credentials::Credentials;

/// The file of a Secret, or the variable of the environment, that says so.
const SAID_BY: &str = "AWS_REQUEST_PAYER";

/// Whether whoever asks pays. It's a word about their own money, so it counts only beside their keys: in the Secret
/// where one is named, else in the environment.
pub(super) fn of(credentials: Option<&Credentials>) -> Result<Option<RequestPayer>, SourceError> {
    match credentials {
        Some(named) => read(named.get(SAID_BY)).map_err(|problem| named.failed(&problem)),
        None => read(std::env::var(SAID_BY).ok().as_deref())
            .map_err(|problem| SourceError::Credentials { name: "of the environment".to_owned(), problem }),
    }
}

fn read(said: Option<&str>) -> Result<Option<RequestPayer>, String> {
    match said.map(|word| word.trim().to_ascii_lowercase()).as_deref() {
        None | Some("" | "false") => Ok(None),
        Some("requester" | "true") => Ok(Some(RequestPayer::Requester)),
        Some(_) => Err(format!("its {SAID_BY} says neither requester nor nothing; correct or remove it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_says_so_pays() {
        for said in [None, Some(""), Some("false")] {
            assert_eq!(read(said), Ok(None), "{said:?}");
        }
        for said in ["requester", "true", " Requester\n"] {
            assert_eq!(read(Some(said)), Ok(Some(RequestPayer::Requester)), "{said}");
        }
        assert!(read(Some("owner")).unwrap_err().contains("AWS_REQUEST_PAYER"));
    }
}
