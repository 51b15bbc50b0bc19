//! Silence, loss and breaking connections.

use super::*;
use crate::host::{GatewayState, WithdrawReason};

/// When copies of one request go out, in milliseconds, until the host gives up for the first time.
fn copies(it: &mut Dialogue) -> (Vec<f64>, Vec<HostCommand>) {
    let began = it.now;
    let mut times = vec![0.0];
    let first = it.asked.clone();
    loop {
        let (_, commands) = it.wait();
        if commands.iter().all(|command| matches!(command, HostCommand::Send(_))) {
            assert_eq!(it.asked, first, "the copy in the buffer");
            times.push((it.now - began).as_secs_f64() * 1000.0);
        } else {
            times.push((it.now - began).as_secs_f64() * 1000.0);
            return (times, commands);
        }
    }
}

const APPENDIX_D: [f64; 8] = [0.0, 12.5, 37.5, 87.5, 187.5, 387.5, 787.5, 1587.5];

#[test]
fn a_datagram_is_repeated_at_the_times_of_appendix_d() {
    let mut it = Dialogue::new(udp());
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    let (times, commands) = copies(&mut it);
    assert_eq!(times, APPENDIX_D);
    assert_eq!(commands, [change(RegistrationChange::Unreachable)]);
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Unreachable);
}

#[test]
fn an_unanswered_datagram_is_sent_again_after_a_pause_with_its_own_counter() {
    let mut it = Dialogue::holding(udp(), 80, 1);
    it.host.want_port(443, it.now);
    it.commands();
    let asked = it.asked.clone();
    let (times, commands) = copies(&mut it);
    assert_eq!(times, APPENDIX_D);
    assert_eq!(commands, [change(RegistrationChange::Unreachable), denied(443, DenyReason::Timeout)]);
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250));
    assert_eq!(commands, [HostCommand::Send(asked.clone().expect("a request"))]);
    let (times, _) = copies(&mut it);
    assert_eq!(times, APPENDIX_D);
    let (pause, _) = it.wait();
    assert_eq!(pause, ms(500), "the pauses double");
    // Its answer tells what the gateway did, and nothing is left behind.
    it.answer(listen_response(CLIENT, 9, 443));
    assert_eq!(it.request(), free_request(9));
}

#[test]
fn while_nobody_answers_programs_are_told_at_once() {
    let mut it = Dialogue::holding(udp(), 80, 1);
    it.host.want_port(443, it.now);
    it.host.want_port(25, it.now);
    it.commands();
    let (_, commands) = copies(&mut it);
    assert!(commands.contains(&denied(443, DenyReason::Timeout)));
    assert!(commands.contains(&denied(25, DenyReason::Unreachable)));
    it.host.want_port(8080, it.now);
    assert_eq!(it.commands(), [denied(8080, DenyReason::Unreachable)]);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [granted(80)], "what is held is held");
    it.refuse(ErrorCode::LocalAddrportInuse);
    it.host.want_port(8080, it.now);
    assert!(matches!(it.request(), Body::ListenRequest(_)), "it answers again");
}

#[test]
fn answers_to_older_requests_are_ignored() {
    let mut it = Dialogue::registered(udp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    let asked = it.asked.as_ref().and_then(|asked| asked.counter).expect("a counter");
    for other in [asked.0 - 2, asked.0 - 1, asked.0 + 1, u32::MAX] {
        let body = listen_response(CLIENT, 5, 80);
        it.host.handle_message(Message::new(MessageCounter(other), body), it.now);
    }
    let without = Message { counter: None, body: listen_response(CLIENT, 5, 80) };
    it.host.handle_message(without, it.now);
    assert_eq!(it.commands(), []);
    it.answer(listen_response(CLIENT, 6, 80));
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: listener(6, 80) }]);
    it.done(Ok(()));
    it.commands();
    let again = Message::new(asked, listen_response(CLIENT, 6, 80));
    it.host.handle_message(again, it.now);
    assert_eq!(it.commands(), [], "a duplicate");
}

#[test]
fn an_answer_without_counter_counts_over_tcp() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    let body = listen_response(CLIENT, 6, 80);
    it.host.handle_message(Message { counter: None, body }, it.now);
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
    it.done(Ok(()));
    it.commands();
    it.host.handle_message(Message { counter: None, body: free_response(6) }, it.now);
    let withdraw = HostCommand::Withdraw { binding: listener(6, 80), reason: WithdrawReason::Revoked };
    assert_eq!(it.commands(), [withdraw], "not an answer to anything: the gateway took it back");
}

#[test]
fn a_connection_that_cannot_be_opened_is_tried_again_and_told_each_time() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.commands();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        it.host.handle_transport_down(it.now);
        assert_eq!(it.commands(), [change(RegistrationChange::Unreachable)]);
        let (pause, commands) = it.wait();
        assert_eq!(commands, [HostCommand::Connect]);
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
}

#[test]
fn a_connection_that_is_never_answered_for_is_given_up() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.commands();
    let (pause, commands) = it.wait();
    assert_eq!(pause, secs(3));
    assert_eq!(commands, [HostCommand::Disconnect, change(RegistrationChange::Unreachable)]);
    it.host.handle_transport_up(it.now);
    assert_eq!(it.commands(), [], "too late");
    let (_, commands) = it.wait();
    assert_eq!(commands, [HostCommand::Connect]);
}

#[test]
fn a_port_that_answers_but_is_not_rsip_is_no_gateway() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    let (pause, commands) = it.wait();
    assert_eq!(pause, secs(3));
    assert_eq!(commands, [HostCommand::Disconnect, change(RegistrationChange::Unreachable)]);
}

