//! Message counters and duplicates (RFC 3103 section 10.1).

use rsip_proto::ids::MessageCounter;
use rsip_proto::wire::{Body, Message, Ports};

use crate::rig::*;

#[test]
fn a_duplicate_gets_the_same_answer_and_nothing_happens_twice() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    // Before the check for a second registration.
    assert_eq!(rig.ask(host, 1, Body::RegisterRequest), [send(host, 1, registered(id))]);

    rig.obtain(host, 2, assign(id, 10));
    let block = rule(id, 1, 2, Ports::Range { first: 10_000, count: 10 });
    let answer = send(host, 2, Body::AssignResponseRsapIp(granted(&block, LEASE)));
    // Also much later, and word for word.
    for second in [0, 1, 500] {
        assert_eq!(rig.at(second).ask(host, 2, assign(id, 10)), std::slice::from_ref(&answer));
    }
    assert_eq!(rig.pool()[0], 10);
    assert_eq!(rig.wakes_at(), Some(600.0), "a duplicate renews nothing");

    let refused = rig.ask(host, 3, free(id, 9));
    assert_eq!(code(&refused, host, 3), 306);
    assert_eq!(rig.ask(host, 3, free(id, 9)), refused[..1], "the answer again, but not in the log");
}

#[test]
fn a_duplicate_of_a_request_under_way_is_passed_over() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    assert_eq!(rig.ask(host, 2, listen_on(id, 80)).len(), 1);
    assert_eq!(rig.ask(host, 2, listen_on(id, 80)), []);
    let answer = rig.done(1);
    assert_eq!(rig.ask(host, 2, listen_on(id, 80)), answer[..1]);

    assert_eq!(rig.ask(host, 3, free(id, 1)).len(), 1);
    assert_eq!(rig.ask(host, 3, free(id, 1)), []);
    let answer = rig.done(2);
    assert_eq!(rig.ask(host, 3, free(id, 1)), answer[..1]);
}

#[test]
fn a_duplicate_of_leaving_is_answered_as_the_first() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    rig.obtain(host, 2, listen_on(id, 80));
    rig.ask(host, 3, leave(id));
    assert_eq!(rig.ask(host, 3, leave(id)), []);
    rig.done(2);
    assert_eq!(rig.ask(host, 3, leave(id)), [send(host, 3, left(id))]);
}

#[test]
fn an_older_datagram_is_dropped() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    rig.ask(host, 7, query(id));
    assert_eq!(rig.ask(host, 6, listen_on(id, 80)), []);
    assert_eq!(rig.pool()[0], 0);
    rig.obtain(host, 8, listen_on(id, 80));
}

#[test]
fn counters_wrap() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let last = MessageCounter(u32::MAX);
    rig.ask(host, last.0, Body::RegisterRequest);
    let id = rig.gateway.view(rig.now).clients[0].client_id;
    assert_eq!(last.next(), MessageCounter(1));
    rig.obtain(host, 1, listen_on(id, 80));
    assert_eq!(rig.ask(host, last.0, query(id)), [], "older, by serial number arithmetic");
}

#[test]
fn registering_starts_the_counting_anew() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    rig.ask(host, 500, query(id));
    assert_eq!(code(&rig.ask(host, 3, Body::RegisterRequest), host, 3), 302);
    rig.obtain(host, 4, listen_on(id, 80));
}

#[test]
fn registering_with_the_same_counter_after_a_while_is_no_duplicate() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    assert_eq!(rig.at(29).ask(udp(2), 1, Body::RegisterRequest), [send(udp(2), 1, registered(id))]);
    assert_eq!(code(&rig.at(31).ask(udp(2), 1, Body::RegisterRequest), udp(2), 1), 302);
}

#[test]
fn a_late_copy_of_registering_does_not_let_other_late_copies_in() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    rig.obtain(host, 2, assign(id, 10));
    rig.ask(host, 3, query(id));
    assert_eq!(code(&rig.at(5).ask(host, 1, Body::RegisterRequest), host, 1), 302);
    assert_eq!(rig.ask(host, 2, assign(id, 10)), []);
    assert_eq!(rig.pool()[0], 10);
    // Should it be a host that started anew, it can leave, and come back.
    assert_eq!(rig.ask(host, 2, leave(id)).len(), 2);
    assert_eq!(rig.done(2).last(), Some(&send(host, 2, left(id))));
    rig.register(host);
}

