//! For the fuzzers in `fuzz/` and nobody else: each reader of bytes from outside as a function that takes any bytes.
//!
//! They panic where a promise is broken, which is what a fuzzer looks for. They stand here, and not in `fuzz/`, so that
//! every build holds them against the readers as these change, and every test run takes the seeds through them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::image::manifest::{Document, INDEX_DEPTH, Manifest, Platform, chain_ids, parse, parse_config};
use crate::image::unpack_layer;
use crate::rt::chain;
use crate::source::registry::{HostsFile, parse_challenges};
use crate::source::{
    artifact_files, azure_listing as azure_listing_of, google_listing as google_listing_of, hub_tree_page,
    index_at,
};
use crate::types::{Descriptor, Digest, ImageRef, RelPath};
use crate::weights::{Journal, framed, manifest_again};

const DOCUMENTS: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// What a registry may answer where an index, a manifest or a configuration is asked for.
///
/// # Panics
/// When a document is understood in a way that breaks a promise.
pub fn documents(bytes: &[u8]) {
    let node = Platform::of_this_node();
    let mut manifest = None;
    for media_type in DOCUMENTS {
        let asked = Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        };
        match parse(&asked, bytes) {
            Ok(Document::Manifest(read)) => manifest = Some(read),
            Ok(Document::Index(index)) => {
                if let Ok(chosen) = index.choose(&node) {
                    assert!(index.descriptors().any(|offered| offered == chosen), "{chosen:?} isn't offered");
                }
            }
            Err(error) => is_a_line(&error.to_string()),
        }
    }
    if let Some(manifest) = &manifest {
        manifest_holds(manifest);
    }
    match parse_config(bytes) {
        Ok(config) => {
            let chain = chain_ids(&config.diff_ids);
            assert_eq!(chain.len(), config.diff_ids.len());
            if let Some(Err(error)) = manifest.map(|manifest| config.fits(&manifest, &node)) {
                is_a_line(&error.to_string());
            }
        }
        Err(error) => is_a_line(&error.to_string()),
    }
    const { assert!(INDEX_DEPTH > 1, "an image for several platforms is an index and a manifest") };
}

fn manifest_holds(manifest: &Manifest) {
    let bytes: u64 = manifest.layers.iter().map(|layer| layer.descriptor.size).sum();
    assert!(manifest.layers.len() <= 500 && bytes <= 1 << 40, "over a limit");
    if let Some(unusual) = manifest.unusual() {
        is_a_line(&unusual.to_string());
    }
}

/// A message is short and on one line, whatever it quotes.
fn is_a_line(text: &str) {
    assert!(text.len() < 4096 && !text.contains(['\n', '\r', '\0']), "{text:?}");
}

/// Text where an image's name should be.
///
/// # Panics
/// When a name isn't the same after it was written and read again.
pub fn image_ref(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<ImageRef>() {
        Ok(image) => assert_eq!(image.to_string().parse().as_ref(), Ok(&image), "from {text:?}"),
        Err(error) => is_a_line(&error.to_string()),
    }
}

/// Text where a `hosts.toml` should be.
///
/// # Panics
/// When what is wrong can't be told in one line.
pub fn hosts_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = HostsFile::parse(text) {
        is_a_line(&error.to_string());
    }
}

/// A page of what a Hub may answer where a commit's tree is asked for.
///
/// # Panics
/// When what is wrong with it can't be told in one line.
pub fn hub_tree(bytes: &[u8]) {
    match hub_tree_page(bytes) {
        Ok(files) => files.keys().for_each(|path| is_a_line(path.as_str())),
        Err(problem) => is_a_line(&problem),
    }
}

/// What a registry may answer where an artifact of weights is asked for.
///
/// # Panics
/// When two files have one name, or what is wrong can't be told in one line.
pub fn artifacts(bytes: &[u8]) {
    for media_type in DOCUMENTS {
        match artifact_files(media_type, bytes) {
            Ok(files) => {
                let mut paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
                paths.iter().for_each(|path| is_a_line(path));
                paths.sort_unstable();
                assert!(paths.windows(2).all(|two| two[0] != two[1]), "a name stands twice in {paths:?}");
            }
            Err(problem) => is_a_line(&problem),
        }
    }
}

/// What a store may answer where a listing is asked for: S3's in XML, read by the AWS SDK and by us after it.
///
/// # Panics
/// When a listing is understood in a way that breaks a promise, or what is wrong can't be told in one line.
pub fn s3_listing(bytes: &[u8]) {
    thread_local! {
        static RUNTIME: io::Result<tokio::runtime::Runtime> = crate::source::s3_listing_runtime();
    }
    RUNTIME.with(|runtime| {
        let Ok(runtime) = runtime else { return };
        match crate::source::s3_listing(runtime, bytes) {
            Ok(files) => files.iter().for_each(|path| is_a_line(path.as_str())),
            Err(error) => is_a_line(&chain(&error)),
        }
        let refusal = crate::source::s3_refusal(runtime, bytes).map(|refusal| chain(&refusal));
        assert!(refusal.is_some(), "a refusal was taken for a page");
        refusal.iter().for_each(|said| is_a_line(said));
    });
}

/// The same of Google Cloud Storage, in JSON.
///
/// # Panics
/// When what is wrong with it can't be told in one line.
pub fn google_listing(bytes: &[u8]) {
    listed(google_listing_of(bytes));
}

