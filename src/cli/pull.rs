use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::flags::{ContainerdFlags, ImageFlags, SourceFlags};
use super::format::size;
use super::progress::{Job, ProgressDisplay};
use super::{Exit, unless_closed};
use crate::containerd::Containerd;
use crate::list::{ImageGoods, WeightsGoods};
use crate::rt::{Attempts, RetryPolicy, Shutdown, chain};
use crate::types::{ErrorKind, Globs, ImageRef, Progress, WeightsUri};
use crate::{fetch, image, source, weights};

/// Fetch images into containerd, or weights into a directory, once
///
/// A URI with a scheme (https:// s3:// gs:// az:// hf:// oci:// file://) is weights and needs --to; anything else is an image reference. What is there
/// already isn't fetched again. Weights are checked against the digests that their source publishes, and are on the
/// disk when this ends.
#[derive(Debug, Clone, Args)]
pub(super) struct PullArgs {
    /// What to fetch: docker.io/library/nginx:1.27, hf://org/name@main, s3://bucket/prefix/,
    /// https://host/model.safetensors, oci://host/name:tag
    #[arg(required = true, value_name = "URI")]
    uris: Vec<String>,

    /// The directory for weights
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,

    /// The URI is a JSON index of path, size and sha256
    #[arg(long)]
    index: bool,

    /// Only files that match; * also crosses /
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,

    /// No files that match
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Refuse weights whose source publishes no digest
    #[arg(long)]
    verified_only: bool,

    /// The name of a directory below --credentials-dir
    #[arg(long, value_name = "NAME")]
    credentials: Option<String>,

    #[command(flatten)]
    sources: SourceFlags,
    #[command(flatten)]
    containerd: ContainerdFlags,
    #[command(flatten)]
    images: ImageFlags,
}

/// Whoever asks for an image by hand wants it, whatever the kubelet will make of its disk.
const NO_THRESHOLD: image::GcThreshold = image::GcThreshold(100);

/// One thing to fetch.
enum Wanted {
    Image(ImageRef),
    Weights(PathBuf, Box<WeightsGoods>),
}

/// Fetches everything, images all at once and weights one after the other, and says of each how it ended.
pub(super) async fn run(args: PullArgs) -> anyhow::Result<Exit> {
    let wanted = args.uris.iter().map(|uri| wanted(&args, uri)).collect::<anyhow::Result<Vec<_>>>()?;
    let stop = Shutdown::new().context("cannot take over SIGTERM and SIGINT")?.token();
    let ended = stop.child_token();
    let fetchers = Fetchers::new(&args, &wanted, &ended)?;

    let jobs: Vec<Job> = args
        .uris
        .iter()
        .map(|uri| Job { name: display_name(uri), progress: Arc::new(Progress::default()) })
        .collect();
    let shown = CancellationToken::new();
    let display = tokio::spawn(ProgressDisplay::on_stderr().show_jobs(jobs.clone(), shown.clone()));
    let fetches = wanted.iter().zip(&jobs).map(|(wanted, job)| fetchers.fetch(wanted, &job.progress, &stop));
    let results = futures::future::join_all(fetches).await;
    shown.cancel();
    display.await?;
    ended.cancel();

    let mut exit = Exit::Done;
    for (job, result) in jobs.iter().zip(results) {
        match result {
            Ok(line) => {
                unless_closed(std::io::Write::write_fmt(
                    &mut std::io::stdout(),
                    format_args!("{}: {line}\n", job.name),
                ))?;
            }
            Err((ErrorKind::Cancelled, _)) => exit = Exit::Interrupted,
            Err((_, message)) => {
                eprintln!("stoker: {}: {message}", job.name);
                exit = if exit == Exit::Done { Exit::No } else { exit };
            }
        }
    }
    Ok(exit)
}

/// What a URI means on the command line.
fn wanted(args: &PullArgs, uri: &str) -> anyhow::Result<Wanted> {
    if !uri.contains("://") {
        return Ok(Wanted::Image(uri.parse()?));
    }
    let uri: WeightsUri = uri.parse()?;
    let to = args.to.clone().with_context(|| format!("{uri} is weights: say where to with --to DIR"))?;
    let globs = Globs::new(&args.include, &args.exclude)?;
    Ok(Wanted::Weights(to, Box::new(WeightsGoods { uri, index: args.index, globs, sha256: [].into() })))
}

