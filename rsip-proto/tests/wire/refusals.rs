//! Values that no message can carry are refused by the emitter, for the same reasons as by the parser.

use proptest::prelude::*;
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::message::{ListenRequest, PortBinding};
use rsip_proto::wire::{
    Address, BadParam, Body, EncodeError, Field, MAX_MESSAGE_LEN, Message, Ports, Pretty, QueryTuple,
    TunnelType,
};

fn listen() -> ListenRequest {
    ListenRequest {
        client_id: ClientId(1),
        local_address: Address::ANY,
        local_ports: Ports::single(80),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_types: vec![],
    }
}

fn encode(body: Body) -> Result<Vec<u8>, EncodeError> {
    Message { counter: None, body }.encode()
}

fn refused(body: Body) -> (Field, BadParam) {
    match encode(body).expect_err("to be refused") {
        EncodeError::BadParam { field, reason } => (field, reason),
        EncodeError::TooLong(length) => unreachable!("no value makes {length} bytes here"),
    }
}

fn mask() -> Address {
    Address::Netmask([255, 255, 255, 0].into())
}

fn fqdn(name: &str) -> Address {
    Address::Fqdn(name.to_owned())
}

#[test]
fn refuses_ports_that_are_none() {
    let local = |local_ports| refused(Body::ListenRequest(ListenRequest { local_ports, ..listen() }));
    let repeated = Ports::List(vec![80, 81, 80]);
    assert_eq!(local(Ports::DontCare { count: 0 }), (Field::LocalPorts, BadParam::NoPorts));
    assert_eq!(local(Ports::Range { first: 80, count: 0 }), (Field::LocalPorts, BadParam::NoPorts));
    let range = BadParam::PortRange { first: 65535, count: 2 };
    assert_eq!(local(Ports::Range { first: 65535, count: 2 }), (Field::LocalPorts, range));
    assert_eq!(local(Ports::List(vec![])), (Field::LocalPorts, BadParam::PortCount(0)));
    assert_eq!(local(Ports::List(vec![80])), (Field::LocalPorts, BadParam::PortCount(1)));
    assert_eq!(local(Ports::List((0..256).collect())), (Field::LocalPorts, BadParam::PortCount(256)));
    assert_eq!(local(repeated.clone()), (Field::LocalPorts, BadParam::RepeatedPort(80)));

    let remote = |remote_ports| refused(Body::ListenRequest(ListenRequest { remote_ports, ..listen() }));
    assert_eq!(remote(Ports::DontCare { count: 0 }), (Field::RemotePorts, BadParam::NoPorts));
    assert_eq!(remote(repeated), (Field::RemotePorts, BadParam::RepeatedPort(80)));
}

#[test]
fn refuses_addresses_out_of_place() {
    let local = |local_address| refused(Body::ListenRequest(ListenRequest { local_address, ..listen() }));
    assert_eq!(local(fqdn("a.example")), (Field::LocalAddress, BadParam::LocalFqdn));
    assert_eq!(local(mask()), (Field::LocalAddress, BadParam::Netmask));

    let remote = |remote_address| refused(Body::ListenRequest(ListenRequest { remote_address, ..listen() }));
    assert_eq!(remote(mask()), (Field::RemoteAddress, BadParam::Netmask));
    for name in ["", "with space", "line\n", "t\u{e4}st", &"a".repeat(256)] {
        assert_eq!(remote(fqdn(name)), (Field::RemoteAddress, BadParam::Fqdn), "{name:?}");
    }

    let binding = PortBinding {
        client_id: ClientId(1),
        bind_id: BindId(1),
        local_address: Address::Ipv4([192, 0, 2, 1].into()),
        local_ports: Ports::single(80),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: 60,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: Some(mask()),
    };
    assert_eq!(refused(Body::ListenResponse(binding)), (Field::TunnelEndpoint, BadParam::Netmask));
}