/// The same of Azure Blob Storage, in XML.
///
/// # Panics
/// When what is wrong with it can't be told in one line.
pub fn azure_listing(bytes: &[u8]) {
    listed(azure_listing_of(bytes));
}

fn listed(files: Result<Vec<RelPath>, String>) {
    match files {
        Ok(files) => files.iter().for_each(|path| is_a_line(path.as_str())),
        Err(problem) => is_a_line(&problem),
    }
}

/// A JSON index of weights, as it's found at a URL.
///
/// # Panics
/// When it sends anybody to another server, or what is wrong can't be told in one line.
pub fn index(bytes: &[u8]) {
    let Ok(base) = "https://host:8443/models/llama/index.json?sig=abc".parse::<url::Url>() else { return };
    match index_at(bytes, &base) {
        Ok(files) => {
            for (path, url) in files {
                is_a_line(path.as_str());
                assert_eq!(url.origin(), base.origin(), "{url}");
                assert!(url.username().is_empty() && url.password().is_none() && url != base, "{url}");
            }
        }
        Err(problem) => is_a_line(&problem),
    }
}

/// What a crash, or a hand, may have left of a revision's manifest in the cache.
///
/// # Panics
/// When it's read, and says something else once it's written anew.
pub fn manifest(bytes: &[u8]) {
    match manifest_again(bytes) {
        Ok((first, again)) => assert_eq!(again, Ok(first), "written anew it says something else"),
        Err(problem) => is_a_line(&problem),
    }
}

/// A server's `WWW-Authenticate`.
///
/// # Panics
/// When it's understood to be endless, or to say nothing.
pub fn www_authenticate(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let challenges = parse_challenges(text);
    assert!(challenges.len() <= text.len(), "more challenges than characters");
    for challenge in challenges {
        assert!(!challenge.scheme.is_empty(), "a challenge without a scheme in {text:?}");
    }
}

/// What a crash may have left of a file's journal: as it is, and as the bodies of records that are whole (each begins
/// with its length, in two bytes).
///
/// # Panics
/// When it's read to say more than it can, or says something else once it's written anew.
pub fn journal(bytes: &[u8]) {
    let mut bodies = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(usize::from(u16::from_le_bytes(*length)).min(after.len()));
        bodies.push(body);
        rest = after;
    }
    for bytes in [bytes, &framed(bodies)] {
        let Some(journal) = Journal::read(bytes) else { continue };
        let mut upto = 0;
        for range in journal.marked() {
            assert!(upto <= range.start() && range.end() <= journal.size(), "{range:?} can't be marked");
            upto = range.end();
        }
        let again = Journal::read(&journal.encode()).map(|again| again.encode());
        assert_eq!(again, Some(journal.encode()), "written anew it says something else");
    }
}

/// A layer's tar stream, unpacked under `dir`, an empty directory that is empty again afterwards.
///
/// # Errors
/// When `dir` can't be used.
///
/// # Panics
/// When anything outside the layer's own directory was touched.
pub fn layer(bytes: &[u8], dir: &Path) -> io::Result<()> {
    let (root, outside) = (dir.join("root"), dir.join("outside"));
    let kept = outside.join("kept");
    fs::create_dir(&root)?;
    fs::create_dir(&outside)?;
    fs::write(&kept, "kept")?;
    let seen = |path: &Path| {
        fs::symlink_metadata(path)
            .map(|is| (is.mode(), is.uid(), is.gid(), is.nlink(), is.size(), is.mtime()))
    };
    let before = (seen(&outside)?, seen(&kept)?);

    // Cut in places of which the stream knows nothing, and the same ones each time.
    let pieces = bytes.chunks(bytes.len() % 1031 + 1);
    if let Err(error) = unpack_layer(File::open(&root)?.into(), pieces, &[]) {
        is_a_line(&error.to_string());
    }

    assert_eq!((seen(&outside)?, seen(&kept)?), before, "something outside was changed");
    assert_eq!(fs::read(&kept)?, b"kept", "a file outside was written");
    assert_eq!(fs::read_dir(dir)?.count(), 2, "something was made outside");
    fs::remove_dir_all(&outside)?;
    fs::remove_dir_all(&root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuzzers start from, and whatever they once found.
    fn seeds(of: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(of);
        let seeds: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|seed| fs::read(seed.unwrap().path()).unwrap()).collect();
        assert!(seeds.len() > 3, "too few in {}", dir.display());
        seeds
    }

    #[test]
    fn every_seed_is_survived() {
        seeds("documents").iter().for_each(|seed| documents(seed));
        seeds("image_ref").iter().for_each(|seed| image_ref(seed));
        seeds("hosts_toml").iter().for_each(|seed| hosts_toml(seed));
        seeds("journal").iter().for_each(|seed| journal(seed));
        seeds("artifacts").iter().for_each(|seed| artifacts(seed));
        seeds("hub_tree").iter().for_each(|seed| hub_tree(seed));
        seeds("s3_listing").iter().for_each(|seed| s3_listing(seed));
        seeds("google_listing").iter().for_each(|seed| google_listing(seed));
        seeds("azure_listing").iter().for_each(|seed| azure_listing(seed));
        seeds("index").iter().for_each(|seed| index(seed));
        seeds("manifest").iter().for_each(|seed| manifest(seed));
        seeds("www_authenticate").iter().for_each(|seed| www_authenticate(seed));
        let dir = tempfile::tempdir().unwrap();
        for seed in seeds("layer") {
            layer(&seed, dir.path()).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
