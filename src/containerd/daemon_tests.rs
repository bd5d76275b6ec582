use super::*;

fn plugin(kind: &str, id: &str, exports: &[(&str, &str)]) -> Plugin {
    let exports = exports.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Plugin { r#type: kind.to_owned(), id: id.to_owned(), exports, ..Plugin::default() }
}

fn settings(discards_layers: bool, dirs: &[&str]) -> ImageSettings {
    let dirs = dirs.iter().map(PathBuf::from).collect();
    ImageSettings { discards_layers, registries: RegistrySetup::HostsDirs(dirs) }
}

#[test]
fn containerd_2_4_tells_of_images_by_its_plugin() {
    let told = |exports: &[(&str, &str)]| images_of(&plugin("io.containerd.cri.v1", "images", exports));
    let both = told(&[("DiscardUnpackedLayers", "true"), ("RegistryConfigPath", "/a:/b")]);
    assert_eq!(both, Some(settings(true, &["/a", "/b"])));
    // With an empty path there are registries of the old kind; without any, it doesn't tell.
    let legacy = ImageSettings { discards_layers: false, registries: RegistrySetup::Legacy };
    assert_eq!(told(&[("DiscardUnpackedLayers", "false"), ("RegistryConfigPath", "")]), Some(legacy));
    assert_eq!(told(&[]), None);
}

#[test]
fn containerd_2_0_tells_nothing_and_its_files_may() {
    let unknown = images_of_files(&Err(ConfigFileError::NotSeen { pid: 7 }), Some((2, 2)));
    let RegistrySetup::Unknown(reason) = unknown.registries else { panic!("{unknown:?}") };
    assert!(reason.contains("process 7") && !unknown.discards_layers, "{reason}");
    let none = images_of_files(&Ok(ConfigFiles::default()), Some((2, 1)));
    assert_eq!(none, settings(false, &[]));
}

#[test]
fn containerd_1_tells_of_images_by_its_configuration() {
    let told = |text: &str| settings_of_cri(&HashMap::from([("config".to_owned(), text.to_owned())]));
    let all = told(
        r#"{"containerd":{"snapshotter":"overlayfs","discardUnpackedLayers":true},
            "registry":{"configPath":"/etc/certs.d","mirrors":null,"configs":{},"auths":null}}"#,
    );
    assert_eq!(all.unwrap(), settings(true, &["/etc/certs.d"]));
    for old in ["mirrors", "configs", "auths"] {
        let text = format!(r#"{{"registry":{{"configPath":"","{old}":{{"quay.io":{{"password":"x"}}}}}}}}"#);
        assert_eq!(told(&text).unwrap().registries, RegistrySetup::Legacy, "{old}");
    }
    for nothing in ["{}", r#"{"containerd":{},"registry":{}}"#] {
        assert_eq!(told(nothing).unwrap(), settings(false, &[]));
    }
    assert_eq!(settings_of_cri(&HashMap::new()).unwrap(), settings(false, &[]));
    assert!(told("[").is_err() && told(r#"{"registry":{"configPath":7}}"#).is_err());
}

#[test]
fn verifiers_are_told_apart() {
    let kind = "io.containerd.image-verifier.v1";
    assert_eq!(verifiers(&[plugin("io.containerd.transfer.v1", "local", &[])]), Verifiers::None);
    assert_eq!(verifiers(&[plugin(kind, "bindir", &[])]), Verifiers::Directory(VERIFIER_DIR.into()));
    let both = [plugin(kind, "bindir", &[]), plugin(kind, "policy", &[])];
    assert_eq!(verifiers(&both), Verifiers::Plugin("policy".to_owned()));
}

#[test]
fn a_user_namespace_shows_from_2_4_on() {
    let version = |text: &str| ContainerdVersion { version: text.to_owned(), revision: String::new() };
    let snapshotter = |name: &str| Snapshotter { name: name.to_owned(), root: "/r".into() };
    let overlay = |capabilities: &[&str]| Plugin {
        capabilities: capabilities.iter().map(|&capability| capability.to_owned()).collect(),
        ..plugin("io.containerd.snapshotter.v1", "overlayfs", &[])
    };
    let shows = |text, name, capabilities: &[&str]| {
        is_in_user_namespace(&version(text), &snapshotter(name), &[overlay(capabilities)])
    };
    assert!(shows("v2.4.2", "overlayfs", &["remap-ids"]));
    assert!(!shows("v2.4.2", "overlayfs", &["remap-ids", "rebase"]));
    assert!(!shows("v2.3.0", "overlayfs", &[]) && !shows("1.7.35", "overlayfs", &[]));
    assert!(!shows("v2.4.2", "native", &[]));
}
