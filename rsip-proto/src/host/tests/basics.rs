//! The plain course of things.

use super::*;
use crate::host::{GatewayState, InstallFailed, WithdrawReason};

#[test]
fn registers_and_leases_a_block() {
    let mut it = Dialogue::new(with_block(16));
    assert_eq!(it.host.poll_timeout(), None);
    it.host.start(it.now);
    assert_eq!(it.commands(), [HostCommand::Connect]);
    it.host.handle_transport_up(it.now);
    assert_eq!(it.request(), Body::RegisterRequest);
    it.answer(register_response(CLIENT));

    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Registered(CLIENT)));
    let requests = sends(&commands);
    assert_eq!(asked_ports(&requests[0]), (&Address::ANY, &Ports::DontCare { count: 16 }));
    it.answer(assign_response(CLIENT, 1, 10_000, 16));
    let block = binding(BindingKind::Block, CLIENT, 1, Ports::Range { first: 10_000, count: 16 });
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: block.clone() }]);
    it.done(Ok(()));
    assert_eq!(it.commands(), []);

    let view = it.host.view(it.now);
    assert_eq!(view.gateway, GatewayState::Registered);
    assert_eq!(view.client_id, Some(CLIENT));
    assert_eq!(view.bindings.len(), 1);
    assert_eq!(view.bindings[0].binding, block);
    assert_eq!(view.bindings[0].lease_left, secs(LEASE.into()));
    assert_eq!(view.pending, []);
}

#[test]
fn counters_begin_with_one_and_go_up_over_both_transports() {
    for config in [tcp(), udp()] {
        let mut it = Dialogue::new(config);
        it.host.start(it.now);
        it.host.handle_transport_up(it.now);
        it.commands();
        assert_eq!(it.asked.as_ref().and_then(|message| message.counter), Some(MessageCounter(1)));
        it.answer(register_response(CLIENT));
        it.host.want_port(80, it.now);
        it.commands();
        assert_eq!(
            it.asked.as_ref().and_then(|message| message.counter),
            Some(MessageCounter(3)),
            "QUERY had 2"
        );
    }
}

#[test]
fn a_program_gets_its_port_after_the_effect() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    let request = it.request();
    assert_eq!(asked_ports(&request), (&Address::ANY, &Ports::single(80)));
    it.answer(listen_response(CLIENT, 7, 80));
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: listener(7, 80) }]);
    it.pass(ms(500));
    assert_eq!(it.commands(), [], "no verdict before the effect");
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn all_ports_are_asked_for_on_the_address_that_is_in_use() {
    let mut it = Dialogue::holding(tcp(), 80, 1);
    it.host.want_port(443, it.now);
    let request = it.request();
    assert_eq!(asked_ports(&request), (&Address::Ipv4(PUBLIC), &Ports::single(443)));
}

#[test]
fn a_taken_port_is_denied_with_the_gateways_word() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.refuse(ErrorCode::LocalAddrportInuse);
    assert_eq!(it.commands(), [denied(80, DenyReason::Gateway(ErrorCode::LocalAddrportInuse))]);
    assert_eq!(it.host.view(it.now).pending, [], "forgotten");
    it.host.want_port(80, it.now);
    assert!(matches!(it.request(), Body::ListenRequest(_)), "asked again when wanted again");
}

#[test]
fn two_programs_share_one_request_and_one_verdict() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.host.want_port(80, it.now);
    assert_eq!(sends(&it.commands()).len(), 1);
    it.host.want_port(80, it.now);
    it.answer(listen_response(CLIENT, 7, 80));
    it.commands();
    it.host.want_port(80, it.now);
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [granted(80)], "held: answered at once");
}

#[test]
fn one_request_at_a_time_in_the_order_of_wanting() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    for port in [80, 443, 25] {
        it.host.want_port(port, it.now);
    }
    let request = it.request();
    assert_eq!(asked_ports(&request).1, &Ports::single(80));
    it.refuse(ErrorCode::LocalAddrportInuse);
    let requests = sends(&it.commands());
    assert_eq!(asked_ports(&requests[0]).1, &Ports::single(443));
    it.answer(listen_response(CLIENT, 7, 443));
    let requests = sends(&it.commands());
    assert_eq!(requests.len(), 1, "the next request does not wait for the shell");
    assert_eq!(asked_ports(&requests[0]).1, &Ports::single(25));
}

