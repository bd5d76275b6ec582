#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

/// The layers' own place: one directory for this process.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("stoker-fuzz-layer-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a directory in TMPDIR");
    dir
});

libfuzzer_sys::fuzz_target!(
    |bytes: &[u8]| stoker::fuzzing::layer(bytes, &DIR).expect("the directory is usable")
);
