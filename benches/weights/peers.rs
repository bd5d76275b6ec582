//! How the peers are started, each with the flags that were found to be its best for large files, and for many.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::made::BUCKET;
use crate::servers::Server;
use crate::sides::{Course, Purpose};

/// `rclone copy`, from S3 or from a listing by HTTP.
pub(crate) fn rclone(program: &Path, course: &Course<'_>, to: &Path, purpose: Purpose) -> Command {
    let mut command = Command::new(program);
    // No configuration of the user's own.
    command.args(["copy", "--config", "/dev/null"]);
    match course.server {
        Server::S3 => {
            command
                .arg(format!("from:{BUCKET}/{}", course.set.name))
                .env("RCLONE_CONFIG_FROM_TYPE", "s3")
                .env("RCLONE_CONFIG_FROM_PROVIDER", "Other")
                .env("RCLONE_CONFIG_FROM_ENV_AUTH", "true")
                .env("RCLONE_CONFIG_FROM_REGION", "us-east-1")
                .env("RCLONE_CONFIG_FROM_ENDPOINT", format!("http://{}", course.host));
        }
        Server::Nginx | Server::Hub => {
            command
                .arg(format!("from:{}", course.set.name))
                .env("RCLONE_CONFIG_FROM_TYPE", "http")
                .env("RCLONE_CONFIG_FROM_URL", course.url(""));
        }
    }
    command.arg(to).args(["--transfers", &course.files_at_once().to_string()]);
    if purpose != Purpose::Check {
        // It would read each file back for the MD5 of its ETag.
        command.arg("--ignore-checksum");
    }
    if course.is_small() {
        command.args(["--checkers", "64"]);
    } else {
        command.args(["--multi-thread-streams", "4", "--multi-thread-cutoff", "64M"]);
    }
    command
}

/// `s5cmd cp`.
pub(crate) fn s5cmd(program: &Path, course: &Course<'_>, to: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--log", "error", "--endpoint-url", &format!("http://{}", course.host)])
        .args(["--numworkers", &course.files_at_once().to_string()])
        .args(["cp", "--concurrency", "1", "--part-size", "64"])
        .arg(format!("s3://{BUCKET}/{}/*", course.set.name))
        .arg(format!("{}/", to.display()));
    command
}

/// `aria2c` with a list.
pub(crate) fn aria2(program: &Path, course: &Course<'_>, to: &Path) -> Command {
    let mut list = String::new();
    for file in &course.set.files {
        let url = course.url(&format!("{}/{}", course.set.name, file.path));
        let _ = writeln!(list, "{url}\n  out={}", file.path);
    }
    let place = course.desk.join("aria2.txt");
    std::fs::write(&place, list).expect("the list can be written");
    let mut command = Command::new(program);
    command
        .args(["--no-conf", "--console-log-level=warn", "--summary-interval=0", "--download-result=hide"])
        .args(["--file-allocation=falloc", "--continue=true", &format!("-j{}", course.files_at_once())])
        .args(if course.is_small() { ["-x1", "-s1"] } else { ["-x16", "-s16"] })
        .arg("-d")
        .arg(to)
        .arg("-i")
        .arg(place);
    command
}

/// `curl --parallel` with a list.
pub(crate) fn curl(program: &Path, course: &Course<'_>, to: &Path, purpose: Purpose) -> Command {
    let mut list = String::new();
    for file in &course.set.files {
        let url = course.url(&format!("{}/{}", course.set.name, file.path));
        let _ = writeln!(list, "url = \"{url}\"\noutput = \"{}\"", to.join(&file.path).display());
    }
    let place = course.desk.join("curl.txt");
    std::fs::write(&place, list).expect("the list can be written");
    let mut command = Command::new(program);
    command
        .args(["-q", "--silent", "--show-error", "--fail", "--parallel"])
        .args(["--parallel-max", &course.files_at_once().to_string()]);
    if !course.is_small() {
        command.arg("--parallel-immediate");
    }
    if purpose == Purpose::Again {
        command.args(["--continue-at", "-"]);
    }
    command.arg("--config").arg(place);
    command
}

/// `hf download`.
pub(crate) fn hf(program: &Path, course: &Course<'_>, to: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(["download", &format!("bench/{}", course.set.name), "--local-dir"])
        .arg(to)
        .args(["--max-workers", &course.files_at_once().to_string()])
        .env("HF_HOME", course.desk.join("hf"))
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_HUB_DISABLE_UPDATE_CHECK", "1");
    command
}
