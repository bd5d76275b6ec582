//! A kustomize overlay over what is shipped in `deploy/`, that sets only what a test cluster needs.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::gpu::Gpus;
use super::scratch::Scratch;

/// Such an overlay. `kubectl apply -k` takes its [`Self::path`].
#[derive(Debug)]
pub(crate) struct Overlay {
    image: String,
    components: Vec<&'static str>,
    patches: Vec<Value>,
    scratch: Scratch,
}

impl Overlay {
    /// The base with `image`, on nodes that no label tells from others, with the cache on their only disk.
    pub(crate) fn new(image: &str) -> Self {
        let overlay = Self {
            image: image.to_owned(),
            components: vec!["root-disk", "every-linux-node"],
            patches: Vec::new(),
            scratch: Scratch::new("overlay"),
        };
        // Whoever runs the tests may have a disk that a kubelet would call full.
        overlay.env("agent", "STOKER_IMAGE_GC_HIGH_THRESHOLD", "100")
    }

    /// Shows these GPUs and their driver to the probe.
    pub(crate) fn with_gpus(self, gpus: &Gpus) -> Self {
        let dir = gpus.directory();
        let envs = gpus.envs().map(|(name, value)| json!({"name": name, "value": value}));
        let mount = json!({"name": "standin", "mountPath": dir, "readOnly": true});
        self.patch_pod(&json!({
            "containers": [{"name": "gpu-probe", "env": envs, "volumeMounts": [mount]}],
            "volumes": [{"name": "standin", "hostPath": {"path": dir, "type": "Directory"}}],
        }))
    }

    /// Sets a variable in a container's environment, `agent` or `gpu-probe`.
    pub(crate) fn env(self, container: &str, name: &str, value: &str) -> Self {
        let env = json!([{"name": name, "value": value}]);
        self.patch_pod(&json!({"containers": [{"name": container, "env": env}]}))
    }

    /// Has the HTTP port be this one: other clusters on this machine's network may have the usual one.
    pub(crate) fn http_on(self, port: u16) -> Self {
        let ports =
            json!([{"$patch": "replace"}, {"name": "http", "containerPort": port, "protocol": "TCP"}]);
        let container = json!({"name": "agent", "ports": ports});
        self.env("agent", "STOKER_HTTP", &format!("0.0.0.0:{port}"))
            .patch_pod(&json!({"containers": [container]}))
    }

    /// Has no HTTP port and no probes. For nodes that share one network: only one agent can have the port.
    pub(crate) fn without_http(self) -> Self {
        let without = json!({
            "name": "agent",
            "startupProbe": null,
            "livenessProbe": null,
            "readinessProbe": null,
            "ports": [{"$patch": "replace"}],
        });
        self.env("agent", "STOKER_HTTP", "off").patch_pod(&json!({"containers": [without]}))
    }

    /// Merges `spec` into the pods' spec, as kubectl's strategic merge patch does.
    pub(crate) fn patch_pod(self, spec: &Value) -> Self {
        self.patch(json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "stoker", "namespace": "stoker-system"},
            "spec": {"template": {"spec": spec}},
        }))
    }

    /// Merges `patch` into the object that it names.
    pub(crate) fn patch(mut self, patch: Value) -> Self {
        self.patches.push(patch);
        self
    }

    /// Writes it, and gives its directory.
    pub(crate) fn path(&self) -> PathBuf {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let relative = |to: &str| relative(self.scratch.path(), &deploy.join(to));
        let (name, tag) = self.image.rsplit_once(':').expect("the image has a tag");
        let components = self.components.iter().map(|name| relative(&format!("components/{name}")));
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [relative("base")],
            "components": components.collect::<Vec<_>>(),
            "images": [{"name": "stoker", "newName": name, "newTag": tag}],
            "patches": self.patches.iter().map(|patch| json!({"patch": patch.to_string()})).collect::<Vec<_>>(),
        });
        self.scratch.file("kustomization.yaml", kustomization.to_string());
        self.scratch.path().to_owned()
    }
}

/// `to` as seen from the directory `from`: kustomize takes no absolute paths.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let real =
        |path: &Path| path.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let up = real(from).components().filter(|part| matches!(part, Component::Normal(_))).count();
    let to = real(to);
    std::iter::repeat_n("..", up).collect::<PathBuf>().join(to.strip_prefix("/").expect("an absolute path"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{Gpus, Scratch, part};
    use super::Overlay;

    #[test]
    fn it_sets_what_it_says_and_nothing_is_left_of_what_it_takes_away() {
        let gpus = Gpus::healthy(1);
        let overlay = Overlay::new("127.0.0.1:5000/stoker:test").with_gpus(&gpus).without_http();
        let home = Scratch::new("home");
        let mut kubectl = Command::new(part("kubernetes-1.36.3", "kubectl"));
        kubectl.arg("kustomize").arg(overlay.path()).env("HOME", home.path());
        let output = kubectl.output().expect("kubectl can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(text.matches("image: 127.0.0.1:5000/stoker:test").count(), 2, "{text}");
        assert!(
            !text.contains("Probe:") && !text.contains("containerPort") && !text.contains("nodeAffinity:"),
            "{text}"
        );
        for name in ["STOKER_NVML_PATH", "STOKER_SYSFS_ROOT", "STOKER_ALLOW_ROOT_FS"] {
            assert_eq!(text.matches(name).count(), 1, "{name}: {text}");
        }
        assert!(text.contains(&*gpus.directory().to_string_lossy()));
        assert_eq!(
            text.matches("mountPath: /host\n").count(),
            2,
            "what it doesn't name is there still: {text}"
        );
    }
}
