//! `hf://`: a commit of a model's repository on the Hugging Face Hub, or on a mirror of it.
//!
//! The revision is resolved once, and everything after that is asked of the commit. Large files come with the SHA-256
//! that their pointer in git holds, small ones with git's own name for their bytes. The token goes to the Hub and
//! nowhere else: what a redirect leads to on another host is asked without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response};
use serde::Deserialize;
use url::Url;

use self::blob::Blob;
use self::refusal::{Asked, refusal};
use self::tree::{LONGEST_PAGE, Tree};
use super::credentials::Credentials;
use super::patience::patiently;
use super::selection::Selection;
use super::{Listing, RemoteFile, SourceConfig, SourceError, answer, client, ranged, redirects};
use crate::types::{ByteRange, GitOid, HubRepo, Published, RelPath};

mod blob;
mod commit;
mod endpoint;
mod refusal;
#[cfg(test)]
mod tests;
mod tree;

pub use commit::{HubCommit, HubFile};
pub use endpoint::{HubEndpoint, InvalidHubEndpoint};
pub(crate) use tree::hub_tree_page;

/// The name of a token, in a Secret and in the environment.
const TOKEN: &str = "HF_TOKEN";

/// Bytes that the description of a revision may have; it names all files of the repository.
const LONGEST_DESCRIPTION: usize = 32 << 20;

/// A Hub.
#[derive(Debug, Clone)]
pub(super) struct Hub {
    client: Client,
    endpoint: HubEndpoint,
    first_byte: Duration,
    stall: Duration,
}

/// One repository at one revision, asked with one token.
#[derive(Debug)]
pub(super) struct Repository {
    hub: Hub,
    repo: HubRepo,
    revision: RelPath,
    token: Option<HeaderValue>,
    /// Where its pages for people are, and for people what it is.
    page: String,
    shown: String,
    origin: String,
}

#[derive(Deserialize)]
struct Description {
    sha: GitOid,
}

