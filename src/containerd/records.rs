use std::collections::{BTreeMap, HashMap};

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::{CreateImageRequest, Image, ListImagesRequest, UpdateImageRequest};
use containerd_client::types::Descriptor as DescriptorMessage;
use prost_types::FieldMask;
use tonic::Code;
use tonic::transport::Channel;

use super::client::{MESSAGE_LIMIT, READ_DEADLINE, WRITE_DEADLINE, in_namespace, under};
use super::{Containerd, ContainerdError, Lease};
use crate::types::{Descriptor, Digest};

/// A name in containerd's image store and what it points at. CRI keeps three for an image: `repository:tag`,
/// `repository@digest` and `sha256:<id>`.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    /// The name.
    pub name: String,
    /// The digest that it points at: the index's, where there is one.
    pub target: Digest,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    descriptor: DescriptorMessage,
}

impl ImageRecord {
    /// A record that was never read from containerd, for tests of what is decided from records.
    #[cfg(test)]
    pub(crate) fn made_up(name: &str, target: Digest, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { name: name.to_owned(), target, labels, descriptor: DescriptorMessage::default() }
    }
}

impl Containerd {
    /// All records of CRI's namespace. Those whose target isn't a SHA-256 digest are left out: CRI has no use for
    /// them either.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn records(&self) -> Result<Vec<ImageRecord>, ContainerdError> {
        self.list_records(Vec::new()).await
    }

    /// The records that point at `target`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn records_of(&self, target: Digest) -> Result<Vec<ImageRecord>, ContainerdError> {
        self.list_records(vec![format!("target.digest==\"{target}\"")]).await
    }

    /// The record called `name`, or `None`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn record(&self, name: &str) -> Result<Option<ImageRecord>, ContainerdError> {
        // The filter's quoted form takes any name; names hold no quotes that Rust and Go would escape differently.
        let records = self.list_records(vec![format!("name=={name:?}")]).await?;
        Ok(records.into_iter().find(|record| record.name == name))
    }

    /// Sets labels on a record; `None` takes one off. The record's target and other labels stay as they are, also when
    /// they were changed since it was read. A record that has vanished answers `false`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn set_labels(
        &self,
        record: &ImageRecord,
        labels: &[(&str, Option<&str>)],
    ) -> Result<bool, ContainerdError> {
        let what = format!("label the image record {}", record.name);
        let set: HashMap<String, String> = labels
            .iter()
            .filter_map(|(key, value)| value.map(|value| ((*key).to_owned(), value.to_owned())))
            .collect();
        let request = UpdateImageRequest {
            // containerd 2.4.2 panics, and dies, on an update without a target, whatever the mask says.
            image: Some(Image {
                name: record.name.clone(),
                labels: set,
                target: Some(record.descriptor.clone()),
                ..Image::default()
            }),
            update_mask: Some(FieldMask {
                paths: labels.iter().map(|(key, _)| format!("labels.{key}")).collect(),
            }),
            source_date_epoch: None,
        };
        match self.call(&what, WRITE_DEADLINE, self.images().update(in_namespace(request))).await {
            Ok(_) => Ok(true),
            Err(ContainerdError::Call { code: Code::NotFound, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the name `name` point at `target` and carry `labels`; where there is one already, its other labels stay.
    ///
    /// # Errors
    /// When a call fails, or somebody removes the record again and again.
    pub async fn put_record(
        &self,
        lease: &Lease,
        name: &str,
        target: &Descriptor,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), ContainerdError> {
        let what = format!("write the image record {name}");
        // containerd 2.4.2 panics, and dies, on a record without a target, whatever the mask says.
        let image = Image {
            name: name.to_owned(),
            labels: labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            target: Some(DescriptorMessage {
                media_type: target.media_type.clone(),
                digest: target.digest.to_string(),
                size: i64::try_from(target.size).unwrap_or(i64::MAX),
                ..DescriptorMessage::default()
            }),
            ..Image::default()
        };
        let paths = labels.keys().map(|key| format!("labels.{key}"));
        let mask = FieldMask { paths: std::iter::once("target".to_owned()).chain(paths).collect() };
        let mut tries = 3;
        loop {
            let create = CreateImageRequest { image: Some(image.clone()), source_date_epoch: None };
            let created = self.call(&what, WRITE_DEADLINE, self.images().create(under(lease, create))).await;
            match created {
                Ok(_) => return Ok(()),
                Err(error) if error.is_already_there() => {}
                Err(error) => return Err(error),
            }
            let update = UpdateImageRequest {
                image: Some(image.clone()),
                update_mask: Some(mask.clone()),
                source_date_epoch: None,
            };
            tries -= 1;
            match self.call(&what, WRITE_DEADLINE, self.images().update(under(lease, update))).await {
                Ok(_) => return Ok(()),
                // It was removed in between.
                Err(error) if error.is_not_there() && tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn list_records(&self, filters: Vec<String>) -> Result<Vec<ImageRecord>, ContainerdError> {
        let request = in_namespace(ListImagesRequest { filters });
        let answer = self.call("list the image records", READ_DEADLINE, self.images().list(request)).await?;
        Ok(answer.images.into_iter().filter_map(record_from).collect())
    }

    fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel()).max_decoding_message_size(MESSAGE_LIMIT)
    }
}

fn record_from(image: Image) -> Option<ImageRecord> {
    let descriptor = image.target?;
    Some(ImageRecord {
        name: image.name,
        target: descriptor.digest.parse().ok()?,
        labels: image.labels.into_iter().collect(),
        descriptor,
    })
}
