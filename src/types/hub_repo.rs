use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A model's repository on a Hugging Face Hub: `org/name`, as the Hub allows them. In a cache of the Hub's layout it's
/// the directory `models--org--name`, and no other repository has that one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HubRepo(Arc<str>);

/// Text that isn't a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a repository of a Hub: {0:?} (write org/name)")]
pub struct InvalidHubRepo(String);

const PREFIX: &str = "models--";

impl HubRepo {
    /// `org/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its directory is called.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{PREFIX}{}", self.0.replace('/', "--"))
    }

    /// The repository whose directory is called so.
    #[must_use]
    pub fn of_folder(name: &str) -> Option<Self> {
        name.strip_prefix(PREFIX)?.replace("--", "/").parse().ok()
    }
}

impl FromStr for HubRepo {
    type Err = InvalidHubRepo;

    /// The rules are those of the Hub's own client (`validate_repo_id`), with both parts needed.
    fn from_str(text: &str) -> Result<Self, InvalidHubRepo> {
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(['.', '-'])
                && !name.ends_with(['.', '-'])
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                && !name.contains("--")
                && !name.contains("..")
        };
        let parts: Vec<&str> = text.split('/').collect();
        let valid = text.len() <= 96
            && parts.len() == 2
            && parts.iter().all(|part| is_name(part))
            && !text.ends_with(".git");
        if valid { Ok(Self(text.into())) } else { Err(InvalidHubRepo(text.chars().take(100).collect())) }
    }
}

impl TryFrom<String> for HubRepo {
    type Error = InvalidHubRepo;

    fn try_from(text: String) -> Result<Self, InvalidHubRepo> {
        text.parse()
    }
}

impl From<HubRepo> for String {
    fn from(repo: HubRepo) -> Self {
        repo.0.to_string()
    }
}

impl fmt::Display for HubRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_a_directory_of_its_own() {
        for text in ["meta-llama/Llama-3.1-70B-Instruct", "a/b", "A_b/c.d-e"] {
            let repo: HubRepo = text.parse().unwrap();
            assert_eq!(HubRepo::of_folder(&repo.folder()), Some(repo.clone()), "{text}");
            assert!(!repo.folder().contains('/'));
        }
        assert_eq!("org/name".parse::<HubRepo>().unwrap().folder(), "models--org--name");
        for name in ["", "models--", "models--a", "models--a--b--c", "datasets--a--b", "models--..--b"] {
            assert_eq!(HubRepo::of_folder(name), None, "{name}");
        }
    }

    #[test]
    fn what_the_hub_does_not_allow_is_no_repository() {
        let long = format!("a/{}", "b".repeat(95));
        for text in [
            "", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a--b/c", "a/-b", "a/b.", "a/b.git", "a/b c", &long,
        ] {
            assert!(text.parse::<HubRepo>().is_err(), "{text}");
        }
    }
}
