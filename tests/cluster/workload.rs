//! What runs on the nodes beside Stoker: pods, and the weights that they read.

use serde_json::{Value, json};
use stoker::types::Digest;

use crate::parts::{Bed, START, Stoker};

/// Bytes that look like weights: `size` of them, the same for the same seed, without a period.
pub(crate) fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

/// The revision of weights as the label has it, written out here from what is promised.
pub(crate) fn revision(files: &[(&str, Vec<u8>)]) -> String {
    let line =
        |(path, bytes): &(&str, Vec<u8>)| format!("{path}\t{}\t{}\n", bytes.len(), Digest::of(bytes).hex());
    let mut lines: Vec<String> = files.iter().map(line).collect();
    lines.sort();
    Digest::of(lines.concat().as_bytes()).hex()[..12].to_owned()
}

/// What `sha256sum --check` reads for these files.
pub(crate) fn sums(files: &[(&str, Vec<u8>)]) -> String {
    files.iter().map(|(path, bytes)| format!("{}  {path}\n", Digest::of(bytes).hex())).collect()
}

/// A pod in the namespace `default`, whose one container runs a shell script once; `spec` is merged into its spec.
pub(crate) fn pod(name: &str, image: &str, script: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "hostNetwork": true,
            "terminationGracePeriodSeconds": 1,
            "restartPolicy": "Never",
            "containers": [{
                "name": "it",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": [script],
            }],
        },
    });
    let spec = spec.as_object().expect("a spec is an object").clone();
    pod["spec"].as_object_mut().expect("an object").extend(spec);
    pod
}

/// `spec.affinity` as `stoker affinity` prints it for these, such as `image/app`.
pub(crate) async fn affinity(goods: &[&str]) -> Value {
    let printed = Stoker::new(["affinity"]).args(goods).output(START).await;
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    serde_saphyr::from_slice(&printed.stdout).expect("YAML")
}

/// Waits until a pod of the namespace `default` has ended well, and gives it.
pub(crate) async fn succeeded(bed: &Bed, name: &str) -> Value {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let pod = bed
        .wait(&format!("pod {name} to end"), START, async || {
            let pod = bed.control.try_call("GET", &path, None).await.ok()?;
            matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")).then_some(pod)
        })
        .await;
    let logs = bed.pod_logs(name).await;
    assert_eq!(pod["status"]["phase"], "Succeeded", "{logs}\n{}", pod["status"]);
    pod
}
