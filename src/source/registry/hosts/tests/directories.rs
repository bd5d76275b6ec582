use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::types::ErrorKind;

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

async fn first(dirs: &[PathBuf], domain: &str) -> String {
    registry_hosts(dirs, None, domain).await.unwrap()[0].base.host_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_directory_that_is_there_is_taken_and_read_at_each_call() {
    let root = tempfile::tempdir().unwrap();
    let dirs = [root.path().join("one"), root.path().join("two")];
    let server = |name: &str| format!("server = \"https://{name}.example\"");
    assert_eq!(first(&dirs, "r.io:5000").await, "r.io", "neither directory is there");
    for (path, name) in [
        ("two/_default", "two-default"),
        ("two/r.io:5000", "two-colon"),
        ("one/_default", "one-default"),
        ("one/r.io:5000", "one-colon"),
        ("one/r.io_5000_", "one-underscore"),
    ] {
        put(root.path(), &format!("{path}/hosts.toml"), &server(name));
        assert_eq!(first(&dirs, "r.io:5000").await, format!("{name}.example"), "each counts before the last");
    }
    assert_eq!(first(&dirs, "r.io").await, "one-default.example", "a port is part of the name");
    fs::remove_dir_all(dirs[0].join("r.io_5000_")).unwrap();
    assert_eq!(first(&dirs, "r.io:5000").await, "one-colon.example");
}

#[tokio::test]
async fn the_default_serves_every_registry_under_its_own_name() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), "_default/hosts.toml", "[host.\"http://spegel:30020\"]\n");
    let hosts = registry_hosts(&[root.path().to_owned()], None, "ghcr.io").await.unwrap();
    assert_eq!(bases(&hosts), ["http://spegel:30020/v2", "https://ghcr.io/v2"]);
    assert_eq!(hosts[0].namespace.as_deref(), Some("ghcr.io"));
}

#[tokio::test]
async fn dockers_certificates_are_taken_where_there_is_no_file() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("r.io");
    for name in ["b.crt", "a.crt", "one.cert", "one.key", "two.cert", "other.pem", "lone.key"] {
        put(&dir, name, "");
    }
    fs::create_dir(dir.join("dir.crt")).unwrap();
    for text in [None, Some("")] {
        if let Some(text) = text {
            put(&dir, "hosts.toml", text);
        }
        let hosts = registry_hosts(&[root.path().to_owned()], None, "r.io").await.unwrap();
        assert_eq!(bases(&hosts), ["https://r.io/v2"]);
        assert_eq!(hosts[0].tls.ca, [dir.join("a.crt"), dir.join("b.crt")]);
        let clients = [(dir.join("one.cert"), Some(dir.join("one.key"))), (dir.join("two.cert"), None)];
        assert_eq!(hosts[0].tls.client, clients);
    }
}

#[tokio::test]
async fn the_hosts_paths_are_found_where_its_root_is_mounted() {
    let root = tempfile::tempdir().unwrap();
    let text = "ca = ['/etc/pki/ca.pem', 'own.pem', '../shared.pem']\nclient = [['c.pem', '/k.pem']]";
    put(root.path(), "var/certs.d/r.io/hosts.toml", text);
    put(root.path(), "var/pki/ca.pem", "");
    fs::create_dir_all(root.path().join("etc/containerd")).unwrap();
    symlink("/var/certs.d", root.path().join("etc/containerd/certs.d")).unwrap();
    symlink("/var/pki", root.path().join("etc/pki")).unwrap();
    let dirs = [PathBuf::from("/etc/containerd/certs.d"), PathBuf::from("/etc/docker/certs.d")];
    let hosts = registry_hosts(&dirs, Some(root.path()), "r.io").await.unwrap();
    let at = |path: &str| root.path().join(path);
    assert_eq!(
        hosts[0].tls.ca,
        [at("var/pki/ca.pem"), at("var/certs.d/r.io/own.pem"), at("var/certs.d/shared.pem")]
    );
    assert_eq!(hosts[0].tls.client, [(at("var/certs.d/r.io/c.pem"), Some(at("k.pem")))]);
}

#[tokio::test]
async fn what_can_not_be_read_is_an_error_that_names_it() {
    let root = tempfile::tempdir().unwrap();
    let dirs = [PathBuf::from("/certs.d")];
    let error = async |domain: &str| registry_hosts(&dirs, Some(root.path()), domain).await.unwrap_err();
    put(root.path(), "certs.d/broken.io/hosts.toml", "\n\nserver = 7\n");
    put(root.path(), "certs.d/latin.io/hosts.toml", "");
    fs::write(root.path().join("certs.d/latin.io/hosts.toml"), b"#\n# \xe9\n").unwrap();
    put(root.path(), "certs.d/long.io/hosts.toml", &"#\n".repeat(600_000));
    put(root.path(), "certs.d/file.io", "not a directory");
    fs::create_dir_all(root.path().join("certs.d/dir.io/hosts.toml")).unwrap();
    symlink("loop.io", root.path().join("certs.d/loop.io")).unwrap();
    for (domain, says) in [
        ("broken.io", "/certs.d/broken.io/hosts.toml, line 3: `server` must be text"),
        ("latin.io", "/certs.d/latin.io/hosts.toml, line 2: it isn't UTF-8"),
        ("long.io", "/certs.d/long.io/hosts.toml is over 1 MiB"),
        ("file.io", "cannot read /certs.d/file.io/hosts.toml"),
        ("dir.io", "cannot read /certs.d/dir.io/hosts.toml"),
        ("loop.io", "cannot read /certs.d/loop.io"),
    ] {
        let error = error(domain).await;
        assert!(error.to_string().starts_with(says), "{error}");
        assert_eq!(error.kind(), ErrorKind::Local);
    }
    for domain in ["", ".", "..", "a/b", "../etc", "a b"] {
        assert_eq!(error(domain).await.kind(), ErrorKind::Invalid, "{domain}");
    }
}
