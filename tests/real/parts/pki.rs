//! The certificates and the signing key of a test cluster, made anew for each.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::programs::system;

const CONFIG: &str = "\
[req]
distinguished_name = name
prompt = no
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
";

/// A certificate authority in a directory, and the key with which the API server signs service accounts' tokens.
#[derive(Debug)]
pub(crate) struct Pki {
    dir: PathBuf,
}

/// What a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// To be a client with.
    Client,
    /// To be a server with, and a client too, as kubelet is.
    Server,
}

impl Pki {
    /// Makes one in `dir`.
    pub(crate) fn make(dir: PathBuf) -> Self {
        std::fs::write(dir.join("openssl.cnf"), CONFIG).expect("openssl's configuration is written");
        let pki = Self { dir };
        pki.request("ca", "/CN=stoker-test-ca", "authority", &[]);
        pki.openssl("ecparam -name prime256v1 -genkey -noout -out tokens.key", &[], "");
        pki
    }

    /// Makes a key and a certificate called `name`: [`Self::certificate`] and [`Self::key`] say where.
    pub(crate) fn issue(&self, name: &str, subject: &str, usage: Usage, alternative_names: &[&str]) {
        let usage = match usage {
            Usage::Client => "extendedKeyUsage=clientAuth",
            Usage::Server => "extendedKeyUsage=serverAuth,clientAuth",
        };
        let names = format!("subjectAltName={}", alternative_names.join(","));
        let mut more = vec!["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", usage];
        if !alternative_names.is_empty() {
            more.extend(["-addext", &names]);
        }
        self.request(name, subject, "leaf", &more);
    }

    /// The certificate called `name`; the authority's is `ca`.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.crt"))
    }

    /// The key of that certificate.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.key"))
    }

    /// The key that signs service accounts' tokens.
    pub(crate) fn tokens_key(&self) -> PathBuf {
        self.key("tokens")
    }

    /// A token with these claims, signed as the API server signs its own.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "typ": "JWT"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = raw_signature(&self.openssl("dgst -sha256 -sign tokens.key", &[], &text));
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn request(&self, name: &str, subject: &str, section: &str, more: &[&str]) {
        let request = format!(
            "req -x509 -config openssl.cnf -extensions {section} -days 2 -newkey ec \
             -pkeyopt ec_paramgen_curve:prime256v1 -noenc -keyout {name}.key -out {name}.crt"
        );
        let mut last = vec!["-subj", subject];
        last.extend(more);
        self.openssl(&request, &last, "");
    }

    /// Runs openssl with this on its standard input, and gives its standard output.
    fn openssl(&self, words: &str, more: &[&str], input: &str) -> Vec<u8> {
        let mut command = Command::new(system("openssl"));
        command.args(words.split_whitespace()).args(more).current_dir(&self.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("openssl can be run");
        child.stdin.take().expect("it has one").write_all(input.as_bytes()).expect("openssl reads");
        let output = child.wait_with_output().expect("openssl ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {errors}");
        output.stdout
    }
}

/// An ECDSA signature as JWT wants it, the two numbers in 32 bytes each (RFC 7518, 3.4), out of openssl's DER.
fn raw_signature(der: &[u8]) -> [u8; 64] {
    let mut raw = [0; 64];
    // SEQUENCE, its length, then two INTEGERs: each as short as it can be, with a zero before a high bit.
    let mut rest = &der[2..];
    for half in raw.chunks_exact_mut(32) {
        let (number, after) = rest[2..].split_at(usize::from(rest[1]));
        let number = &number[number.len().saturating_sub(32)..];
        half[32 - number.len()..].copy_from_slice(number);
        rest = after;
    }
    raw
}

#[cfg(test)]
mod tests {
    use super::raw_signature;

    #[test]
    fn short_and_long_numbers_of_a_signature_take_their_places() {
        let mut der = vec![0x30, 0, 0x02, 33, 0];
        der.extend([0xff; 32]);
        der.extend([0x02, 1, 7]);
        let raw = raw_signature(&der);
        assert_eq!(raw[..32], [0xff; 32]);
        assert_eq!((&raw[32..63], raw[63]), (&[0; 31][..], 7));
    }
}
