//! What S3 publishes of an object's bytes ("Checking object integrity in Amazon S3" in its user guide). Pure.
//!
//! Of the whole there is a SHA-256 where it was put at once with one, or a CRC. An object that came in parts may have a
//! checksum of its parts' checksums (`…-N`) instead: that says nothing until each part's own is known.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, ObjectPart};
use base64::Engine as _;
use http::HeaderMap;

use crate::types::{Crc, CrcKind, Digest, PartDigests, Published};

/// The checksums that stand in the head of an answer.
#[derive(Debug, Default)]
pub(super) struct Sums<'a> {
    /// `COMPOSITE` or `FULL_OBJECT`.
    kind: Option<&'a str>,
    sha256: Option<&'a str>,
    crc64_nvme: Option<&'a str>,
    crc32_c: Option<&'a str>,
    crc32: Option<&'a str>,
}

impl<'a> Sums<'a> {
    pub(super) fn of_head(head: &'a HeadObjectOutput) -> Self {
        Self {
            kind: head.checksum_type().map(ChecksumType::as_str),
            sha256: head.checksum_sha256(),
            crc64_nvme: head.checksum_crc64_nvme(),
            crc32_c: head.checksum_crc32_c(),
            crc32: head.checksum_crc32(),
        }
    }

    pub(super) fn of_answer(answer: &'a GetObjectOutput) -> Self {
        Self {
            kind: answer.checksum_type().map(ChecksumType::as_str),
            sha256: answer.checksum_sha256(),
            crc64_nvme: answer.checksum_crc64_nvme(),
            crc32_c: answer.checksum_crc32_c(),
            crc32: answer.checksum_crc32(),
        }
    }

    /// "GetObject" in S3's API reference.
    pub(super) fn of_headers(headers: &'a HeaderMap) -> Self {
        let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            kind: said("x-amz-checksum-type"),
            sha256: said("x-amz-checksum-sha256"),
            crc64_nvme: said("x-amz-checksum-crc64nvme"),
            crc32_c: said("x-amz-checksum-crc32c"),
            crc32: said("x-amz-checksum-crc32"),
        }
    }
}

/// What an answer tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing that anything could be compared with.
    Nothing,
    /// What the whole is.
    Whole(Published),
    /// Only what the checksums of its parts are together.
    OfParts(Composite),
}

/// The checksum over the checksums of an object's parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Composite {
    /// SHA-256 over their SHA-256.
    Sha256(Digest),
    /// A CRC over their CRCs.
    Crc(Crc),
}

/// Whether a checksum of this kind is compared with what comes. SHA-1 and MD5 are not.
pub(super) fn is_compared(algorithm: &ChecksumAlgorithm) -> bool {
    use ChecksumAlgorithm::{Crc32, Crc32C, Crc64Nvme, Sha256};
    matches!(algorithm, Sha256 | Crc64Nvme | Crc32C | Crc32)
}

/// The best of what an answer tells: proof before a check, and what holds for the whole before what holds for its parts.
pub(super) fn told(sums: &Sums<'_>) -> Told {
    let of_parts = sums.kind.map(|kind| kind == ChecksumType::Composite.as_str());
    let sha256 = sums.sha256.and_then(|text| value(text, of_parts));
    let sha256 = sha256.and_then(|value| Some((value.of_parts, digest(&value.bytes)?)));
    let crcs = [
        (CrcKind::Crc64Nvme, sums.crc64_nvme),
        (CrcKind::Crc32c, sums.crc32_c),
        (CrcKind::Crc32, sums.crc32),
    ];
    let crcs = crcs.into_iter().filter_map(|(kind, text)| {
        let value = value(text?, of_parts)?;
        Some((value.of_parts, Crc::from_bytes(kind, &value.bytes)?))
    });
    let (crcs_of_parts, crcs): (Vec<_>, Vec<_>) = crcs.partition(|(of_parts, _)| *of_parts);
    match (sha256, crcs.first(), crcs_of_parts.first()) {
        (Some((false, digest)), _, _) => Told::Whole(Published::Sha256(digest)),
        (Some((true, digest)), _, _) => Told::OfParts(Composite::Sha256(digest)),
        (None, Some((_, crc)), _) => Told::Whole(Published::Crc(*crc)),
        (None, None, Some((_, crc))) => Told::OfParts(Composite::Crc(*crc)),
        (None, None, None) => Told::Nothing,
    }
}

