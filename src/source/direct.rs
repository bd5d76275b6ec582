//! Which hosts are never reached through a proxy, whatever NO_PROXY says. Pure.

use url::{Host, Url};

use super::dns::is_link_local;

/// Where Google's metadata server is, by its only name.
const GOOGLE_METADATA: &str = "metadata.google.internal";

/// Whether a URL's host means something on this machine, or on its own link, alone: the node itself, and where clouds
/// serve an instance its metadata and its keys. A proxy would ask its own, and be told the tokens.
pub(super) fn is_direct(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || is_link_local(ip.into()),
        Some(Host::Ipv6(ip)) => {
            let ip = std::net::IpAddr::V6(ip).to_canonical();
            ip.is_loopback() || is_link_local(ip)
        }
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name.eq_ignore_ascii_case("localhost") || name.eq_ignore_ascii_case(GOOGLE_METADATA)
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_the_node_itself_are_never_asked_through_a_proxy() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[::ffff:169.254.169.254]",
            "metadata.google.internal",
            "METADATA.google.internal.",
            "localhost:4000",
            "127.0.0.1",
            "[::1]",
        ] {
            assert!(is_direct(&Url::parse(&format!("http://{host}/latest")).unwrap()), "{host}");
        }
        for host in [
            "s3.eu-west-1.amazonaws.com",
            "sts.amazonaws.com",
            "10.0.0.1",
            "[fd00::1]",
            "metadata.google.internal.evil.example",
            "xmetadata.google.internal",
        ] {
            assert!(!is_direct(&Url::parse(&format!("https://{host}/")).unwrap()), "{host}");
        }
    }
}
