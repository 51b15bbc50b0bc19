//! Grants that are not what was asked, or of no use (RFC 3103 sections 9.7.3 and 9.9.3).

use std::net::Ipv6Addr;

use super::*;
use crate::wire::message::{AssignResponseRsaIp, PortBinding};

const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

fn wrong(change: impl FnOnce(&mut PortBinding)) -> PortBinding {
    let mut grant = port_binding(CLIENT, 9, Ports::single(443));
    change(&mut grant);
    grant
}

#[test]
fn what_cannot_be_used_is_given_back_and_counts_as_a_refusal() {
    let name = || Address::Fqdn("rsip.example".to_owned());
    let cases: Vec<(&str, PortBinding)> = vec![
        ("another client", wrong(|it| it.client_id = ClientId(9))),
        ("another port", wrong(|it| it.local_ports = Ports::single(444))),
        ("more ports", wrong(|it| it.local_ports = Ports::Range { first: 443, count: 2 })),
        ("no port", wrong(|it| it.local_ports = Ports::ANY)),
        ("another address", wrong(|it| it.local_address = Address::Ipv4(OTHER))),
        ("a name", wrong(|it| it.local_address = name())),
        ("no address", wrong(|it| it.local_address = Address::ANY)),
        ("a netmask", wrong(|it| it.local_address = Address::Netmask(PUBLIC))),
        ("IPv6", wrong(|it| it.local_address = Address::Ipv6(Ipv6Addr::LOCALHOST))),
        ("GRE", wrong(|it| it.tunnel_type = TunnelType::Gre)),
        ("L2TP", wrong(|it| it.tunnel_type = TunnelType::L2tp)),
        ("an unknown tunnel", wrong(|it| it.tunnel_type = TunnelType::Other(9))),
        ("an end point by name", wrong(|it| it.tunnel_endpoint = Some(name()))),
        ("an impossible end point", {
            wrong(|it| it.tunnel_endpoint = Some(Address::Ipv4(Ipv4Addr::BROADCAST)))
        }),
        ("one peer only", wrong(|it| it.remote_address = Address::Ipv4(OTHER))),
        ("one remote port only", wrong(|it| it.remote_ports = Ports::single(80))),
        ("no time", wrong(|it| it.lease_time = 0)),
    ];
    for (what, grant) in cases {
        let mut it = Dialogue::holding(tcp(), 80, 1);
        it.host.want_port(443, it.now);
        it.commands();
        it.answer(Body::ListenResponse(grant));
        let commands = it.commands();
        assert_eq!(commands[0], denied(443, DenyReason::InstallFailed), "{what}");
        assert_eq!(sends(&commands), [free_request(9)], "{what}");
        assert_eq!(commands.len(), 2, "{what}");
        it.answer(free_response(9));
        assert_eq!(it.commands(), [], "{what}");
        assert_eq!(it.host.view(it.now).bindings.len(), 1, "{what}");
    }
}

#[test]
fn impossible_addresses_are_given_back() {
    for address in
        [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 5)]
    {
        let mut it = Dialogue::registered(tcp());
        it.commands();
        it.host.want_port(443, it.now);
        it.commands();
        it.answer(Body::ListenResponse(wrong(|grant| grant.local_address = Address::Ipv4(address))));
        assert_eq!(sends(&it.commands()), [free_request(9)], "{address}");
    }
}

#[test]
fn harmless_differences_are_accepted() {
    let zero = Ipv4Addr::UNSPECIFIED;
    let cases: Vec<(&str, PortBinding)> = vec![
        ("all 0's", {
            wrong(|it| {
                it.remote_address = Address::Ipv4(zero);
                it.remote_ports = Ports::single(0);
            })
        }),
        ("another don't care", wrong(|it| it.remote_address = Address::DontCare(3))),
        ("no remote port", wrong(|it| it.remote_ports = Ports::DontCare { count: 0 })),
        ("no end point after all", wrong(|it| it.tunnel_endpoint = Some(Address::ANY))),
    ];
    for (what, grant) in cases {
        let mut it = Dialogue::holding(tcp(), 80, 1);
        it.host.want_port(443, it.now);
        it.commands();
        it.answer(Body::ListenResponse(grant));
        assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]), "{what}");
    }
}

