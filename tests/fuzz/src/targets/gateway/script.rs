//! Requests that are well formed and often sensible: from raw bytes alone the fuzzer would hardly ever get past the
//! grammar.

use std::net::{Ipv4Addr, Ipv6Addr};

use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};
use rsip_proto::wire::{Address, Body, Message, Ports, QueryTuple, TunnelType};

use super::model::Model;
use crate::input::Input;

/// A request of this host.
pub(super) fn request(input: &mut Input<'_>, model: &Model, host: Ipv4Addr) -> Message {
    let counter = match input.byte() % 8 {
        0 => None,
        1 => Some(MessageCounter(input.long())),
        2 => Some(model.last_counter(host)),
        _ => Some(model.last_counter(host).next()),
    };
    Message { counter, body: body(input, model, host) }
}

fn body(input: &mut Input<'_>, model: &Model, host: Ipv4Addr) -> Body {
    let kind = input.byte() % 12;
    let (client_id, bind_id) = match input.byte() % 8 {
        // Somebody else's name, or none at all.
        0 => model.names(input),
        1 => super::NOBODY,
        _ => model.own_names(input, host),
    };
    match kind {
        0 | 1 => Body::RegisterRequest,
        2 => Body::DeRegisterRequest { client_id },
        3 => Body::AssignRequestRsaIp(AssignRequestRsaIp {
            client_id,
            local_address: local_address(input),
            remote_address: remote_address(input),
            remote_ports: remote_ports(input),
            lease_time: lease_time(input),
            tunnel_type: tunnel(input),
        }),
        4..=6 => Body::AssignRequestRsapIp(AssignRequestRsapIp {
            client_id,
            local_address: local_address(input),
            local_ports: ports(input),
            remote_address: remote_address(input),
            remote_ports: remote_ports(input),
            lease_time: lease_time(input),
            tunnel_type: tunnel(input),
        }),
        7 => Body::ExtendRequest { client_id, bind_id, lease_time: lease_time(input) },
        8 => Body::FreeRequest { client_id, bind_id },
        9 => Body::QueryRequest { client_id, tuples: (0..input.below(4)).map(|_| tuple(input)).collect() },
        _ => Body::ListenRequest(ListenRequest {
            client_id,
            local_address: local_address(input),
            local_ports: ports(input),
            remote_address: remote_address(input),
            remote_ports: remote_ports(input),
            lease_time: lease_time(input),
            tunnel_types: tunnel(input).into_iter().collect(),
        }),
    }
}

/// ASSIGN as every gateway of these settings grants it, if it has the ports.
pub(super) fn assign(client_id: ClientId, ports: Ports) -> Body {
    Body::AssignRequestRsapIp(AssignRequestRsapIp {
        client_id,
        local_address: Address::ANY,
        local_ports: ports,
        remote_address: Address::Ipv4(Ipv4Addr::new(203, 0, 113, 5)),
        remote_ports: Ports::single(443),
        lease_time: None,
        tunnel_type: None,
    })
}

/// Changes one byte.
pub(super) fn damage(input: &mut Input<'_>, bytes: &mut [u8]) {
    let at = input.below(bytes.len().max(1));
    let value = input.byte();
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

fn local_address(input: &mut Input<'_>) -> Address {
    match input.byte() % 8 {
        0 => Address::Ipv6(Ipv6Addr::LOCALHOST),
        1 => Address::Ipv4(Ipv4Addr::from(input.long())),
        2..=4 => Address::Ipv4(Ipv4Addr::new(192, 0, 2, input.byte() % 4)),
        _ => Address::ANY,
    }
}

fn remote_address(input: &mut Input<'_>) -> Address {
    match input.byte() % 8 {
        0 => Address::Ipv4(Ipv4Addr::from(input.long())),
        1 => Address::Fqdn("peer.example".to_owned()),
        2 => Address::Netmask(Ipv4Addr::new(255, 255, 255, 0)),
        3 => Address::Ipv4(Ipv4Addr::new(198, 51, 100, input.byte() % 8)),
        4 | 5 => Address::Ipv4(Ipv4Addr::new(203, 0, 113, 5)),
        _ => Address::ANY,
    }
}

fn ports(input: &mut Input<'_>) -> Ports {
    match input.byte() % 6 {
        0 => Ports::single(input.word()),
        1 => Ports::single(u16::from(input.byte() % 8) + 77),
        2 => Ports::Range { first: 9_998 + u16::from(input.byte() % 24), count: input.byte() % 8 + 1 },
        3 => Ports::List((0..input.byte() % 6).map(|_| 10_000 + u16::from(input.byte() % 24)).collect()),
        4 => Ports::DontCare { count: input.byte() },
        _ => Ports::DontCare { count: input.byte() % 8 + 1 },
    }
}

fn remote_ports(input: &mut Input<'_>) -> Ports {
    match input.byte() % 5 {
        0 => Ports::single(input.word()),
        1 => Ports::single(25),
        2 => Ports::single(443),
        3 => ports(input),
        _ => Ports::ANY,
    }
}

fn lease_time(input: &mut Input<'_>) -> Option<u32> {
    match input.byte() % 4 {
        0 => Some(input.long()),
        1 => Some(u32::from(input.byte())),
        _ => None,
    }
}

fn tunnel(input: &mut Input<'_>) -> Option<TunnelType> {
    match input.byte() % 6 {
        0 => Some(TunnelType::Gre),
        1 => Some(TunnelType::from_number(input.byte())),
        2 | 3 => Some(TunnelType::IpIp),
        _ => None,
    }
}

fn tuple(input: &mut Input<'_>) -> QueryTuple {
    let address = match input.byte() % 4 {
        0 => remote_address(input),
        1 => Address::Ipv4(Ipv4Addr::from(input.long())),
        _ => Address::Ipv4(Ipv4Addr::new(10, 0, input.byte() % 2, input.byte())),
    };
    if input.flag() {
        QueryTuple::Address { local: input.flag(), address }
    } else {
        let netmask = Address::Netmask(Ipv4Addr::from(input.long() | 0xff00_0000));
        QueryTuple::Network { local: input.flag(), network: address, netmask }
    }
}
