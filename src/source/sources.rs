use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use url::Url;

use super::credentials::Credentials;
use super::files::Files;
use super::hf::Hub;
use super::http::{Http, Place};
use super::index::{self, Indexed};
use super::oci::Artifacts;
use super::selection::Selection;
use super::{Listing, RemoteFile, SourceConfig, SourceError, cloud, s3};
use crate::list::WeightsGoods;
use crate::types::WeightsUri;

/// Small requests to one server at once, for one entry.
pub(super) const PROBES: usize = 16;

/// Every kind of server, behind one question: which files are behind this URI?
#[derive(Debug, Clone)]
pub struct Sources(Arc<Clients>);

#[derive(Debug)]
struct Clients {
    config: SourceConfig,
    http: Http,
    hub: Hub,
    s3: s3::Clients,
    clouds: cloud::Clients,
    files: Files,
    artifacts: Artifacts,
}

impl Sources {
    /// Makes the clients; nothing is asked of any server yet.
    ///
    /// # Errors
    /// When the CA certificates can't be read.
    pub fn new(config: SourceConfig) -> Result<Self, SourceError> {
        let http = Http::new(&config)?;
        let hub = Hub::new(&config)?;
        let s3 = s3::Clients::new(&config)?;
        let clouds = cloud::Clients::new(&config)?;
        let files = Files::new(&config);
        let artifacts = Artifacts::new(&config)?;
        Ok(Self(Arc::new(Clients { config, http, hub, s3, clouds, files, artifacts })))
    }

    /// Lists the files that `goods` means, sorted by path: filtered by its globs, with the digests it gives where
    /// the source publishes none. Each is pinned to the version that was seen, as far as the source has versions.
    ///
    /// Small requests are tried again a few times; credentials are read anew.
    ///
    /// # Errors
    /// When the source can't be asked or answers nonsense; when nothing matches; when two files would have one
    /// path, or a path is unsafe; when the list and the source disagree on a digest, or the list gives one for a
    /// file that isn't there.
    pub async fn resolve(
        &self,
        goods: &WeightsGoods,
        credentials: Option<&str>,
    ) -> Result<Listing, SourceError> {
        let selection = Selection::new(goods);
        // Those of registries are in a file of another kind, which says whom they are for.
        let named = match (&goods.uri, credentials) {
            (WeightsUri::Oci(_), _) | (_, None) => None,
            (_, Some(name)) => Some(Credentials::read(&self.0.config, name).await?),
        };
        let named = named.as_ref();
        let listing: Listing = match &goods.uri {
            WeightsUri::Http(url) => self.0.http(url, goods.index, named, &selection).await?.into(),
            WeightsUri::S3 { bucket, key } => {
                self.0.s3.bucket(bucket, named).await?.files(key, &selection).await?.into()
            }
            WeightsUri::HuggingFace { repo, revision } => {
                self.0.hub.repository(repo, revision, named)?.files(&selection).await?
            }
            WeightsUri::Gcs { bucket, key } => {
                self.0.clouds.google(bucket, named).await?.files(key, &selection).await?.into()
            }
            WeightsUri::Azure { account, container, key } => {
                let container = self.0.clouds.azure(account.as_deref(), container, named).await?;
                container.files(key, &selection).await?.into()
            }
            WeightsUri::Oci(reference) => {
                self.0.artifacts.files(reference, credentials, &selection).await?.into()
            }
            WeightsUri::File(path) => self.0.files.files(path, named, &selection).await?.into(),
        };
        Ok(Listing { files: selection.check(listing.files)?, ..listing })
    }
}

impl Clients {
    async fn http(
        &self,
        url: &Url,
        is_index: bool,
        credentials: Option<&Credentials>,
        selection: &Selection<'_>,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        let place = self.http.place(url, credentials)?;
        if !is_index {
            let file = self.http.file(place, None).await?;
            selection.check_names([&file.path])?;
            return Ok(if selection.wants(&file.path) { vec![file] } else { Vec::new() });
        }
        let document = self.http.document(&place, index::LONGEST).await?;
        let invalid = |problem| SourceError::Invalid { what: place.shown(), problem };
        let files = index::parse(&document, url).map_err(invalid)?;
        selection.check_names(files.iter().map(|file| &file.path))?;
        let wanted = files.into_iter().filter(|file| selection.wants(&file.path));
        stream::iter(wanted)
            .map(|file| self.indexed(&place, file, selection))
            .buffer_unordered(PROBES)
            .try_collect()
            .await
    }

    /// A file with a digest needs no version: a mixture of two would be found out. One without is asked for its
    /// version now, and for whether its size is as the index says.
    async fn indexed(
        &self,
        index: &Place,
        file: Indexed,
        selection: &Selection<'_>,
    ) -> Result<RemoteFile, SourceError> {
        let Indexed { path, size, digest, url } = file;
        let place = Place { url, authorization: index.authorization.clone() };
        if digest.is_some() || selection.digest(&path).is_some() {
            return Ok(self.http.known(place, path, size, digest));
        }
        let what = place.shown();
        let found = self.http.probed(place, path, None).await?;
        if found.size == size {
            return Ok(found);
        }
        let problem =
            format!("it has {} bytes, and {size} in the index; publish the index again", found.size);
        Err(SourceError::Invalid { what, problem })
    }
}
