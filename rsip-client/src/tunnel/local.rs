//! Which addresses are none of RSIP's business: a socket bound to one of them, or a packet to one of them, takes the way
//! it always took. The list is what keeps the host from being locked out.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rsip_sys::netlink::{InterfaceAddress, MAIN_TABLE, Netlink, NetlinkError, Prefix, Route};

/// Loopback, multicast, limited broadcast.
const ALWAYS: [Prefix; 3] = [
    Prefix { address: Ipv4Addr::new(127, 0, 0, 0), length: 8 },
    Prefix { address: Ipv4Addr::new(224, 0, 0, 0), length: 4 },
    Prefix { address: Ipv4Addr::BROADCAST, length: 32 },
];

/// What is always local by the operator's word, and what is never: the leased address.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// The gateway, the tunnel's other end, `--private-net`.
    pub local: BTreeSet<Prefix>,
    /// The leased address.
    pub public: Option<Ipv4Addr>,
}

/// Looks at the host's addresses and routes.
///
/// # Errors
///
/// The kernel does not tell.
pub async fn gather(netlink: &Netlink, fixed: &Fixed) -> Result<BTreeSet<Prefix>, NetlinkError> {
    let (addresses, routes) = tokio::try_join!(netlink.addresses(), netlink.routes(MAIN_TABLE))?;
    Ok(compute(fixed, &addresses, &routes))
}

fn compute(fixed: &Fixed, addresses: &[InterfaceAddress], routes: &[Route]) -> BTreeSet<Prefix> {
    let own = addresses.iter().map(|address| Prefix::host(address.address));
    // A default route leads to everywhere, which is what RSIP is for; any other route of the main table was made
    // because what it leads to is reached that way.
    let routed = routes.iter().map(|route| route.destination.network()).filter(|prefix| prefix.length > 0);
    let public = fixed.public.map(Prefix::host);
    ALWAYS
        .into_iter()
        .chain(fixed.local.iter().copied())
        .chain(own)
        .chain(routed)
        .filter(|prefix| Some(*prefix) != public)
        .collect()
}

#[cfg(test)]
mod tests {
    use rsip_sys::netlink::RouteKind;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("valid")
    }

    #[test]
    fn knows_own_addresses_and_routed_networks_but_not_the_public_realm() {
        let public = Ipv4Addr::new(203, 0, 113, 9);
        let address = |address| InterfaceAddress { index: 2, address, prefix_length: 24 };
        let route = |text: &str| Route {
            kind: RouteKind::Unicast,
            destination: prefix(text),
            gateway: None,
            interface: Some(2),
            source: None,
            table: MAIN_TABLE,
            protocol: 2,
        };
        let fixed = Fixed { local: [prefix("172.16.0.0/12")].into(), public: Some(public) };
        let local = compute(
            &fixed,
            &[address(Ipv4Addr::new(10, 0, 0, 2)), address(public)],
            &[route("0.0.0.0/0"), route("10.0.0.0/24"), route("192.168.0.0/16")],
        );
        let expected = [
            "10.0.0.0/24",
            "10.0.0.2/32",
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255/32",
        ];
        assert_eq!(local, expected.into_iter().map(prefix).collect());
    }
}
