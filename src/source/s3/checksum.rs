use base64::Engine as _;

use crate::types::Digest;

/// The SHA-256 that `x-amz-checksum-sha256` tells: 32 bytes in base64. One of parts has `-N` behind it and is none.
pub(super) fn sha256(text: &str) -> Option<Digest> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_checksum_of_the_whole_counts() {
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(sha256(empty), Some(Digest::of(b"")));
        for text in ["", "AAAA", &format!("{empty}-2"), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"] {
            assert_eq!(sha256(text), None, "{text}");
        }
    }
}
