//! The images of the race. They are made once and kept, as a registry's storage, beside the other parts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::json;
use stoker::types::Digest;
use tokio::time::Instant;

use crate::layers::{self, Layer, Packing};
use crate::parts::parts_dir;
use crate::store::Store;
use crate::wheels::{CUDA, LARGE, PYTHON, unpack_all};

/// Raised when other images are made: what an older one left is not taken for these.
const VERSION: u32 = 1;
const MB: u64 = 1_000_000;
/// How every image is tagged.
const TAG: &str = "v1";

/// The images, and the directory that a registry serves them from.
pub(crate) struct Made {
    /// A registry's `rootdirectory`.
    pub(crate) directory: PathBuf,
    /// A, B, C, D, and E for the shaped link.
    pub(crate) images: Vec<Image>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Image {
    /// A letter.
    pub(crate) name: String,
    what: String,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<Layer>,
    /// The manifest's digest.
    pub(crate) manifest: Digest,
    /// The config's digest: the image's ID in CRI.
    pub(crate) config: Digest,
    /// The key of the top snapshot.
    pub(crate) chain_id: Digest,
}

impl Image {
    /// The repository.
    pub(crate) fn repository(&self) -> String {
        format!("bench/{}", self.name.to_lowercase())
    }

    /// The reference by tag, of the registry at `host`.
    pub(crate) fn reference(&self, host: &str) -> String {
        format!("{host}/{}:{TAG}", self.repository())
    }

    /// The bytes that a pull transfers for its layers.
    pub(crate) fn compressed(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }

    /// The bytes of its layers' tars.
    pub(crate) fn unpacked(&self) -> u64 {
        self.layers.iter().map(|layer| layer.tar_size).sum()
    }

