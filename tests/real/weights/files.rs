//! Weights from a volume of the node.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::node::{SOON, agent, assert_current, bytes, code, leftovers, list, said};
use crate::parts::{Agent, Gpus, Stoker, system, until};

const MIB: usize = 1 << 20;

/// An agent that may read one directory.
struct Bed {
    agent: Agent,
    root: PathBuf,
    _gpus: Gpus,
}

impl Bed {
    fn new() -> Self {
        let gpus = Gpus::healthy(1);
        let agent = agent(&gpus);
        let root = agent.scratch().dir("volume");
        let agent = agent.arg("--file-root").arg(&root);
        Self { agent, root, _gpus: gpus }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        self.agent.scratch().file(format!("volume/{path}"), bytes)
    }

    fn entry(&self, id: &str, path: &str) -> String {
        format!("id: {id}, weights: \"file://{}/{path}\"", self.root.display())
    }
}

#[tokio::test]
async fn a_directory_and_a_file_become_warm_and_only_what_changes_is_read_again() {
    let bed = Bed::new();
    let weights = bytes(1, 20 * MIB + 17);
    let blob = bed.put("hub/blobs/abc", &weights);
    bed.put("hub/snapshots/1/config.json", b"{}");
    bed.put("hub/snapshots/1/empty", b"");
    symlink("../../blobs/abc", bed.root.join("hub/snapshots/1/model.safetensors")).unwrap();
    symlink("snapshots/1", bed.root.join("hub/current")).unwrap();
    let entries = [bed.entry("set", "hub/current/"), bed.entry("one", "hub/current/model.safetensors")];
    bed.agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    let run = bed.agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    let set: [(&str, &[u8]); 3] = [("config.json", b"{}"), ("empty", b""), ("model.safetensors", &weights)];
    assert_current(&bed.agent, "set", &set);
    assert_current(&bed.agent, "one", &[("model.safetensors", &weights)]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());

    // Its bytes change, its length doesn't.
    let changed = bytes(2, weights.len());
    std::fs::write(&blob, &changed).unwrap();
    let run = bed.agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert_current(&bed.agent, "one", &[("model.safetensors", &changed)]);
}

#[tokio::test]
async fn nothing_leads_out_of_the_root_and_only_files_are_read() {
    let bed = Bed::new();
    bed.agent.scratch().file("outside/secret", "hunter2");
    bed.put("good/w.bin", b"weights");
    for (name, target) in [
        ("relative", "../../outside/secret".into()),
        ("absolute", bed.agent.scratch().join("outside/secret")),
        ("magic", "/proc/self/environ".into()),
    ] {
        bed.put(&format!("{name}/w.bin"), b"weights");
        symlink::<PathBuf, _>(target, bed.root.join(name).join("link")).unwrap();
    }
    symlink("../outside", bed.root.join("away")).unwrap();
    bed.put("pipe/w.bin", b"weights");
    let made = Command::new(system("mkfifo")).arg(bed.root.join("pipe/fifo")).status().unwrap();
    assert!(made.success());
    let outside = bed.agent.scratch().join("outside");
    let entries = [
        bed.entry("good", "good/"),
        bed.entry("relative", "relative/"),
        bed.entry("absolute", "absolute/link"),
        bed.entry("magic", "magic/"),
        bed.entry("away", "away/secret"),
        bed.entry("pipe", "pipe/"),
        bed.entry("fifo", "pipe/fifo"),
        format!("{}, include: [\"*.bin\"]", bed.entry("unwanted", "relative/")),
        format!("id: outside, weights: \"file://{}/secret\"", outside.display()),
    ];
    bed.agent.write_list(&list(&entries.each_ref().map(String::as_str)));
    let run = bed.agent.once(SOON).await;
    let told = said(&run);
    for id in ["good", "unwanted"] {
        assert_current(&bed.agent, id, &[("w.bin", b"weights")]);
    }
    for id in ["relative", "absolute", "magic", "away", "pipe", "fifo", "outside"] {
        assert_current(&bed.agent, id, &[]);
    }
    for word in ["leads out of --file-root", "is a pipe", "not below"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_file_that_grows_is_warm_only_as_what_it_ends_as() {
    let mut bed = Bed::new();
    let path = bed.put("growing/w.bin", &bytes(1, 64 * MIB));
    bed.agent.write_list(&list(&[&bed.entry("growing", "growing/")]));
    bed.agent.start().await;
    let mut file = std::fs::File::options().append(true).open(&path).unwrap();
    until("the change to be seen", SOON, async || {
        std::io::Write::write_all(&mut file, b"more").unwrap();
        let status = bed.agent.status().await?;
        assert_eq!(crate::node::current(&bed.agent, "growing").len(), 0, "nothing half-written is shown");
        (code(&status, "growing").as_deref() == Some("SourceChanged")).then_some(())
    })
    .await;
    drop(file);
    bed.agent.wait_entry("growing", "Warm", SOON).await;
    assert_current(&bed.agent, "growing", &[("w.bin", &std::fs::read(&path).unwrap())]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_named_with_the_next_step() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::new();
    let path = bed.put("closed/w.bin", b"weights");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let to = bed.agent.scratch().dir("to");
    std::os::unix::fs::chown(&to, Some(65_534), Some(65_534)).unwrap();
    for dir in [bed.root.clone(), bed.root.join("closed"), bed.agent.scratch().path().to_owned()] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    }
    // Root may read everything, so it's asked for by somebody else.
    let uri = format!("file://{}", path.display());
    let pull = Stoker::new(["pull", &uri, "--to"]).args([&to]).command();
    let mut command = Command::new(system("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    let run = command.arg(pull.get_program()).args(pull.get_args()).output().unwrap();
    let told = said(&run);
    assert_eq!(run.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("cannot open {}", path.display())), "{told}");
    assert!(told.contains("make it readable"), "{told}");
    assert!(!told.contains("credentials"), "{told}");
}
