//! The rest of the vectors: every form of every parameter, every error code, and that none is missing.

use std::collections::{BTreeMap, BTreeSet};

use rsip_capture::forms;
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::message::{
    AssignRequestRsaIp, AssignRequestRsapIp, AssignResponseRsaIp, ListenRequest, PortBinding,
};
use rsip_proto::wire::{
    Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Message, Ports, QueryTuple, RemotePolicy, RsipMethod,
    TunnelType,
};

use crate::vectors::{self, paired};
use crate::{capture, hex};

const CLIENT: ClientId = ClientId(1);

fn with(counter: u32, body: Body) -> Message {
    Message::new(MessageCounter(counter), body)
}

fn v4(text: &str) -> Address {
    Address::Ipv4(text.parse().expect("an IPv4 address"))
}

fn v6(text: &str) -> Address {
    Address::Ipv6(text.parse().expect("an IPv6 address"))
}

fn name(text: &str) -> Address {
    Address::Fqdn(text.to_owned())
}

fn assign() -> AssignRequestRsapIp {
    AssignRequestRsapIp {
        client_id: CLIENT,
        local_address: Address::ANY,
        local_ports: Ports::ANY,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: None,
    }
}

fn granted(endpoint: Address) -> Message {
    let binding = PortBinding {
        client_id: CLIENT,
        bind_id: BindId(1),
        local_address: v4("192.0.2.1"),
        local_ports: Ports::Range { first: 10_000, count: 16 },
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: 1800,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: Some(endpoint),
    };
    with(2, Body::AssignResponseRsapIp(binding))
}

fn registered(local: LocalPolicy, remote: RemotePolicy, methods: Vec<RsipMethod>) -> Message {
    let flow_policy = FlowPolicy { local, remote };
    let tunnel_types = Vec::new();
    with(1, Body::RegisterResponse { client_id: CLIENT, lease_time: 600, flow_policy, methods, tunnel_types })
}

fn addresses_and_ports() -> Vec<(String, Message)> {
    let range = AssignRequestRsapIp {
        remote_address: v4("198.51.100.7"),
        remote_ports: Ports::Range { first: 8000, count: 4 },
        ..assign()
    };
    let most = ListenRequest {
        client_id: CLIENT,
        local_address: Address::ANY,
        local_ports: Ports::DontCare { count: 255 },
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_types: Vec::new(),
    };
    let whole = AssignRequestRsaIp {
        client_id: CLIENT,
        local_address: Address::ANY,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: None,
    };
    let whole_granted = AssignResponseRsaIp {
        client_id: CLIENT,
        bind_id: BindId(3),
        local_address: v4("192.0.2.9"),
        remote_address: v4("198.51.100.7"),
        remote_ports: Ports::single(443),
        lease_time: 600,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: None,
    };
    let tuple = |local, address| QueryTuple::Address { local, address };
    let tuples = vec![
        tuple(true, v6("2001:db8::5")),
        tuple(true, name("host.example")),
        tuple(false, v6("2001:db8:1::5")),
        tuple(false, name("www.example.com")),
    ];
    [
        ("endpoint_ipv6", granted(v6("2001:db8::2"))),
        ("endpoint_fqdn", granted(name("gw2.example"))),
        ("endpoint_dont_care", granted(Address::ANY)),
        ("endpoint_dont_care_of_another_type", granted(Address::DontCare(3))),
        ("remote_ports_range", with(2, Body::AssignRequestRsapIp(range))),
        ("local_ports_of_every_number", with(2, Body::ListenRequest(most))),
        ("assign_request_rsa_ip_anything", with(2, Body::AssignRequestRsaIp(whole))),
        ("assign_response_rsa_ip_for_a_peer", with(7, Body::AssignResponseRsaIp(whole_granted))),
        ("query_response_nothing", with(2, Body::QueryResponse { client_id: CLIENT, tuples: Vec::new() })),
        ("query_response_names_and_ipv6", with(2, Body::QueryResponse { client_id: CLIENT, tuples })),
    ]
    .map(|(name, message)| (name.to_owned(), message))
    .into()
}

fn numbers() -> Vec<(String, Message)> {
    let extended = Body::ExtendResponse {
        client_id: ClientId(u32::MAX - 1),
        bind_id: BindId(u32::MAX),
        lease_time: u32::MAX,
    };
    let free = Body::FreeRequest { client_id: ClientId(1 << 31), bind_id: BindId(1 << 31) };
    let mut cases = vec![
        ("bind_id_and_lease_of_thirty_two_bits".to_owned(), with(u32::MAX - 1, extended)),
        ("bind_id_of_thirty_two_bits".to_owned(), with(1 << 31, free)),
    ];
    for number in [0, 1, 2, 3, 241, 255] {
        let request = AssignRequestRsapIp { tunnel_type: Some(TunnelType::from_number(number)), ..assign() };
        cases.push((format!("tunnel_type_{number}"), with(2, Body::AssignRequestRsapIp(request))));
    }
    for number in [1, 2, 3, 241] {
        let methods = vec![RsipMethod::from_number(number)];
        let message = registered(LocalPolicy::Macro, RemotePolicy::None, methods);
        cases.push((format!("rsip_method_{number}"), message));
    }
    for local in LocalPolicy::ALL {
        for remote in RemotePolicy::ALL {
            let message = registered(*local, *remote, Vec::new());
            cases.push((format!("flow_policy_{local}_{remote}"), message));
        }
    }
    cases
}

