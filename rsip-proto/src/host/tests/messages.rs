//! What a host takes no notice of, what it counts, and its message counters (RFC 3103 sections 9.1.3, 10.1, 10.2.1, 10.4).

use super::*;
use crate::host::{GatewayState, Mismatch};
use crate::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};

/// Every *_REQUEST, as another host or an echo would say it.
fn requests() -> Vec<Body> {
    let (client_id, bind_id) = (CLIENT, BindId(5));
    let (local_address, remote_address, remote_ports) = (Address::ANY, Address::ANY, Ports::ANY);
    vec![
        Body::RegisterRequest,
        Body::DeRegisterRequest { client_id },
        Body::AssignRequestRsaIp(AssignRequestRsaIp {
            client_id,
            local_address: local_address.clone(),
            remote_address: remote_address.clone(),
            remote_ports: remote_ports.clone(),
            lease_time: None,
            tunnel_type: None,
        }),
        Body::AssignRequestRsapIp(AssignRequestRsapIp {
            client_id,
            local_address: local_address.clone(),
            local_ports: Ports::ANY,
            remote_address: remote_address.clone(),
            remote_ports: remote_ports.clone(),
            lease_time: None,
            tunnel_type: None,
        }),
        Body::ExtendRequest { client_id, bind_id, lease_time: None },
        Body::FreeRequest { client_id, bind_id },
        Body::QueryRequest { client_id, tuples: Vec::new() },
        Body::ListenRequest(ListenRequest {
            client_id,
            local_address,
            local_ports: Ports::single(80),
            remote_address,
            remote_ports,
            lease_time: None,
            tunnel_types: Vec::new(),
        }),
    ]
}

/// The view without what time alone changes.
fn seen(it: &Dialogue) -> (crate::host::HostView, SavedState, Option<Instant>) {
    (it.host.view(it.now), it.host.saved(), it.host.poll_timeout())
}

#[test]
fn requests_from_a_gateway_are_ignored() {
    for config in [tcp(), udp()] {
        for idle in [true, false] {
            let mut it = Dialogue::holding(config.clone(), 80, 5);
            if !idle {
                it.host.want_port(443, it.now);
                it.commands();
            }
            let counter = it.asked.as_ref().and_then(|asked| asked.counter);
            let before = seen(&it);
            for body in requests() {
                for counter in [counter, None, Some(MessageCounter::ASYNCHRONOUS), Some(MessageCounter(77))] {
                    it.host.handle_message(Message { counter, body: body.clone() }, it.now);
                    assert_eq!(it.commands(), [], "{body:?}");
                    assert_eq!(seen(&it), before, "{body:?}");
                }
            }
        }
    }
}

#[test]
fn three_messages_alone_may_come_unasked() {
    let mut it = Dialogue::holding(udp(), 80, 5);
    it.host.want_port(443, it.now);
    it.commands();
    let before = seen(&it);
    let others = [
        register_response(ClientId(9)),
        listen_response(CLIENT, 6, 443),
        assign_response(CLIENT, 6, 443, 1),
        address_response(CLIENT, 6, PUBLIC),
        extend_response(5, 1),
        Body::QueryResponse { client_id: CLIENT, tuples: Vec::new() },
    ];
    for body in others {
        it.asynchronous(body.clone());
        assert_eq!(it.commands(), [], "{body:?}");
        assert_eq!(seen(&it), before, "{body:?}");
    }
    it.asynchronous(error_response(ErrorCode::LocalAddrUnallowed));
    assert_ne!(seen(&it), before);
    it.asynchronous(free_response(5));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Withdraw { .. }]));
    it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.commands(), [change(RegistrationChange::Lost)]);
}