    /// What it is.
    pub(crate) fn line(&self) -> String {
        let largest = self.layers.iter().map(|layer| layer.size).max().unwrap_or_default();
        let files: u64 = self.layers.iter().map(|layer| layer.files).sum();
        format!(
            "  {}: {}; {} MB in {} layers (the largest {} MB), {} MB and {files} files unpacked",
            self.name,
            self.what,
            self.compressed() / MB,
            self.layers.len(),
            largest / MB,
            self.unpacked() / MB
        )
    }
}

impl Made {
    /// The image of this name.
    pub(crate) fn image(&self, name: &str) -> &Image {
        self.images.iter().find(|image| image.name == name).expect("it was made")
    }
}

/// Finds the images, or makes them. A run that finds another one at it waits; one that was killed is gone on with.
pub(crate) async fn bring() -> Made {
    let directory = parts_dir().join(format!("bench-images-{VERSION}"));
    let made = directory.clone();
    let images = tokio::task::spawn_blocking(move || find_or_make(&made)).await.expect("the images are made");
    Made { directory, images }
}

fn find_or_make(directory: &Path) -> Vec<Image> {
    std::fs::create_dir_all(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let lock = File::create(directory.join("lock")).expect("a lock file can be made");
    lock.lock().expect("it can be locked");
    let known = directory.join("images.json");
    if let Some(images) = read(&known) {
        return images;
    }
    println!("making the images, once, in {}: some minutes", directory.display());
    let begun = Instant::now();
    let images = make(directory);
    // Written last: without it nothing here counts.
    write(&known, &images);
    println!("made in {:.0} s", begun.elapsed().as_secs_f64());
    images
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// By a rename: nobody finds half of it.
fn write<T: Serialize>(path: &Path, value: &T) {
    let new = path.with_extension("new");
    let text = serde_json::to_vec_pretty(value).expect("JSON");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// One layer to be made.
struct Job {
    name: String,
    wheels: Vec<&'static str>,
    packings: &'static [Packing],
}

impl Job {
    /// Makes the layer; its blobs are in the store then.
    fn run(&self, stage: &Path, store: &Store<'_>) -> Vec<Layer> {
        let begun = Instant::now();
        let dirs: Vec<PathBuf> = self.wheels.iter().map(|wheel| stage.join(wheel)).collect();
        let mut layers = Vec::new();
        for (layer, file) in layers::make(&dirs, self.packings, stage, &self.name) {
            store.take(&file, layer.digest);
            println!(
                "  layer {} {:?}: {} MB of {} MB, {} files",
                self.name,
                layer.packing,
                layer.size / MB,
                layer.tar_size / MB,
                layer.files
            );
            layers.push(layer);
        }
        println!("  layer {}: {:.0} s", self.name, begun.elapsed().as_secs_f64());
        layers
    }
}

fn jobs() -> Vec<Job> {
    let large = Job { name: "large".to_owned(), wheels: LARGE.to_vec(), packings: &[Packing::Gzip] };
    let cuda = CUDA.iter().rev().map(|wheel| Job {
        name: wheel.name.to_owned(),
        wheels: vec![wheel.name],
        packings: if LARGE.contains(&wheel.name) {
            &[Packing::Gzip, Packing::Zstd, Packing::Plain]
        } else {
            &[Packing::Gzip, Packing::Zstd]
        },
    });
    let python = PYTHON.iter().map(|wheel| Job {
        name: wheel.name.to_owned(),
        wheels: vec![wheel.name],
        packings: &[Packing::Gzip],
    });
    // The longest first.
    std::iter::once(large).chain(cuda).chain(python).collect()
}

fn make(directory: &Path) -> Vec<Image> {
    let stage = directory.join("stage");
    std::fs::create_dir_all(&stage).unwrap_or_else(|error| panic!("{}: {error}", stage.display()));
    let begun = Instant::now();
    unpack_all(&stage);
    println!("  packages of PyPI downloaded and unpacked: {:.0} s", begun.elapsed().as_secs_f64());
    let store = Store::at(directory);
    let made = make_layers(&stage, &store);
    std::fs::remove_dir_all(&stage).expect("the stage can be removed");
    let layer = |wheel: &str, packing| {
        let found = made.iter().find(|(name, layer)| name == wheel && layer.packing == packing);
        found.expect("each was made").1.clone()
    };
    let cuda = |packing| CUDA.iter().map(|wheel| layer(wheel.name, packing)).collect();
    let python = PYTHON.iter().map(|wheel| layer(wheel.name, Packing::Gzip)).collect();
    let plain = LARGE.iter().map(|wheel| layer(wheel, Packing::Plain)).collect();
    vec![
        image(&store, "A", "CUDA libraries, gzip", cuda(Packing::Gzip)),
        image(&store, "B", "a Python environment, gzip", python),
        image(&store, "C", "CUDA libraries in one layer, gzip", vec![layer("large", Packing::Gzip)]),
        image(&store, "D", "A's files in zstd", cuda(Packing::Zstd)),
        image(&store, "E", "CUDA libraries, not packed", plain),
    ]
}

/// Makes all layers on as many threads as there are cores.
fn make_layers(stage: &Path, store: &Store<'_>) -> Vec<(String, Layer)> {
    let jobs = jobs();
    let next = AtomicUsize::new(0);
    let made = Mutex::new(Vec::new());
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let record = stage.join(format!("{}.json", job.name));
            let layers = read(&record).unwrap_or_else(|| {
                let layers = job.run(stage, store);
                write(&record, &layers);
                layers
            });
            let named = layers.into_iter().map(|layer| (job.name.clone(), layer));
            made.lock().expect("no other panicked").extend(named);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    made.into_inner().expect("no thread panicked")
}

/// Writes config and manifest, and links all of it under the image's repository.
fn image(store: &Store<'_>, name: &str, what: &str, layers: Vec<Layer>) -> Image {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config = json!({
        // What the race is run on decides nothing here: no container is started.
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).expect("JSON");
    let descriptor = |layer: &Layer| json!({"mediaType": layer.packing.media_type(), "digest": layer.digest.to_string(), "size": layer.size});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&config).to_string(),
            "size": config.len(),
        },
        "layers": layers.iter().map(descriptor).collect::<Vec<_>>(),
    });
    let manifest = store.put(&serde_json::to_vec(&manifest).expect("JSON"));
    let config = store.put(&config);
    // OCI image spec, config.md, "Layer ChainID".
    let chain = |chain: Digest, layer: &Layer| Digest::of(format!("{chain} {}", layer.diff_id).as_bytes());
    let chain_id = layers[1..].iter().fold(layers[0].diff_id, chain);
    let image = Image { name: name.to_owned(), what: what.to_owned(), layers, manifest, config, chain_id };
    let repository = image.repository();
    for digest in image.layers.iter().map(|layer| layer.digest).chain([config]) {
        store.link_blob(&repository, digest);
    }
    store.link_manifest(&repository, TAG, manifest);
    image
}
