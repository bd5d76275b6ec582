//! The image that `Dockerfile` describes, made of this machine's files: its base can't be had everywhere, and a build
//! of its own for each run of the tests would take too long.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::agent::binary;
use super::image::{BuiltImage, ImageBuilder, Layer};
use super::programs::system;
use super::scratch::Scratch;

/// Where the program is in it.
const PROGRAM: &str = "usr/local/bin/stoker";

#[cfg(target_arch = "aarch64")]
const LIBRARIES: &str = "lib/aarch64-linux-gnu";
#[cfg(not(target_arch = "aarch64"))]
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

#[cfg(target_arch = "aarch64")]
const LOADER: (&str, &str) = ("lib", "ld-linux-aarch64.so.1");
#[cfg(not(target_arch = "aarch64"))]
const LOADER: (&str, &str) = ("lib64", "ld-linux-x86-64.so.2");

/// What glibc and gcc bring.
const SHARED: [&str; 10] = [
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    LOADER.1,
];

/// The image with the `stoker` of this build in it: a layer of what the base brings, and one of what `Dockerfile` adds.
pub(crate) fn stoker_image() -> BuiltImage {
    ImageBuilder::new()
        .layer(base())
        .layer(Layer::new().file(PROGRAM, stripped(&binary()), 0o755))
        // The base's.
        .with(
            "Env",
            json!([
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            ]),
        )
        // Dockerfile's.
        .with("User", json!("0:0"))
        .with("WorkingDir", json!("/"))
        .with("Cmd", json!(["--help"]))
        .with(
            "Labels",
            json!({
                "org.opencontainers.image.title": "stoker",
                "org.opencontainers.image.description":
                    "Warms container images and model weights before GPU pods land",
                "org.opencontainers.image.licenses": "Apache-2.0",
            }),
        )
        .entrypoint(&[&format!("/{PROGRAM}")])
        .build()
}

/// What a program that is linked with glibc, speaks TLS and looks names up finds in gcr.io/distroless/cc-debian12.
fn base() -> Layer {
    let (loader_dir, loader) = LOADER;
    let mut layer = Layer::new()
        .dir("tmp", 0o1777)
        .dir("root", 0o700)
        .dir("home/nonroot", 0o700)
        .file(
            "etc/passwd",
            "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
             nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
            0o644,
        )
        .file("etc/group", "root:x:0:\nnobody:x:65534:\ntty:x:5:\nstaff:x:50:\nnonroot:x:65532:\n", 0o644)
        .file("etc/nsswitch.conf", "hosts: files dns\n", 0o644);
    for file in ["etc/ssl/certs/ca-certificates.crt", "etc/os-release"] {
        layer = layer.file(file, host_file(file), 0o644);
    }
    for library in SHARED {
        let path = format!("{LIBRARIES}/{library}");
        let bytes = host_file(&path);
        layer = layer.file(&path, bytes, 0o755);
    }
    layer.symlink(&format!("{loader_dir}/{loader}"), &format!("/{LIBRARIES}/{loader}"))
}

/// A file of this machine, through links.
fn host_file(path: &str) -> Vec<u8> {
    let path = Path::new("/").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The program as it's shipped: a release has no symbols.
fn stripped(program: &Path) -> Vec<u8> {
    let scratch = Scratch::new("strip");
    let out = scratch.join("stoker");
    let strip = Command::new(system("strip")).arg("-o").arg(&out).arg(program).output();
    let strip = strip.expect("strip can be run");
    assert!(strip.status.success(), "{}", String::from_utf8_lossy(&strip.stderr));
    std::fs::read(out).expect("strip has written it")
}
