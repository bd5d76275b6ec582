//! What somebody uses stays, whoever needs its room.

use crate::node::{assert_current, code, list};
use crate::parts::{
    Containerd, Namespaces, Options, Pod, Registry, Scratch, Status, Version, compiled, pause_image,
};

use super::Bed;
use super::capacity::{PATIENT, blob, entry, small_bed};

/// Maps the file that it's given, closes it, and leaves a child behind that keeps the mapping.
const MAPS: &str = r#"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int fd = open(argv[1], O_RDONLY);
    if (fd < 0 || mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED) return 1;
    close(fd);
    if (fork() == 0) for (;;) pause();
    return 0;
}
"#;

/// Off the list and in use by `script` in another mount namespace, which sees the weights read-only at `$seen`: it
/// stays, the newcomer says why, and comes in when the user has gone.
async fn stays_while_used(script: &str) {
    let mut bed = small_bed().await;
    let (used, used_bytes) = entry(&bed, "used", 30, "");
    let (newcomer, newcomer_bytes) = entry(&bed, "newcomer", 40, "");
    bed.agent.write_list(&list(&[&used]));
    bed.agent.start().await;
    bed.agent.wait_entry("used", "Warm", PATIENT).await;

    let scratch = Scratch::new("user");
    let program = scratch.file("maps", compiled(MAPS));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let (weights, seen) = (bed.agent.cache().join("weights"), scratch.dir("seen"));
    let script = format!(
        "weights={}; seen={}; maps={}; mount --bind $weights $seen; mount -o remount,bind,ro $seen; {script}",
        weights.display(),
        seen.display(),
        program.display()
    );
    let user = Namespaces::hold(&scratch, &script).await;

    bed.agent.write_list(&list(&[&newcomer]));
    let told = |status: &Status| {
        let entry = status.entry("newcomer");
        let reason = entry.and_then(|entry| entry.reason.as_ref());
        reason.is_some_and(|reason| reason.code == "NoSpace" && reason.message.contains("in use"))
    };
    let status = bed.agent.wait_for("that it says why", PATIENT, told).await;
    let message = &status.entry("newcomer").unwrap().reason.as_ref().unwrap().message;
    assert!(
        message.contains("used.bin open or mapped") && message.contains("41943040 more bytes"),
        "{message}"
    );
    assert!(!status.labels.contains_key("weights.stoker.dev/used"), "{status:?}");
    assert_current(&bed.agent, "used", &[("used.bin", &used_bytes)]);
    assert!(blob(&bed.agent, &used_bytes).exists());

    drop(user);
    bed.agent.wait_entry("newcomer", "Warm", PATIENT).await;
    assert_current(&bed.agent, "newcomer", &[("newcomer.bin", &newcomer_bytes)]);
    assert!(!blob(&bed.agent, &used_bytes).exists());
}

#[tokio::test]
async fn a_file_that_is_open_in_another_mount_namespace_stays() {
    stays_while_used("exec 3< $seen/used/current/used.bin").await;
}

#[tokio::test]
async fn a_file_that_is_mapped_and_not_open_stays() {
    stays_while_used("$maps $seen/used/current/used.bin").await;
}

#[tokio::test]
async fn bytes_whose_names_are_gone_stay_while_somebody_has_them_open() {
    let mut bed = small_bed().await;
    let (used, used_bytes) = entry(&bed, "used", 30, "");
    let (newcomer, _) = entry(&bed, "newcomer", 40, "");
    bed.agent.write_list(&list(&[&used]));
    bed.agent.start().await;
    bed.agent.wait_entry("used", "Warm", PATIENT).await;
    bed.agent.write_list(&list(&[]));
    super::capacity::names_go(&bed.agent, "used").await;
    let open = std::fs::File::open(blob(&bed.agent, &used_bytes)).unwrap();
    bed.agent.write_list(&list(&[&newcomer]));
    let full = |status: &Status| code(status, "newcomer").as_deref() == Some("NoSpace");
    let status = bed.agent.wait_for("that it says why", PATIENT, full).await;
    let message = &status.entry("newcomer").unwrap().reason.as_ref().unwrap().message;
    assert!(message.contains("a process has them open"), "{message}");
    assert!(blob(&bed.agent, &used_bytes).exists());
    drop(open);
}

/// With nothing open: what it has mounted is enough.
#[tokio::test]
async fn what_a_container_mounts_stays_off_the_list_and_against_the_more_urgent() {
    let bed = small_bed().await;
    let registry = Registry::start().await;
    let pause = registry.push(&pause_image(), "pause", "1").await.by_tag();
    let pinned = format!("[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = \"{pause}\"\n");
    let containerd = Containerd::start_configured(Version::V2_4, Options::default(), &pinned, &[]).await;
    containerd.trust(&registry.host(), &registry.url());
    let agent = bed.agent.env("STOKER_CONTAINERD_ADDRESS", containerd.address().to_str().unwrap());
    let mut bed = Bed { agent, ..bed };
    let (used, used_bytes) = entry(&bed, "used", 30, ", priority: 100");
    let (newcomer, newcomer_bytes) = entry(&bed, "newcomer", 40, ", priority: 900");
    bed.agent.write_list(&list(&[&used]));
    bed.agent.start().await;
    bed.agent.wait_entry("used", "Warm", PATIENT).await;
    let place = bed.agent.cache().join("weights/used/current");
    let pod = Pod::run(&containerd, "server", &pause, &place).await;

    bed.agent.write_list(&list(&[&used, &newcomer]));
    let told = |status: &Status| {
        let reason = status.entry("newcomer").and_then(|entry| entry.reason.as_ref());
        reason.is_some_and(|reason| reason.code == "NoSpace" && reason.message.contains("server/main"))
    };
    let status = bed.agent.wait_for("that it says who", PATIENT, told).await;
    assert!(status.labels.contains_key("weights.stoker.dev/used"), "it never lost its label: {status:?}");
    assert_current(&bed.agent, "used", &[("used.bin", &used_bytes)]);
    // Off the list it loses its label, and nothing else.
    bed.agent.write_list(&list(&[&newcomer]));
    let told = |status: &Status| {
        let reason = status.entry("newcomer").and_then(|entry| entry.reason.as_ref());
        !status.labels.contains_key("weights.stoker.dev/used")
            && reason.is_some_and(|reason| reason.message.contains("server/main"))
    };
    bed.agent.wait_for("that it says who", PATIENT, told).await;
    assert_current(&bed.agent, "used", &[("used.bin", &used_bytes)]);

    pod.remove().await;
    bed.agent.wait_entry("newcomer", "Warm", PATIENT).await;
    assert_current(&bed.agent, "newcomer", &[("newcomer.bin", &newcomer_bytes)]);
}
