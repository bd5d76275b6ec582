use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::{Certificate, Client, Identity, redirect};

use super::{HostTls, RegistryHost};
use crate::source::{SourceConfig, SourceError, client};

/// Kept at most; hosts.toml files have few kinds of TLS between them.
const MOST: usize = 64;

/// One client a kind of TLS, so that hosts share connections and handshakes; made anew when a file of it changed.
pub(super) struct Clients(Mutex<Vec<(Key, Vec<Stamp>, Client)>>);

#[derive(Clone, PartialEq)]
struct Key {
    tls: HostTls,
    connect: Duration,
}

type Stamp = Option<(SystemTime, u64)>;

impl Clients {
    /// With the one that most hosts share.
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let key = Key { tls: HostTls::default(), connect: config.connect };
        let client = make(&key, config)?;
        let stamps = files(&key.tls, config).map(|file| stamp(file)).collect();
        Ok(Self(Mutex::new(vec![(key, stamps, client)])))
    }

    /// The client for `host`.
    pub(super) async fn of(&self, host: &RegistryHost, config: &SourceConfig) -> Result<Client, SourceError> {
        let key = Key { tls: host.tls.clone(), connect: host.dial_timeout.unwrap_or(config.connect) };
        let files: Vec<PathBuf> = files(&key.tls, config).cloned().collect();
        let stamps = match files.is_empty() {
            true => Vec::new(),
            false => blocking(move || Ok(files.iter().map(|file| stamp(file)).collect())).await?,
        };
        if let Some((_, _, client)) =
            self.lock().iter().find(|(known, then, _)| *known == key && *then == stamps)
        {
            return Ok(client.clone());
        }
        let made = {
            let (key, config) = (key.clone(), config.clone());
            blocking(move || make(&key, &config)).await?
        };
        let mut clients = self.lock();
        clients.retain(|(known, ..)| *known != key);
        if clients.len() >= MOST {
            clients.remove(0);
        }
        clients.push((key, stamps, made.clone()));
        Ok(made)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Key, Vec<Stamp>, Client)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client depends on: a change of any makes a new one.
fn files<'a>(tls: &'a HostTls, config: &'a SourceConfig) -> impl Iterator<Item = &'a PathBuf> {
    own_files(tls).chain(&config.ca_files)
}

fn own_files(tls: &HostTls) -> impl Iterator<Item = &PathBuf> {
    let pairs = tls.client.iter().flat_map(|(certificate, key)| std::iter::once(certificate).chain(key));
    tls.ca.iter().chain(pairs)
}

fn stamp(file: &Path) -> Stamp {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
        Err(SourceError::Invalid { what: "a registry's TLS files".to_owned(), problem: error.to_string() })
    })
}

fn make(key: &Key, config: &SourceConfig) -> Result<Client, SourceError> {
    let mut builder =
        client::builder(config)?.connect_timeout(key.connect).redirect(redirect::Policy::none());
    for file in &key.tls.ca {
        let certificates = Certificate::from_pem_bundle(&read(file)?).map_err(|_| unfit(file, CA))?;
        if certificates.is_empty() {
            return Err(unfit(file, CA));
        }
        builder = builder.tls_certs_merge(certificates);
    }
    // One client certificate a connection: the first that is listed.
    if let Some((certificate, key)) = key.tls.client.first() {
        let mut pem = read(certificate)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        builder = builder.identity(Identity::from_pem(&pem).map_err(|_| unfit(certificate, CLIENT))?);
    }
    let built = builder.tls_danger_accept_invalid_certs(key.tls.skip_verify).build();
    built.map_err(|error| match own_files(&key.tls).next() {
        Some(file) => unfit(
            file,
            &format!("no TLS client can be made with it: {}", crate::rt::chain(&error.without_url())),
        ),
        None => client::no_trust(error),
    })
}

const CA: &str = "it holds no certificate in PEM; name the authority's certificate";
const CLIENT: &str = "it holds no certificate with a key in PEM; name both files of the client certificate";

fn read(file: &Path) -> Result<Vec<u8>, SourceError> {
    std::fs::read(file).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; hosts.toml names it, is it mounted?",
            _ => "",
        };
        unfit(file, &format!("{error}{hint}"))
    })
}

fn unfit(file: &Path, problem: &str) -> SourceError {
    SourceError::Invalid { what: file.display().to_string(), problem: problem.to_owned() }
}