struct Value {
    of_parts: bool,
    bytes: Vec<u8>,
}

/// A checksum as a header has it: base64, and behind it `-N` where it's one of N parts. `of_parts` is what the server
/// says of that in another header, if it does.
fn value(text: &str, of_parts: Option<bool>) -> Option<Value> {
    // The alphabet has no `-`.
    let (text, number) = text.split_once('-').map_or((text, None), |(text, number)| (text, Some(number)));
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let of_parts = of_parts.unwrap_or(false) || number.is_some();
    number.is_none_or(|number| number.parse::<u32>().is_ok()).then_some(Value { of_parts, bytes })
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

impl Composite {
    /// What the parts say of the whole, which has `size` bytes. `None` where they aren't all told, or aren't those that
    /// this is of.
    pub(super) fn of_whole(&self, parts: &[ObjectPart], size: u64) -> Option<Published> {
        let each = |checksum: fn(&ObjectPart) -> Option<&str>| {
            parts.iter().map(move |part| {
                let length = part.size().and_then(|size| u64::try_from(size).ok())?;
                Some((length, value(checksum(part)?, Some(false))?.bytes))
            })
        };
        match self {
            Self::Sha256(of_all) => {
                let parts = each(ObjectPart::checksum_sha256).map(|part| {
                    let (length, bytes) = part?;
                    Some((length, digest(&bytes)?))
                });
                let parts = PartDigests::new(parts.collect::<Option<Vec<_>>>()?)?;
                (parts.size() == size && parts.composite() == *of_all).then_some(Published::Parts(parts))
            }
            Self::Crc(of_all) => {
                let checksum = match of_all.kind() {
                    CrcKind::Crc32 => ObjectPart::checksum_crc32,
                    CrcKind::Crc32c => ObjectPart::checksum_crc32_c,
                    CrcKind::Crc64Nvme => ObjectPart::checksum_crc64_nvme,
                };
                let kind = of_all.kind();
                let parts = each(checksum).map(|part| {
                    let (length, bytes) = part?;
                    Some((length, Crc::from_bytes(kind, &bytes)?))
                });
                let parts: Vec<(u64, Crc)> = parts.collect::<Option<_>>()?;
                let all: Vec<u8> = parts.iter().flat_map(|(_, crc)| crc.to_bytes()).collect();
                let total = parts.iter().try_fold(0_u64, |sum, (length, _)| sum.checked_add(*length));
                let whole = parts.into_iter().reduce(|(length, crc), (more, next)| {
                    (length.saturating_add(more), crc.then(next, more))
                });
                let fits = total == Some(size) && Crc::of(kind, &all) == *of_all;
                whole.filter(|_| fits).map(|(_, crc)| Published::Crc(crc))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(bytes: &[u8]) -> String {
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    fn told_by(head: &HeadObjectOutput) -> Told {
        told(&Sums::of_head(head))
    }

    const PARTS: [&[u8]; 3] = [b"0123456789", b"abcdefghij", b"xyz"];

    fn whole() -> Vec<u8> {
        PARTS.concat()
    }

    fn sha256_parts(parts: &[&[u8]]) -> Vec<ObjectPart> {
        let part = |bytes: &&[u8]| {
            let checksum = base64(Digest::of(bytes).as_bytes());
            ObjectPart::builder().size(bytes.len() as i64).checksum_sha256(checksum).build()
        };
        parts.iter().map(part).collect()
    }

    #[test]
    fn a_sha256_of_the_whole_is_taken_before_all_others() {
        let digest = Digest::of(b"");
        let text = base64(digest.as_bytes());
        let crc = base64(&Crc::of(CrcKind::Crc64Nvme, b"").to_bytes());
        let head = HeadObjectOutput::builder().checksum_sha256(&text).checksum_crc64_nvme(&crc);
        assert_eq!(told_by(&head.build()), Told::Whole(Published::Sha256(digest)));
        let head = HeadObjectOutput::builder().checksum_crc64_nvme(&crc).build();
        assert_eq!(told_by(&head), Told::Whole(Published::Crc(Crc::of(CrcKind::Crc64Nvme, b""))));
        assert_eq!(told_by(&HeadObjectOutput::builder().build()), Told::Nothing);
    }

    #[test]
    fn the_headers_of_an_answer_tell_the_same() {
        let digest = Digest::of(b"x");
        let text = base64(digest.as_bytes());
        let of = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            told(&Sums::of_headers(&HeaderMap::from_iter(pairs)))
        };
        assert_eq!(of(&[("x-amz-checksum-sha256", &text)]), Told::Whole(Published::Sha256(digest)));
        let whole = of(&[("x-amz-checksum-sha256", &text), ("x-amz-checksum-type", "FULL_OBJECT")]);
        assert_eq!(whole, Told::Whole(Published::Sha256(digest)));
        let composite = of(&[("x-amz-checksum-sha256", &text), ("x-amz-checksum-type", "COMPOSITE")]);
        assert_eq!(composite, Told::OfParts(Composite::Sha256(digest)));
        for (kind, name) in [
            (CrcKind::Crc64Nvme, "x-amz-checksum-crc64nvme"),
            (CrcKind::Crc32c, "x-amz-checksum-crc32c"),
            (CrcKind::Crc32, "x-amz-checksum-crc32"),
        ] {
            let crc = Crc::of(kind, b"x");
            assert_eq!(of(&[(name, &base64(&crc.to_bytes()))]), Told::Whole(Published::Crc(crc)), "{name}");
        }
        assert_eq!(of(&[]), Told::Nothing);
    }

    #[test]
    fn what_is_of_parts_is_told_by_its_number_or_by_its_type() {
        let digest = Digest::of(b"");
        let text = base64(digest.as_bytes());
        let of_parts = Told::OfParts(Composite::Sha256(digest));
        let numbered = HeadObjectOutput::builder().checksum_sha256(format!("{text}-2")).build();
        assert_eq!(told_by(&numbered), of_parts);
        let typed = HeadObjectOutput::builder().checksum_sha256(&text).checksum_type(ChecksumType::Composite);
        assert_eq!(told_by(&typed.build()), of_parts);
        for odd in ["", "AAAA", &text[1..], &format!("{text}-"), &format!("{text}-x"), "-2"] {
            let head = HeadObjectOutput::builder().checksum_sha256(odd).build();
            assert_eq!(told_by(&head), Told::Nothing, "{odd}");
        }
    }

    #[test]
    fn parts_are_believed_where_they_make_the_whole() {
        let parts = sha256_parts(&PARTS);
        let digests: Vec<u8> = PARTS.iter().flat_map(|part| *Digest::of(part).as_bytes()).collect();
        let composite = Composite::Sha256(Digest::of(&digests));
        let Some(Published::Parts(found)) = composite.of_whole(&parts, 23) else { panic!("no parts") };
        assert_eq!(found.parts()[1].0.start(), 10);
        assert_eq!(composite.of_whole(&parts, 24), None, "another size");
        assert_eq!(composite.of_whole(&parts[..2], 20), None, "one is missing");
        assert_eq!(composite.of_whole(&[], 23), None);
        let other = sha256_parts(&[b"0123456789", b"abcdefghiJ", b"xyz"]);
        assert_eq!(composite.of_whole(&other, 23), None, "of another version");
        let bare = vec![ObjectPart::builder().size(23).build()];
        assert_eq!(composite.of_whole(&bare, 23), None, "without checksums");
    }

    #[test]
    fn checks_of_parts_make_that_of_the_whole() {
        for kind in [CrcKind::Crc32, CrcKind::Crc32c] {
            let part = |bytes: &&[u8]| {
                let text = base64(&Crc::of(kind, bytes).to_bytes());
                let part = ObjectPart::builder().size(bytes.len() as i64);
                if kind == CrcKind::Crc32 { part.checksum_crc32(text) } else { part.checksum_crc32_c(text) }
                    .build()
            };
            let parts: Vec<ObjectPart> = PARTS.iter().map(part).collect();
            let all: Vec<u8> = PARTS.iter().flat_map(|part| Crc::of(kind, part).to_bytes()).collect();
            let composite = Composite::Crc(Crc::of(kind, &all));
            assert_eq!(composite.of_whole(&parts, 23), Some(Published::Crc(Crc::of(kind, &whole()))));
            assert_eq!(composite.of_whole(&parts[1..], 13), None);
            let negative = vec![ObjectPart::builder().size(-1).build()];
            assert_eq!(composite.of_whole(&negative, 23), None);
        }
    }
}
