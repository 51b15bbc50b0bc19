//! QUERY: which addresses and networks a host reaches directly, without RSIP (RFC 3103 sections 9.14 and 9.15).
//!
//! The gateway knows the private networks, and says nothing about what is not in one: "no tuple" means remote to the
//! host. Names are not resolved, so nothing is said about them either.

use std::net::Ipv4Addr;

use crate::wire::{Address, QueryTuple};

/// Networks told to a host that asks for everything: more would not fit a datagram anybody expects.
const MOST: usize = 255;

/// The answer to these questions; to no question: every private network.
pub(super) fn answer(private_nets: &[(Ipv4Addr, u8)], tuples: &[QueryTuple]) -> Vec<QueryTuple> {
    if tuples.is_empty() {
        return private_nets
            .iter()
            .take(MOST)
            .map(|&(network, length)| local_network(network, length))
            .collect();
    }
    tuples.iter().filter(|tuple| is_local(private_nets, tuple)).map(as_local).collect()
}

fn is_local(private_nets: &[(Ipv4Addr, u8)], tuple: &QueryTuple) -> bool {
    match tuple {
        QueryTuple::Address { address: Address::Ipv4(address), .. } => {
            private_nets.iter().any(|&net| covers(net, *address, 32))
        }
        QueryTuple::Network {
            network: Address::Ipv4(network), netmask: Address::Netmask(netmask), ..
        } => {
            let mask = netmask.to_bits();
            let length = mask.leading_ones();
            // A mask with holes is no network.
            mask.count_ones() == length && private_nets.iter().any(|&net| covers(net, *network, length))
        }
        QueryTuple::Address { .. } | QueryTuple::Network { .. } => false,
    }
}

/// Whether all of `address`/`length` lies in the network.
fn covers((network, net_length): (Ipv4Addr, u8), address: Ipv4Addr, length: u32) -> bool {
    let mask = mask_of(net_length);
    length >= mask.leading_ones() && address.to_bits() & mask == network.to_bits() & mask
}

fn mask_of(length: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(u32::from(length))).unwrap_or(0)
}

fn local_network(network: Ipv4Addr, length: u8) -> QueryTuple {
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
    fn confirms_what_is_local_and_leaves_out_the_rest() {
        let asked = [
            address([10, 20, 60, 1], false),
            address([10, 21, 0, 1], false),
            network([10, 20, 60, 0], [255, 255, 255, 0], false),
            network([10, 0, 0, 0], [255, 0, 0, 0], false),
            network([10, 20, 0, 0], [255, 255, 0, 0], false),
            network([10, 20, 0, 0], [255, 0, 255, 0], false),
            QueryTuple::Address { local: false, address: Address::Fqdn("printer.example".to_owned()) },
        ];
        let told = [
            address([10, 20, 60, 1], true),
            network([10, 20, 60, 0], [255, 255, 255, 0], true),
            network([10, 20, 0, 0], [255, 255, 0, 0], true),
        ];
        assert_eq!(answer(&NETS, &asked), told);
        assert_eq!(answer(&NETS, &asked[1..2]), []);
    }
}