#[test]
fn nor_does_a_late_copy_of_registering_that_was_refused() {
    let mut rig = Rig::new(config());
    let old = rig.register(udp(2));
    // The host crashed: another port, and the old registration in the way.
    let host = udp_from(2, 5001);
    assert_eq!(code(&rig.ask(host, 1, Body::RegisterRequest), host, 1), 302);
    rig.ask(host, 2, leave(old));
    rig.ask(host, 3, Body::RegisterRequest);
    let id = rig.gateway.view(rig.now).clients[0].client_id;
    rig.obtain(host, 4, assign(id, 10));
    rig.ask(host, 5, query(id));
    assert_eq!(code(&rig.at(1).ask(host, 1, Body::RegisterRequest), host, 1), 302);
    assert_eq!(rig.ask(host, 4, assign(id, 10)), []);
    assert_eq!(rig.pool()[0], 10);
}

#[test]
fn leaving_is_looked_at_whatever_its_counter() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    rig.ask(host, 700, query(id));
    assert_eq!(rig.ask(host, 2, leave(id)).last(), Some(&send(host, 2, left(id))));
    assert_eq!(rig.ask(host, 2, leave(id)), [send(host, 2, left(id))]);
}

#[test]
fn what_an_unregistered_host_was_told_is_not_kept() {
    let mut rig = Rig::new(config());
    let nobody = rsip_proto::ids::ClientId(1);
    assert_eq!(code(&rig.ask(udp(2), 1, query(nobody)), udp(2), 1), 301);
    // A program that starts at the same port counts from 1 again.
    rig.register(udp(2));
}

#[test]
fn what_a_host_that_left_was_told_is_soon_forgotten() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, leave(id));
    assert_eq!(rig.at(29).ask(udp(2), 2, leave(id)), [send(udp(2), 2, left(id))]);
    assert_eq!(code(&rig.at(31).ask(udp(2), 2, leave(id)), udp(2), 2), 301);
}

#[test]
fn nobody_else_uses_up_the_counters_of_a_host() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    let wrong = rsip_proto::ids::ClientId(id.0 ^ 1);
    // Somebody who writes the host's address and port, but does not know its client ID.
    assert_eq!(code(&rig.ask(host, 1 << 30, query(wrong)), host, 1 << 30), 305);
    assert_eq!(code(&rig.ask(host, 1 << 29, Body::RegisterRequest), host, 1 << 29), 302);
    rig.input(host, &[1, 99, 0, 11, 11, 0, 4, 0x40, 0, 0, 0]);
    rig.obtain(host, 2, listen_on(id, 80));
    rig.obtain(host, 3, listen_on(id, 81));
}

#[test]
fn sessions_of_two_ports_do_not_mix() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    let other = udp_from(2, 6000);
    assert_eq!(rig.obtain(other, 2, listen_on(id, 81)).local_ports, Ports::single(81));
    rig.obtain(other, 1000, listen_on(id, 82));
    rig.obtain(udp(2), 3, listen_on(id, 83));
}

#[test]
fn duplicates_over_tcp_are_known_by_connection() {
    let mut rig = Rig::new(config());
    let host = tcp(2, 1);
    let id = rig.register(host);
    rig.obtain(host, 2, listen_on(id, 80));
    let again = rig.ask(host, 2, listen_on(id, 80));
    assert!(matches!(&again[..], [rsip_proto::gateway::GatewayCommand::Send { .. }]), "{again:?}");
    // The connection keeps the order itself: a lower counter is new there.
    rig.obtain(host, 1, listen_on(id, 81));
    // A new connection counts anew.
    rig.gateway.handle_disconnect(1, rig.now);
    assert_eq!(code(&rig.ask(tcp(2, 2), 2, listen_on(id, 80)), tcp(2, 2), 2), 311);
}

#[test]
fn without_a_counter_there_are_no_duplicates() {
    let mut rig = Rig::new(config());
    let host = tcp(2, 1);
    let id = rig.register(host);
    let ask = Message { counter: None, body: assign(id, 1) };
    for op in 1..=3 {
        assert_eq!(rig.ask_message(host, &ask).len(), 1);
        let commands = rig.done(op);
        let [rsip_proto::gateway::GatewayCommand::Send { message, .. }, _] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!(message.counter, None);
    }
    assert_eq!(rig.pool()[0], 3);
}
