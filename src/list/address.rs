use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address must never be connected to on a list's behalf: link-local ones, where clouds serve the
/// instance's credentials; the clouds' metadata services elsewhere; and what can't be a server at all.
///
/// A name in a list may resolve to such an address, so whoever resolves one asks this again. Loopback and private
/// addresses are allowed: mirrors and stores are there.
#[must_use]
pub fn is_forbidden_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_forbidden_v4(address),
        IpAddr::V6(address) => is_forbidden_v6(address),
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    // Azure's wire server, Alibaba's metadata service, Oracle's second one.
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
    address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA.contains(&address)
}

fn is_forbidden_v6(address: Ipv6Addr) -> bool {
    // The metadata services of AWS and of Google in IPv6.
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    address.is_unicast_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || METADATA.contains(&address)
        || inner_v4(address).is_some_and(is_forbidden_v4)
}

/// The IPv4 address that an IPv6 one stands for: mapped and compatible (RFC 4291, 2.5.5), NAT64 (RFC 6052) and
/// 6to4 (RFC 3056).
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(join(high, low)),
        // Loopback, ::1, is of this form but no IPv4 address.
        [0, 0, 0, 0, 0, 0] if high != 0 => Some(join(high, low)),
        [0x2002, ..] => Some(join(b, c)),
        _ => None,
    }
}

/// Names under which clouds serve the instance's credentials. `name` is lower-case, without a final dot.
pub(super) fn is_metadata_name(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["metadata", "metadata.google.internal", "metadata.goog", "instance-data", "metadata.azure.internal"];
    NAMES.contains(&name) || name.starts_with("instance-data.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_is_forbidden_whatever_it_is_wrapped_in() {
        for address in [
            "169.254.0.0",
            "169.254.255.255",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert!(is_forbidden_address(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn servers_are_allowed_on_loopback_and_private_networks() {
        for address in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "192.168.0.1",
            "169.253.0.1",
            "fec0::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!is_forbidden_address(address.parse().unwrap()), "{address}");
        }
    }
}
