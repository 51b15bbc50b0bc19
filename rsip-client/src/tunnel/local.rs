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
    let all = ALWAYS.into_iter().chain(fixed.local.iter().copied()).chain(own).chain(routed);
    let local = match fixed.public {
        Some(public) => all.flat_map(|prefix| without(prefix, public)).collect(),
        None => all.collect(),
    };
    fewest(local)
}

/// The prefix without one address of it: what lies beside the address on each level down to it. The leased address may
/// lie in a network that the host routes otherwise, and is public all the same.
fn without(prefix: Prefix, address: Ipv4Addr) -> Vec<Prefix> {
    if !prefix.contains(address) {
        return vec![prefix];
    }
    (prefix.length + 1..=32)
        .map(|length| {
            let flipped = u32::from(address) ^ (1 << (32 - length));
            Prefix { address: Ipv4Addr::from(flipped), length }.network()
        })
        .collect()
}

/// The same addresses without prefixes that lie in others: the map has a size.
fn fewest(prefixes: BTreeSet<Prefix>) -> BTreeSet<Prefix> {
    // In this order a prefix comes before those that lie in it.
    let mut ordered: Vec<Prefix> = prefixes.into_iter().collect();
    ordered.sort_by_key(|prefix| (prefix.address, prefix.length));
    let mut kept: Vec<Prefix> = Vec::new();
    for prefix in ordered {
        if !kept.last().is_some_and(|last| last.length <= prefix.length && last.contains(prefix.address)) {
            kept.push(prefix);
        }
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/4",
            "255.255.255.255/32",
        ];
        assert_eq!(local, expected.into_iter().map(prefix).collect());
    }

    proptest! {
        /// Whatever lies in what: an address is local if some prefix holds it, and the leased address never is.
        #[test]
        fn says_the_same_with_fewer_prefixes(
            prefixes in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..12),
            public in any::<u32>(),
            inside in any::<bool>(),
            asked in any::<u32>(),
        ) {
            let prefixes: BTreeSet<Prefix> = prefixes
                .into_iter()
                .map(|(address, length)| Prefix { address: address.into(), length }.network())
                .collect();
            let first = prefixes.first().filter(|_| inside).map(|prefix| prefix.address);
            let public = first.unwrap_or_else(|| public.into());
            let fixed = Fixed { local: prefixes.clone(), public: Some(public) };
            let local = compute(&fixed, &[], &[]);
            let holds = |set: &BTreeSet<Prefix>, address| set.iter().any(|prefix| prefix.contains(address));
            prop_assert!(!holds(&local, public));
            // Also right beside it.
            for address in [asked, u32::from(public).wrapping_add(1), u32::from(public) ^ 0x8000] {
                let address = Ipv4Addr::from(address);
                let wanted = holds(&prefixes, address) || ALWAYS.iter().any(|prefix| prefix.contains(address));
                prop_assert_eq!(holds(&local, address), wanted && address != public, "{}", address);
            }
        }
    }
}
