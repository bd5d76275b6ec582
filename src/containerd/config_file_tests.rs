use std::os::unix::net::UnixListener;

use super::*;

/// A host with a containerd that has this command line, and the files that are written before it starts.
struct Host {
    home: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        std::fs::write(self.at(path), text).unwrap();
    }

    fn start(&self, arguments: &[&str]) {
        self.write("/proc/7/cmdline", &arguments.join("\0"));
        // The clock that stamps files ticks a few hundred times a second; they have to differ.
        let before = std::fs::metadata(self.at("/proc/7/cmdline")).unwrap();
        while std::fs::metadata(self.at("/c.sock")).is_ok_and(|socket| stamp(&socket) <= stamp(&before))
            || !self.at("/c.sock").exists()
        {
            let _ = std::fs::remove_file(self.at("/c.sock"));
            drop(UnixListener::bind(self.at("/c.sock")).unwrap());
        }
    }

    fn read(&self) -> Result<ConfigFiles, ConfigFileError> {
        self.read_of("/var/lib/containerd/io.containerd.content.v1.content")
    }

    fn read_of(&self, content: &str) -> Result<ConfigFiles, ConfigFileError> {
        ConfigFiles::read(self.home.path(), 7, &self.at("/c.sock"), Some(Path::new(content)))
    }

    fn problem(&self) -> String {
        self.read().unwrap_err().to_string()
    }
}

fn stamp(found: &std::fs::Metadata) -> (i64, i64) {
    (found.mtime(), found.mtime_nsec())
}

