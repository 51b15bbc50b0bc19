//! The remote side of a request: what the remote flow policy demands to be named, and whom it lets nobody talk with (RFC
//! 3103 section 7.2). Knows the configuration and the request, no state.
//!
//! Without a remote policy whatever the host names restricts nothing, and the response says so: it states don't care.
//!
//! Peers that are never approved, beside those of `REMOTE_DENY`: addresses that no single host outside has (0.0.0.0/8,
//! loopback, multicast, broadcast, IPv6) and the addresses of the pool. Names are not resolved: a lease is for an address.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::config::{GatewayConfig, RemoteDeny};
use super::query::covers;
use crate::lease::Remote;
use crate::wire::{Address, ErrorCode, Ports, RemotePolicy};

/// An error and its reason for the log.
pub(super) type Objection = (ErrorCode, &'static str);

/// A remote address that can be read at all under this policy.
pub(super) const fn is_readable(policy: RemotePolicy, address: &Address) -> bool {
    matches!(policy, RemotePolicy::None) || !matches!(address, Address::Fqdn(_) | Address::Netmask(_))
}

/// The peer as far as the policy wants it named; it may still be one that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Peer(Remote),
    /// Something that is not an IPv4 address.
    Foreign,
}

/// Whether enough is named. 0.0.0.0 and port 0 are don't care here (RFC 3103 section 9.8.3).
pub(super) const fn named(
    policy: RemotePolicy,
    address: &Address,
    ports: &Ports,
) -> Result<Named, Objection> {
    if matches!(policy, RemotePolicy::None) {
        return Ok(Named::Peer(Remote::Any));
    }
    let address = match address {
        Address::DontCare(_) | Address::Ipv4(Ipv4Addr::UNSPECIFIED) => {
            let detail = "remote flow policy: the remote address must be named";
            return Err((ErrorCode::FlowPolicyViolation, detail));
        }
        Address::Ipv4(address) => Some(*address),
        Address::Ipv6(_) | Address::Netmask(_) | Address::Fqdn(_) => None,
    };
    let port = match (policy, ports) {
        (RemotePolicy::Micro, Ports::Range { first: port @ 1.., count: 1 }) => Some(*port),
        (RemotePolicy::Micro, _) => {
            let detail = "remote micro-flow policy: exactly one remote port must be named";
            return Err((ErrorCode::FlowPolicyViolation, detail));
        }
        (RemotePolicy::Macro | RemotePolicy::None, _) => None,
    };
    Ok(match (address, port) {
        (Some(address), Some(port)) => Named::Peer(Remote::Port(SocketAddrV4::new(address, port))),
        (Some(address), None) => Named::Peer(Remote::Address(address)),
        (None, _) => Named::Foreign,
    })
}

/// Whether one may talk with this peer.
pub(super) fn approve(config: &GatewayConfig, named: Named) -> Result<Remote, Objection> {
    let code = match config.flow_policy.remote {
        RemotePolicy::Micro => ErrorCode::RemoteAddrportUnallowed,
        RemotePolicy::Macro | RemotePolicy::None => ErrorCode::RemoteAddrUnallowed,
    };
    let Named::Peer(remote) = named else { return Err((code, "only IPv4 peers can be reached")) };
    let Some(address) = remote.address() else { return Ok(remote) };
    if address.octets()[0] == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return Err((code, "the remote address is not that of a host"));
    }
    if config.pool.addresses.contains(&address) || config.pool.whole.contains(&address) {
        return Err((code, "the remote address is one of the pool"));
    }
    let denied = match remote.port() {
        Some(port) => denials(config, address).any(|deny| deny.ports.contains(&port)),
        None => has_no_port_left(denials(config, address)),
    };
    if denied { Err((code, "REMOTE_DENY")) } else { Ok(remote) }
}

/// The remote parameters of the response (RFC 3103 sections 9.7.3, 9.9.3 and 9.17.3).
pub(super) const fn stated(remote: Remote) -> (Address, Ports) {
    match remote {
        Remote::Any => (Address::ANY, Ports::ANY),
        Remote::Address(address) => (Address::Ipv4(address), Ports::ANY),
        Remote::Port(peer) => (Address::Ipv4(*peer.ip()), Ports::single(peer.port())),
    }
}

fn denials(config: &GatewayConfig, address: Ipv4Addr) -> impl Iterator<Item = &RemoteDeny> {
    config.remote_deny.iter().filter(move |deny| covers(deny.network, address))
}