fn error_codes() -> BTreeMap<String, Message> {
    let name = |error: &ErrorCode| format!("{}_{}", error.number(), error.name().to_lowercase());
    let body = |error| Body::ErrorResponse { error, client_id: None, bind_id: None };
    ErrorCode::ALL.iter().map(|error| (name(error), with(5, body(*error)))).collect()
}

/// All vectors of messages as we send them.
fn all() -> Vec<(String, hex::Vector, Message)> {
    let forms = addresses_and_ports().into_iter().chain(numbers()).collect();
    let mut all = paired(vectors::canonical(), "");
    all.extend(paired(forms, "forms"));
    all.extend(paired(error_codes(), "error_codes"));
    all
}

#[test]
fn every_form_both_ways() {
    for (name, vector, message) in all() {
        assert_eq!(Message::parse(&vector.bytes).as_ref(), Ok(&message), "{name}");
        assert_eq!(message.encode().as_ref(), Ok(&vector.bytes), "{name}");
        assert_eq!(message.to_string(), vector.shown, "{name}");
        capture::written(&message, &vector.bytes);
    }
}

#[test]
fn no_form_is_without_a_vector() {
    let seen: BTreeSet<String> = all().iter().flat_map(|(_, _, message)| forms::of(message)).collect();
    let missing: Vec<String> = forms::all().into_iter().filter(|form| !seen.contains(form)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Required parameters of each message type, by its number (RFC 3103 sections 9.1 to 9.17).
const REQUIRED: [usize; 18] = [0, 1, 0, 3, 1, 1, 4, 7, 5, 8, 2, 3, 2, 2, 1, 1, 5, 8];

/// Header, required parameters, and the optional ones; a tuple is one.
fn parts(bytes: &[u8]) -> (&[u8], Vec<Vec<u8>>) {
    const INDICATOR: u8 = 10;
    let (head, mut rest) = bytes.split_at(4);
    let mut parameters: Vec<Vec<u8>> = Vec::new();
    while let [number, high, low, ..] = *rest {
        let length = 3 + usize::from(u16::from_be_bytes([high, low]));
        let (parameter, after) = rest.split_at(length);
        let in_tuple = head[1] >= 14 && head[1] <= 15 && number == 1;
        match parameters.last_mut() {
            Some(tuple) if in_tuple && tuple[0] == INDICATOR => tuple.extend(parameter),
            _ => parameters.push(parameter.to_vec()),
        }
        rest = after;
    }
    (head, parameters)
}

fn message(head: &[u8], parameters: &[Vec<u8>]) -> Vec<u8> {
    let body = parameters.concat();
    let [high, low] = u16::try_from(4 + body.len()).expect("short").to_be_bytes();
    [&[head[0], head[1], high, low], body.as_slice()].concat()
}

#[test]
fn vendor_specific_parameters_are_passed_over_in_every_message_at_every_place() {
    for (name, vector, value) in all() {
        let (head, parameters) = parts(&vector.bytes);
        for place in 0..=parameters.len() {
            let mut more = parameters.clone();
            more.insert(place, vec![12, 0, 5, 0, 0xf1, 0, 1, 0x2a]);
            assert_eq!(Message::parse(&message(head, &more)).as_ref(), Ok(&value), "{name}, at {place}");
        }
    }
}

/// Those of one kind keep their order: it says what is preferred.
#[test]
fn optional_parameters_are_taken_in_any_order() {
    let mut swaps = 0;
    for (name, vector, value) in all() {
        let (head, parameters) = parts(&vector.bytes);
        let required = REQUIRED[usize::from(head[1])];
        for first in required..parameters.len() {
            for second in first + 1..parameters.len() {
                let (mut other, crossed) = (parameters.clone(), &parameters[first..=second]);
                let moves_past_its_like =
                    crossed[..crossed.len() - 1].iter().any(|it| it[0] == crossed[crossed.len() - 1][0]);
                if moves_past_its_like {
                    continue;
                }
                let last = other.remove(second);
                other.insert(first, last);
                assert_eq!(
                    Message::parse(&message(head, &other)).as_ref(),
                    Ok(&value),
                    "{name}, {first} {second}"
                );
                swaps += 1;
            }
        }
    }
    assert!(swaps >= 40, "{swaps}");
}

/// The file's name begins with the code that a gateway answers.
#[test]
fn what_is_no_message_is_refused_with_its_code() {
    let files = hex::folder("refused");
    let mut codes = BTreeSet::new();
    for (name, vector) in &files {
        let code: u16 = name.split('_').next().and_then(|code| code.parse().ok()).expect("a code");
        let error = Message::parse(&vector.bytes).expect_err(name);
        // Over UDP a missing counter comes before what is wrong with the parameters.
        let told = if error.lacks_counter() { ErrorCode::MessageCounterRequired } else { error.error_code() };
        assert_eq!(told.number(), code, "{name}: {error}");
        assert_eq!(rsip_proto::wire::Pretty(&vector.bytes).to_string(), vector.shown, "{name}");
        codes.insert(code);
    }
    assert_eq!(codes, BTreeSet::from([105, 106, 201, 202, 203, 204, 205, 206, 207, 208]));
}
