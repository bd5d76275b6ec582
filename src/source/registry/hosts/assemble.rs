use std::net::IpAddr;

use super::address::Address;
use super::file::HostsFile;
use super::table::HostTable;
use super::{HostTls, HostsError, RegistryHost};

/// Docker Hub's server isn't called like the registry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The hosts that `file` makes of `domain`. `configured` says whether the daemon has a `config_path` at all: without
/// one it asks all registries on this machine by HTTP.
pub(super) fn hosts(
    file: HostsFile,
    domain: &str,
    configured: bool,
) -> Result<Vec<RegistryHost>, HostsError> {
    let mut server = file.server;
    if server.address.is_none() {
        let address = default_address(&mut server, domain, configured);
        server.address = Some(address.ok_or_else(|| HostsError::Domain { domain: domain.to_owned() })?);
        // A registry whose address isn't given can do everything, whatever is said of it.
        (server.can_pull, server.can_resolve) = (true, true);
    }
    let tables = file.mirrors.into_iter().chain([server]);
    Ok(tables.filter_map(|table| host(table, domain)).collect())
}

fn host(table: HostTable, domain: &str) -> Option<RegistryHost> {
    let address = table.address?;
    Some(RegistryHost {
        namespace: address.is_mirror_of(domain).then(|| domain.to_owned()),
        base: address.base,
        can_pull: table.can_pull,
        can_resolve: table.can_resolve,
        tls: HostTls { ca: table.ca, client: table.client, skip_verify: table.skip_verify },
        headers: table.headers,
        dial_timeout: table.dial_timeout,
    })
}

fn default_address(server: &mut HostTable, domain: &str, configured: bool) -> Option<Address> {
    let authority = if domain == DOCKER_HUB.0 { DOCKER_HUB.1 } else { domain };
    let (name, port) = split_port(domain);
    let mut scheme = "https";
    if is_this_machine(name) {
        let has_certificates = !server.ca.is_empty() || !server.client.is_empty();
        let says_https = configured && matches!(port, "" | "443");
        if !has_certificates && !says_https {
            scheme = "http";
        }
        if port != "80" {
            server.skip_verify = true;
        }
    }
    Address::parse(&format!("{scheme}://{authority}"), false).filter(|address| address.authority == authority)
}

fn split_port(domain: &str) -> (&str, &str) {
    match domain.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (domain, ""),
    }
}

fn is_this_machine(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
