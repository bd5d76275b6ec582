//! The certificate authorities that are trusted beside the system's.

use std::path::PathBuf;

use reqwest::Certificate;

use super::SourceError;

/// What a file holds, and its text.
struct Read {
    certificates: Vec<Certificate>,
    pem: Vec<u8>,
}

/// All that the files hold.
pub(super) fn certificates(files: &[PathBuf]) -> Result<Vec<Certificate>, SourceError> {
    Ok(read(files)?.into_iter().flat_map(|read| read.certificates).collect())
}

/// The same as text, a file each.
pub(super) fn pem(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, SourceError> {
    Ok(read(files)?.into_iter().map(|read| read.pem).collect())
}

fn read(files: &[PathBuf]) -> Result<Vec<Read>, SourceError> {
    let each = files.iter().map(|file| {
        let unfit =
            |problem: String| SourceError::Invalid { what: format!("--ca-file {}", file.display()), problem };
        let pem = std::fs::read(file).map_err(|error| unfit(error.to_string()))?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(Read { certificates, pem }),
            _ => Err(unfit("it holds no certificate in PEM; name the authority's certificate".to_owned())),
        }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        for file in [empty, dir.path().join("missing.pem")] {
            let error = certificates(std::slice::from_ref(&file)).unwrap_err().to_string();
            assert!(error.contains(&format!("--ca-file {}", file.display())), "{error}");
        }
        assert!(pem(&[]).unwrap().is_empty());
    }
}
