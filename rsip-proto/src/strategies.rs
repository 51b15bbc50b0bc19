//! Generators of messages for property tests (feature `testing`).
//!
//! Every message that comes out can be encoded, and is what parsing its bytes gives. A value without constraints of its
//! own (IDs, times, counters) is drawn from its whole range. Larger strategies are boxed: unboxed their value trees do not
//! fit on a test thread's stack.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::ids::{BindId, ClientId, MessageCounter};
use crate::wire::message::{
    AssignRequestRsaIp, AssignRequestRsapIp, AssignResponseRsaIp, ListenRequest, PortBinding,
};
use crate::wire::{
    Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Message, Ports, QueryTuple, RemotePolicy, RsipMethod,
    TunnelType,
};

/// Any message, with or without a counter.
pub fn message() -> impl Strategy<Value = Message> {
    (option::of(any::<u32>().prop_map(MessageCounter)), body())
        .prop_map(|(counter, body)| Message { counter, body })
}

/// Any message that a host sends.
pub fn request() -> impl Strategy<Value = Message> {
    (option::of(any::<u32>().prop_map(MessageCounter)), request_body())
        .prop_map(|(counter, body)| Message { counter, body })
}

/// The rest of any message; each type is as likely as each other.
pub fn body() -> impl Strategy<Value = Body> {
    prop_oneof![8 => request_body(), 9 => response_body()]
}

/// The rest of a message that a host sends.
pub fn request_body() -> BoxedStrategy<Body> {
    prop_oneof![
        Just(Body::RegisterRequest),
        client_id().prop_map(|client_id| Body::DeRegisterRequest { client_id }),
        assign_request_rsa_ip().prop_map(Body::AssignRequestRsaIp),
        assign_request_rsap_ip().prop_map(Body::AssignRequestRsapIp),
        (client_id(), bind_id(), lease_wish()).prop_map(|(client_id, bind_id, lease_time)| {
            Body::ExtendRequest { client_id, bind_id, lease_time }
        }),
        (client_id(), bind_id()).prop_map(|(client_id, bind_id)| Body::FreeRequest { client_id, bind_id }),
        (client_id(), vec(query_tuple(Just(false)), 0..4))
            .prop_map(|(client_id, tuples)| Body::QueryRequest { client_id, tuples }),
        listen_request().prop_map(Body::ListenRequest),
    ]
    .boxed()
}

/// The rest of a message that a gateway sends.
pub fn response_body() -> BoxedStrategy<Body> {
    prop_oneof![
        (error_code(), option::of(client_id()), option::of(bind_id()))
            .prop_map(|(error, client_id, bind_id)| Body::ErrorResponse { error, client_id, bind_id }),
        register_response(),
        client_id().prop_map(|client_id| Body::DeRegisterResponse { client_id }),
        assign_response_rsa_ip().prop_map(Body::AssignResponseRsaIp),
        port_binding().prop_map(Body::AssignResponseRsapIp),
        (client_id(), bind_id(), any::<u32>()).prop_map(|(client_id, bind_id, lease_time)| {
            Body::ExtendResponse { client_id, bind_id, lease_time }
        }),
        (client_id(), bind_id()).prop_map(|(client_id, bind_id)| Body::FreeResponse { client_id, bind_id }),
        (client_id(), vec(query_tuple(any::<bool>()), 0..4))
            .prop_map(|(client_id, tuples)| Body::QueryResponse { client_id, tuples }),
        port_binding().prop_map(Body::ListenResponse),
    ]
    .boxed()
}

/// Any ports parameter: one port, ranges up to 255 and up to port 65535, lists, don't care.
pub fn ports() -> BoxedStrategy<Ports> {
    prop_oneof![
        any::<u16>().prop_map(Ports::single),
        range(),
        btree_set(any::<u16>(), 2..=255)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(Ports::List),
        (1..=u8::MAX).prop_map(|count| Ports::DontCare { count }),
    ]
    .boxed()
}

fn range() -> impl Strategy<Value = Ports> {
    (1..=u8::MAX)
        .prop_flat_map(|count| (0..=u16::MAX - u16::from(count - 1), Just(count)))
        .prop_map(|(first, count)| Ports::Range { first, count })
}

/// An address that may stand as local address.
pub fn local_address() -> BoxedStrategy<Address> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| Address::Ipv4(octets.into())),
        any::<[u8; 16]>().prop_map(|octets| Address::Ipv6(octets.into())),
        any::<u8>().prop_map(Address::DontCare),
        Just(Address::ANY),
    ]
    .boxed()
}

/// An address that may stand as remote address or tunnel endpoint: a name, too.
pub fn remote_address() -> BoxedStrategy<Address> {
    prop_oneof![3 => local_address(), 1 => fqdn()].boxed()
}