impl Hub {
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let endpoint = match &config.hub {
            Some(endpoint) => endpoint.clone(),
            None => HubEndpoint::OFFICIAL.parse().map_err(|error: InvalidHubEndpoint| {
                SourceError::Invalid { what: HubEndpoint::OFFICIAL.to_owned(), problem: error.to_string() }
            })?,
        };
        let client = client::builder(config)?
            .redirect(redirects::policy(endpoint.is_plain()))
            .build()
            .map_err(client::no_trust)?;
        Ok(Self { client, endpoint, first_byte: config.first_byte, stall: config.stall })
    }

    /// The repository as somebody with these credentials sees it; without any, with the environment's token, if
    /// there is one.
    pub(super) fn repository(
        &self,
        repo: &HubRepo,
        revision: &RelPath,
        credentials: Option<&Credentials>,
    ) -> Result<Repository, SourceError> {
        let token = match credentials {
            Some(credentials) => Some(
                bearer(credentials.need(TOKEN)?)
                    .ok_or_else(|| credentials.failed("its HF_TOKEN holds characters that no header can"))?,
            ),
            None => {
                std::env::var(TOKEN).ok().filter(|token| !token.is_empty()).and_then(|token| bearer(&token))
            }
        };
        Ok(Repository {
            repo: repo.clone(),
            revision: revision.clone(),
            token,
            page: format!("{}/{repo}", self.endpoint),
            shown: format!("hf://{repo}@{revision}"),
            origin: client::origin(&self.endpoint.below([])),
            hub: self.clone(),
        })
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl Repository {
    /// The files that `selection` wants, at the commit that the revision means now.
    pub(super) async fn files(self, selection: &Selection<'_>) -> Result<Listing, SourceError> {
        let commit = self.commit().await?;
        let tree = self.tree(commit).await?;
        selection.check_names(tree.keys())?;
        let (repo, revision) = (self.repo.clone(), self.revision.clone());
        let repository = Arc::new(self);
        let wanted = tree.iter().filter(|(path, _)| selection.wants(path));
        let files = wanted.map(|(path, file)| remote(&repository, commit, path, file)).collect();
        Ok(Listing { files, commit: Some(Arc::new(HubCommit { repo, revision, commit, tree })) })
    }

    /// The commit that the revision means: asked for once, and kept to.
    async fn commit(&self) -> Result<GitOid, SourceError> {
        if let Ok(commit) = self.revision.as_str().parse() {
            return Ok(commit);
        }
        let url = self.api(["revision", self.revision.as_str()]);
        let (description, _) = self.document(&url, LONGEST_DESCRIPTION).await?;
        let description: Description = serde_json::from_slice(&description)
            .map_err(|_| self.invalid("the Hub's answer tells no commit"))?;
        Ok(description.sha)
    }

    /// All files of a commit.
    async fn tree(&self, commit: GitOid) -> Result<BTreeMap<RelPath, HubFile>, SourceError> {
        let mut first = self.api(["tree", &commit.hex()]);
        first.set_query(Some("recursive=true&expand=false"));
        let (mut tree, mut next) = (Tree::default(), Some(first.clone()));
        while let Some(url) = next {
            let (page, headers) = self.document(&url, LONGEST_PAGE).await?;
            tree.add(&page).map_err(|problem| self.invalid(problem))?;
            next = tree.next(&first, &headers).map_err(|problem| self.invalid(problem))?;
        }
        Ok(tree.files())
    }

    fn api<'a>(&self, rest: impl IntoIterator<Item = &'a str>) -> Url {
        let repo = self.repo.as_str().split('/');
        self.hub
            .endpoint
            .below(["api", "models"].into_iter().chain(repo).chain(rest.into_iter().collect::<Vec<_>>()))
    }

    /// One whole answer of at most `limit` bytes, and its headers.
    async fn document(&self, url: &Url, limit: usize) -> Result<(Vec<u8>, HeaderMap), SourceError> {
        patiently(|| async {
            let answer = self.ask(url.clone(), true, None).await?;
            if answer.status() != StatusCode::OK {
                return Err(self.refused(&answer));
            }
            if answer::is_html(answer.headers()) {
                return Err(self.protocol(ranged::WEB_PAGE));
            }
            let headers = answer.headers().clone();
            match client::whole(answer, limit, self.hub.stall, &self.origin).await? {
                Some(document) => Ok((document, headers)),
                None => Err(self.invalid(format!("the Hub's answer is longer than {} MiB", limit >> 20))),
            }
        })
        .await
    }

    /// Asks for `url`, following redirects; the client drops the token where one leads to another host.
    async fn ask(
        &self,
        url: Url,
        with_token: bool,
        range: Option<ByteRange>,
    ) -> Result<Response, SourceError> {
        let origin = client::origin(&url);
        let mut request = self.hub.client.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range.to_string());
        }
        if let Some(token) = self.token.as_ref().filter(|_| with_token) {
            request = request.header(AUTHORIZATION, token);
        }
        client::head_of_answer(request, self.hub.first_byte, &self.shown, &origin).await
    }

    /// Why an answer isn't what was asked for. One from another host doesn't speak for the Hub.
    fn refused(&self, answer: &Response) -> SourceError {
        let (status, headers) = (answer.status(), answer.headers());
        let origin = client::origin(answer.url());
        if origin == self.origin {
            let asked = Asked { what: &self.shown, page: &self.page, with_token: self.token.is_some() };
            return refusal(asked, status, headers);
        }
        SourceError::Status {
            what: format!("{} (at {origin})", self.shown),
            status: status.as_u16(),
            retry_after: answer::retry_after(headers, jiff::Timestamp::now()),
        }
    }

    /// Whether the Hub itself says that the commit isn't there any more.
    fn has_lost_commit(&self, answer: &Response) -> bool {
        client::origin(answer.url()) == self.origin
            && refusal::is_of_revision(answer.status(), answer.headers())
    }

    fn invalid(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Invalid { what: self.shown.clone(), problem: problem.into() }
    }

    fn protocol(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Protocol { what: self.shown.clone(), problem: problem.into() }
    }
}

/// A file as its commit has it. Its version is git's name, so that a file that a new commit leaves as it was is known
/// again.
fn remote(repository: &Arc<Repository>, commit: GitOid, path: &RelPath, file: &HubFile) -> RemoteFile {
    RemoteFile {
        path: path.clone(),
        size: file.size,
        version: Some(file.oid.hex()),
        digest: Some(file.lfs.map_or(Published::Git(file.oid), Published::Sha256)),
        bytes: Arc::new(Blob::new(Arc::clone(repository), commit, path.clone(), file.size)),
    }
}
