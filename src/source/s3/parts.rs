use aws_sdk_s3::types::ObjectAttributes;

use super::checksum::Composite;
use super::{Bucket, strong_etag};
use crate::source::SourceError;
use crate::source::patience::patiently;
use crate::types::Published;

/// Parts that one answer tells ("GetObjectAttributes" in S3's API reference).
const A_PAGE: i32 = 1000;

/// S3's own limit on an object's parts.
const MOST_PARTS: usize = 10_000;

impl Bucket {
    /// What the checksums of an object's parts say of the whole, or `None` where the server doesn't tell them: not every
    /// one can, and on AWS it needs `s3:GetObjectAttributes`. Such an object is recorded, not verified.
    pub(super) async fn of_parts(
        &self,
        key: &str,
        size: u64,
        etag: Option<&str>,
        composite: &Composite,
    ) -> Result<Option<Published>, SourceError> {
        let (mut parts, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = patiently(|| async {
                let request = self.client.get_object_attributes().bucket(&self.name).key(key);
                let request = request.object_attributes(ObjectAttributes::ObjectParts).max_parts(A_PAGE);
                let request = request.set_part_number_marker(after.clone());
                let request = request.set_request_payer(self.payer.clone());
                match self.answered(key, request.send()).await {
                    Err(error) if is_untold(&error) => Ok(Err(error)),
                    answer => answer.map(Ok),
                }
            });
            let page = match page.await? {
                Ok(page) => page,
                Err(error) => {
                    let error = crate::rt::chain(&error);
                    tracing::info!(
                        object = self.shown(key),
                        error,
                        "the checksums of an object's parts aren't told, so it isn't verified; grant \
                         s3:GetObjectAttributes, or give a sha256 in the list"
                    );
                    return Ok(None);
                }
            };
            let found = page.e_tag().and_then(strong_etag);
            if found.is_some() && found.as_deref() != etag {
                return Err(SourceError::Changed { what: self.shown(key) });
            }
            let Some(told) = page.object_parts() else { return Ok(None) };
            parts.extend_from_slice(told.parts());
            let next = told.next_part_number_marker().map(str::to_owned);
            match next {
                Some(next)
                    if told.is_truncated() == Some(true)
                        && parts.len() < MOST_PARTS
                        && after.as_ref() != Some(&next) =>
                {
                    after = Some(next);
                }
                _ => return Ok(composite.of_whole(&parts, size)),
            }
        }
    }
}

/// Whether an answer says that this can't, or mustn't, be asked; or is none: a server that doesn't know the question may
/// send the object itself.
fn is_untold(error: &SourceError) -> bool {
    match error {
        SourceError::Refused { status, .. } | SourceError::Status { status, .. } => {
            matches!(status, 400 | 403 | 404 | 405 | 501)
        }
        SourceError::Protocol { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_asked_is_not_told_and_what_fails_is_a_failure() {
        let refused = |status| SourceError::Status { what: String::new(), status, retry_after: None };
        for status in [400, 403, 404, 405, 501] {
            assert!(is_untold(&refused(status)), "{status}");
        }
        for status in [401, 412, 429, 500, 503] {
            assert!(!is_untold(&refused(status)), "{status}");
        }
        assert!(!is_untold(&SourceError::Changed { what: String::new() }));
        assert!(is_untold(&SourceError::Protocol { what: String::new(), problem: String::new() }));
    }
}
