//! Every message type and parameter form, byte by byte: the files in `tests/vectors/` against values.

use std::collections::BTreeMap;

use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::message::{
    AssignRequestRsaIp, AssignRequestRsapIp, AssignResponseRsaIp, ListenRequest, PortBinding,
};
use rsip_proto::wire::{
    Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Message, MessageType, Ports, QueryTuple, RemotePolicy,
    RsipMethod, TunnelType,
};

use crate::hex;

const CLIENT: ClientId = ClientId(1);

fn with(counter: u32, body: Body) -> Message {
    Message::new(MessageCounter(counter), body)
}

fn without(body: Body) -> Message {
    Message { counter: None, body }
}

fn v4(text: &str) -> Address {
    Address::Ipv4(text.parse().expect("an IPv4 address"))
}

fn v6(text: &str) -> Address {
    Address::Ipv6(text.parse().expect("an IPv6 address"))
}

fn mask(text: &str) -> Address {
    Address::Netmask(text.parse().expect("a netmask"))
}

fn any_ports(count: u8) -> Ports {
    Ports::DontCare { count }
}

/// ASSIGN_REQUEST_RSAP-IP of the worked example: any 16 ports; the others change what they are about.
fn assign_request() -> AssignRequestRsapIp {
    AssignRequestRsapIp {
        client_id: CLIENT,
        local_address: Address::ANY,
        local_ports: any_ports(16),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: Some(3600),
        tunnel_type: Some(TunnelType::IpIp),
    }
}

/// LISTEN_REQUEST for anything at all.
fn listen_any() -> ListenRequest {
    ListenRequest {
        client_id: CLIENT,
        local_address: Address::ANY,
        local_ports: any_ports(1),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_types: vec![],
    }
}

/// ASSIGN_RESPONSE_RSAP-IP of the worked example: 16 ports from 10000.
fn binding(bind_id: u32) -> PortBinding {
    PortBinding {
        client_id: CLIENT,
        bind_id: BindId(bind_id),
        local_address: v4("192.0.2.1"),
        local_ports: Ports::Range { first: 10000, count: 16 },
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: 1800,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: None,
    }
}

fn query_request(tuples: Vec<QueryTuple>) -> Body {
    Body::QueryRequest { client_id: CLIENT, tuples }
}

fn query_response(tuples: Vec<QueryTuple>) -> Body {
    Body::QueryResponse { client_id: CLIENT, tuples }
}

fn address(local: bool, address: Address) -> QueryTuple {
    QueryTuple::Address { local, address }
}

fn network(local: bool, network: &str, netmask: &str) -> QueryTuple {
    QueryTuple::Network { local, network: v4(network), netmask: mask(netmask) }
}

fn registration() -> Vec<(&'static str, Message)> {
    vec![
        ("register_request_tcp", without(Body::RegisterRequest)),
        ("register_request_udp", with(1, Body::RegisterRequest)),
        (
            "register_response",
            with(
                1,
                Body::RegisterResponse {
                    client_id: CLIENT,
                    lease_time: 600,
                    flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None },
                    methods: vec![RsipMethod::RsapIp],
                    tunnel_types: vec![TunnelType::IpIp],
                },
            ),
        ),
        (
            "register_response_required_only",
            without(Body::RegisterResponse {
                client_id: ClientId(u32::MAX),
                lease_time: u32::MAX,
                flow_policy: FlowPolicy { local: LocalPolicy::Micro, remote: RemotePolicy::Micro },
                methods: vec![],
                tunnel_types: vec![],
            }),
        ),
        (
            "register_response_all_kinds",
            with(
                1,
                Body::RegisterResponse {
                    client_id: ClientId(7),
                    lease_time: 60,
                    flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::Macro },
                    methods: vec![RsipMethod::RsaIp, RsipMethod::RsapIp, RsipMethod::Other(3)],
                    tunnel_types: vec![
                        TunnelType::IpIp,
                        TunnelType::Gre,
                        TunnelType::L2tp,
                        TunnelType::Other(241),
                    ],
                },
            ),
        ),
        ("de_register_request", with(7, Body::DeRegisterRequest { client_id: CLIENT })),
        ("de_register_response", with(7, Body::DeRegisterResponse { client_id: CLIENT })),
        ("de_register_response_asynchronous", with(0, Body::DeRegisterResponse { client_id: CLIENT })),
    ]
}

