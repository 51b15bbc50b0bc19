//! Whether a granted binding is what was asked for, and something this host can use (RFC 3103 sections 9.7.3, 9.9.3:
//! what it cannot use it gives back).

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::ids::{BindId, ClientId};
use crate::lease::{Leased, Remote};
use crate::wire::message::{AssignResponseRsaIp, PortBinding};
use crate::wire::{Address, Body, Ports, TunnelType};

/// A grant of any kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    client_id: ClientId,
    pub(super) bind_id: BindId,
    address: &'a Address,
    /// `None`: the whole address.
    ports: Option<&'a Ports>,
    remote: (&'a Address, &'a Ports),
    pub(super) lease_time: u32,
    tunnel: TunnelType,
    tunnel_endpoint: Option<&'a Address>,
}

impl<'a> From<&'a PortBinding> for Offer<'a> {
    fn from(grant: &'a PortBinding) -> Self {
        Self {
            client_id: grant.client_id,
            bind_id: grant.bind_id,
            address: &grant.local_address,
            ports: Some(&grant.local_ports),
            remote: (&grant.remote_address, &grant.remote_ports),
            lease_time: grant.lease_time,
            tunnel: grant.tunnel_type,
            tunnel_endpoint: grant.tunnel_endpoint.as_ref(),
        }
    }
}

impl<'a> From<&'a AssignResponseRsaIp> for Offer<'a> {
    fn from(grant: &'a AssignResponseRsaIp) -> Self {
        Self {
            client_id: grant.client_id,
            bind_id: grant.bind_id,
            address: &grant.local_address,
            ports: None,
            remote: (&grant.remote_address, &grant.remote_ports),
            lease_time: grant.lease_time,
            tunnel: grant.tunnel_type,
            tunnel_endpoint: grant.tunnel_endpoint.as_ref(),
        }
    }
}

/// What a request asks for.
struct Asked<'a> {
    address: &'a Address,
    ports: Option<&'a Ports>,
    remote: (&'a Address, &'a Ports),
    /// Any of these; none are named: any.
    tunnels: &'a [TunnelType],
}

impl<'a> Asked<'a> {
    fn of(request: &'a Body) -> Option<Self> {
        Some(match request {
            Body::AssignRequestRsaIp(it) => Self {
                address: &it.local_address,
                ports: None,
                remote: (&it.remote_address, &it.remote_ports),
                tunnels: it.tunnel_type.as_slice(),
            },
            Body::AssignRequestRsapIp(it) => Self {
                address: &it.local_address,
                ports: Some(&it.local_ports),
                remote: (&it.remote_address, &it.remote_ports),
                tunnels: it.tunnel_type.as_slice(),
            },
            Body::ListenRequest(it) => Self {
                address: &it.local_address,
                ports: Some(&it.local_ports),
                remote: (&it.remote_address, &it.remote_ports),
                tunnels: &it.tunnel_types,
            },
            _ => return None,
        })
    }
}

/// The usable part of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) address: Ipv4Addr,
    pub(super) leased: Leased,
    pub(super) remote: Remote,
    pub(super) tunnel: TunnelType,
    pub(super) tunnel_endpoint: Option<Ipv4Addr>,
}

/// What of `granted` can be used by `client`, who sent `request`; `None`: it must be given back.
pub(super) fn usable(client: ClientId, request: &Body, granted: &Offer<'_>) -> Option<Grant> {
    let asked = Asked::of(request)?;
    let wanted = asked.tunnels.is_empty() || asked.tunnels.contains(&granted.tunnel);
    if granted.client_id != client || granted.lease_time == 0 || !wanted {
        return None;
    }
    let address = granted.address.ipv4().filter(is_unicast)?;
    if asked.address.ipv4().is_some_and(|wanted| wanted != address) {
        return None;
    }
    let leased = match (asked.ports, granted.ports) {
        (None, None) => Leased::Address,
        (Some(wanted), Some(ports)) if ports_match(wanted, ports) => ports.clone().into(),
        _ => return None,
    };
    // For another peer, or for fewer, it is not what was asked for.
    let remote = remote(asked.remote)?;
    if self::remote(granted.remote)? != remote {
        return None;
    }
    let tunnel_endpoint = match granted.tunnel_endpoint {
        None | Some(Address::DontCare(_)) => None,
        Some(endpoint) => Some(endpoint.ipv4().filter(is_unicast)?),
    };
    Some(Grant { address, leased, remote, tunnel: granted.tunnel, tunnel_endpoint })
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

/// What a pair of remote parameters says; `None`: nothing that a host could keep to.
fn remote((address, ports): (&Address, &Ports)) -> Option<Remote> {
    if is_any_address(address) {
        return is_any_ports(ports).then_some(Remote::Any);
    }
    let address = address.ipv4()?;
    if is_any_ports(ports) {
        return Some(Remote::Address(address));
    }
    let mut named = ports.iter();
    let port = named.next()?;
    // Micro-flow policy: exactly one (RFC 3103 section 8.2).
    named.next().is_none().then(|| Remote::Port(SocketAddrV4::new(address, port)))
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
