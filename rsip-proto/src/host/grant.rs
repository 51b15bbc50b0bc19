//! Whether a granted binding is what was asked for, and something this host can use (RFC 3103 sections 9.7.3, 9.9.3:
//! what it cannot use it gives back).

use std::net::Ipv4Addr;

use crate::ids::ClientId;
use crate::wire::message::PortBinding;
use crate::wire::{Address, Ports, TunnelType};

/// The usable part of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) address: Ipv4Addr,
    pub(super) ports: Ports,
    pub(super) tunnel: TunnelType,
    pub(super) tunnel_endpoint: Option<Ipv4Addr>,
}

/// What of `granted` can be used by `client`, who asked for `address` and `ports`; `None`: it must be given back.
pub(super) fn usable(
    client: ClientId,
    address: &Address,
    ports: &Ports,
    granted: &PortBinding,
) -> Option<Grant> {
    if granted.client_id != client || granted.lease_time == 0 || granted.tunnel_type != TunnelType::IpIp {
        return None;
    }
    let local = granted.local_address.ipv4().filter(is_unicast)?;
    if address.ipv4().is_some_and(|asked| asked != local) || !ports_match(ports, &granted.local_ports) {
        return None;
    }
    // We never name a peer, so a grant for one peer only is not what was asked.
    if !is_any_address(&granted.remote_address) || !is_any_ports(&granted.remote_ports) {
        return None;
    }
    let tunnel_endpoint = match &granted.tunnel_endpoint {
        None | Some(Address::DontCare(_)) => None,
        Some(endpoint) => Some(endpoint.ipv4().filter(is_unicast)?),
    };
    Some(Grant {
        address: local,
        ports: granted.local_ports.clone(),
        tunnel: TunnelType::IpIp,
        tunnel_endpoint,
    })
}

const fn is_unicast(address: &Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast() && !address.is_broadcast()
}

/// Ports asked for by number must be exactly those, in whatever form. Of any ports fewer than asked can be used, too.
fn ports_match(asked: &Ports, granted: &Ports) -> bool {
    let mut got: Vec<u16> = granted.iter().collect();
    let count = got.len();
    got.sort_unstable();
    got.dedup();
    if got.is_empty() || got.len() != count || got.first() == Some(&0) {
        return false;
    }
    match asked {
        Ports::DontCare { count } => got.len() <= usize::from(*count),
        Ports::Range { .. } | Ports::List(_) => {
            let mut wanted: Vec<u16> = asked.iter().collect();
            wanted.sort_unstable();
            wanted == got
        }
    }
}

/// "All 0's" means don't care in remote parameters, too (RFC 3103 section 9.8.3).
fn is_any_address(address: &Address) -> bool {
    match address {
        Address::DontCare(_) => true,
        Address::Ipv4(address) => address.is_unspecified(),
        Address::Ipv6(address) => address.is_unspecified(),
        Address::Netmask(_) | Address::Fqdn(_) => false,
    }
}

fn is_any_ports(ports: &Ports) -> bool {
    match ports {
        Ports::DontCare { .. } => true,
        Ports::Range { first, count } => *first == 0 && *count <= 1,
        Ports::List(_) => false,
    }
}