#[test]
fn what_the_gateway_says_of_packets_is_counted_and_changes_nothing() {
    let mut it = Dialogue::holding(udp(), 80, 5);
    let told = [
        (ErrorCode::BadTunnelType, 1),
        (ErrorCode::LocalAddrUnallowed, 2),
        (ErrorCode::LocalAddrportUnallowed, 3),
        (ErrorCode::RemoteAddrUnallowed, 4),
        (ErrorCode::RemoteAddrportUnallowed, 5),
    ];
    let before = it.host.view(it.now);
    for (error, times) in told {
        for _ in 0..times {
            it.asynchronous(Body::ErrorResponse { error, client_id: Some(CLIENT), bind_id: None });
        }
    }
    it.asynchronous(Body::ErrorResponse {
        error: ErrorCode::LocalAddrUnallowed,
        client_id: Some(ClientId(9)),
        bind_id: None,
    });
    it.asynchronous(error_response(ErrorCode::LocalAddrInuse));
    assert_eq!(it.commands(), []);
    let after = it.host.view(it.now);
    assert_eq!(after.complaints.clone().into_iter().collect::<Vec<_>>(), told);
    assert_eq!(crate::host::HostView { complaints: before.complaints.clone(), ..after }, before);
}

#[test]
fn counters_go_from_the_highest_to_one() {
    let mut it = Dialogue::holding(udp(), 80, 5);
    it.host.counter = MessageCounter(u32::MAX - 1);
    let mut counters = Vec::new();
    for port in [81, 82, 83] {
        it.host.want_port(port, it.now);
        it.commands();
        counters.push(it.asked.as_ref().and_then(|asked| asked.counter).expect("a counter").0);
        it.refuse(ErrorCode::LocalAddrportInuse);
        assert_eq!(it.commands().len(), 1, "the answer is taken");
    }
    assert_eq!(counters, [u32::MAX, 1, 2], "never 0");
}

#[test]
fn the_times_of_retransmission_can_be_tuned() {
    let config = HostConfig { first_timeout: ms(100), retries: 2, ..udp() };
    let mut it = Dialogue::new(config);
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    let began = it.now;
    let mut times = Vec::new();
    for _ in 0..3 {
        it.wait();
        times.push((it.now - began).as_millis());
    }
    assert_eq!(times, [100, 300, 700]);
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Unreachable, "after two retries");
}

#[test]
fn nothing_is_asked_before_the_registration_and_none_is_asked_for_twice() {
    let mut it = Dialogue::new(with_block(4));
    it.host.start(it.now);
    it.host.want_port(80, it.now);
    it.host.listen(443, it.now);
    it.host.want_block(it.now);
    it.host.handle_transport_up(it.now);
    assert_eq!(sends(&it.commands()), [Body::RegisterRequest]);
    it.answer(register_response(CLIENT));
    let mut asked = Vec::new();
    while let Some(request) = sends(&it.commands()).pop() {
        asked.push(request);
        it.refuse(ErrorCode::LocalAddrportInuse);
    }
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(!asked.contains(&Body::RegisterRequest), "not before de-registering (section 9.2.1)");
    it.pass(secs(20));
    assert!(!sends(&it.commands()).contains(&Body::RegisterRequest));
}

#[test]
fn who_is_not_registered_does_not_de_register() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    it.refuse(ErrorCode::RegistrationDenied);
    it.commands();
    it.host.shutdown(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, HostCommand::Stopped]);
}

#[test]
fn after_a_reboot_what_belongs_to_an_earlier_session_is_ignored() {
    let mut it = Dialogue::new(udp());
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    let before = seen(&it);
    let old = [
        listen_response(CLIENT, 5, 80),
        assign_response(CLIENT, 6, 10_000, 4),
        extend_response(5, LEASE),
        free_response(5),
        Body::DeRegisterResponse { client_id: CLIENT },
        Body::QueryResponse { client_id: CLIENT, tuples: Vec::new() },
    ];
    for body in old {
        // The counter may be the one in use by chance.
        for counter in [0, 1, 7, 4711] {
            it.host.handle_message(Message::new(MessageCounter(counter), body.clone()), it.now);
            assert_eq!(it.commands(), [], "{body:?}");
            assert_eq!(seen(&it), before, "{body:?}");
        }
    }
    it.asynchronous(error_response(ErrorCode::RegisterFirst));
    it.asynchronous(error_response(ErrorCode::LocalAddrUnallowed));
    assert_eq!(seen(&it), before);
}