#[test]
fn a_connection_that_is_closed_without_a_word_is_not_opened_at_once() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    for pause in [250, 500, 1000] {
        it.host.handle_transport_up(it.now);
        it.commands();
        it.host.handle_transport_down(it.now);
        assert_eq!(it.commands(), [change(RegistrationChange::Unreachable)]);
        let (waited, commands) = it.wait();
        assert_eq!((waited, commands), (ms(pause), vec![HostCommand::Connect]));
    }
}

#[test]
fn a_lost_connection_is_opened_at_once_and_the_registration_checked() {
    let mut it = Dialogue::holding(tcp(), 80, 1);
    it.host.handle_transport_down(it.now);
    assert_eq!(it.commands(), [HostCommand::Connect]);
    it.host.handle_transport_up(it.now);
    assert_eq!(it.request(), extend_request(1));
    it.answer(extend_response(1, LEASE));
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Registered);
}

#[test]
fn a_lost_connection_without_bindings_is_checked_by_a_query() {
    let mut it = Dialogue::registered(tcp());
    it.by_hand();
    it.commands();
    it.host.handle_transport_down(it.now);
    it.commands();
    it.host.handle_transport_up(it.now);
    assert_eq!(it.request(), Body::QueryRequest { client_id: CLIENT, tuples: Vec::new() });
    it.answer(Body::QueryResponse { client_id: CLIENT, tuples: Vec::new() });
    assert_eq!(it.commands(), []);
}

#[test]
fn a_want_survives_a_lost_connection_within_its_deadline() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.handle_transport_down(it.now);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [HostCommand::Connect]);
    it.host.handle_transport_up(it.now);
    assert!(matches!(it.request(), Body::ListenRequest(_)), "which checks the registration, too");
    it.pass(ms(2999));
    assert_eq!(it.commands(), []);
    it.pass(ms(1));
    assert!(it.commands().contains(&denied(80, DenyReason::Timeout)));
}

#[test]
fn a_request_for_a_binding_that_broke_off_makes_both_sides_begin_anew() {
    let mut it = Dialogue::holding(tcp(), 80, 1);
    it.host.want_port(443, it.now);
    it.commands();
    assert!(it.host.saved().in_doubt);
    it.host.handle_transport_down(it.now);
    it.commands();
    assert!(it.host.saved().in_doubt);
    it.host.handle_transport_up(it.now);
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Lost));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    let commands = it.commands();
    let withdraw =
        HostCommand::Withdraw { binding: listener(1, 80), reason: crate::host::WithdrawReason::Deregistered };
    assert_eq!(commands[0], withdraw, "nothing is used after de-registering (section 9.4.3)");
    assert_eq!(sends(&commands), [Body::RegisterRequest]);
    let new = ClientId(77);
    it.answer(register_response(new));
    let requests = sends(&it.commands());
    assert_eq!(asked_ports(&requests[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
    it.answer(listen_response(new, 1, 80));
    let commands = it.commands();
    let renamed = binding(BindingKind::Listen, new, 1, Ports::single(80));
    assert_eq!(commands[0], HostCommand::Publish { op: OpId(1), binding: renamed });
    assert_eq!(asked_ports(&sends(&commands)[0]).1, &Ports::single(443));
}

#[test]
fn silence_over_a_connection_ends_it() {
    let mut it = Dialogue::holding(tcp(), 80, 1);
    it.host.want_port(443, it.now);
    it.commands();
    let (pause, commands) = it.wait();
    assert_eq!(pause, secs(3));
    assert_eq!(
        commands,
        [HostCommand::Disconnect, change(RegistrationChange::Unreachable), denied(443, DenyReason::Timeout)]
    );
}

#[test]
fn the_registration_is_checked_when_nothing_was_said_for_long() {
    let mut it = Dialogue::holding(tcp(), 80, 1);
    let (pause, _) = it.wait();
    assert_eq!(pause, secs(15));
    it.answer(extend_response(1, LEASE));
    let (pause, commands) = it.wait();
    assert_eq!(pause, secs(15));
    assert_eq!(sends(&commands), [extend_request(1)]);
}

#[test]
fn an_end_while_nobody_answers_takes_two_seconds_at_most() {
    let mut it = Dialogue::holding(udp(), 80, 1);
    it.host.want_port(443, it.now);
    it.commands();
    copies(&mut it);
    it.host.shutdown(it.now);
    let commands = it.commands();
    assert!(matches!(commands[0], HostCommand::Withdraw { .. }));
    assert_eq!(sends(&commands).len(), 1, "once more: the next request has to wait for this one");
    it.pass(ms(2000));
    let commands = it.commands();
    assert_eq!(commands.last(), Some(&HostCommand::Stopped));
}

#[test]
fn an_end_without_a_connection_is_at_once() {
    let mut it = Dialogue::new(tcp());
    it.host.start(it.now);
    it.commands();
    it.host.shutdown(it.now);
    assert_eq!(it.commands(), [HostCommand::Disconnect, HostCommand::Stopped]);
}

#[test]
fn an_end_waits_for_what_is_being_taken_into_use() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.answer(listen_response(CLIENT, 1, 80));
    it.commands();
    it.host.shutdown(it.now);
    let commands = it.commands();
    assert_eq!(commands[0], denied(80, DenyReason::Unreachable));
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.commands(), []);
    it.done(Ok(()));
    let withdraw = HostCommand::Withdraw { binding: listener(1, 80), reason: WithdrawReason::Shutdown };
    assert_eq!(it.commands(), [withdraw, HostCommand::Disconnect, HostCommand::Stopped]);
}