fn assignment() -> Vec<(&'static str, Message)> {
    let rsa_ip = AssignRequestRsaIp {
        client_id: CLIENT,
        local_address: Address::ANY,
        remote_address: v4("198.51.100.7"),
        remote_ports: Ports::single(80),
        lease_time: Some(3600),
        tunnel_type: Some(TunnelType::Gre),
    };
    let rsa_ip_zero = AssignRequestRsaIp {
        local_address: v4("192.0.2.1"),
        remote_address: v4("0.0.0.0"),
        remote_ports: Ports::single(0),
        lease_time: None,
        tunnel_type: None,
        ..rsa_ip.clone()
    };
    let rsa_ip_granted = AssignResponseRsaIp {
        client_id: CLIENT,
        bind_id: BindId(1),
        local_address: v4("192.0.2.1"),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: 1800,
        tunnel_type: TunnelType::Gre,
        tunnel_endpoint: Some(v4("10.0.0.2")),
    };
    let ipv6 = AssignRequestRsapIp {
        local_address: v6("2001:db8::1"),
        local_ports: Ports::Range { first: 8000, count: 4 },
        remote_address: v6("2001:db8:1::53"),
        remote_ports: Ports::List(vec![53, 123]),
        lease_time: None,
        tunnel_type: None,
        ..assign_request()
    };
    let fqdn = AssignRequestRsapIp {
        local_ports: any_ports(1),
        remote_address: Address::Fqdn("www.example.com".to_owned()),
        remote_ports: Ports::single(443),
        lease_time: None,
        tunnel_type: None,
        ..assign_request()
    };
    let list = PortBinding {
        local_ports: Ports::List(vec![10000, 9999, 65535]),
        remote_address: v4("198.51.100.7"),
        remote_ports: Ports::single(80),
        ..binding(3)
    };
    let last_block = PortBinding {
        local_ports: Ports::Range { first: 65281, count: 255 },
        tunnel_endpoint: Some(v4("10.0.0.2")),
        ..binding(4)
    };
    vec![
        ("assign_request_rsa_ip", with(2, Body::AssignRequestRsaIp(rsa_ip))),
        ("assign_request_rsa_ip_all_zero_remote", without(Body::AssignRequestRsaIp(rsa_ip_zero))),
        ("assign_response_rsa_ip", with(2, Body::AssignResponseRsaIp(rsa_ip_granted))),
        ("assign_request_rsap_ip", with(2, Body::AssignRequestRsapIp(assign_request()))),
        ("assign_request_rsap_ip_ipv6", with(3, Body::AssignRequestRsapIp(ipv6))),
        ("assign_request_rsap_ip_fqdn", with(4, Body::AssignRequestRsapIp(fqdn))),
        ("assign_response_rsap_ip", with(2, Body::AssignResponseRsapIp(binding(1)))),
        ("assign_response_rsap_ip_list", with(9, Body::AssignResponseRsapIp(list))),
        ("assign_response_rsap_ip_last_block", with(u32::MAX, Body::AssignResponseRsapIp(last_block))),
    ]
}

fn extension_and_freeing() -> Vec<(&'static str, Message)> {
    let (client_id, bind_id) = (CLIENT, BindId(1));
    vec![
        ("extend_request", with(5, Body::ExtendRequest { client_id, bind_id, lease_time: Some(1800) })),
        ("extend_request_no_wish", without(Body::ExtendRequest { client_id, bind_id, lease_time: None })),
        ("extend_response", with(5, Body::ExtendResponse { client_id, bind_id, lease_time: 1800 })),
        ("free_request", with(6, Body::FreeRequest { client_id, bind_id })),
        ("free_response", with(6, Body::FreeResponse { client_id, bind_id })),
        ("free_response_asynchronous", with(0, Body::FreeResponse { client_id, bind_id: BindId(2) })),
    ]
}

fn query() -> Vec<(&'static str, Message)> {
    let fqdn = Address::Fqdn("host.example".to_owned());
    vec![
        ("query_request_everything", with(4, query_request(vec![]))),
        (
            "query_request_network",
            with(4, query_request(vec![network(false, "10.20.60.0", "255.255.255.0")])),
        ),
        (
            "query_request_addresses",
            without(query_request(vec![
                address(false, v4("10.20.60.5")),
                address(false, v6("2001:db8::5")),
                address(false, fqdn),
            ])),
        ),
        (
            "query_response_local_network",
            with(4, query_response(vec![network(true, "10.20.60.0", "255.255.255.0")])),
        ),
        (
            "query_response_all_indicators",
            with(
                4,
                query_response(vec![
                    address(true, v4("10.20.60.5")),
                    network(true, "10.0.0.0", "255.0.0.0"),
                    address(false, v4("198.51.100.7")),
                    network(false, "198.51.100.0", "255.255.255.0"),
                ]),
            ),
        ),
    ]
}

