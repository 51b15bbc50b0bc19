//! The host's own network changes, and the gateway's public address.

use super::*;
use crate::host::{BindingState, GatewayState, WithdrawReason};

const NEW: ClientId = ClientId(0x0bad_cafe);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

fn moved() -> HostCommand {
    change(RegistrationChange::Moved)
}

fn unreachable_now() -> HostCommand {
    change(RegistrationChange::Unreachable)
}

/// Connected from the new address, and registered there.
fn arrives(it: &mut Dialogue) -> Vec<HostCommand> {
    assert_eq!(it.commands(), [HostCommand::Connect]);
    it.host.handle_transport_up(it.now);
    assert_eq!(it.request(), Body::RegisterRequest);
    it.client = NEW;
    it.answer(register_response(NEW));
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Registered(NEW)));
    commands
}

#[test]
fn under_another_private_address_the_same_is_asked_for_after_a_farewell_from_the_old_one() {
    for config in [tcp(), udp()] {
        let mut it = Dialogue::holding(config, 80, 5);
        it.host.handle_moved(it.now);
        assert_eq!(it.commands(), [HostCommand::Disconnect, moved(), HostCommand::Farewell(CLIENT)]);
        let view = it.host.view(it.now);
        assert_eq!((view.gateway, view.client_id), (GatewayState::Connecting, None));
        assert_eq!(view.bindings[0].state, BindingState::Renewing, "in use all the while");
        it.pass(ms(300));
        assert_eq!(it.commands(), []);
        it.host.handle_parted(it.now);
        let commands = arrives(&mut it);
        assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
        it.answer(listen_response(NEW, 1, 80));
        assert!(matches!(it.commands().as_slice(), [HostCommand::Renamed { old: (CLIENT, BindId(5)), .. }]));
    }
}

#[test]
fn a_farewell_without_an_end_is_not_waited_for() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.handle_moved(it.now);
    it.commands();
    let (waited, commands) = it.wait();
    assert_eq!((waited, commands), (secs(2), vec![HostCommand::Connect]));
    // Its end comes too late to matter.
    it.host.handle_parted(it.now);
    assert_eq!(it.commands(), []);
}

#[test]
fn who_moves_twice_takes_leave_once() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.handle_moved(it.now);
    it.commands();
    it.host.handle_moved(it.now);
    assert_eq!(it.commands(), [], "the farewell is on its way");
    it.host.handle_parted(it.now);
    assert_eq!(it.commands(), [HostCommand::Connect]);
    it.host.handle_moved(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, HostCommand::Connect], "registered nowhere");
}

#[test]
fn a_request_under_way_while_the_host_moves_is_asked_again() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    assert!(matches!(it.request(), Body::ListenRequest(_)));
    it.host.handle_moved(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, moved(), HostCommand::Farewell(CLIENT)]);
    it.host.handle_parted(it.now);
    let commands = arrives(&mut it);
    assert_eq!(asked_ports(&sends(&commands)[0]).1, &Ports::single(80));
    it.answer(listen_response(NEW, 1, 80));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn what_the_gateway_keeps_for_the_old_private_address_is_out_of_use_and_the_reason_is_told() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.handle_moved(it.now);
    it.commands();
    it.host.handle_parted(it.now);
    arrives(&mut it);
    it.refuse(ErrorCode::LocalAddrportInuse);
    let reason = WithdrawReason::Refused(ErrorCode::LocalAddrportInuse);
    assert_eq!(it.commands(), [HostCommand::Withdraw { binding: listener(5, 80), reason }]);
}

#[test]
fn a_host_that_stops_while_it_moves_stops_at_once() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.handle_moved(it.now);
    it.commands();
    it.host.shutdown(it.now);
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Shutdown };
    assert_eq!(it.commands(), [withdraw, HostCommand::Stopped]);
}

#[test]
fn a_host_that_moves_while_it_stops_waits_for_no_answer() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.shutdown(it.now);
    it.commands();
    it.host.handle_moved(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, HostCommand::Stopped]);
}

#[test]
fn without_a_way_binds_are_refused_at_once_until_there_is_one() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.handle_way_lost(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, unreachable_now()]);
    it.host.want_port(81, it.now);
    assert_eq!(it.commands(), [denied(81, DenyReason::Unreachable)]);
    // It is looked for all the same, and never more often than the longest pause says.
    let (_, commands) = it.wait();
    assert_eq!(commands, [HostCommand::Connect]);
    it.host.handle_way_lost(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, unreachable_now()]);
    it.host.handle_way_found(it.now);
    assert_eq!(it.commands(), [HostCommand::Connect], "no pause");
    it.host.handle_way_found(it.now);
    assert_eq!(it.commands(), [], "on its way");
    it.host.handle_transport_up(it.now);
    assert!(matches!(it.request(), Body::ExtendRequest { client_id: CLIENT, bind_id: BindId(5), .. }));
    it.answer(extend_response(5, LEASE));
    let view = it.host.view(it.now);
    assert_eq!((view.gateway, view.bindings[0].state), (GatewayState::Registered, BindingState::InUse));
}

