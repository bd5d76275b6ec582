//! What is shipped in `deploy/` is right: it renders, names only flags that there are, allows the agent what it needs
//! and no more, and its examples say what the code says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stoker::list::{AllowList, parse};
use stoker::node::{BOOT_ID_ANNOTATION, GoodsKind, READY_LABEL, STATUS_ANNOTATION, goods_label};

#[allow(dead_code, reason = "kubectl is all that is needed here")]
#[path = "real/parts/programs.rs"]
mod programs;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Every file below `deploy/` with this end to its name.
fn files(end: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, end: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, end, found);
            } else if path.to_str().is_some_and(|path| path.ends_with(end)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&deploy(), end, &mut found);
    found.sort();
    found
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

fn read(file: &str) -> Vec<Value> {
    documents(&fs::read_to_string(deploy().join(file)).unwrap())
}

/// What `kubectl apply -k` would send, as text.
fn rendered_text(dir: &Path) -> String {
    let home = tempfile::tempdir().unwrap();
    let kubectl = programs::part("kubernetes-1.36.3", "kubectl");
    let output = Command::new(kubectl).arg("kustomize").arg(dir).env("HOME", home.path()).output().unwrap();
    assert!(output.status.success(), "{}: {}", dir.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn rendered(dir: &str) -> Vec<Value> {
    documents(&rendered_text(&deploy().join(dir)))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn pod(objects: &[Value]) -> &Value {
    &find(objects, "DaemonSet", "stoker")["spec"]["template"]["spec"]
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {name} in {list}"))
}

fn container<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    named(&pod(objects)["containers"], name)
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
}

/// The directories that can be applied: all that hold a kustomization but components.
fn applicable() -> Vec<PathBuf> {
    let kustomizations = files("kustomization.yaml").into_iter();
    let whole = kustomizations.filter(|file| !fs::read_to_string(file).unwrap().contains("kind: Component"));
    whole.map(|file| file.parent().unwrap().to_owned()).collect()
}

#[test]
fn every_file_is_yaml_and_every_directory_renders() {
    for file in files(".yaml") {
        documents(&fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    let directories = applicable();
    assert!(directories.len() >= 8, "{directories:?}");
    for directory in directories {
        let objects = documents(&rendered_text(&directory));
        assert!(!objects.is_empty(), "{}", directory.display());
        for object in objects {
            let namespace = object["metadata"]["namespace"].as_str();
            assert!(matches!(namespace, None | Some("stoker-system" | "default")), "{object}");
        }
    }
}

#[test]
fn one_directory_installs_all_of_it() {
    let objects = rendered("");
    let kinds: BTreeSet<String> = objects
        .iter()
        .map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', ""))
        .collect();
    let expected = [
        "ClusterRole stoker",
        "ClusterRoleBinding stoker",
        "DaemonSet stoker",
        "Namespace stoker-system",
        "ResourceQuota stoker",
        "Role stoker",
        "Role stoker-events",
        "RoleBinding stoker",
        "RoleBinding stoker-events",
        "ServiceAccount stoker",
        "ValidatingAdmissionPolicy stoker-own-node",
        "ValidatingAdmissionPolicyBinding stoker-own-node",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    let namespace = &find(&objects, "Namespace", "stoker-system")["metadata"]["labels"];
    for mode in ["enforce", "audit", "warn"] {
        assert_eq!(namespace[format!("pod-security.kubernetes.io/{mode}")], "privileged");
    }
    let version = format!(":v{}", env!("CARGO_PKG_VERSION"));
    for name in ["agent", "gpu-probe"] {
        let image = container(&objects, name)["image"].as_str().unwrap();
        assert!(image.ends_with(&version), "{image}");
    }
}

#[test]
fn the_agent_is_allowed_what_it_needs_and_no_more() {
    let objects = rendered("");
    let role = |kind, name| find(&objects, kind, name)["rules"].clone();
    assert_eq!(
        role("Role", "stoker"),
        json!([{
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["stoker-list"],
            "verbs": ["get", "list", "watch"],
        }])
    );
    assert_eq!(
        role("ClusterRole", "stoker"),
        json!([
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        ])
    );
    assert_eq!(
        role("Role", "stoker-events"),
        json!([{"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}])
    );
    let account = json!([{"kind": "ServiceAccount", "name": "stoker", "namespace": "stoker-system"}]);
    let bindings: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")))
        .map(|binding| {
            assert_eq!(binding["subjects"], account);
            let (namespace, role) = (&binding["metadata"]["namespace"], &binding["roleRef"]["name"]);
            (namespace.as_str().unwrap_or("every namespace"), role.as_str().unwrap())
        })
        .collect();
    assert_eq!(
        bindings,
        [("default", "stoker-events"), ("stoker-system", "stoker"), ("every namespace", "stoker")]
    );
    assert_eq!(pod(&objects)["serviceAccountName"], "stoker");
}

#[test]
fn the_agents_container_can_unpack_and_no_more_and_the_probes_has_no_token() {
    let objects = rendered("");
    let pod = pod(&objects);
    let agent = container(&objects, "agent");
    assert_eq!(
        agent["securityContext"],
        json!({
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {
                "drop": ["ALL"],
                "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN"],
            },
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
    assert_eq!(pod["automountServiceAccountToken"], false);
    let probe = container(&objects, "gpu-probe");
    assert_eq!(probe["securityContext"]["privileged"], true);
    assert_eq!(probe["securityContext"]["readOnlyRootFilesystem"], true);
    let mounts = |container: &Value| -> BTreeMap<String, String> {
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let written = |mount: &Value| if mount["readOnly"] == true { "read" } else { "write" }.to_owned();
        mounts.map(|mount| (mount["mountPath"].as_str().unwrap().to_owned(), written(mount))).collect()
    };
    let expected = |places: &[(&str, &str)]| -> BTreeMap<String, String> {
        places.iter().map(|(path, how)| ((*path).to_owned(), (*how).to_owned())).collect()
    };
    assert_eq!(
        mounts(agent),
        expected(&[
            ("/host", "read"),
            ("/run/containerd", "read"),
            ("/run/stoker", "write"),
            ("/run/stoker-probe", "write"),
            ("/var/cache/stoker", "write"),
            ("/var/lib/containerd", "write"),
            ("/var/lib/stoker", "write"),
            ("/var/run/secrets/kubernetes.io/serviceaccount", "read"),
        ])
    );
    assert_eq!(
        mounts(probe),
        expected(&[("/dev", "write"), ("/host", "read"), ("/run/stoker-probe", "write")])
    );
    // What others unmount on the host goes here too.
    for container in [agent, probe] {
        for mount in container["volumeMounts"].as_array().unwrap() {
            let volume = named(&pod["volumes"], mount["name"].as_str().unwrap());
            let place = volume["hostPath"]["path"].as_str().unwrap_or_default();
            if ["/", "/run/containerd", "/var/lib/containerd", "/var/cache/stoker"].contains(&place) {
                assert_eq!(mount["mountPropagation"], "HostToContainer", "{mount}");
            }
        }
    }
}

/// What a command says of itself.
#[test]
fn an_agent_that_takes_over_a_large_cache_is_given_its_time() {
    let objects = rendered("base");
    let probe = &container(&objects, "agent")["startupProbe"];
    let seconds = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
    assert!(seconds >= 600, "killed after {seconds} s, it begins again");
}

fn help(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stoker")).args([command, "--help"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn assert_knows(command: &str, container: &Value) {
    let help = help(command);
    let words: BTreeSet<&str> = help.split(|c: char| c.is_whitespace() || "=,[]:".contains(c)).collect();
    let args = texts(&container["args"]);
    assert_eq!(args[0], command);
    for flag in args[1..].iter().filter(|arg| arg.starts_with('-')) {
        let flag = flag.split('=').next().unwrap();
        assert!(words.contains(flag), "`stoker {command}` has no {flag}");
    }
    for env in container["env"].as_array().into_iter().flatten() {
        let name = env["name"].as_str().unwrap();
        assert!(!name.starts_with("STOKER_") || words.contains(name), "`stoker {command}` reads no {name}");
    }
}

#[test]
fn each_flag_and_variable_is_one_that_the_program_has() {
    for directory in applicable() {
        let objects = documents(&rendered_text(&directory));
        if objects.iter().any(|object| object["kind"] == "DaemonSet") {
            assert_knows("agent", container(&objects, "agent"));
            assert_knows("gpu", container(&objects, "gpu-probe"));
        }
    }
    assert_knows("wait", &read("examples/workload-waits.yaml")[0]["spec"]["initContainers"][0]);
}

#[test]
fn the_taints_key_is_said_once_for_the_flag_and_the_policy() {
    for directory in applicable() {
        let objects = documents(&rendered_text(&directory));
        if !objects.iter().any(|object| object["kind"] == "DaemonSet") {
            continue;
        }
        let other = directory.ends_with("other-taint");
        let key = if other {
            "startup-taint.cluster-autoscaler.kubernetes.io/stoker"
        } else {
            "stoker.dev/not-ready"
        };
        let flag = &named(&container(&objects, "agent")["env"], "STOKER_TAINT")["value"];
        assert_eq!(flag, key, "{}", directory.display());
        let policy = find(&objects, "ValidatingAdmissionPolicy", "stoker-own-node");
        let allowed = &named(&policy["spec"]["variables"], "taints")["expression"];
        assert_eq!(allowed, &format!("\"{key}\".split(\",\")"), "{}", directory.display());
    }
    assert!(help("agent").contains("[default: stoker.dev/not-ready]"));
}

#[test]
fn the_policy_lets_through_the_keys_that_the_agent_writes() {
    let objects = rendered("");
    let policy = find(&objects, "ValidatingAdmissionPolicy", "stoker-own-node");
    let prefixes = named(&policy["spec"]["variables"], "labelPrefixes")["expression"].as_str().unwrap();
    let prefixes: Vec<String> = serde_json::from_str(prefixes).unwrap();
    let prefix = |key: &str| format!("{}/", key.split('/').next().unwrap());
    let id = "x".parse().unwrap();
    let written =
        [READY_LABEL.to_owned(), goods_label(GoodsKind::Image, &id), goods_label(GoodsKind::Weights, &id)];
    assert_eq!(prefixes, written.each_ref().map(|key| prefix(key)));
    for annotation in [STATUS_ANNOTATION, BOOT_ID_ANNOTATION] {
        assert_eq!(prefix(annotation), prefixes[0]);
    }
    // One that is gone must not stop every kubelet: a policy without a parameter can't miss one.
    assert_eq!(policy["spec"]["paramKind"], Value::Null);
    let binding = find(&objects, "ValidatingAdmissionPolicyBinding", "stoker-own-node");
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
}

#[test]
fn the_example_list_has_nothing_wrong_with_it() {
    let file = deploy().join("examples/list/list.yaml");
    let schemes = AllowList::DEFAULT_SCHEMES.map(str::to_owned);
    let allow = AllowList::new(&schemes, &[], None).unwrap();
    let list = parse(&fs::read(&file).unwrap(), &allow);
    assert!(list.all_problems().is_empty(), "{:?}", list.all_problems());
    assert!(list.head.is_some() && list.entries.len() == 4);
    assert!(list.entries.iter().all(|entry| entry.entry.is_some()));

    // As a file, and as the ConfigMap that is applied.
    let manifest = rendered_text(&deploy().join("examples/list"));
    let config_map = documents(&manifest);
    assert_eq!(
        (&config_map[0]["metadata"]["namespace"], &config_map[0]["metadata"]["name"]),
        (&json!("stoker-system"), &json!("stoker-list"))
    );
    let mut check = Command::new(env!("CARGO_BIN_EXE_stoker"))
        .args(["check", "--strict", "-"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), manifest.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What `stoker affinity` prints for these.
fn affinity(goods: &[String]) -> Value {
    let printed = Command::new(env!("CARGO_BIN_EXE_stoker")).arg("affinity").args(goods).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    documents(&String::from_utf8(printed.stdout).unwrap()).remove(0)
}

#[test]
fn the_example_workloads_want_what_the_example_list_brings() {
    let list = &read("examples/list/list.yaml")[0]["entries"];
    let (image, weights) = ("image/vllm".to_owned(), "weights/llama-70b".to_owned());

    let workload = &read("examples/workload.yaml")[0]["spec"]["template"]["spec"];
    assert_eq!(workload["affinity"], affinity(&[image, weights.clone()]));
    let server = &workload["containers"][0];
    assert_eq!(server["image"], named_id(list, "vllm")["image"]);
    assert_eq!(server["imagePullPolicy"], "IfNotPresent");
    assert_eq!(named(&server["env"], "SOURCE")["value"], named_id(list, "llama-70b")["weights"]);
    assert_eq!(server["volumeMounts"][0]["readOnly"], true);
    assert_eq!(workload["volumes"][0]["hostPath"]["path"], "/var/cache/stoker/weights/llama-70b");

    let waits = &read("examples/workload-waits.yaml")[0]["spec"];
    assert_eq!(waits["affinity"], affinity(&[weights]));
    assert!(texts(&waits["initContainers"][0]["args"]).contains(&"llama-70b"));
}

fn named_id<'a>(list: &'a Value, id: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|entry| entry["id"] == id).unwrap()
}

/// Runs the example's own script with a `vllm` that only says what it was started with.
fn serve(weights: &Path) -> String {
    let workload = &read("examples/workload.yaml")[0]["spec"]["template"]["spec"]["containers"][0];
    let bin = tempfile::tempdir().unwrap();
    let vllm = bin.path().join("vllm");
    fs::write(&vllm, "#!/bin/sh\necho \"$@\"\n").unwrap();
    fs::set_permissions(&vllm, fs::Permissions::from_mode(0o755)).unwrap();
    let command = texts(&workload["command"]);
    let output = Command::new(command[0])
        .args(&command[1..])
        .args(texts(&workload["args"]))
        .env("PATH", format!("{}:/usr/bin:/bin", bin.path().display()))
        .env("WEIGHTS", weights)
        .env("SOURCE", named(&workload["env"], "SOURCE")["value"].as_str().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_example_workload_reads_what_is_there_and_else_downloads() {
    let cache = tempfile::tempdir().unwrap();
    let entry = cache.path().canonicalize().unwrap().join("llama-70b");
    let current = entry.join("current");
    assert_eq!(serve(&current), "serve s3://models/llama-3.1-70b-instruct/ --load-format runai_streamer\n");
    let revision = entry.join("0123456789ab");
    fs::create_dir_all(&revision).unwrap();
    fs::write(revision.join("config.json"), "{}").unwrap();
    std::os::unix::fs::symlink("0123456789ab", &current).unwrap();
    assert_eq!(serve(&current), format!("serve {}\n", revision.display()));
}
