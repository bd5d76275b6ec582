use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::halt::Halt;
use super::stages::Stages;
use super::{Compression, LayerDone, LayerError, Threads};
use crate::image::early_file::EarlyFile;
use crate::image::unpack::TarSink;
use crate::types::Digest;

/// One layer to be unpacked.
#[derive(Debug)]
pub(crate) struct LayerJob<S> {
    /// What the media type says. A compressed layer's own first bytes overrule it.
    pub(crate) compression: Compression,
    /// The digest that the compressed bytes must have.
    pub(crate) blob: Digest,
    /// Their number.
    pub(crate) size: u64,
    /// The digest that the tar stream must have.
    pub(crate) diff: Digest,
    /// Where the tar stream goes.
    pub(crate) sink: S,
    /// Where the compressed bytes are kept, if they are wanted.
    pub(crate) copy: Option<EarlyFile>,
}

/// Runs one layer to its end: takes `pieces`, all of the blob in order and cut anywhere, until they end. Waits for its
/// turn first.
///
/// Whatever comes of it, no thread of it runs any more when it returns. Dropping the future stops the threads soon; they
/// hold the sink until then. While it runs it holds two pieces at most, and 3 MiB of its own.
///
/// # Errors
/// With what went wrong first. The sink may have got anything by then: nothing in it is to be trusted.
pub(crate) async fn process<P, S>(
    job: LayerJob<S>,
    pieces: mpsc::Receiver<P>,
    threads: &Threads,
    stop: &CancellationToken,
) -> Result<LayerDone, LayerError>
where
    P: AsRef<[u8]> + Send + Sync + Clone + 'static,
    S: TarSink + 'static,
{
    let halt = Halt::below(stop);
    let _dropped = halt.token().clone().drop_guard();
    let turn = halt.token().run_until_cancelled(threads.turn()).await.ok_or(LayerError::Stopped)?;
    let stages = Stages::start(job, pieces, &turn, &halt);
    drop(turn);
    stages.join(&halt).await
}