#[test]
fn before_the_start_no_change_of_the_network_matters() {
    let mut it = Dialogue::new(tcp());
    it.host.handle_way_lost(it.now);
    it.host.handle_way_found(it.now);
    it.host.handle_moved(it.now);
    it.host.handle_parted(it.now);
    assert_eq!(it.commands(), []);
}

#[test]
fn an_hour_without_a_way_ends_the_leases_and_everything_comes_back_by_itself() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.host.handle_way_lost(it.now);
    it.commands();
    let mut seen = Vec::new();
    let until = it.now + secs(3600);
    while it.now < until {
        let (_, commands) = it.wait();
        if commands.contains(&HostCommand::Connect) {
            it.host.handle_transport_down(it.now);
        }
        seen.extend(commands);
    }
    it.commands();
    let ends: Vec<_> = seen.iter().filter(|it| matches!(it, HostCommand::Withdraw { .. })).collect();
    let end = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Expired };
    assert_eq!(ends, [&end], "once, and not used past its end");
    let attempts = seen.iter().filter(|it| **it == HostCommand::Connect).count();
    assert!((350..380).contains(&attempts), "one in ten seconds, not {attempts}");
    it.host.handle_way_found(it.now);
    it.commands();
    it.host.handle_transport_up(it.now);
    // The gateway does not know the old name any more, or knows it still: it is told to forget it.
    assert_eq!(it.request(), Body::DeRegisterRequest { client_id: CLIENT });
    it.refuse(ErrorCode::RegisterFirst);
    assert_eq!(it.request(), Body::RegisterRequest);
    it.client = NEW;
    it.answer(register_response(NEW));
    let commands = it.commands();
    let again = sends(&commands);
    assert_eq!(
        asked_ports(&again[0]),
        (&Address::Ipv4(PUBLIC), &Ports::single(80)),
        "the program has it still"
    );
    it.answer(listen_response(NEW, 1, 80));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
}

#[test]
fn a_clock_that_jumps_by_a_suspend_ends_leases_before_anything_else_is_asked() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    // No timer ran meanwhile: one wake-up, late by more than the lease.
    it.now += secs(u64::from(LEASE) + 1);
    it.host.handle_timeout(it.now);
    let commands = it.commands();
    let end = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Expired };
    assert!(commands.contains(&end), "{commands:?}");
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
}

#[test]
fn a_suspend_shorter_than_the_lease_is_followed_by_a_question_at_once() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.now += secs(u64::from(LEASE) / 3);
    it.host.handle_timeout(it.now);
    assert!(matches!(it.request(), Body::ExtendRequest { bind_id: BindId(5), .. }), "does it know us?");
}

#[test]
fn with_another_public_address_the_old_one_is_out_of_use_before_the_first_lease_at_the_new_one() {
    let mut it = Dialogue::holding(tcp(), 80, 5);
    it.hold(443, 6);
    it.forgotten();
    it.client = NEW;
    it.answer(register_response(NEW));
    it.commands();
    it.refuse(ErrorCode::LocalAddrUnallowed);
    let refused = WithdrawReason::Refused(ErrorCode::LocalAddrUnallowed);
    let commands = it.commands();
    assert_eq!(commands[0], HostCommand::Withdraw { binding: listener(5, 80), reason: refused });
    // 443 stands in line, still for the old address.
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &Ports::single(443)));
    it.refuse(ErrorCode::LocalAddrUnallowed);
    let commands = it.commands();
    assert_eq!(commands[0], HostCommand::Withdraw { binding: listener(6, 443), reason: refused });
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::ANY, &Ports::single(80)));
}

#[test]
fn a_lease_at_another_address_takes_with_it_what_was_lost_at_the_old_one() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    // The administrator's port, taken back once: it may be anywhere when it is asked for again.
    it.host.listen(79, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 4, 79));
    it.commands();
    it.done(Ok(()));
    it.hold(80, 5);
    it.asynchronous(free_response(4));
    it.commands();
    let (_, commands) = it.wait();
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::Ipv4(PUBLIC), &Ports::single(79)));
    it.refuse(ErrorCode::RegisterFirst);
    it.commands();
    it.refuse(ErrorCode::RegisterFirst);
    it.commands();
    it.client = NEW;
    it.answer(register_response(NEW));
    let commands = it.commands();
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::ANY, &Ports::single(79)));
    let mut body = listen_response(NEW, 1, 79);
    if let Body::ListenResponse(grant) = &mut body {
        grant.local_address = Address::Ipv4(OTHER);
    }
    it.answer(body);
    let commands = it.commands();
    let reason = WithdrawReason::OtherAddress(OTHER);
    assert_eq!(commands[0], HostCommand::Withdraw { binding: listener(5, 80), reason });
    assert!(matches!(&commands[1], HostCommand::Publish { binding, .. } if binding.address == OTHER));
    let asked = sends(&commands);
    assert_eq!(asked_ports(&asked[0]), (&Address::Ipv4(OTHER), &Ports::single(80)), "the same port there");
}