/// The URI without what may be a signature.
fn display_name(uri: &str) -> String {
    uri.parse::<WeightsUri>().map_or_else(|_| uri.to_owned(), |uri| uri.to_string())
}

type Ended = Result<String, (ErrorKind, String)>;

/// The two goods' ways in.
struct Fetchers {
    /// Only where images are wanted: containerd is nobody's business otherwise.
    images: Option<image::Puller>,
    weights: weights::Puller,
    /// All weights go into one directory, which takes one set at a time.
    weights_turn: Mutex<()>,
    credentials: Option<String>,
}

impl Fetchers {
    fn new(args: &PullArgs, wanted: &[Wanted], ended: &CancellationToken) -> anyhow::Result<Self> {
        let references = wanted.iter().filter_map(|wanted| match wanted {
            Wanted::Image(reference) => Some(reference.clone()),
            Wanted::Weights(..) => None,
        });
        let references: BTreeSet<ImageRef> = references.collect();
        // Whoever types http:// or file:// knows what it is.
        let file_root = Some(PathBuf::from("/"));
        let config = source::SourceConfig { file_root, ..args.sources.config(true) };
        let engine = fetch::Engine::new(args.sources.limits());
        engine.bandwidth().set(args.sources.max_bandwidth.0);
        let images = (!references.is_empty()).then(|| {
            let (_, watched) = watch::channel(references);
            let containerd = Containerd::new(&args.containerd.containerd_address);
            // The image task ends with `ended`; only its handle is of use here.
            let (handle, _, _) = image::spawn(containerd.clone(), watched, ended.clone());
            let settings = args.images.settings(config.clone(), PathBuf::from("/"), NO_THRESHOLD);
            image::Puller::new(containerd, handle, engine.clone(), Arc::default(), settings)
        });
        let images = images.transpose()?;
        let sources = source::Sources::new(config)?;
        Ok(Self {
            images,
            weights: weights::Puller::new(engine, sources, args.verified_only),
            weights_turn: Mutex::default(),
            credentials: args.credentials.clone(),
        })
    }

    /// Tries until it's there, or until the error isn't one that time mends or the patience is used up.
    async fn fetch(&self, wanted: &Wanted, progress: &Progress, stop: &CancellationToken) -> Ended {
        let mut attempts = Attempts::new(RetryPolicy::REQUEST);
        loop {
            let (kind, message) = match self.try_once(wanted, progress, stop).await {
                Ok(line) => return Ok(line),
                Err(failed) => failed,
            };
            let Some(wait) = attempts.failed_with(kind, fastrand::f64()) else { return Err((kind, message)) };
            tracing::warn!(retry_in = ?wait, "{message}");
            tokio::select! {
                () = stop.cancelled() => return Err((ErrorKind::Cancelled, message)),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn try_once(&self, wanted: &Wanted, progress: &Progress, stop: &CancellationToken) -> Ended {
        let credentials = self.credentials.as_deref();
        match wanted {
            Wanted::Image(reference) => {
                let goods = ImageGoods { reference: reference.clone(), pin: false };
                let Some(images) = &self.images else {
                    return Err((ErrorKind::Local, "no image was announced".to_owned()));
                };
                let warm = images
                    .ensure(&goods, credentials, true, progress, stop)
                    .await
                    .map_err(|error| (error.kind(), chain(&error)))?;
                let how = if warm.pulled { "pulled" } else { "was there already" };
                Ok(format!("{how}, sha256:{}", warm.revision))
            }
            Wanted::Weights(to, goods) => {
                let _turn = self.weights_turn.lock().await;
                let pulled = self
                    .weights
                    .pull_to(to, goods, credentials, progress, stop)
                    .await
                    .map_err(|error| (error.kind(), chain(&error)))?;
                let checked = if pulled.verified {
                    "every digest checked"
                } else {
                    "no digest published: recorded only"
                };
                Ok(format!(
                    "{} files in {}, {} fetched, {} files were there already, {checked}, revision {}",
                    pulled.files,
                    to.display(),
                    size(pulled.fetched_bytes),
                    pulled.kept,
                    pulled.revision.short(),
                ))
            }
        }
    }
}
