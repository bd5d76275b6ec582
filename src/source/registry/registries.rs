use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

use super::RegistryHost;
use super::clients::Clients;
use super::endpoint::Endpoint;
use super::gate::Gate;
use super::repository::Repository;
use super::wire::Wire;
use crate::source::{SourceConfig, SourceError, client};
use crate::types::{ImageRef, RegistryAuth};

/// All registries: their connections and the tokens that they gave, shared by every image.
#[derive(Clone)]
pub struct Registries(Arc<Shared>);

pub(super) struct Shared {
    pub(super) config: SourceConfig,
    clients: Clients,
    gates: Mutex<Vec<(GateKey, Arc<Gate>)>>,
}

/// A token is for one host, one repository and one list of credentials.
#[derive(PartialEq)]
struct GateKey {
    origin: String,
    is_tls: bool,
    repository: String,
    auths: Vec<RegistryAuth>,
}

impl Registries {
    /// Nothing is asked of any registry yet.
    ///
    /// # Errors
    /// When the system's CA certificates can't be read.
    pub fn new(config: SourceConfig) -> Result<Self, SourceError> {
        let clients = Clients::new(&config)?;
        Ok(Self(Arc::new(Shared { config, clients, gates: Mutex::default() })))
    }

    /// The repository of `image` at `hosts`, in the order in which they are to be tried; the registry itself is the
    /// last. `auths` are tried in order, and only where a host asks for some; none of them: as nobody.
    #[must_use]
    pub fn repository(
        &self,
        image: &ImageRef,
        hosts: Vec<RegistryHost>,
        auths: Vec<RegistryAuth>,
    ) -> Repository {
        Repository::new(Arc::clone(&self.0), image.clone(), hosts, auths)
    }
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registries")
    }
}

impl Shared {
    pub(super) async fn endpoint(
        self: &Arc<Self>,
        host: &RegistryHost,
        repository: &str,
        auths: &[RegistryAuth],
    ) -> Result<Endpoint, SourceError> {
        let wire = Wire {
            client: self.clients.of(host, &self.config).await?,
            first_byte: self.config.first_byte,
            stall: self.config.stall,
            home: host.base.clone(),
            headers: host.headers.clone(),
        };
        let scope = format!("repository:{repository}:pull");
        let gate = self.gate(&host.base, repository, auths, Some(scope));
        Ok(Endpoint::new(host, repository, gate, Arc::clone(self), wire))
    }

    /// Who we are to the host of `url`. Gates that nobody holds, and whose tokens are over, are forgotten.
    pub(super) fn gate(
        &self,
        url: &Url,
        repository: &str,
        auths: &[RegistryAuth],
        scope: Option<String>,
    ) -> Arc<Gate> {
        let key = GateKey {
            origin: client::origin(url),
            is_tls: url.scheme() == "https",
            repository: repository.to_owned(),
            auths: auths.to_vec(),
        };
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, gate)) = gates.iter().find(|(known, _)| *known == key) {
            return Arc::clone(gate);
        }
        gates.retain(|(_, gate)| Arc::strong_count(gate) > 1 || gate.is_in_use());
        let gate = Arc::new(Gate::new(auths, scope));
        gates.push((key, Arc::clone(&gate)));
        gate
    }
}
