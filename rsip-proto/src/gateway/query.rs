//! QUERY: which addresses and networks a host reaches directly, without RSIP (RFC 3103 sections 9.14 and 9.15).
//!
//! The gateway knows the private networks, and says nothing about what is not in one: "no tuple" means remote to the
//! host. A network is local if all of it is, be it in one private network or in several that lie side by side. Names are
//! not resolved, so nothing is said about them either.

use std::net::Ipv4Addr;

use crate::wire::{Address, QueryTuple};

/// Tuples in an answer: more would not fit a datagram anybody expects, and the answer is kept for duplicates.
const MOST: usize = 255;

/// What is local.
pub(super) struct LocalNets {
    /// The answer to a host that wants to know all.
    all: Vec<QueryTuple>,
    /// First and last addresses that are local, ascending, with others in between.
    spans: Vec<(u32, u32)>,
}

impl LocalNets {
    /// `private_nets`: (network, prefix length).
    pub(super) fn new(private_nets: &[(Ipv4Addr, u8)]) -> Self {
        let mut bounds: Vec<(u32, u32)> = private_nets.iter().map(|&net| bounds(net)).collect();
        bounds.sort_unstable();
        let mut spans: Vec<(u32, u32)> = Vec::with_capacity(bounds.len());
        for (first, last) in bounds {
            match spans.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => spans.push((first, last)),
            }
        }
        let all = private_nets.iter().take(MOST).map(|&net| local_network(net)).collect();
        Self { all, spans }
    }

    /// The answer to these questions: those of them that are local. To no question, and to more than an answer has room
    /// for: every private network.
    pub(super) fn answer(&self, tuples: &[QueryTuple]) -> Vec<QueryTuple> {
        if tuples.is_empty() || tuples.len() > MOST {
            return self.all.clone();
        }
        tuples.iter().filter(|tuple| self.is_local(tuple)).map(as_local).collect()
    }

    fn is_local(&self, tuple: &QueryTuple) -> bool {
        match tuple {
            QueryTuple::Address { address: Address::Ipv4(address), .. } => {
                self.contains(address.to_bits(), address.to_bits())
            }
            QueryTuple::Network {
                network: Address::Ipv4(network),
                netmask: Address::Netmask(netmask),
                ..
            } => {
                let mask = netmask.to_bits();
                // A mask with holes is no network.
                let (first, last) = (network.to_bits() & mask, network.to_bits() | !mask);
                mask.leading_ones() == mask.count_ones() && self.contains(first, last)
            }
            QueryTuple::Address { .. } | QueryTuple::Network { .. } => false,
        }
    }

    fn contains(&self, first: u32, last: u32) -> bool {
        let before = self.spans.partition_point(|(start, _)| *start <= first);
        before.checked_sub(1).and_then(|index| self.spans.get(index)).is_some_and(|(_, end)| last <= *end)
    }
}

/// Whether the address lies in the network.
pub(super) fn covers(network: (Ipv4Addr, u8), address: Ipv4Addr) -> bool {
    let (first, last) = bounds(network);
    (first..=last).contains(&address.to_bits())
}

/// First and last address of a network.
const fn bounds((network, length): (Ipv4Addr, u8)) -> (u32, u32) {
    let mask = mask_of(length);
    (network.to_bits() & mask, network.to_bits() | !mask)
}

const fn mask_of(length: u8) -> u32 {
    match u32::MAX.checked_shl(32u32.saturating_sub(length as u32)) {
        Some(mask) => mask,
        None => 0,
    }
}

fn local_network((network, length): (Ipv4Addr, u8)) -> QueryTuple {
    let mask = mask_of(length);
    QueryTuple::Network {
        local: true,
        network: Address::Ipv4(Ipv4Addr::from_bits(network.to_bits() & mask)),
        netmask: Address::Netmask(Ipv4Addr::from_bits(mask)),
    }
}