/// Whether the entries together deny every port. (Port 0 is nobody's.)
fn has_no_port_left<'a>(denials: impl Iterator<Item = &'a RemoteDeny>) -> bool {
    let mut ranges: Vec<_> = denials.map(|deny| (*deny.ports.start(), *deny.ports.end())).collect();
    ranges.sort_unstable();
    let mut next = 1u32;
    for (first, last) in ranges {
        if u32::from(first) > next {
            return false;
        }
        next = next.max(u32::from(last) + 1);
    }
    next > u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FlowPolicy, LocalPolicy};

    const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

    fn deny(network: [u8; 4], length: u8, ports: std::ops::RangeInclusive<u16>) -> RemoteDeny {
        RemoteDeny { network: (network.into(), length), ports }
    }

    fn config(remote: RemotePolicy, remote_deny: Vec<RemoteDeny>) -> GatewayConfig {
        let pool = crate::pool::PoolConfig {
            addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
            whole: vec![Ipv4Addr::new(192, 0, 2, 8)],
            port_range: 10_000..=10_009,
            listen_range: 80..=89,
            reserved: Vec::new(),
            rest: std::time::Duration::ZERO,
        };
        let flow_policy = FlowPolicy { local: LocalPolicy::Macro, remote };
        GatewayConfig { flow_policy, remote_deny, ..GatewayConfig::new(pool) }
    }

    fn code(config: &GatewayConfig, remote: Remote) -> Option<u16> {
        approve(config, Named::Peer(remote)).err().map(|(code, _)| code.number())
    }

    #[test]
    fn under_macro_an_address_is_denied_when_no_port_of_it_is_left() {
        let cases = [
            (vec![], None),
            (vec![deny([203, 0, 113, 5], 32, 0..=65_535)], Some(314)),
            (vec![deny([203, 0, 113, 5], 32, 1..=65_535)], Some(314)),
            (vec![deny([203, 0, 113, 0], 24, 0..=65_535)], Some(314)),
            // Bits behind the prefix mean nothing.
            (vec![deny([203, 0, 113, 99], 24, 0..=65_535)], Some(314)),
            (vec![deny([0, 0, 0, 0], 0, 0..=65_535)], Some(314)),
            (vec![deny([203, 0, 113, 4], 32, 0..=65_535)], None),
            (vec![deny([203, 0, 113, 5], 32, 0..=65_534)], None),
            (vec![deny([203, 0, 113, 5], 32, 2..=65_535)], None),
            (vec![deny([203, 0, 113, 5], 32, 30_000..=65_535), deny([0; 4], 0, 0..=29_999)], Some(314)),
            (vec![deny([203, 0, 113, 5], 32, 30_001..=65_535), deny([0; 4], 0, 0..=29_999)], None),
            (vec![deny([203, 0, 113, 5], 32, 0..=65_535), deny([203, 0, 113, 5], 32, 5..=6)], Some(314)),
        ];
        for (denied, expected) in cases {
            let config = config(RemotePolicy::Macro, denied);
            assert_eq!(code(&config, Remote::Address(PEER)), expected, "{:?}", config.remote_deny);
        }
    }

    #[test]
    fn under_micro_the_pair_counts() {
        let config = config(
            RemotePolicy::Micro,
            vec![deny([0; 4], 0, 25..=25), deny([203, 0, 113, 0], 25, 6000..=6063)],
        );
        let table =
            [(25, Some(315)), (26, None), (5999, None), (6000, Some(315)), (6063, Some(315)), (6064, None)];
        for (port, expected) in table {
            assert_eq!(code(&config, Remote::Port(SocketAddrV4::new(PEER, port))), expected, "{port}");
        }
        let other = Ipv4Addr::new(203, 0, 113, 128);
        assert_eq!(code(&config, Remote::Port(SocketAddrV4::new(other, 6000))), None);
        assert_eq!(code(&config, Remote::Port(SocketAddrV4::new(other, 25))), Some(315));
    }

    #[test]
    fn what_is_no_host_outside_is_no_peer() {
        let nobody =
            ["0.1.2.3", "127.0.0.1", "224.0.0.5", "239.1.1.1", "255.255.255.255", "192.0.2.1", "192.0.2.8"];
        for (policy, expected) in [(RemotePolicy::Macro, 314), (RemotePolicy::Micro, 315)] {
            let config = config(policy, Vec::new());
            for address in nobody {
                let address = address.parse().expect("an address");
                let remote = match policy {
                    RemotePolicy::Micro => Remote::Port(SocketAddrV4::new(address, 80)),
                    RemotePolicy::Macro | RemotePolicy::None => Remote::Address(address),
                };
                assert_eq!(code(&config, remote), Some(expected), "{remote}");
            }
            assert_eq!(approve(&config, Named::Foreign).err().map(|(code, _)| code.number()), Some(expected));
        }
    }
}