fn files(texts: &[&str]) -> ConfigFiles {
    ConfigFiles(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn dirs(texts: &[&str], line: (u32, u32)) -> Vec<PathBuf> {
    match files(texts).image_settings(Some(line)).unwrap().registries {
        RegistrySetup::HostsDirs(dirs) => dirs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_names_the_file() {
    let line = |arguments: &[&str]| CommandLine::of(arguments.join("\0").as_bytes());
    let says = |config: Option<&str>, root: Option<&str>| {
        Some(CommandLine { config: config.map(PathBuf::from), root: root.map(PathBuf::from) })
    };
    assert_eq!(line(&["/usr/bin/containerd"]), says(None, None));
    assert_eq!(line(&["containerd", "-c", "/k.toml", "-a", "/run/k.sock"]), says(Some("/k.toml"), None));
    assert_eq!(line(&["containerd", "-l=debug", "--config=/a.toml", ""]), says(Some("/a.toml"), None));
    assert_eq!(line(&["containerd", "-config", "/a", "--root", "/r"]), says(Some("/a"), Some("/r")));
    // Another program, one that isn't seen, and a path that depends on where it was started.
    for other in [&["/sbin/init"][..], &[""], &["containerd", "-c"], &["containerd", "-c", "a.toml"]] {
        assert_eq!(line(other), None, "{other:?}");
    }
}

#[test]
fn another_containerds_file_is_not_taken_for_its_own() {
    let host = Host::new();
    host.write("/etc/containerd/config.toml", "version = 3\nroot = '/data/containerd'\n");
    let content = "/data/containerd/io.containerd.content.v1.content";
    host.start(&["containerd"]);
    host.read_of(content).unwrap();
    let problem = host.problem();
    assert!(problem.contains("config.toml") && problem.contains("/data/containerd"), "{problem}");
    host.start(&["containerd", "--root", "/var/lib/containerd"]);
    host.read().unwrap();
    host.read_of(content).unwrap_err();
}

#[test]
fn files_and_their_imports_are_read_as_the_host_means_them() {
    let host = Host::new();
    host.write(
        "/data/main.toml",
        "version = 3\nimports = ['conf.d/*.toml', '/etc/extra.toml', './main.toml']\n",
    );
    std::fs::create_dir_all(host.at("/etc/containerd")).unwrap();
    std::os::unix::fs::symlink("/data/main.toml", host.at("/etc/containerd/config.toml")).unwrap();
    host.write(
        "/etc/containerd/main.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n",
    );
    host.write(
        "/etc/containerd/conf.d/b.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/b'\n",
    );
    host.write("/etc/containerd/conf.d/b.toml.off", "version = 1\n");
    host.write(
        "/etc/extra.toml",
        "version = 3\n[plugins.'io.containerd.image-verifier.v1.bindir']\nbin_dir = '/v'\n",
    );
    host.start(&["containerd"]);
    let read = host.read().unwrap();
    assert_eq!(read.0.len(), 4);
    let expected =
        ImageSettings { discards_layers: true, registries: RegistrySetup::HostsDirs(vec!["/b".into()]) };
    assert_eq!(read.image_settings(Some((2, 0))).unwrap(), expected);
    assert_eq!(read.verifier_dir().unwrap(), Some("/v".into()));
}

#[test]
fn what_containerd_has_not_read_is_not_believed() {
    let host = Host::new();
    host.write("/a.toml", "version = 3\nimports = ['/*.toml']\n");
    host.start(&["containerd", "-c", "/a.toml"]);
    host.read().unwrap();
    host.write("/b.toml", "version = 3\n");
    assert!(host.problem().contains("/b.toml has been changed since containerd was started"));
    host.start(&["containerd", "-c", "/a.toml"]);
    host.read().unwrap();
    // A password in a file that is no good is nobody's business.
    host.write("/b.toml", "password = 'secret\n");
    host.start(&["containerd", "-c", "/a.toml"]);
    let problem = host.problem();
    assert!(problem.contains("/b.toml isn't TOML") && !problem.contains("secret"), "{problem}");
    for beyond_us in ["/*/b.toml", "/[b]*.toml", "/?*.toml"] {
        host.write("/a.toml", &format!("version = 3\nimports = ['{beyond_us}']\n"));
        host.start(&["containerd", "-c", "/a.toml"]);
        assert!(host.problem().contains(beyond_us));
    }
    // Its beginning alone might say something else.
    host.write("/a.toml", &format!("version = 3\n{}", "# long\n".repeat(1 << 18)));
    host.start(&["containerd", "-c", "/a.toml"]);
    assert!(host.problem().contains("over 1 MiB"));
    host.start(&["containerd", "-c", "/none.toml"]);
    assert!(host.problem().contains("/none.toml can't be read"));
    host.start(&["containerd"]);
    assert!(host.read().unwrap().0.is_empty(), "it runs on its defaults");
    host.start(&["buildkitd"]);
    assert!(host.problem().contains("process 7 isn't seen"));
}

#[test]
fn without_a_path_the_default_is_the_versions() {
    assert!(dirs(&[], (2, 1)).is_empty());
    assert_eq!(dirs(&[], (2, 2)), DEFAULT_HOSTS.map(PathBuf::from));
    assert_eq!(dirs(&["version = 2"], (2, 3)), DEFAULT_HOSTS.map(PathBuf::from));
    assert!(files(&[]).image_settings(None).is_err());
}

#[test]
fn version_2_has_it_elsewhere() {
    let old = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/a:/b'\n\
               [plugins.'io.containerd.grpc.v1.cri'.containerd]\ndiscard_unpacked_layers = true\n";
    assert_eq!(dirs(&[old], (2, 1)), ["/a", "/b"].map(PathBuf::from));
    // A bug of theirs that counts: without runtimes, the setting isn't taken over.
    let discards = |text: &str| files(&[text]).image_settings(Some((2, 1))).unwrap().discards_layers;
    assert!(!discards(old));
    assert!(discards(&format!("{old}[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes]\n")));
    // Nor is any of it from a file of version 3.
    assert!(dirs(&[&old.replace("version = 2", "version = 3")], (2, 1)).is_empty());
}

#[test]
fn what_files_do_not_agree_on_is_unknown() {
    let images = |version, line: &str| {
        format!("version = {version}\n[plugins.'io.containerd.cri.v1.images']\n{line}\n")
    };
    let path = |path| images(3, &format!("registry.config_path = '{path}'"));
    let problem = |texts: &[String]| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        files(&texts).image_settings(Some((2, 2))).unwrap_err().to_string()
    };
    assert_eq!(dirs(&[&path("/a"), &path("/a"), &path("")], (2, 2)), [PathBuf::from("/a")]);
    assert!(problem(&[path("/a"), path("/b")]).contains("config_path"));
    let discards = |value| images(3, &format!("discard_unpacked_layers = {value}"));
    assert!(problem(&[discards(true), discards(false)]).contains("discard_unpacked_layers"));
    assert!(problem(&[images(2, ""), images(3, "")]).contains("version"));
    assert!(problem(&[String::new()]).contains("version 1"));
    assert!(problem(&[images(5, "")]).contains("version 5"));
    for old in ["mirrors", "configs", "auths"] {
        let text = images(3, &format!("registry.{old}.'quay.io'.x = 'y'"));
        assert_eq!(files(&[&text]).image_settings(Some((2, 2))).unwrap().registries, RegistrySetup::Legacy);
    }
}

#[test]
fn a_star_stands_for_any_text() {
    for (pattern, name) in [("*.toml", "a.toml"), ("*", ""), ("a*b*c", "aXbbc"), ("é*", "éé")] {
        assert!(matches(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [("*.toml", "a.tom"), ("a*b", "ab c"), ("a", "ab"), ("é*", "e")] {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}
