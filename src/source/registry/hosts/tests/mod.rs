mod directories;
mod files;
mod properties;

use super::*;

/// The hosts that the text of a `hosts.toml` makes of `domain`.
fn hosts_of(text: &str, domain: &str) -> Vec<RegistryHost> {
    assemble::hosts(HostsFile::parse(text).unwrap(), domain, true).unwrap()
}

fn bases(hosts: &[RegistryHost]) -> Vec<&str> {
    hosts.iter().map(|host| host.base.as_str()).collect()
}
