use crate::types::{Digest, Hasher};

/// The names of the snapshots in which layers with these diff ids are unpacked on top of each other, the lowest first
/// (OCI image spec, config.md, "Layer ChainID").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut below = None;
    diff_ids
        .iter()
        .map(|layer| {
            let chain = match below {
                None => *layer,
                Some(below) => {
                    let mut hasher = Hasher::new();
                    hasher.update(format!("{below} {layer}").as_bytes());
                    hasher.finish()
                }
            };
            below = Some(chain);
            chain
        })
        .collect()
}
