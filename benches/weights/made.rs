//! The files of the race: a model, and many small files. They are made once and kept, as an S3 server's directory,
//! beside the other parts; nginx serves the same directory.

use std::fs::File;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stoker::types::Digest;
use tokio::time::Instant;

use crate::parts::{S3, parts_dir};
use crate::safetensors;

/// Raised when other files are made: what an older one left is not taken for these.
const VERSION: u32 = 1;
const NAME: &str = "bench-weights";
/// The bucket of all sets.
pub(crate) const BUCKET: &str = "models";
const SHARDS: u64 = 4;
const SMALL_FILES: u64 = 2_000;
const SMALL_FILE: usize = 100 << 10;
/// Small files on their way at once, while they are made.
const AT_ONCE: usize = 16;

/// The sets, and where the servers find them. No other race runs while this is held.
pub(crate) struct Made {
    /// What an S3 server has its buckets in.
    pub(crate) buckets: PathBuf,
    /// The large one.
    pub(crate) model: Set,
    /// The many small ones.
    pub(crate) small: Set,
    _lock: File,
}

/// Files that belong together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Set {
    /// Its prefix in the bucket.
    pub(crate) name: String,
    /// Its files.
    pub(crate) files: Vec<Item>,
}

/// One file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its path in the set.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Of its bytes.
    pub(crate) sha256: Digest,
}

impl Set {
    /// All its bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The JSON index that nginx has of it, at this path beside the set.
    pub(crate) fn index(&self) -> String {
        format!("{}.json", self.name)
    }

    /// What it is.
    pub(crate) fn line(&self) -> String {
        format!("{}: {} files, {:.2} GB", self.name, self.files.len(), self.bytes() as f64 / 1e9)
    }

    /// Has the kernel keep it in memory, as a server elsewhere would not load this machine's disk.
    pub(crate) fn read_once(&self, made: &Made) {
        for file in &self.files {
            let path = made.path(self, file);
            let mut file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            std::io::copy(&mut file, &mut std::io::sink()).expect("it can be read");
        }
    }
}

impl Made {
    /// Where a file lies.
    pub(crate) fn path(&self, set: &Set, file: &Item) -> PathBuf {
        self.buckets.join(BUCKET).join(&set.name).join(&file.path)
    }
}

/// Finds the files, or makes them; those of another size go. A run that finds another one at it waits.
pub(crate) async fn bring(mib: u64) -> Made {
    let parts = parts_dir();
    std::fs::create_dir_all(&parts).unwrap_or_else(|error| panic!("{}: {error}", parts.display()));
    let lock = File::create(parts.join(format!("{NAME}.lock"))).expect("a lock file can be made");
    lock.lock().expect("it can be locked");
    let name = format!("{NAME}-{VERSION}-{mib}-mib");
    let directory = parts.join(&name);
    let known = directory.join("sets.json");
    let buckets = directory.join("buckets");
    let read = std::fs::read(&known).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (model, small) = match read {
        Some(sets) => sets,
        None => {
            remove_others(&parts);
            let sets = make(&directory, &buckets, mib).await;
            // Written last, by a rename: without it nothing here counts.
            let new = directory.join("sets.new");
            std::fs::write(&new, serde_json::to_vec(&sets).expect("JSON")).expect("it can be written");
            std::fs::rename(new, known).expect("a rename within one directory");
            sets
        }
    };
    Made { buckets, model, small, _lock: lock }
}

/// What other sizes, older versions and killed runs left.
fn remove_others(parts: &Path) {
    let named = |name: &str| name.starts_with(&format!("{NAME}-"));
    for entry in std::fs::read_dir(parts).into_iter().flatten().flatten() {
        if named(&entry.file_name().to_string_lossy()) {
            std::fs::remove_dir_all(entry.path()).expect("an older race's files can be removed");
        }
    }
}

async fn make(directory: &Path, buckets: &Path, mib: u64) -> (Set, Set) {
    println!("making a model of {mib} MiB and {SMALL_FILES} small files, once, in {}", directory.display());
    let begun = Instant::now();
    std::fs::create_dir_all(buckets).unwrap_or_else(|error| panic!("{}: {error}", buckets.display()));
    let s3 = S3::start_over(buckets).await;
    s3.make_bucket(BUCKET).await;
    let model = make_model(&s3, directory, mib << 20).await;
    let small = make_small(&s3).await;
    for set in [&model, &small] {
        let url = |file: &Item| json!({"path": file.path, "size": file.size, "sha256": file.sha256.hex(), "url": format!("{}/{}", set.name, file.path)});
        let files: Vec<_> = set.files.iter().map(url).collect();
        let index = json!({ "files": files }).to_string();
        std::fs::write(buckets.join(BUCKET).join(set.index()), index).expect("the index can be written");
    }
    rustix::fs::sync();
    println!("made in {:.0} s", begun.elapsed().as_secs_f64());
    (model, small)
}

async fn make_model(s3: &S3, directory: &Path, bytes: u64) -> Set {
    let mut set = Set { name: "model".to_owned(), files: Vec::new() };
    let mut map = serde_json::Map::new();
    for number in 0..SHARDS {
        let path = format!("model-{:05}-of-{SHARDS:05}.safetensors", number + 1);
        let (place, size) = (directory.join("shard"), bytes / SHARDS);
        let written = tokio::task::block_in_place(|| safetensors::write(&place, number, size));
        let (sha256, tensors) = written.unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        s3.put_file(BUCKET, &format!("{}/{path}", set.name), &place).await;
        std::fs::remove_file(&place).expect("it can be removed");
        map.extend(tensors.into_iter().map(|tensor| (tensor, json!(path))));
        set.files.push(Item { path, size, sha256 });
    }
    let index = json!({"metadata": {"total_size": bytes}, "weight_map": map});
    let config =
        json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"});
    let words: serde_json::Map<_, _> = (0..128_000).map(|id| (format!("word-{id}"), json!(id))).collect();
    let others = [
        ("config.json", config),
        ("generation_config.json", json!({"temperature": 0.6, "top_p": 0.9})),
        ("model.safetensors.index.json", index),
        ("tokenizer.json", json!({"version": "1.0", "model": {"type": "BPE", "vocab": words}})),
        ("tokenizer_config.json", json!({"model_max_length": 131_072})),
    ];
    for (path, document) in others {
        set.files.push(put(s3, &set.name, path.to_owned(), document.to_string().into_bytes()).await);
    }
    set
}

async fn make_small(s3: &S3) -> Set {
    let name = "small".to_owned();
    let files = stream::iter(0..SMALL_FILES).map(|number| {
        let mut bytes = vec![0; SMALL_FILE];
        // Other seeds than the shards'.
        fastrand::Rng::with_seed(1_000_000 + number).fill(&mut bytes);
        put(s3, &name, format!("part-{number:05}.bin"), bytes)
    });
    let files = files.buffered(AT_ONCE).collect().await;
    Set { name, files }
}

async fn put(s3: &S3, set: &str, path: String, bytes: Vec<u8>) -> Item {
    let file = Item { size: bytes.len() as u64, sha256: Digest::of(&bytes), path };
    s3.put(BUCKET, &format!("{set}/{}", file.path), bytes).await;
    file
}