#[test]
fn refuses_tuples_of_the_wrong_kinds() {
    let network = Address::Ipv4([10, 0, 0, 0].into());
    let tuple = |tuple| refused(Body::QueryRequest { client_id: ClientId(1), tuples: vec![tuple] });
    let address = |address| QueryTuple::Address { local: false, address };
    let of_network = |network, netmask| QueryTuple::Network { local: false, network, netmask };
    assert_eq!(tuple(address(mask())), (Field::QueryTuple, BadParam::TupleAddress));
    assert_eq!(tuple(address(Address::ANY)), (Field::QueryTuple, BadParam::TupleAddress));
    assert_eq!(tuple(address(fqdn(""))), (Field::QueryTuple, BadParam::Fqdn));
    assert_eq!(tuple(of_network(fqdn("a.example"), mask())), (Field::QueryTuple, BadParam::TupleNetwork));
    assert_eq!(tuple(of_network(network.clone(), network)), (Field::QueryTuple, BadParam::TupleNetmask));
}

/// A QUERY_RESPONSE with as many tuples as go in, and one more.
#[test]
fn refuses_what_is_longer_than_a_message() {
    let tuple = QueryTuple::Address { local: true, address: Address::Ipv4([10, 0, 0, 1].into()) };
    let with = |count| Message {
        counter: None,
        body: Body::QueryResponse { client_id: ClientId(1), tuples: vec![tuple.clone(); count] },
    };
    let most = (MAX_MESSAGE_LEN - 11) / 13;
    let longest = with(most);
    let bytes = longest.encode().expect("it fits");
    assert_eq!(Message::parse(&bytes), Ok(longest));
    let longer = with(most + 1);
    assert_eq!(longer.encode(), Err(EncodeError::TooLong(longer.buffer_len())));
}

#[test]
fn a_request_says_nothing_about_locality() {
    let tuple = |local| QueryTuple::Address { local, address: Address::Ipv4([10, 0, 0, 1].into()) };
    let with = |local| encode(Body::QueryRequest { client_id: ClientId(1), tuples: vec![tuple(local)] });
    assert_eq!(with(true), with(false));
}

#[test]
fn what_is_no_message_prints_on_one_line_too() {
    assert_eq!(
        Pretty(&[1, 12, 0, 18, 4, 0, 4, 0, 0, 0, 1, 11, 0, 4, 0, 0, 0, 5]).to_string(),
        "malformed FREE_REQUEST #5, Bind ID is missing (byte 18), 18 bytes: \
         01 0c 00 12 04 00 04 00 00 00 01 0b 00 04 00 00 00 05"
    );
    assert_eq!(
        Pretty(b"\n").to_string(),
        "malformed message, shorter than a header: 1 bytes (byte 0), 1 bytes: 0a"
    );
    let long = Pretty(&[0xff; 65]).to_string();
    assert!(long.ends_with(" ff ..."), "{long}");
    let message = Message::new(MessageCounter(1), Body::RegisterRequest);
    assert_eq!(Pretty(&message.encode().expect("a message")).to_string(), message.to_string());
}

#[test]
fn ports_find_their_shortest_form() {
    assert_eq!(Ports::from_ports(&[80]), Some(Ports::single(80)));
    assert_eq!(Ports::from_ports(&[80, 81, 82]), Some(Ports::Range { first: 80, count: 3 }));
    assert_eq!(Ports::from_ports(&[65535, 0]), Some(Ports::List(vec![65535, 0])));
    assert_eq!(Ports::from_ports(&[81, 80]), Some(Ports::List(vec![81, 80])));
    assert_eq!(Ports::from_ports(&[]), None);
    assert_eq!(Ports::from_ports(&(0..256).collect::<Vec<_>>()), None);
}

proptest! {
    /// Any set of ports survives the way over the wire, in the order given.
    #[test]
    fn sets_of_ports_arrive_as_they_are(ports in prop::collection::hash_set(any::<u16>(), 1..=255)) {
        let ports: Vec<u16> = ports.into_iter().collect();
        let local_ports = Ports::from_ports(&ports).expect("1 to 255 ports");
        let bytes = encode(Body::ListenRequest(ListenRequest { local_ports, ..listen() })).expect("a message");
        let Ok(Message { body: Body::ListenRequest(request), .. }) = Message::parse(&bytes) else {
            return Err(TestCaseError::fail("not the same message"));
        };
        prop_assert_eq!(request.local_ports.iter().collect::<Vec<_>>(), ports);
    }
}
