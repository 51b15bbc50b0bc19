//! Gateways that restart, forget, refuse and take back (RFC 3103 section 10.2).

use super::*;
use crate::host::{GatewayState, WithdrawReason};

const NEW: ClientId = ClientId(4711);

fn renamed(old: u32, new: u32, port: u16) -> HostCommand {
    HostCommand::Renamed {
        old: (CLIENT, BindId(old)),
        binding: binding(BindingKind::Listen, NEW, new, Ports::single(port)),
    }
}

/// The gateway answers a check with REGISTER_FIRST, and everything up to the new registration follows.
fn restarted(it: &mut Dialogue) -> Vec<HostCommand> {
    it.wait();
    it.refuse(ErrorCode::RegisterFirst);
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Lost));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }], "section 10.2.2");
    it.refuse(ErrorCode::RegisterFirst);
    assert_eq!(it.request(), Body::RegisterRequest);
    it.answer(register_response(NEW));
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Registered(NEW)));
    commands
}

#[test]
fn after_a_restart_of_the_gateway_the_same_ports_are_asked_for() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.hold(443, 6);
    let commands = restarted(&mut it);
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
    it.answer(listen_response(NEW, 1, 80));
    let commands = it.commands();
    assert_eq!(commands[0], renamed(5, 1, 80));
    assert_eq!(asked_ports(&sends(&commands)[0]).1, &Ports::single(443));
    it.answer(listen_response(NEW, 2, 443));
    assert_eq!(it.commands(), [renamed(6, 2, 443)]);
}

#[test]
fn a_port_that_another_host_has_meanwhile_is_taken_out_of_use() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    restarted(&mut it);
    it.refuse(ErrorCode::LocalAddrportInuse);
    let reason = WithdrawReason::Refused(ErrorCode::LocalAddrportInuse);
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason };
    assert_eq!(it.commands(), [withdraw]);
    assert_eq!(it.host.view(it.now).pending, []);
}

#[test]
fn if_the_address_is_gone_the_port_is_asked_for_on_any_other() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    restarted(&mut it);
    it.refuse(ErrorCode::LocalAddrUnallowed);
    let commands = it.commands();
    let reason = WithdrawReason::Refused(ErrorCode::LocalAddrUnallowed);
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason };
    assert_eq!(commands[0], withdraw);
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::ANY, &Ports::single(80)));
    it.client = NEW;
    it.answer(listen_response(NEW, 1, 80));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
}

#[test]
fn a_block_is_asked_for_by_number_and_then_any() {
    let mut it = Dialogue::registered(with_block(4));
    it.commands();
    it.answer(assign_response(CLIENT, 1, 10_000, 4));
    it.commands();
    it.done(Ok(()));
    let commands = restarted(&mut it);
    let same = Ports::Range { first: 10_000, count: 4 };
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &same));
    it.refuse(ErrorCode::LocalAddrportInuse);
    let commands = it.commands();
    assert!(matches!(commands[0], HostCommand::Withdraw { reason: WithdrawReason::Refused(_), .. }));
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::ANY, &Ports::DontCare { count: 4 }));
}

#[test]
fn a_port_that_nobody_uses_any_more_is_not_asked_for_again() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.want_port(443, it.now);
    it.commands();
    it.host.release_port(80, it.now);
    it.refuse(ErrorCode::RegisterFirst);
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Freed };
    assert!(it.commands().contains(&withdraw));
}

#[test]
fn a_request_that_met_a_restarted_gateway_is_asked_again() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.refuse(ErrorCode::RegisterFirst);
    assert_eq!(sends(&it.commands()), [Body::DeRegisterRequest { client_id: CLIENT }], "at once");
    it.refuse(ErrorCode::RegisterFirst);
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250), "it registered us a moment ago");
    assert_eq!(sends(&commands), [Body::RegisterRequest]);
    it.answer(register_response(NEW));
    let requests = sends(&it.commands());
    assert_eq!(asked_ports(&requests[0]).1, &Ports::single(80));
    it.answer(listen_response(NEW, 1, 80));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn an_old_registration_in_the_way_is_ended_first() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    let old = ClientId(3);
    let taken =
        Body::ErrorResponse { error: ErrorCode::AlreadyRegistered, client_id: Some(old), bind_id: None };
    it.answer(taken.clone());
    assert_eq!(it.request(), Body::DeRegisterRequest { client_id: old });
    it.answer(Body::DeRegisterResponse { client_id: old });
    assert_eq!(it.request(), Body::RegisterRequest);
    // A gateway that says it again and again is not asked again and again.
    it.answer(taken);
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Refused(ErrorCode::AlreadyRegistered)));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: old }]);
    it.answer(Body::DeRegisterResponse { client_id: old });
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250));
    assert_eq!(sends(&commands), [Body::RegisterRequest]);
}