fn listening() -> Vec<(&'static str, Message)> {
    let port_80 = ListenRequest {
        local_address: v4("192.0.2.1"),
        local_ports: Ports::single(80),
        lease_time: Some(3600),
        tunnel_types: vec![TunnelType::IpIp],
        ..listen_any()
    };
    let two_tunnels = ListenRequest {
        local_ports: Ports::single(80),
        tunnel_types: vec![TunnelType::Gre, TunnelType::IpIp],
        ..listen_any()
    };
    let any_type = ListenRequest {
        local_address: Address::DontCare(0),
        remote_address: Address::DontCare(4),
        remote_ports: any_ports(255),
        ..listen_any()
    };
    let granted = PortBinding { local_ports: Ports::single(80), ..binding(2) };
    let endpoint = PortBinding {
        local_ports: Ports::List(vec![80, 443]),
        remote_address: v4("198.51.100.7"),
        tunnel_type: TunnelType::Gre,
        tunnel_endpoint: Some(v4("10.0.0.2")),
        ..binding(2)
    };
    vec![
        ("listen_request", with(3, Body::ListenRequest(port_80))),
        ("listen_request_two_tunnels", without(Body::ListenRequest(two_tunnels))),
        ("dont_care_address_of_any_type", without(Body::ListenRequest(any_type))),
        ("listen_response", with(3, Body::ListenResponse(granted))),
        ("listen_response_endpoint", without(Body::ListenResponse(endpoint))),
    ]
}

fn errors() -> Vec<(&'static str, Message)> {
    let error = |error, client_id, bind_id| Body::ErrorResponse { error, client_id, bind_id };
    vec![
        ("error_response_port_in_use", with(3, error(ErrorCode::LocalAddrportInuse, Some(CLIENT), None))),
        ("error_response_bad_bind_id", with(6, error(ErrorCode::BadBindId, Some(CLIENT), Some(BindId(9))))),
        ("error_response_undefined", without(error(ErrorCode::Other(999), None, None))),
    ]
}

/// Bytes that others may send and we do not, and what they mean.
fn accepted() -> BTreeMap<String, Message> {
    let extend = Body::ExtendRequest { client_id: CLIENT, bind_id: BindId(1), lease_time: None };
    let endpoint = PortBinding { tunnel_endpoint: Some(v4("10.0.0.2")), ..binding(1) };
    [
        ("vendor_specific_anywhere", with(5, extend)),
        ("optional_in_other_order", with(2, Body::AssignRequestRsapIp(assign_request()))),
        ("remote_ports_number_zero", without(Body::ListenRequest(listen_any()))),
        ("indicator_of_one_byte", without(query_request(vec![address(false, v4("10.20.60.5"))]))),
        (
            "counter_between_tuples",
            with(
                4,
                query_response(vec![address(false, v4("198.51.100.7")), address(true, v4("10.20.60.5"))]),
            ),
        ),
        ("counter_before_the_endpoint", with(2, Body::AssignResponseRsapIp(endpoint))),
    ]
    .map(|(name, message)| (name.to_owned(), message))
    .into()
}

/// Messages as we send them, of every type.
pub(crate) fn canonical() -> BTreeMap<String, Message> {
    [registration(), assignment(), extension_and_freeing(), query(), listening(), errors()]
        .into_iter()
        .flatten()
        .map(|(name, message)| (name.to_owned(), message))
        .collect()
}

/// The cases and the folder's files, which must be the same set.
pub(crate) fn paired(cases: BTreeMap<String, Message>, folder: &str) -> Vec<(String, hex::Vector, Message)> {
    let mut files = hex::folder(folder);
    let pairs: Vec<_> = cases
        .into_iter()
        .map(|(name, message)| {
            assert!(files.contains_key(&name), "no file {name}.hex");
            let vector = files.remove(&name).expect("just seen");
            (name, vector, message)
        })
        .collect();
    assert!(files.is_empty(), "files that no case uses: {:?}", files.keys());
    pairs
}

#[test]
fn bytes_become_values() {
    for (name, vector, message) in paired(canonical(), "") {
        assert_eq!(Message::parse(&vector.bytes), Ok(message), "{name}");
    }
}

#[test]
fn values_become_bytes() {
    for (name, vector, message) in paired(canonical(), "") {
        assert_eq!(message.encode(), Ok(vector.bytes), "{name}");
    }
}

#[test]
fn messages_print_on_one_line() {
    for (name, vector, message) in paired(canonical(), "").into_iter().chain(paired(accepted(), "accepted")) {
        assert_eq!(message.to_string(), vector.shown, "{name}");
    }
}

#[test]
fn what_others_may_send_becomes_values() {
    for (name, vector, message) in paired(accepted(), "accepted") {
        assert_eq!(Message::parse(&vector.bytes), Ok(message), "{name}");
    }
}

#[test]
fn every_message_type_has_a_vector() {
    let seen: Vec<MessageType> = canonical().values().map(Message::message_type).collect();
    for message_type in MessageType::ALL {
        assert!(seen.contains(message_type), "{message_type}");
    }
}

#[test]
fn names_lead_from_requests_to_responses() {
    for message_type in MessageType::ALL {
        assert_eq!(message_type.is_response(), message_type.name().contains("RESPONSE"), "{message_type}");
        assert_eq!(MessageType::from_number(message_type.number()), Some(*message_type));
    }
}
