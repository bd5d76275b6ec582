use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flights::Flights;
use super::keeping::ByFile;
use super::layers::Pull;
use super::plan::{ImagePlan, plan};
use super::space;
use super::{Phase, Phases, Unable};
use crate::containerd::{Containerd, Daemon, RegistrySetup, Verifiers};
use crate::fetch::{Engine, Urgency};
use crate::image::asked::Asked;
use crate::image::commit::{CommitError, OVERLAYFS, Workplace, Workplaces, check_root, labels};
use crate::image::fullness::{GcThreshold, Use};
use crate::image::layer::Threads;
use crate::image::{ImageError, PullSettings, durable};
use crate::rt::{MetricKind, Metrics, host_path};
use crate::source::registry::{Registries, Repository, registry_hosts};
use crate::types::{Descriptor, ErrorKind, ImageRef, Progress, RegistryAuth};

/// How many layers are under way at a time, at most: each has buffers of its own, and more don't make a disk faster.
const MOST_LAYERS: usize = 8;

/// Pulls images without containerd's help, into containerd. Clones share everything.
#[derive(Debug, Clone)]
pub(in crate::image) struct Direct {
    pub(super) containerd: Containerd,
    pub(super) engine: Engine,
    pub(super) threads: Threads,
    pub(super) layers_at_once: usize,
    /// One for each layer that is under way, over all images.
    pub(super) slots: Arc<Semaphore>,
    /// The layers' chains that are being made.
    pub(super) flights: Flights,
    /// The blobs that are being written into containerd.
    pub(super) blob_flights: Flights,
    pub(super) by_file: ByFile,
    pub(super) metrics: Arc<Metrics>,
    registries: Registries,
    workplaces: Workplaces,
    host_root: PathBuf,
    threshold: GcThreshold,
}

/// One image that is to be pulled.
#[derive(Debug, Clone, Copy)]
pub(in crate::image) struct Request<'a> {
    pub(in crate::image) asked: Asked<'a>,
    pub(in crate::image) repository: &'a Repository,
    pub(in crate::image) daemon: &'a Daemon,
    pub(in crate::image) pin: bool,
    pub(in crate::image) progress: &'a Progress,
    pub(in crate::image) stop: &'a CancellationToken,
}

impl Direct {
    pub(in crate::image) fn new(
        containerd: Containerd,
        engine: Engine,
        metrics: Arc<Metrics>,
        settings: PullSettings,
    ) -> Result<Self, ImageError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let layers_at_once = cores.clamp(2, MOST_LAYERS);
        let registries = Registries::new(settings.sources).map_err(ImageError::Client)?;
        metrics.begin_images(Phase::ALL.map(Phase::label), Unable::CODES);
        Ok(Self {
            containerd,
            engine,
            threads: Threads::new(layers_at_once, cores),
            layers_at_once,
            slots: Arc::new(Semaphore::new(layers_at_once)),
            flights: Flights::default(),
            blob_flights: Flights::default(),
            by_file: ByFile::default(),
            metrics,
            registries,
            workplaces: Workplaces::default(),
            host_root: settings.host_root,
            threshold: settings.gc_threshold,
        })
    }

    pub(in crate::image) fn with_urgency(&self, urgency: Urgency) -> Self {
        Self { engine: self.engine.with_urgency(urgency), ..self.clone() }
    }

    /// The registry's repository of `image`: its hosts are read now from where `daemon` reads them.
    pub(in crate::image) async fn repository(
        &self,
        image: &ImageRef,
        daemon: &Daemon,
        auths: Vec<RegistryAuth>,
    ) -> Result<Repository, Unable> {
        let hosts = registry_hosts(hosts_dirs(daemon)?, Some(&self.host_root), image.domain())
            .await
            .map_err(|cause| Unable::Hosts(crate::rt::chain(&cause)))?;
        Ok(self.registries.repository(image, hosts, auths))
    }

    /// Whether this containerd's images can be made by us at all.
    pub(in crate::image) async fn check(&self, daemon: &Daemon) -> Result<(), Unable> {
        if daemon.snapshotter.name != OVERLAYFS {
            return Err(Unable::Snapshotter(daemon.snapshotter.name.clone()));
        }
        if daemon.user_namespace {
            return Err(Unable::UserNamespace);
        }
        hosts_dirs(daemon)?;
        match &daemon.verifiers {
            Verifiers::None => {}
            Verifiers::Plugin(name) => return Err(Unable::Verifiers(name.clone())),
            Verifiers::Directory(dir) => {
                if has_files(&self.host_root, dir).await {
                    return Err(Unable::Verifiers(dir.display().to_string()));
                }
            }
        }
        check_root(&daemon.snapshotter.root).await.map_err(|error| Unable::NoAccess(crate::rt::chain(&error)))
    }

    /// Brings all of the image that `target` is, and gives it the name that was asked for.
    pub(in crate::image) async fn pull(
        &self,
        target: Descriptor,
        request: Request<'_>,
    ) -> Result<Result<Phases, Unable>, ImageError> {
        let Request { asked, daemon, progress, .. } = request;
        let begun = Instant::now();
        let plan = match plan(target, &request, &self.containerd).await? {
            Ok(plan) => plan,
            Err(unable) => return Ok(Err(unable)),
        };
        let mut phases = Phases::default();
        phases.add(Phase::Resolve, begun.elapsed(), 0);
        let root = &daemon.snapshotter.root;
        let keeps_blobs = !daemon.discards_layers;
        // The same image under two names, or twice on the list: one after the other, and the second finds all there.
        let work = self.workplaces.open(&self.containerd, &daemon.snapshotter, plan.manifest()).await?;
        let content_root = daemon.content_root.as_deref();
        let pull = Pull { direct: self, plan: &plan, work: &work, request, keeps_blobs, root, content_root };
        let missing = pull.missing().await?;
        let packed = missing.packed();
        let used = Use::of(root).map_err(|cause| CommitError::NoAccess { root: root.clone(), cause })?;
        let admitted = space::admit(asked.reference, used, packed, keeps_blobs, self.threshold);
        progress.set_total(packed);
        let brought = match admitted {
            Ok(()) => pull.bring(missing, &mut phases).await,
            refused => refused,
        };
        if let Err(error) = brought {
            if is_hopeless(&error) {
                // The collection does it too, but not in a content store that has never had a blob: its walk fails there.
                pull.throw_away().await;
                work.abandon().await;
            }
            return Err(error);
        }
        let begun = Instant::now();
        self.name(&plan, &work, &request, keeps_blobs).await?;
        work.close().await?;
        phases.add(Phase::Commit, begun.elapsed(), 0);
        self.count(&phases);
        Ok(Ok(phases))
    }

    /// The documents and the records, in the order in which each can stand alone.
    async fn name(
        &self,
        plan: &ImagePlan,
        work: &Workplace,
        request: &Request<'_>,
        keeps_blobs: bool,
    ) -> Result<(), ImageError> {
        let image = request.asked.reference;
        let snapshotter = &request.daemon.snapshotter.name;
        let top = plan.layers.last().map(|layer| layer.chain);
        let from_here = |labels: BTreeMap<String, String>| -> BTreeMap<String, String> {
            labels.into_iter().chain(labels::of_source(image)).collect()
        };
        let (config, bytes) = &plan.config;
        work.put_document(config, bytes.clone(), from_here(labels::of_config(snapshotter, top))).await?;
        let layers = plan.layers.iter().map(|layer| layer.descriptor.clone());
        let mut children: Vec<Descriptor> = std::iter::once(config.clone()).chain(layers).collect();
        for (descriptor, bytes) in plan.documents.iter().rev() {
            let refs = labels::of_children(&children, keeps_blobs);
            work.put_document(descriptor, bytes.clone(), from_here(refs)).await?;
            children = vec![descriptor.clone()];
        }
        Ok(work.publish(image, &plan.target, config.digest, request.pin).await?)
    }

    fn count(&self, phases: &Phases) {
        for phase in Phase::ALL {
            self.metrics.image_phase(phase.label(), phases.time(phase), phases.bytes(phase));
        }
        self.metrics.image_layers(phases.fetched.into(), phases.reused.into());
        self.metrics.bytes(MetricKind::Image, phases.bytes(Phase::Fetch));
    }

    pub(super) async fn sync(&self, root: &Path) -> Result<(), ImageError> {
        durable::sync(root).await
    }

    /// What the disk could hold, so that a bomb ends before it does.
    pub(super) fn room(&self, root: &Path) -> u64 {
        Use::of(root).map_or(u64::MAX, |used| used.available)
    }
}

