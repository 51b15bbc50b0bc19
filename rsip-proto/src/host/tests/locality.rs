//! QUERY: what is local (RFC 3103 sections 9.14 and 9.15).

use super::*;

fn network(local: bool, network: [u8; 4], mask: [u8; 4]) -> QueryTuple {
    QueryTuple::Network {
        local,
        network: Address::Ipv4(network.into()),
        netmask: Address::Netmask(mask.into()),
    }
}

fn tuples() -> Vec<QueryTuple> {
    vec![
        network(true, [10, 1, 0, 0], [255, 255, 0, 0]),
        network(false, [172, 16, 0, 0], [255, 240, 0, 0]),
        QueryTuple::Address { local: true, address: Address::Ipv4(Ipv4Addr::new(192, 168, 1, 1)) },
        QueryTuple::Address { local: false, address: Address::Ipv4(Ipv4Addr::new(192, 168, 1, 2)) },
    ]
}

fn local() -> HostCommand {
    HostCommand::Local(vec![(Ipv4Addr::new(10, 1, 0, 0), 16), (Ipv4Addr::new(192, 168, 1, 1), 32)])
}

fn query() -> Body {
    Body::QueryRequest { client_id: CLIENT, tuples: Vec::new() }
}

/// Registered, and QUERY not answered yet.
fn asking(config: HostConfig) -> Dialogue {
    let mut it = Dialogue::new(config);
    it.by_hand();
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    it.answer(register_response(CLIENT));
    it
}

fn tell(it: &mut Dialogue, tuples: Vec<QueryTuple>) {
    it.answer(Body::QueryResponse { client_id: CLIENT, tuples });
}

#[test]
fn asks_for_everything_before_anything_is_leased() {
    let mut it = asking(with_block(4));
    it.host.want_port(80, it.now);
    assert_eq!(sends(&it.commands()), [query()]);
    tell(&mut it, tuples());
    let commands = it.commands();
    assert_eq!(commands[0], local());
    assert!(matches!(sends(&commands).as_slice(), [Body::AssignRequestRsapIp(_)]));
    assert_eq!(HostCommand::Local(it.host.view(it.now).local), local());
}

#[test]
fn a_gateway_that_cannot_or_will_not_answer_is_no_harm() {
    for error in [
        ErrorCode::UnsupportedMessage,
        ErrorCode::IllegalMessage,
        ErrorCode::UnknownError,
        ErrorCode::MissingParam,
    ] {
        let mut it = asking(with_block(4));
        it.commands();
        it.refuse(error);
        let commands = it.commands();
        assert!(matches!(sends(&commands).as_slice(), [Body::AssignRequestRsapIp(_)]), "{commands:?}");
        assert_eq!(it.host.view(it.now).local, [], "everything is remote (section 9.15.3)");
    }
}

#[test]
fn silence_over_a_connection_keeps_the_host_from_nothing_else() {
    let mut it = asking(with_block(4));
    it.commands();
    let (_, commands) = it.wait();
    assert!(commands.contains(&HostCommand::Disconnect));
    it.wait();
    it.host.handle_transport_up(it.now);
    let commands = it.commands();
    assert!(matches!(sends(&commands).as_slice(), [Body::AssignRequestRsapIp(_)]), "{commands:?}");
}

#[test]
fn the_shell_hears_of_changes_alone() {
    let config = HostConfig { query_interval: secs(100), ..tcp() };
    let mut it = asking(config);
    it.commands();
    tell(&mut it, tuples());
    assert_eq!(it.commands(), [local()]);
    // Nothing is leased, so that QUERY is also what checks the registration.
    let (_, commands) = it.wait();
    assert_eq!(sends(&commands), [query()]);
    let mut turned = tuples();
    turned.reverse();
    tell(&mut it, turned);
    assert_eq!(it.commands(), [], "the same in another order");
    let (_, commands) = it.wait();
    assert_eq!(sends(&commands), [query()]);
    it.refuse(ErrorCode::UnknownError);
    assert_eq!(it.commands(), [], "an error tells nothing");
    it.wait();
    tell(&mut it, Vec::new());
    assert_eq!(it.commands(), [HostCommand::Local(Vec::new())]);
}

#[test]
fn asks_again_at_times_and_after_a_new_registration() {
    let config = HostConfig { query_interval: secs(100), ..tcp() };
    let mut it = asking(config);
    it.commands();
    tell(&mut it, tuples());
    it.commands();
    it.hold(80, 5);
    let began = it.now;
    loop {
        let (_, commands) = it.wait();
        if sends(&commands) == [query()] {
            break;
        }
        assert_eq!(sends(&commands), [extend_request(5)]);
        it.answer(extend_response(5, LEASE));
        let more = sends(&it.commands());
        if more == [query()] {
            break;
        }
        assert_eq!(more, []);
    }
    let waited = it.now - began;
    assert!(waited >= secs(100) && waited <= secs(120), "{waited:?}");
    tell(&mut it, tuples());
    assert_eq!(it.commands(), []);
    it.forgotten();
    it.answer(register_response(ClientId(2)));
    let requests = sends(&it.commands());
    assert!(matches!(requests.as_slice(), [Body::ListenRequest(_)]), "what was lost comes first");
    it.answer(listen_response(ClientId(2), 1, 80));
    let again = Body::QueryRequest { client_id: ClientId(2), tuples: Vec::new() };
    assert_eq!(sends(&it.commands()), [again]);
}

#[test]
fn an_answer_under_another_name_or_unasked_is_ignored() {
    let mut it = asking(tcp());
    it.commands();
    let answer = Body::QueryResponse { client_id: ClientId(9), tuples: tuples() };
    let counter = it.asked.as_ref().and_then(|asked| asked.counter);
    it.host.handle_message(Message { counter, body: answer }, it.now);
    assert_eq!(it.commands(), []);
    it.asynchronous(Body::QueryResponse { client_id: CLIENT, tuples: tuples() });
    assert_eq!(it.commands(), [], "QUERY_RESPONSE is never asynchronous (section 10.1)");
}