#[test]
fn a_refused_registration_is_told_each_time_and_asked_more_and_more_seldom() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.host.want_port(80, it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    it.refuse(ErrorCode::RegistrationDenied);
    let reason = DenyReason::Gateway(ErrorCode::RegistrationDenied);
    assert_eq!(
        it.commands(),
        [change(RegistrationChange::Refused(ErrorCode::RegistrationDenied)), denied(80, reason)]
    );
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [denied(80, reason)]);
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Refused(ErrorCode::RegistrationDenied));
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let (pause, commands) = it.wait();
        assert_eq!(sends(&commands), [Body::RegisterRequest]);
        pauses.push(pause.as_millis());
        it.refuse(ErrorCode::RegistrationDenied);
        it.commands();
    }
    assert_eq!(pauses, [250, 500, 1000]);
}

#[test]
fn a_gateway_that_registers_and_forgets_at_once_does_not_make_it_spin() {
    let mut it = Dialogue::registered(tcp());
    it.host.want_port(80, it.now);
    it.commands();
    let began = it.now;
    for _ in 0..20 {
        while it.asked.is_none() {
            it.wait();
        }
        match it.asked.as_ref().map(|message| message.body.clone()) {
            Some(Body::RegisterRequest) => it.answer(register_response(CLIENT)),
            _ => it.refuse(ErrorCode::RegisterFirst),
        }
        it.commands();
    }
    assert!(it.now - began > secs(2), "20 answers in {:?}", it.now - began);
}

#[test]
fn when_the_gateway_ends_the_registration_all_use_stops_and_the_same_is_asked_for_again() {
    let mut it = Dialogue::registered(with_block(4));
    it.commands();
    it.answer(assign_response(CLIENT, 1, 10_000, 4));
    it.commands();
    it.done(Ok(()));
    it.hold(80, 5);
    it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    let ports = Ports::Range { first: 10_000, count: 4 };
    let block = binding(BindingKind::Block, CLIENT, 1, ports.clone());
    let reason = WithdrawReason::Deregistered;
    let commands = it.commands();
    assert_eq!(
        commands[..3],
        [
            change(RegistrationChange::Lost),
            HostCommand::Withdraw { binding: block, reason },
            HostCommand::Withdraw { binding: listener(5, 80), reason },
        ],
        "section 9.5.1"
    );
    assert_eq!(sends(&commands), [Body::RegisterRequest]);
    it.client = NEW;
    it.answer(register_response(NEW));
    assert_eq!(asked_ports(&sends(&it.commands())[0]), (&Address::Ipv4(PUBLIC), &ports));
    it.answer(assign_response(NEW, 1, 10_000, 4));
    let commands = it.commands();
    assert!(matches!(commands[0], HostCommand::Publish { .. }));
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
    it.done(Ok(()));
    it.answer(listen_response(NEW, 2, 80));
    let again = binding(BindingKind::Listen, NEW, 2, Ports::single(80));
    assert!(it.commands().contains(&HostCommand::Publish { op: it.op.expect("a Publish"), binding: again }));
    it.done(Ok(()));
    assert_eq!(it.commands(), [], "no verdict: nobody waits");
}

#[test]
fn a_de_register_response_to_another_request_ends_the_registration_too() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.want_port(443, it.now);
    it.commands();
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Deregistered };
    let commands = it.commands();
    assert_eq!(commands[..2], [change(RegistrationChange::Lost), withdraw]);
    assert_eq!(sends(&commands), [Body::RegisterRequest]);
}

#[test]
fn a_gateway_that_is_being_replaced_may_refuse_for_a_moment() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.forgotten();
    it.refuse(ErrorCode::RegistrationDenied);
    assert_eq!(it.commands(), [change(RegistrationChange::Refused(ErrorCode::RegistrationDenied))]);
    it.wait();
    it.answer(register_response(NEW));
    it.commands();
    it.answer(listen_response(NEW, 1, 80));
    assert_eq!(it.commands(), [renamed(5, 1, 80)]);
}