fn as_local(tuple: &QueryTuple) -> QueryTuple {
    match tuple.clone() {
        QueryTuple::Address { address, .. } => QueryTuple::Address { local: true, address },
        QueryTuple::Network { network, netmask, .. } => QueryTuple::Network { local: true, network, netmask },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETS: [(Ipv4Addr, u8); 2] =
        [(Ipv4Addr::new(10, 20, 0, 0), 16), (Ipv4Addr::new(192, 168, 7, 9), 32)];

    fn answer(nets: &[(Ipv4Addr, u8)], tuples: &[QueryTuple]) -> Vec<QueryTuple> {
        LocalNets::new(nets).answer(tuples)
    }

    fn network(address: [u8; 4], mask: [u8; 4], local: bool) -> QueryTuple {
        QueryTuple::Network {
            local,
            network: Address::Ipv4(address.into()),
            netmask: Address::Netmask(mask.into()),
        }
    }

    fn address(address: [u8; 4], local: bool) -> QueryTuple {
        QueryTuple::Address { local, address: Address::Ipv4(address.into()) }
    }

    #[test]
    fn tells_every_private_network_when_nothing_is_asked() {
        let all =
            [network([10, 20, 0, 0], [255, 255, 0, 0], true), network([192, 168, 7, 9], [255; 4], true)];
        assert_eq!(answer(&NETS, &[]), all);
        assert_eq!(answer(&[], &[]), []);
        assert_eq!(
            answer(&[(Ipv4Addr::new(10, 1, 2, 3), 0)], &[]),
            [network([0; 4], [0; 4], true)],
            "host bits are not told"
        );
        assert_eq!(answer(&[(Ipv4Addr::LOCALHOST, 8); 1000], &[]).len(), MOST);
    }

    #[test]
    fn more_questions_than_an_answer_has_room_for_get_every_private_network() {
        let local = address([10, 20, 60, 1], false);
        assert_eq!(answer(&NETS, &vec![local.clone(); MOST]).len(), MOST);
        assert_eq!(answer(&NETS, &vec![local; MOST + 1]), answer(&NETS, &[]));
    }

    #[test]
    fn confirms_what_is_local_and_leaves_out_the_rest() {
        let asked = [
            address([10, 20, 60, 1], false),
            address([10, 21, 0, 1], false),
            network([10, 20, 60, 0], [255, 255, 255, 0], false),
            network([10, 0, 0, 0], [255, 0, 0, 0], false),
            network([10, 20, 0, 0], [255, 255, 0, 0], false),
            // Masks with holes, though all that they let through is local.
            network([10, 20, 0, 0], [255, 255, 0, 255], false),
            network([10, 20, 5, 0], [255, 255, 127, 0], false),
            QueryTuple::Address { local: false, address: Address::Fqdn("printer.example".to_owned()) },
            QueryTuple::Address { local: false, address: Address::Ipv6(std::net::Ipv6Addr::LOCALHOST) },
        ];
        let told = [
            address([10, 20, 60, 1], true),
            network([10, 20, 60, 0], [255, 255, 255, 0], true),
            network([10, 20, 0, 0], [255, 255, 0, 0], true),
        ];
        assert_eq!(answer(&NETS, &asked), told);
        assert_eq!(answer(&NETS, &asked[1..2]), []);
    }

    #[test]
    fn a_network_is_local_if_all_of_it_is() {
        // Two halves of a /24 and a piece beside them, in no order, one inside another, and the ends of the address space.
        let nets = [
            (Ipv4Addr::new(10, 0, 0, 128), 25),
            (Ipv4Addr::new(10, 0, 0, 0), 25),
            (Ipv4Addr::new(10, 0, 0, 64), 26),
            (Ipv4Addr::new(10, 0, 2, 0), 24),
            (Ipv4Addr::new(0, 0, 0, 0), 8),
            (Ipv4Addr::new(255, 255, 255, 255), 32),
        ];
        let table = [
            ([10, 0, 0, 0], [255, 255, 255, 0], true),
            ([10, 0, 0, 77], [255, 255, 255, 0], true),
            ([10, 0, 0, 0], [255, 255, 254, 0], false),
            ([10, 0, 0, 0], [255, 255, 252, 0], false),
            ([10, 0, 1, 0], [255, 255, 255, 0], false),
            ([10, 0, 2, 200], [255, 255, 255, 255], true),
            ([0, 0, 0, 0], [255, 0, 0, 0], true),
            ([0, 0, 0, 0], [254, 0, 0, 0], false),
            ([0, 0, 0, 0], [0, 0, 0, 0], false),
            ([255, 255, 255, 255], [255, 255, 255, 255], true),
            ([255, 255, 255, 254], [255, 255, 255, 254], false),
        ];
        for (net, mask, local) in table {
            let expected: Vec<_> = local.then(|| network(net, mask, true)).into_iter().collect();
            assert_eq!(answer(&nets, &[network(net, mask, false)]), expected, "{net:?} {mask:?}");
        }
        assert_eq!(answer(&[(Ipv4Addr::new(9, 9, 9, 9), 0)], &[network([0; 4], [0; 4], false)]).len(), 1);
    }
}