fn hosts_dirs(daemon: &Daemon) -> Result<&[PathBuf], Unable> {
    match &daemon.registries {
        RegistrySetup::HostsDirs(dirs) => Ok(dirs),
        RegistrySetup::Legacy => Err(Unable::LegacyRegistries),
        RegistrySetup::Unknown(reason) => Err(Unable::RegistriesUnknown(reason.clone())),
    }
}

/// Whether what has come by now is worth nothing to another try: a layer isn't what the image says, or can't be unpacked
/// anywhere; or it only takes room where there is too little.
fn is_hopeless(error: &ImageError) -> bool {
    match error.kind() {
        ErrorKind::NoSpace => true,
        ErrorKind::Corrupt | ErrorKind::Invalid => matches!(error, ImageError::Layer { .. }),
        _ => false,
    }
}

/// Whether there is anything in the host's `dir`, links followed as the host does. One that can't be read isn't known to be
/// empty.
async fn has_files(host_root: &Path, dir: &Path) -> bool {
    let (host_root, dir) = (host_root.to_owned(), dir.to_owned());
    let look =
        move || std::fs::read_dir(host_path(Some(&host_root), &dir)?).map(|mut all| all.next().is_some());
    match tokio::task::spawn_blocking(look).await {
        Ok(Ok(has_some)) => has_some,
        Ok(Err(error)) => error.kind() != std::io::ErrorKind::NotFound,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn files_are_found_behind_the_hosts_links_and_what_is_unknown_counts_as_some() {
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        let dir = Path::new("/opt/containerd/bin");
        assert!(!has_files(host.path(), dir).await);
        std::fs::create_dir_all(at("opt")).unwrap();
        std::fs::create_dir_all(at("data/containerd/bin")).unwrap();
        // As the host means it: from its own root.
        symlink("/data/containerd", at("opt/containerd")).unwrap();
        assert!(!has_files(host.path(), dir).await);
        std::fs::write(at("data/containerd/bin/verifier"), "").unwrap();
        assert!(has_files(host.path(), dir).await);
        symlink("/circle", at("circle")).unwrap();
        assert!(has_files(host.path(), Path::new("/circle")).await);
        assert!(has_files(host.path(), Path::new("/data/containerd/bin/verifier")).await);
    }
}
