//! Which files of a listing the source is asked about, one by one, before anything is fetched. Every question is a request,
//! so a file whose answer comes with its bytes isn't asked about.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::error::WeightsError;
use crate::fetch::FetchError;
use crate::source::RemoteFile;

/// Files of one entry that are asked about at once.
const AT_ONCE: usize = 16;

/// Adds what the source says of the files that it hasn't been asked about and whose bytes must be known in advance.
///
/// # Errors
/// When it can't be asked, or another version is there now; [`WeightsError::Stopped`] when `stop` is cancelled.
pub(super) async fn ask(
    files: &mut [RemoteFile],
    must_be_known: impl Fn(&RemoteFile) -> bool,
    stop: &CancellationToken,
) -> Result<(), WeightsError> {
    let is_asked =
        |file: &&mut RemoteFile| file.digest.is_none() && file.bytes.may_tell() && must_be_known(file);
    let asked = stream::iter(files.iter_mut().filter(is_asked)).map(Ok);
    let asking = asked.try_for_each_concurrent(AT_ONCE, |file| async move {
        file.digest = file.bytes.ask().await.map_err(|cause| {
            let cause = FetchError::Source(cause);
            WeightsError::Fetch { path: file.path.clone(), cause }
        })?;
        Ok(())
    });
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(WeightsError::Stopped),
        asked = asking => asked,
    }
}
