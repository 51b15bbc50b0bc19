//! What the gateway calls local: to be reached without RSIP (QUERY, RFC 3103 sections 9.14 and 9.15).

use std::net::Ipv4Addr;
use std::time::Instant;

use crate::host::retransmit::after;
use crate::host::{Host, HostCommand};
use crate::wire::{Body, QueryTuple};

/// What is known, and when to ask.
#[derive(Debug)]
pub(super) struct Locality {
    /// As told to the shell.
    networks: Vec<(Ipv4Addr, u8)>,
    /// Asked at least once.
    asked: bool,
    ask_at: Instant,
}

impl Locality {
    /// Nothing is known: everything is remote (RFC 3103 section 9.15.3).
    pub(super) const fn new(now: Instant) -> Self {
        Self { networks: Vec::new(), asked: false, ask_at: now }
    }

    /// The networks that are local.
    pub(super) fn networks(&self) -> &[(Ipv4Addr, u8)] {
        &self.networks
    }
}

impl Host {
    /// Another registration may be at another gateway, or at one that was configured anew.
    pub(super) const fn ask_what_is_local(&mut self, now: Instant) {
        self.locality.ask_at = now;
    }

    /// Before anything is leased it must be known what does not go through the tunnel.
    pub(super) fn must_query(&self, now: Instant) -> bool {
        !self.locality.asked && self.may_query(now)
    }

    /// It is time to ask, when nothing else is to be said.
    pub(super) fn may_query(&self, now: Instant) -> bool {
        self.locality.ask_at <= now
    }

    /// QUERY_REQUEST is sent. The next one follows after the interval, whatever comes of this one: a gateway that does
    /// not answer it must not be kept from everything else.
    pub(super) fn query_sent(&mut self, now: Instant) {
        self.locality.asked = true;
        self.locality.ask_at = after(now, self.config.query_interval);
    }

    /// QUERY_REQUEST was answered. An error tells nothing: what is known stays so.
    pub(super) fn query_answered(&mut self, answer: &Body) {
        let Body::QueryResponse { tuples, .. } = answer else { return };
        let networks = local_networks(tuples);
        if networks != self.locality.networks {
            self.locality.networks.clone_from(&networks);
            self.commands.push_back(HostCommand::Local(networks));
        }
    }
}

/// The local ones of these tuples, ascending, each once.
fn local_networks(tuples: &[QueryTuple]) -> Vec<(Ipv4Addr, u8)> {
    let mut networks: Vec<_> = tuples.iter().filter_map(local_network).collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// What is remote, not IPv4, or no network is left out, and so is "everything": a gateway that calls the whole internet
/// local has nothing to lease.
fn local_network(tuple: &QueryTuple) -> Option<(Ipv4Addr, u8)> {
    match tuple {
        QueryTuple::Address { local: true, address } => Some((address.ipv4()?, 32)),
        QueryTuple::Network { local: true, network, netmask } => {
            let crate::wire::Address::Netmask(mask) = netmask else { return None };
            let mask = mask.to_bits();
            let length = mask.leading_ones();
            let contiguous = mask.checked_shl(length).unwrap_or(0) == 0;
            let length = u8::try_from(length).ok().filter(|length| contiguous && *length > 0)?;
            Some((Ipv4Addr::from_bits(network.ipv4()?.to_bits() & mask), length))
        }
        QueryTuple::Address { local: false, .. } | QueryTuple::Network { local: false, .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::wire::Address;

    fn network(local: bool, network: [u8; 4], mask: [u8; 4]) -> QueryTuple {
        QueryTuple::Network {
            local,
            network: Address::Ipv4(network.into()),
            netmask: Address::Netmask(mask.into()),
        }
    }

    fn address(local: bool, address: Address) -> QueryTuple {
        QueryTuple::Address { local, address }
    }

    #[test]
    fn takes_the_local_tuples_in_order_and_each_once() {
        let tuples = [
            network(true, [192, 168, 7, 9], [255, 255, 0, 0]),
            address(true, Address::Ipv4(Ipv4Addr::new(10, 1, 2, 3))),
            network(true, [10, 0, 0, 0], [255, 0, 0, 0]),
            network(true, [192, 168, 0, 0], [255, 255, 0, 0]),
            network(true, [10, 9, 9, 9], [255, 255, 255, 255]),
        ];
        let expected = [
            ([10, 0, 0, 0].into(), 8),
            ([10, 1, 2, 3].into(), 32),
            ([10, 9, 9, 9].into(), 32),
            ([192, 168, 0, 0].into(), 16),
        ];
        assert_eq!(local_networks(&tuples), expected);
    }

    #[test]
    fn leaves_out_what_is_remote_or_no_network() {
        let tuples = [
            network(false, [10, 0, 0, 0], [255, 0, 0, 0]),
            address(false, Address::Ipv4(Ipv4Addr::new(10, 1, 2, 3))),
            address(true, Address::Ipv6(Ipv6Addr::LOCALHOST)),
            address(true, Address::Fqdn("a.example".to_owned())),
            address(true, Address::ANY),
            network(true, [0, 0, 0, 0], [0, 0, 0, 0]),
            network(true, [10, 0, 0, 0], [255, 0, 255, 0]),
        ];
        assert_eq!(local_networks(&tuples), []);
    }
}