#[test]
fn a_port_that_nobody_uses_is_taken_out_of_use_and_then_given_back() {
    let mut it = Dialogue::holding(tcp(), 80, 7);
    it.host.release_port(80, it.now);
    let commands = it.commands();
    assert_eq!(
        commands[0],
        HostCommand::Withdraw { binding: listener(7, 80), reason: WithdrawReason::Freed }
    );
    assert_eq!(sends(&commands), [free_request(7)]);
    it.answer(free_response(7));
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings, []);
}

#[test]
fn a_want_before_its_turn_cancels_the_giving_back() {
    let mut it = Dialogue::holding(tcp(), 80, 7);
    it.host.want_port(443, it.now);
    it.commands();
    it.host.release_port(80, it.now);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [granted(80)]);
    it.refuse(ErrorCode::LocalAddrportInuse);
    assert_eq!(sends(&it.commands()), [], "not given back");
}

#[test]
fn a_want_while_it_is_given_back_asks_again_afterwards() {
    let mut it = Dialogue::holding(tcp(), 80, 7);
    it.host.release_port(80, it.now);
    it.commands();
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), []);
    it.answer(free_response(7));
    let request = it.request();
    assert_eq!(asked_ports(&request).1, &Ports::single(80));
    it.answer(listen_response(CLIENT, 8, 80));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn a_binding_that_cannot_be_taken_into_use_is_given_back() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 7, 80));
    it.commands();
    it.done(Err(InstallFailed));
    let commands = it.commands();
    assert_eq!(commands[0], denied(80, DenyReason::InstallFailed));
    assert_eq!(sends(&commands), [free_request(7)]);
    assert_eq!(commands.len(), 2, "never in use, so not withdrawn");
}

#[test]
fn a_want_times_out_and_the_late_grant_is_given_back() {
    let mut it = Dialogue::registered(udp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    let (after, commands) = loop {
        let (after, commands) = it.wait();
        if commands.iter().any(|command| matches!(command, HostCommand::Verdict { .. })) {
            break (after, commands);
        }
    };
    assert!(after <= ms(800));
    assert!(commands.contains(&denied(80, DenyReason::Timeout)));
    it.answer(listen_response(CLIENT, 7, 80));
    assert_eq!(it.request(), free_request(7));
}

#[test]
fn a_late_grant_is_kept_if_somebody_wants_it_again() {
    let config = HostConfig { request_timeout: ms(20), ..udp() };
    let mut it = Dialogue::registered(config);
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.pass(ms(30));
    assert!(it.commands().contains(&denied(80, DenyReason::Timeout)));
    it.host.want_port(80, it.now);
    it.answer(listen_response(CLIENT, 7, 80));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn the_administrators_port_stays_until_told_otherwise() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.listen(8080, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 7, 8080));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(8080)]);
    it.host.want_port(8080, it.now);
    assert_eq!(it.commands(), [granted(8080)]);
    it.host.release_port(8080, it.now);
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings[0].binding.kind, BindingKind::StaticListen);
    it.host.unlisten(8080, it.now);
    assert_eq!(sends(&it.commands()), [free_request(7)]);
}

#[test]
fn a_program_keeps_the_port_that_the_administrator_gives_up() {
    let mut it = Dialogue::holding(tcp(), 80, 7);
    it.host.listen(80, it.now);
    assert_eq!(it.commands(), [granted(80)]);
    it.host.unlisten(80, it.now);
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings[0].binding.kind, BindingKind::Listen);
    it.host.release_port(80, it.now);
    assert_eq!(sends(&it.commands()), [free_request(7)]);
}

#[test]
fn a_port_of_the_own_block_needs_no_request() {
    let mut it = Dialogue::registered(with_block(16));
    it.commands();
    it.answer(assign_response(CLIENT, 1, 10_000, 16));
    it.commands();
    it.done(Ok(()));
    it.host.want_port(10_015, it.now);
    assert_eq!(it.commands(), [granted(10_015)]);
    it.host.want_port(10_016, it.now);
    assert!(matches!(it.request(), Body::ListenRequest(_)));
}

#[test]
fn shutdown_takes_everything_out_of_use_and_leaves() {
    let mut it = Dialogue::holding(tcp(), 80, 7);
    it.host.shutdown(it.now);
    let commands = it.commands();
    assert_eq!(
        commands[0],
        HostCommand::Withdraw { binding: listener(7, 80), reason: WithdrawReason::Shutdown }
    );
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.commands(), [HostCommand::Disconnect, HostCommand::Stopped]);
    assert_eq!(it.host.poll_timeout(), None);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [denied(80, DenyReason::Unreachable)]);
}
