use std::io;
use std::net::{IpAddr, SocketAddr};

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves names through the system, and gives every address of a name the same share of connections: object
/// stores and mirrors answer with many. Addresses that only mean something on this machine's own link, where
/// clouds keep their metadata, are never used: a list must not be able to ask for them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(addresses(name.as_str()).await?.into_iter()) as Addrs) })
    }
}

/// For the AWS client.
impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let found = addresses(name).await.map_err(ResolveDnsError::new)?;
            Ok(found.into_iter().map(|address| address.ip()).collect())
        })
    }
}

/// All addresses of a name that may be used, in any order.
async fn addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    let mut addresses: Vec<SocketAddr> = found.filter(|found| !is_link_local(found.ip())).collect();
    if addresses.is_empty() {
        return Err(io::Error::other("the name has no address that may be used"));
    }
    fastrand::shuffle(&mut addresses);
    Ok(addresses)
}

/// IPv4 and IPv6 link-local (RFC 3927, RFC 4291), and the addresses that AWS has beside them: of the instance's
/// metadata, and of EKS Pod Identity.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local()
                || matches!(ip.segments(), [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23])
        }
    }
}

/// Whether a URL names such an address outright, so that no name is ever resolved.
pub(super) fn names_link_local(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => is_link_local(ip.into()),
        Some(url::Host::Ipv6(ip)) => is_link_local(ip.into()),
        Some(url::Host::Domain(_)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_link_local_in_every_spelling() {
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "[::ffff:169.254.169.254]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
        ] {
            let url = url::Url::parse(&format!("http://{host}/latest")).unwrap();
            assert!(names_link_local(&url), "{host}");
        }
        for host in ["127.0.0.1", "10.0.0.1", "[::1]", "[fd00::1]", "example.com"] {
            assert!(!names_link_local(&url::Url::parse(&format!("http://{host}/")).unwrap()), "{host}");
        }
    }

    #[tokio::test]
    async fn names_resolve() {
        let name: Name = "localhost".parse().unwrap();
        let mut addresses = Resolver.resolve(name).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(addresses.all(|address| address.ip().is_loopback()));
        let addresses = Resolver.resolve_dns("localhost").await.unwrap();
        assert!(!addresses.is_empty() && addresses.iter().all(|address| address.is_loopback()));
    }
}
