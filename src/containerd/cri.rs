use std::path::PathBuf;
use std::str::FromStr as _;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{
    Image, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, PullImageRequest, RemoveImageRequest,
};
use tonic::transport::Channel;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, WRITE_DEADLINE};
use super::registry_auth::to_cri;
use super::{Containerd, ContainerdError};
use crate::types::{Digest, ImageRef, RegistryAuth};

/// An image as CRI shows it to the kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriImage {
    /// The image's id: the digest of its configuration for this platform.
    pub config: Digest,
    /// Its tags, in full.
    pub tags: Vec<String>,
    /// Its `repository@digest` names.
    pub digests: Vec<String>,
    /// The compressed size in bytes.
    pub size: u64,
    /// Whether the kubelet's image garbage collection leaves it alone.
    pub pinned: bool,
}

impl Containerd {
    /// What CRI knows under `reference`, or `None`. CRI doesn't look whether the image is unpacked.
    ///
    /// # Errors
    /// When the call fails, or the image's id isn't a SHA-256 digest.
    pub async fn image_status(&self, reference: &ImageRef) -> Result<Option<CriImage>, ContainerdError> {
        let what = format!("tell the status of {reference}");
        let request = ImageStatusRequest { image: Some(spec(reference)), verbose: false };
        let answer = self.call(&what, READ_DEADLINE, self.cri().image_status(request)).await?;
        answer.image.map(|image| image_from(image, &what)).transpose()
    }

    /// Pulls and unpacks an image, and answers its id. It has no deadline: containerd itself gives up where nothing
    /// moves (`image_pull_progress_timeout`). Dropping the future makes containerd stop.
    ///
    /// # Errors
    /// When the pull fails: [`ContainerdError::kind`] tells apart what the registry said.
    pub async fn pull_image(
        &self,
        reference: &ImageRef,
        auth: Option<&RegistryAuth>,
    ) -> Result<Digest, ContainerdError> {
        let what = format!("pull {reference}");
        let request =
            PullImageRequest { image: Some(spec(reference)), auth: auth.map(to_cri), sandbox_config: None };
        let answer =
            self.cri().pull_image(request).await.map_err(|status| self.error(&what, &status).of_pull())?;
        digest(&answer.into_inner().image_ref, &what)
    }

    /// Removes an image with all its names. One that isn't there is no error; a pin doesn't keep it.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn remove_image(&self, reference: &ImageRef) -> Result<(), ContainerdError> {
        let what = format!("remove {reference}");
        let request = RemoveImageRequest { image: Some(spec(reference)) };
        self.call(&what, WRITE_DEADLINE, self.cri().remove_image(request)).await.map(drop)
    }

    /// Where the images of the default snapshotter are: the first file system that CRI reports, as the kubelet reads
    /// it.
    ///
    /// # Errors
    /// When the call fails, or CRI reports none.
    pub async fn image_file_system(&self) -> Result<PathBuf, ContainerdError> {
        let what = "tell where the images are";
        let answer = self.call(what, READ_DEADLINE, self.cri().image_fs_info(ImageFsInfoRequest {})).await?;
        answer
            .image_filesystems
            .into_iter()
            .find_map(|usage| usage.fs_id.map(|id| id.mountpoint).filter(|path| !path.is_empty()))
            .map(PathBuf::from)
            .ok_or_else(|| ContainerdError::Answer {
                what: what.to_owned(),
                problem: "it names no image file system".to_owned(),
            })
    }

    fn cri(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }
}

fn spec(reference: &ImageRef) -> ImageSpec {
    ImageSpec { image: reference.to_string(), ..ImageSpec::default() }
}

fn image_from(image: Image, what: &str) -> Result<CriImage, ContainerdError> {
    Ok(CriImage {
        config: digest(&image.id, what)?,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
        pinned: image.pinned,
    })
}

pub(super) fn digest(text: &str, what: &str) -> Result<Digest, ContainerdError> {
    Digest::from_str(text)
        .map_err(|error| ContainerdError::Answer { what: what.to_owned(), problem: error.to_string() })
}
