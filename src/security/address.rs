//! What kind of address one is: which block of the special-purpose registries it lies in, and which IPv4 address an
//! IPv6 address carries inside. Pure tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A block of addresses that is refused unless it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// The network: what `egress.allow` would have to say.
    pub(crate) net: IpNet,
    /// What kind of addresses these are: the name of the rule.
    pub(crate) rule: &'static str,
}

/// The rule that `egress.loopback` opens.
pub(crate) const LOOPBACK: &str = "loopback";

/// From the IANA IPv4 special-purpose registry (RFC 6890), and the addresses under which clouds hand out credentials.
/// The first that fits names the rule.
const V4: [([u8; 4], u8, &str); 25] = [
    ([169, 254, 169, 254], 32, "metadata"), // AWS, Azure, Google, and most others
    ([169, 254, 170, 2], 32, "metadata"),   // AWS ECS task credentials
    ([169, 254, 170, 23], 32, "metadata"),  // AWS EKS pod identity
    ([100, 100, 100, 200], 32, "metadata"), // Alibaba
    ([168, 63, 129, 16], 32, "metadata"),   // Azure's wire server: in public address space
    ([192, 0, 0, 192], 32, "metadata"),     // Oracle
    ([0, 0, 0, 0], 8, "unspecified"),
    ([10, 0, 0, 0], 8, "private"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 168, 0, 0], 16, "private"),
    ([127, 0, 0, 0], 8, LOOPBACK),
    ([169, 254, 0, 0], 16, "link_local"),
    ([100, 64, 0, 0], 10, "carrier_grade_nat"),
    ([192, 0, 0, 0], 24, "reserved"),
    ([192, 31, 196, 0], 24, "reserved"),
    ([192, 52, 193, 0], 24, "reserved"),
    ([192, 88, 99, 0], 24, "reserved"),
    ([192, 175, 48, 0], 24, "reserved"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    ([198, 18, 0, 0], 15, "benchmark"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([255, 255, 255, 255], 32, "broadcast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// From the IANA IPv6 special-purpose registry. What lies outside `2000::/3` and is not named here is reserved.
const V6: [([u16; 8], u8, &str); 14] = [
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "metadata"), // AWS
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128, "metadata"),  // AWS EKS pod identity
    ([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, "metadata"),  // Google
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, LOOPBACK),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique_local"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link_local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private"), // site-local, deprecated
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmark"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved"), // protocol assignments, Teredo among them
    ([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, "reserved"),
];

/// The block that `address` lies in, if it is not plain public space. Looks at the outer address only: see [`inner`].
pub(crate) fn block(address: IpAddr) -> Option<Block> {
    match address {
        IpAddr::V4(v4) => V4.iter().find_map(|(net, length, rule)| {
            let net = Ipv4Net::new(Ipv4Addr::from(*net), *length).ok()?;
            net.contains(&v4).then_some(Block { net: IpNet::V4(net), rule })
        }),
        IpAddr::V6(v6) => block_v6(v6),
    }
}

fn block_v6(v6: Ipv6Addr) -> Option<Block> {
    let named = V6.iter().find_map(|(net, length, rule)| {
        let net = Ipv6Net::new(Ipv6Addr::from(*net), *length).ok()?;
        net.contains(&v6).then_some(Block { net: IpNet::V6(net), rule })
    });
    let carrier = v6.to_ipv4_mapped().is_some() || is_nat64(v6);
    let public = v6.segments().first().is_some_and(|first| first & 0xe000 == 0x2000);
    if named.is_some() || carrier || public {
        return named;
    }
    Some(Block { net: IpNet::V6(Ipv6Net::from(v6)), rule: "reserved" })
}

/// The IPv4 addresses that packets to `address` would end at: IPv4-mapped, IPv4-compatible, IPv4-translated (RFC 2765),
/// NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380: server and client) and ISATAP (RFC 5214) addresses carry one.
pub(crate) fn inner(address: IpAddr) -> Vec<IpAddr> {
    let IpAddr::V6(v6) = address else { return Vec::new() };
    let found = match v6.segments() {
        // The unspecified and the loopback address are not meant.
        [0, 0, 0, 0, 0, 0, 0, _] => Vec::new(),
        [0x64, 0xff9b, 1, ..] => in_local_nat64(v6),
        [0x2001, 0, server_high, server_low, _, _, high, low] => vec![v4(server_high, server_low), v4(!high, !low)],
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, _, _, _, _, high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x0200, 0x5efe, high, low] => vec![v4(high, low)],
        _ => Vec::new(),
    };
    found.into_iter().map(IpAddr::V4).collect()
}

