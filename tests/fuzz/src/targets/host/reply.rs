//! What a gateway might say: mostly something that fits the last request, sometimes nearly, sometimes not at all.

use std::net::Ipv4Addr;

use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::message::{AssignResponseRsaIp, PortBinding};
use rsip_proto::wire::{
    Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Message, Ports, QueryTuple, RemotePolicy, RsipMethod,
    TunnelType,
};

use super::PUBLIC;
use crate::input::Input;

/// The peer of hosts that have one.
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// A port that programs like.
pub(super) fn port(input: &mut Input<'_>) -> u16 {
    u16::from(input.byte() % 6) + 78
}

/// Something for the host whose last request was `last`; `known` is the name of a binding that it has.
pub(super) fn message(
    input: &mut Input<'_>,
    last: Option<&Message>,
    known: Option<(ClientId, BindId)>,
) -> Message {
    let choice = input.byte();
    let counter = match choice % 8 {
        0 => Some(MessageCounter::ASYNCHRONOUS),
        1 => Some(MessageCounter(u32::from(input.byte()))),
        2 => None,
        _ => last.and_then(|last| last.counter),
    };
    let (client_id, bind_id) = known.unwrap_or((ClientId(7), BindId(1)));
    let body = match choice >> 3 & 7 {
        0 => Body::FreeResponse { client_id, bind_id },
        1 => Body::DeRegisterResponse { client_id },
        2 => error(input, client_id, bind_id),
        _ => match last {
            None => error(input, client_id, bind_id),
            Some(last) => fitting(input, &last.body),
        },
    };
    Message { counter, body }
}

fn error(input: &mut Input<'_>, client_id: ClientId, bind_id: BindId) -> Body {
    let errors = [301, 302, 303, 304, 305, 306, 307, 308, 309, 310, 311, 312, 313, 103, 104, 208, 206, 102];
    let number = errors.get(input.below(errors.len())).copied().unwrap_or(101);
    Body::ErrorResponse {
        error: ErrorCode::from_number(number),
        client_id: input.flag().then_some(client_id),
        bind_id: input.flag().then_some(bind_id),
    }
}

/// The answer that this request hopes for, or nearly that.
fn fitting(input: &mut Input<'_>, request: &Body) -> Body {
    match request {
        Body::RegisterRequest => Body::RegisterResponse {
            client_id: ClientId(7 + u32::from(input.byte() % 3)),
            lease_time: u32::from(input.byte()),
            flow_policy: policy(input),
            methods: [vec![], vec![RsipMethod::RsapIp], vec![RsipMethod::RsapIp, RsipMethod::RsaIp]]
                [input.below(3)]
            .clone(),
            tunnel_types: [vec![], vec![TunnelType::IpIp], vec![TunnelType::Gre]][input.below(3)].clone(),
        },
        Body::DeRegisterRequest { client_id } => Body::DeRegisterResponse { client_id: *client_id },
        Body::AssignRequestRsaIp(it) => Body::AssignResponseRsaIp(AssignResponseRsaIp {
            client_id: it.client_id,
            bind_id: bind_id(input),
            local_address: address(input),
            remote_address: remote_address(input, &it.remote_address),
            remote_ports: remote_ports(input, &it.remote_ports),
            lease_time: u32::from(input.byte()),
            tunnel_type: tunnel(input),
            tunnel_endpoint: endpoint(input),
        }),
        Body::AssignRequestRsapIp(it) => {
            let binding = grant(input, it.client_id, &it.local_ports, &it.remote_address, &it.remote_ports);
            Body::AssignResponseRsapIp(binding)
        }
        Body::ListenRequest(it) => {
            let binding = grant(input, it.client_id, &it.local_ports, &it.remote_address, &it.remote_ports);
            Body::ListenResponse(binding)
        }
        Body::ExtendRequest { client_id, bind_id, .. } => Body::ExtendResponse {
            client_id: *client_id,
            bind_id: *bind_id,
            lease_time: u32::from(input.byte()),
        },
        Body::FreeRequest { client_id, bind_id } => {
            Body::FreeResponse { client_id: *client_id, bind_id: *bind_id }
        }
        Body::QueryRequest { client_id, .. } => Body::QueryResponse {
            client_id: *client_id,
            tuples: (0..input.below(4)).map(|_| tuple(input)).collect(),
        },
        other => other.clone(),
    }
}

fn grant(
    input: &mut Input<'_>,
    client_id: ClientId,
    wanted: &Ports,
    peer: &Address,
    peer_ports: &Ports,
) -> PortBinding {
    let local_ports = match (input.byte() % 8, wanted) {
        (0, _) => Ports::single(port(input)),
        (1, _) => Ports::List(vec![80, 443, 8080]),
        (_, Ports::DontCare { count }) => {
            Ports::Range { first: 10_000 + 300 * u16::from(input.byte() % 4), count: (*count).max(1) }
        }
        (_, named) => named.clone(),
    };
    PortBinding {
        client_id,
        bind_id: bind_id(input),
        local_address: address(input),
        local_ports,
        remote_address: remote_address(input, peer),
        remote_ports: remote_ports(input, peer_ports),
        lease_time: u32::from(input.byte()),
        tunnel_type: tunnel(input),
        tunnel_endpoint: endpoint(input),
    }
}

fn policy(input: &mut Input<'_>) -> FlowPolicy {
    let choice = input.byte();
    FlowPolicy {
        local: if choice & 1 == 0 { LocalPolicy::Macro } else { LocalPolicy::Micro },
        remote: match choice >> 1 & 3 {
            0 | 1 => RemotePolicy::None,
            2 => RemotePolicy::Macro,
            _ => RemotePolicy::Micro,
        },
    }
}

/// Mostly new, sometimes one that was given before.
fn bind_id(input: &mut Input<'_>) -> BindId {
    BindId(u32::from(input.byte()) + 1)
}

fn address(input: &mut Input<'_>) -> Address {
    match input.byte() % 16 {
        0 => Address::Ipv4(Ipv4Addr::from(input.long())),
        1 => Address::ANY,
        2 => Address::Ipv4(Ipv4Addr::new(192, 0, 2, 2)),
        _ => Address::Ipv4(PUBLIC),
    }
}

fn remote_address(input: &mut Input<'_>, wanted: &Address) -> Address {
    if input.byte().is_multiple_of(16) { Address::Ipv4(PEER) } else { wanted.clone() }
}

fn remote_ports(input: &mut Input<'_>, wanted: &Ports) -> Ports {
    if input.byte().is_multiple_of(16) { Ports::single(443) } else { wanted.clone() }
}

fn tunnel(input: &mut Input<'_>) -> TunnelType {
    if input.byte().is_multiple_of(16) { TunnelType::Gre } else { TunnelType::IpIp }
}

fn endpoint(input: &mut Input<'_>) -> Option<Address> {
    input.byte().is_multiple_of(16).then_some(Address::Ipv4(Ipv4Addr::new(10, 0, 0, 9)))
}

fn tuple(input: &mut Input<'_>) -> QueryTuple {
    let network = Address::Ipv4(Ipv4Addr::new(10, input.byte(), 0, 0));
    if input.flag() {
        QueryTuple::Address { local: input.flag(), address: network }
    } else {
        let netmask = Address::Netmask(Ipv4Addr::from(u32::MAX << (input.byte() % 32)));
        QueryTuple::Network { local: input.flag(), network, netmask }
    }
}
