use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::HostsError;
use super::file::HostsFile;
use super::table::HostTable;
use crate::rt;

/// Nobody's `hosts.toml` is longer.
const LONGEST: u64 = 1 << 20;

/// Looks for what is said about one registry. Everything in it blocks.
pub(super) struct Search {
    /// The daemon's directories.
    pub(super) dirs: Vec<PathBuf>,
    /// Where the host's `/` is.
    pub(super) host_root: Option<PathBuf>,
    /// The registry.
    pub(super) domain: String,
}

impl Search {
    /// What is said about the registry; all of it left open where nothing is. Paths in it can be opened as they are.
    pub(super) fn run(&self) -> Result<HostsFile, HostsError> {
        let domain = self.domain.as_str();
        if domain.is_empty() || domain.starts_with('.') || domain.contains(['/', '\0']) {
            return Err(HostsError::Domain { domain: domain.to_owned() });
        }
        let Some(dir) = self.directory()? else { return Ok(HostsFile::default()) };
        let path = dir.join("hosts.toml");
        match self.read(&path)? {
            None => self.certificates(&dir),
            Some(text) if text.is_empty() => self.certificates(&dir),
            Some(text) => {
                let mut file = HostsFile::parse(&text).map_err(|malformed| HostsError::Malformed {
                    path,
                    line: malformed.line,
                    problem: malformed.problem,
                })?;
                for table in file.mirrors.iter_mut().chain([&mut file.server]) {
                    self.place(table, &dir)?;
                }
                Ok(file)
            }
        }
    }

    /// The first directory that is there. A `_default` counts before a later directory of the registry's own name.
    fn directory(&self) -> Result<Option<PathBuf>, HostsError> {
        for dir in &self.dirs {
            for name in names(&self.domain) {
                let path = dir.join(name);
                match fs::metadata(self.here(&path)?) {
                    Ok(_) => return Ok(Some(path)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(cause) => return Err(HostsError::Unreadable { path, cause }),
                }
            }
        }
        Ok(None)
    }

    /// The text of a file, `None` where it isn't there.
    fn read(&self, path: &Path) -> Result<Option<String>, HostsError> {
        let unreadable = |cause| HostsError::Unreadable { path: path.to_owned(), cause };
        let file = match File::open(self.here(path)?) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(unreadable(cause)),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LONGEST {
            return Err(HostsError::TooLarge { path: path.to_owned() });
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            HostsError::Malformed {
                path: path.to_owned(),
                line: 1 + good.iter().filter(|&&byte| byte == b'\n').count(),
                problem: "it isn't UTF-8".to_owned(),
            }
        })?;
        Ok(Some(text))
    }

    /// Docker's layout: each `.crt` is an authority, each `.cert` a client's certificate whose key is in the `.key` of
    /// the same name, or else in the same file.
    fn certificates(&self, dir: &Path) -> Result<HostsFile, HostsError> {
        let unreadable = |cause| HostsError::Unreadable { path: dir.to_owned(), cause };
        let mut names = Vec::new();
        for entry in fs::read_dir(self.here(dir)?).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if !entry.file_type().map_err(unreadable)?.is_dir() {
                names.push(PathBuf::from(entry.file_name()));
            }
        }
        names.sort();
        let mut server = HostTable::default();
        for name in &names {
            match name.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => server.ca.push(self.here(&dir.join(name))?),
                Some("cert") => {
                    let key = name.with_extension("key");
                    let key = names.contains(&key).then(|| self.here(&dir.join(key))).transpose()?;
                    server.client.push((self.here(&dir.join(name))?, key));
                }
                _ => {}
            }
        }
        Ok(HostsFile { server, ..HostsFile::default() })
    }

    /// Makes the paths of `table` such that we can open them: relative ones are relative to the registry's directory.
    fn place(&self, table: &mut HostTable, dir: &Path) -> Result<(), HostsError> {
        let certificates =
            table.client.iter_mut().flat_map(|(certificate, key)| [Some(certificate), key.as_mut()]);
        for path in table.ca.iter_mut().chain(certificates.flatten()) {
            *path = self.here(&dir.join(&*path))?;
        }
        Ok(())
    }

    /// Where a path of the host is for us.
    fn here(&self, path: &Path) -> Result<PathBuf, HostsError> {
        rt::host_path(self.host_root.as_deref(), path)
            .map_err(|cause| HostsError::Unreadable { path: path.to_owned(), cause })
    }
}

/// The names a registry's directory may have, in the order in which they are looked for.
fn names(domain: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((host, port)) = domain.rsplit_once(':').filter(|(host, _)| !host.is_empty()) {
        names.push(format!("{host}_{port}_"));
    }
    names.push(domain.to_owned());
    names.push("_default".to_owned());
    names
}