/// `64:ff9b:1::/48` is divided as its network likes (RFC 8215), so the address can stand at four places (RFC 6052,
/// section 2.2; the ninth byte is skipped). Each is looked at; one that starts with zeros is the padding of another.
fn in_local_nat64(v6: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [_, _, _, _, _, _, b6, b7, _, b9, b10, b11, b12, b13, b14, b15] = v6.octets();
    let places = [[b6, b7, b9, b10], [b7, b9, b10, b11], [b9, b10, b11, b12], [b12, b13, b14, b15]];
    places.into_iter().map(Ipv4Addr::from).filter(|place| place.octets()[0] != 0).collect()
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))
}

/// `64:ff9b::/96`, the well-known prefix. The local-use prefix `64:ff9b:1::/48` (RFC 8215) stays reserved.
fn is_nat64(v6: Ipv6Addr) -> bool {
    matches!(v6.segments(), [0x64, 0xff9b, 0, 0, 0, 0, _, _])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Option<&'static str> {
        block(text.parse().unwrap()).map(|block| block.rule)
    }

    #[test]
    fn every_block_at_both_of_its_edges() {
        for (first, last, before, after, expected) in [
            ("10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0", "private"),
            ("172.16.0.0", "172.31.255.255", "172.15.255.255", "172.32.0.0", "private"),
            ("192.168.0.0", "192.168.255.255", "192.167.255.255", "192.169.0.0", "private"),
            ("127.0.0.0", "127.255.255.255", "126.255.255.255", "128.0.0.0", "loopback"),
            ("169.254.0.0", "169.254.255.255", "169.253.255.255", "169.255.0.0", "link_local"),
            ("100.64.0.0", "100.127.255.255", "100.63.255.255", "100.128.0.0", "carrier_grade_nat"),
            ("198.18.0.0", "198.19.255.255", "198.17.255.255", "198.20.0.0", "benchmark"),
            ("192.0.2.0", "192.0.2.255", "192.0.1.255", "192.0.3.0", "documentation"),
            ("198.51.100.0", "198.51.100.255", "198.51.99.255", "198.51.101.0", "documentation"),
            ("203.0.113.0", "203.0.113.255", "203.0.112.255", "203.0.114.0", "documentation"),
            ("2001:db8::", "2001:db8:ffff::1", "2001:db7::1", "2001:db9::", "documentation"),
            ("2001::", "2001:1ff::1", "2000::", "2001:200::", "reserved"),
        ] {
            assert_eq!(rule(first), Some(expected), "{first}");
            assert_eq!(rule(last), Some(expected), "{last}");
            assert_eq!(rule(before), None, "{before}");
            assert_eq!(rule(after), None, "{after}");
        }
    }

    #[test]
    fn the_rest_by_example() {
        for (text, expected) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("169.254.169.254", "metadata"),
            ("168.63.129.16", "metadata"),
            ("100.100.100.200", "metadata"),
            ("192.0.0.1", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("fd00:ec2::254", "metadata"),
            ("fd12::1", "unique_local"),
            ("fe80::1", "link_local"),
            ("fec0::1", "private"),
            ("ff02::1", "multicast"),
            ("3fff::1", "documentation"),
            ("64:ff9b:1::1", "reserved"),
            ("4000::1", "reserved"),
            ("::127.0.0.1", "reserved"),
        ] {
            assert_eq!(rule(text), Some(expected), "{text}");
        }
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2002:101:101::", "64:ff9b::1.1.1.1"] {
            assert_eq!(rule(public), None, "{public}");
        }
    }

    #[test]
    fn embedded_addresses_are_found() {
        for (text, expected) in [
            ("::ffff:10.0.0.1", vec!["10.0.0.1"]),
            ("::10.0.0.1", vec!["10.0.0.1"]),
            ("64:ff9b::10.0.0.1", vec!["10.0.0.1"]),
            ("2002:7f00:1::", vec!["127.0.0.1"]),
            ("2001:0:0a00:1::80ff:fffe", vec!["10.0.0.1", "127.0.0.1"]),
            ("::ffff:0:10.0.0.1", vec!["10.0.0.1"]),
            ("2606:4700::5efe:10.0.0.1", vec!["10.0.0.1"]),
            ("2606:4700::200:5efe:10.0.0.1", vec!["10.0.0.1"]),
            ("64:ff9b:1::10.0.0.1", vec!["10.0.0.1"]),
            ("64:ff9b:1:7f01:2:300::", vec!["127.1.2.3", "1.2.3.0", "2.3.0.0"]),
            ("2606:4700::1111", vec![]),
            ("::1", vec![]),
            ("10.0.0.1", vec![]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|inner| inner.parse().unwrap()).collect();
            assert_eq!(inner(text.parse().unwrap()), expected, "{text}");
        }
    }
}
