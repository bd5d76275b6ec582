//! A shard of a model in the safetensors format: a header that tells of tensors, and bytes that can't be compressed.
//! The same seed makes the same bytes.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Map, Value, json};
use stoker::types::{Digest, Hasher};

const PIECE: usize = 8 << 20;
/// Bytes of a tensor; the last one has the rest.
const TENSOR: u64 = 64 << 20;

/// Writes shard `number`, of exactly `size` bytes, and gives its digest and the names of its tensors.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write(path: &Path, number: u64, size: u64) -> io::Result<(Digest, Vec<String>)> {
    let (header, names) = header(number, size);
    let mut file = File::create(path)?;
    let mut hasher = Hasher::new();
    file.write_all(&header)?;
    hasher.update(&header);
    let mut random = fastrand::Rng::with_seed(number);
    let mut piece = vec![0; PIECE];
    let mut left = size - header.len() as u64;
    while left > 0 {
        random.fill(&mut piece);
        let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.write_all(&piece[..count])?;
        hasher.update(&piece[..count]);
        left -= count as u64;
    }
    Ok((hasher.finish(), names))
}

/// The format's begin: the header's length as a little-endian number of 8 bytes, then JSON, padded with spaces to a
/// multiple of 8 (safetensors, `README.md`, "Format").
fn header(shard: u64, size: u64) -> (Vec<u8>, Vec<String>) {
    // Its own length isn't known yet; the tensors' count and its digits hardly depend on it.
    let mut data = size - 8;
    loop {
        let (json, names) = describe(shard, data);
        let length = json.len().next_multiple_of(8);
        let fits = size - 8 - length as u64;
        if fits == data {
            let mut header = (length as u64).to_le_bytes().to_vec();
            header.extend(json.as_bytes());
            header.resize(8 + length, b' ');
            return (header, names);
        }
        data = fits;
    }
}

fn describe(shard: u64, data: u64) -> (String, Vec<String>) {
    let mut tensors = Map::new();
    let mut names = Vec::new();
    for (number, begin) in (0..data).step_by(TENSOR as usize).enumerate() {
        let end = (begin + TENSOR).min(data);
        let name = format!("model.layers.{shard}.{number}.weight");
        // Bytes, so that no length is an odd one.
        let tensor = json!({"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]});
        tensors.insert(name.clone(), tensor);
        names.push(name);
    }
    tensors.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    (Value::Object(tensors).to_string(), names)
}