#[test]
fn another_tunnel_end_point_is_handed_on() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(443, it.now);
    it.commands();
    it.answer(Body::ListenResponse(wrong(|it| it.tunnel_endpoint = Some(Address::Ipv4(OTHER)))));
    let expected = HostBinding { tunnel_endpoint: Some(OTHER), ..listener(9, 443) };
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: expected }]);
}

#[test]
fn a_grant_of_another_kind_is_given_back() {
    let rsa = AssignResponseRsaIp {
        client_id: CLIENT,
        bind_id: BindId(9),
        local_address: Address::Ipv4(PUBLIC),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: LEASE,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: None,
    };
    for body in [assign_response(CLIENT, 9, 443, 1), Body::AssignResponseRsaIp(rsa)] {
        let mut it = Dialogue::registered(tcp());
        it.commands();
        it.host.want_port(443, it.now);
        it.commands();
        it.answer(body);
        let commands = it.commands();
        assert_eq!(commands[0], denied(443, DenyReason::InstallFailed));
        assert_eq!(sends(&commands), [free_request(9)]);
    }
}

#[test]
fn a_grant_under_a_name_that_is_in_use_does_not_free_what_is_in_use() {
    let mut it = Dialogue::holding(tcp(), 80, 9);
    it.host.want_port(443, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 9, 443));
    assert_eq!(it.commands(), [denied(443, DenyReason::InstallFailed)]);
    assert_eq!(it.host.view(it.now).bindings.len(), 1);
}

#[test]
fn a_grant_under_a_name_that_the_shell_is_just_taking_into_use_is_given_back() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 9, 80));
    it.commands();
    // The gateway restarts, and gives the same names again.
    it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    it.commands();
    it.answer(register_response(CLIENT));
    it.host.want_port(443, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 9, 443));
    let commands = it.commands();
    assert_eq!(commands[0], denied(443, DenyReason::InstallFailed));
    assert_eq!(sends(&commands), [free_request(9)]);
}

#[test]
fn what_was_lost_makes_room_for_a_new_binding_of_its_name() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.hold(443, 9);
    it.forgotten();
    it.answer(register_response(CLIENT));
    it.commands();
    it.answer(listen_response(CLIENT, 9, 80));
    let commands = it.commands();
    let [
        HostCommand::Renamed { old: first, binding: moved },
        HostCommand::Renamed { old: second, binding },
        HostCommand::Send(_),
    ] = commands.as_slice()
    else {
        panic!("{commands:?}");
    };
    assert_eq!((first, &moved.leased), (&(CLIENT, BindId(9)), &Ports::single(443).into()));
    assert_ne!(moved.bind_id, BindId(9));
    assert_eq!((second, binding), (&(CLIENT, BindId(5)), &listener(9, 80)));
    let placeholder = (moved.client_id, moved.bind_id);
    it.answer(listen_response(CLIENT, 10, 443));
    let renamed = HostCommand::Renamed { old: placeholder, binding: listener(10, 443) };
    assert_eq!(it.commands(), [renamed]);
}

#[test]
fn a_want_for_a_port_whose_unusable_grant_is_given_back_waits_for_that() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(443, it.now);
    it.commands();
    it.answer(Body::ListenResponse(wrong(|grant| grant.tunnel_type = TunnelType::Gre)));
    it.commands();
    it.host.want_port(443, it.now);
    assert_eq!(it.commands(), []);
    it.answer(free_response(9));
    assert!(matches!(it.request(), Body::ListenRequest(_)));
}

#[test]
fn an_answer_that_fits_no_request_is_ignored() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(443, it.now);
    it.commands();
    let counter = it.asked.as_ref().and_then(|message| message.counter);
    for body in [
        register_response(ClientId(5)),
        Body::QueryResponse { client_id: CLIENT, tuples: Vec::new() },
        extend_response(1, LEASE),
        free_response(1),
        Body::DeRegisterResponse { client_id: ClientId(5) },
        Body::ErrorResponse { error: ErrorCode::RegisterFirst, client_id: Some(ClientId(5)), bind_id: None },
        Body::RegisterRequest,
        Body::QueryRequest { client_id: CLIENT, tuples: Vec::new() },
    ] {
        it.host.handle_message(Message { counter, body }, it.now);
    }
    assert_eq!(it.commands(), []);
    it.answer(listen_response(CLIENT, 9, 443));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
}