fn fqdn() -> impl Strategy<Value = Address> {
    "[!-~]{1,255}".prop_map(Address::Fqdn)
}

/// A tuple of QUERY; `local` decides what it says about locality.
pub fn query_tuple(local: impl Strategy<Value = bool> + 'static) -> BoxedStrategy<QueryTuple> {
    let address = remote_address()
        .prop_filter("a tuple asks about something", |address| !matches!(address, Address::DontCare(_)));
    (local, any::<bool>(), address, any::<[u8; 4]>(), any::<[u8; 4]>())
        .prop_map(|(local, of_address, address, network, netmask)| {
            if of_address {
                QueryTuple::Address { local, address }
            } else {
                let (network, netmask) = (Address::Ipv4(network.into()), Address::Netmask(netmask.into()));
                QueryTuple::Network { local, network, netmask }
            }
        })
        .boxed()
}

/// Any error code: those with a name, and any number.
pub fn error_code() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![select(ErrorCode::ALL), any::<u16>().prop_map(ErrorCode::from_number)]
}

/// Any tunnel type, unknown ones included.
pub fn tunnel_type() -> impl Strategy<Value = TunnelType> {
    prop_oneof![Just(TunnelType::IpIp), any::<u8>().prop_map(TunnelType::from_number)]
}

/// Any client ID.
pub fn client_id() -> impl Strategy<Value = ClientId> {
    any::<u32>().prop_map(ClientId)
}

/// Any bind ID.
pub fn bind_id() -> impl Strategy<Value = BindId> {
    any::<u32>().prop_map(BindId)
}

fn lease_wish() -> impl Strategy<Value = Option<u32>> {
    option::of(any::<u32>())
}

fn register_response() -> BoxedStrategy<Body> {
    let flow_policy = (select(LocalPolicy::ALL), select(RemotePolicy::ALL))
        .prop_map(|(local, remote)| FlowPolicy { local, remote });
    let methods = vec(any::<u8>().prop_map(RsipMethod::from_number), 0..4);
    (client_id(), any::<u32>(), flow_policy, methods, vec(tunnel_type(), 0..4))
        .prop_map(|(client_id, lease_time, flow_policy, methods, tunnel_types)| Body::RegisterResponse {
            client_id,
            lease_time,
            flow_policy,
            methods,
            tunnel_types,
        })
        .boxed()
}

fn assign_request_rsa_ip() -> BoxedStrategy<AssignRequestRsaIp> {
    (client_id(), local_address(), remote_address(), ports(), lease_wish(), option::of(tunnel_type()))
        .prop_map(|(client_id, local_address, remote_address, remote_ports, lease_time, tunnel_type)| {
            AssignRequestRsaIp {
                client_id,
                local_address,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type,
            }
        })
        .boxed()
}

fn assign_request_rsap_ip() -> BoxedStrategy<AssignRequestRsapIp> {
    (assign_request_rsa_ip(), ports())
        .prop_map(|(request, local_ports)| AssignRequestRsapIp {
            client_id: request.client_id,
            local_address: request.local_address,
            local_ports,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_type: request.tunnel_type,
        })
        .boxed()
}

fn listen_request() -> BoxedStrategy<ListenRequest> {
    (assign_request_rsa_ip(), ports(), vec(tunnel_type(), 0..4))
        .prop_map(|(request, local_ports, tunnel_types)| ListenRequest {
            client_id: request.client_id,
            local_address: request.local_address,
            local_ports,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_types,
        })
        .boxed()
}

fn assign_response_rsa_ip() -> BoxedStrategy<AssignResponseRsaIp> {
    (
        (client_id(), bind_id()),
        local_address(),
        remote_address(),
        ports(),
        any::<u32>(),
        tunnel_type(),
        option::of(remote_address()),
    )
        .prop_map(
            |(
                (client_id, bind_id),
                local_address,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type,
                tunnel_endpoint,
            )| AssignResponseRsaIp {
                client_id,
                bind_id,
                local_address,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type,
                tunnel_endpoint,
            },
        )
        .boxed()
}

fn port_binding() -> BoxedStrategy<PortBinding> {
    (assign_response_rsa_ip(), ports())
        .prop_map(|(response, local_ports)| PortBinding {
            client_id: response.client_id,
            bind_id: response.bind_id,
            local_address: response.local_address,
            local_ports,
            remote_address: response.remote_address,
            remote_ports: response.remote_ports,
            lease_time: response.lease_time,
            tunnel_type: response.tunnel_type,
            tunnel_endpoint: response.tunnel_endpoint,
        })
        .boxed()
}
