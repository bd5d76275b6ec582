//! Generates the gRPC code from `proto/`: the server's half for `api/`, the client's for `cli/`. The two rooms
//! stand on the same floor and share the protocol, not the code.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const PROTO: &str = "proto/stoker/v1/stoker.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed=PROTOC");
    println!("cargo:rerun-if-changed={PROTO}");
    find_protoc()?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for half in ["server", "client"] {
        let folder = out.join(half);
        std::fs::create_dir_all(&folder)?;
        tonic_prost_build::configure()
            .build_server(half == "server")
            .build_client(half == "client")
            .btree_map(".")
            .out_dir(folder)
            .compile_protos(&[PROTO], &["proto"])?;
    }
    Ok(())
}

/// prost-build's own message doesn't name the packages.
fn find_protoc() -> Result<(), String> {
    let protoc = std::env::var("PROTOC").unwrap_or_else(|_| "protoc".to_owned());
    match Command::new(&protoc).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("{protoc} --version ended with {}; install a working protoc", output.status))
        }
        Err(error) => Err(format!(
            "cannot run {protoc}: {error}. Install it: apt-get install protobuf-compiler libprotobuf-dev \
             (or name it with PROTOC=/path/to/protoc)"
        )),
    }
}