#[test]
fn a_free_of_what_the_gateway_does_not_know_leaves_both_sides_agreed() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.hold(443, 6);
    it.host.release_port(80, it.now);
    it.commands();
    it.refuse(ErrorCode::BadBindId);
    assert_eq!(it.commands(), [], "nobody holds it: that is what was wanted");
    let held: Vec<_> = it.host.view(it.now).bindings.into_iter().map(|it| it.binding.bind_id).collect();
    assert_eq!(held, [BindId(6)]);
    it.host.want_port(80, it.now);
    let request = it.request();
    assert_eq!(asked_ports(&request).1, &Ports::single(80), "and it can be had again");
}

#[test]
fn none_stated_means_ports_through_ip_in_ip() {
    let answer = |methods: &[RsipMethod], tunnel_types: &[TunnelType]| Body::RegisterResponse {
        client_id: CLIENT,
        lease_time: LEASE,
        flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None },
        methods: methods.to_vec(),
        tunnel_types: tunnel_types.to_vec(),
    };
    let mut it = Dialogue::registered_by(with_block(4), answer(&[], &[]));
    let view = it.host.view(it.now);
    assert_eq!((view.methods, view.tunnel_types), (vec![RsipMethod::RsapIp], vec![TunnelType::IpIp]));
    let requests = sends(&it.commands());
    let [Body::AssignRequestRsapIp(request)] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(request.tunnel_type, Some(TunnelType::IpIp));
    let strange = answer(
        &[RsipMethod::Other(200), RsipMethod::RsapIp],
        &[TunnelType::L2tp, TunnelType::Other(99), TunnelType::IpIp],
    );
    let mut it = Dialogue::registered_by(with_block(4), strange);
    assert!(matches!(sends(&it.commands()).as_slice(), [Body::AssignRequestRsapIp(_)]), "one that we have");
    let mut it = Dialogue::registered_by(with_block(4), answer(&[], &[TunnelType::Gre]));
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Unsuitable(Mismatch::Tunnel)));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
}

#[test]
fn a_host_with_several_tunnels_asks_for_the_gateways_favourite() {
    use TunnelType::{Gre, IpIp, L2tp};
    let answer = |offered: &[TunnelType]| {
        let Body::RegisterResponse { client_id, lease_time, flow_policy, methods, .. } =
            register_response(CLIENT)
        else {
            panic!("no answer");
        };
        Body::RegisterResponse { client_id, lease_time, flow_policy, methods, tunnel_types: offered.to_vec() }
    };
    let config = || HostConfig { tunnels: vec![IpIp, Gre], ..with_block(4) };
    for (offered, asked) in [(&[Gre, IpIp][..], Gre), (&[L2tp, IpIp, Gre], IpIp), (&[], IpIp)] {
        let mut it = Dialogue::registered_by(config(), answer(offered));
        let requests = sends(&it.commands());
        let [Body::AssignRequestRsapIp(request)] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(request.tunnel_type, Some(asked), "{offered:?}");
    }
    // What is granted is taken if it is what was asked for, and then asked for again and again.
    let mut it = Dialogue::registered_by(config(), answer(&[Gre, IpIp]));
    it.commands();
    let grant = PortBinding {
        tunnel_type: Gre,
        ..port_binding(CLIENT, 1, crate::wire::Ports::Range { first: 10_000, count: 4 })
    };
    it.answer(Body::AssignResponseRsapIp(grant));
    let commands = it.commands();
    let [HostCommand::Publish { binding, .. }] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(binding.tunnel, Gre);
    it.done(Ok(()));
    it.host.want_port(80, it.now);
    let request = it.request();
    let Body::ListenRequest(request) = request else { panic!("{request:?}") };
    assert_eq!(request.tunnel_types, [Gre]);
    it.answer(Body::ListenResponse(PortBinding {
        tunnel_type: IpIp,
        ..port_binding(CLIENT, 2, crate::wire::Ports::single(80))
    }));
    assert!(sends(&it.commands()).contains(&free_request(2)), "another one than asked for is given back");
}