#[test]
fn a_gateway_that_goes_on_refusing_is_believed() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.forgotten();
    let began = it.now;
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Lost };
    loop {
        if it.asked.is_some() {
            it.refuse(ErrorCode::RegistrationDenied);
            it.commands();
        }
        let (_, commands) = it.wait();
        if commands.contains(&withdraw) {
            break;
        }
    }
    assert_eq!(it.now - began, secs(30));
}

#[test]
fn messages_for_others_are_ignored() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    let other = ClientId(9);
    it.asynchronous(Body::DeRegisterResponse { client_id: other });
    it.asynchronous(Body::FreeResponse { client_id: other, bind_id: BindId(5) });
    it.asynchronous(Body::ErrorResponse {
        error: ErrorCode::RegisterFirst,
        client_id: Some(other),
        bind_id: None,
    });
    it.asynchronous(free_response(6));
    it.asynchronous(listen_response(CLIENT, 6, 81));
    it.asynchronous(Body::RegisterRequest);
    assert_eq!(it.commands(), []);
}

#[test]
fn a_binding_that_the_gateway_takes_back_is_gone() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.asynchronous(free_response(5));
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Revoked };
    assert_eq!(it.commands(), [withdraw]);
    it.pass(secs(14));
    assert_eq!(it.commands(), [], "the administrator's will: not asked for again");
    it.host.want_port(80, it.now);
    assert!(matches!(it.request(), Body::ListenRequest(_)), "unless somebody wants it");
}

#[test]
fn a_static_port_that_was_taken_back_is_asked_for_after_a_pause() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.listen(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 5, 80));
    it.commands();
    it.done(Ok(()));
    it.commands();
    it.asynchronous(free_response(5));
    it.commands();
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250));
    assert_eq!(sends(&commands).len(), 1);
    it.refuse(ErrorCode::LocalAddrportInuse);
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(500));
    assert_eq!(sends(&commands).len(), 1);
    it.answer(listen_response(CLIENT, 6, 80));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [], "nobody waits for a verdict");
}

#[test]
fn a_binding_taken_back_while_it_is_taken_into_use_is_withdrawn_afterwards() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 5, 80));
    it.commands();
    it.asynchronous(free_response(5));
    assert_eq!(it.commands(), []);
    it.done(Ok(()));
    let commands = it.commands();
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Revoked };
    assert_eq!(commands[0], withdraw);
    assert_eq!(sends(&commands).len(), 1, "the program still waits: asked again");
}

#[test]
fn a_registration_lost_while_a_binding_is_taken_into_use_delays_the_verdict() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 5, 80));
    it.commands();
    it.forgotten();
    it.done(Ok(()));
    assert_eq!(it.commands(), [], "the gateway does not hold it now");
    it.answer(register_response(NEW));
    it.commands();
    it.answer(listen_response(NEW, 1, 80));
    assert_eq!(it.commands(), [renamed(5, 1, 80), granted(80)]);
}

#[test]
fn a_registration_ended_while_a_binding_is_taken_into_use_takes_it_out_again() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 5, 80));
    it.commands();
    it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    it.commands();
    it.answer(register_response(NEW));
    it.commands();
    it.done(Ok(()));
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Deregistered };
    let commands = it.commands();
    assert_eq!(commands[0], withdraw);
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
    it.answer(listen_response(NEW, 1, 80));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn a_wrong_client_id_means_registering_again() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(Body::ErrorResponse { error: ErrorCode::BadClientId, client_id: Some(CLIENT), bind_id: None });
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Lost));
    let (_, commands) = it.wait();
    assert_eq!(sends(&commands), [Body::RegisterRequest]);
}

#[test]
fn trouble_inside_the_gateway_makes_the_host_look() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.asynchronous(error_response(ErrorCode::LocalAddrportUnallowed));
    assert_eq!(it.commands(), [], "about a packet");
    it.asynchronous(error_response(ErrorCode::InternalServerError));
    assert_eq!(it.request(), extend_request(5));
    it.asynchronous(error_response(ErrorCode::RegisterFirst));
    assert_eq!(it.commands()[0], change(RegistrationChange::Lost));
}
