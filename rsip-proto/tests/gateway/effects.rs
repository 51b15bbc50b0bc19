//! What becomes of requests when the data path or the connection fails under them.

use rsip_proto::gateway::{BindingState, Event, GatewayCommand, RemovalReason};
use rsip_proto::ids::{BindId, OpId};
use rsip_proto::wire::{Body, ErrorCode, Ports};

use crate::rig::*;

#[test]
fn what_the_data_path_cannot_hold_is_refused_and_goes_back() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, assign(id, 255));
    let block = rule(id, 1, 2, Ports::Range { first: 10_000, count: 255 });
    let commands = rig.failed(1);
    assert_eq!(commands[0], unbound(block, RemovalReason::InstallFailed));
    assert_eq!(refusal(&commands[1..], udp(2), Some(2)), (104, Some(id), None));
    assert_eq!(rig.pool(), [0, 0, 2022], "never used, so nothing rests");
    assert_eq!(rig.client(id).expect("still registered").bindings, []);
    assert_eq!(rig.wakes_at(), Some(600.0));
    // A duplicate of the request does not try again; a new request does.
    assert_eq!(rig.ask(udp(2), 2, assign(id, 255)), commands[1..2]);
    rig.obtain(udp(2), 3, assign(id, 255));
}

#[test]
fn what_the_data_path_cannot_forget_stays_with_its_host() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.at(10).ask(udp(2), 3, free(id, 1));
    assert_eq!(refusal(&rig.failed(2), udp(2), Some(3)), (104, Some(id), Some(BindId(1))));
    assert_eq!(rig.client(id).expect("registered").bindings[0].state, BindingState::Active);
    assert_eq!(rig.wakes_at(), Some(600.0));
    assert_eq!(rig.ask(udp(2), 4, free(id, 1)).len(), 1, "the host may try again");
    assert_eq!(rig.done(3).first(), Some(&send(udp(2), 4, freed(id, 1))));
}

#[test]
fn a_free_that_is_repeated_over_another_connection_waits_for_the_outcome() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.obtain(tcp(2, 1), 2, listen_on(id, 80));
    assert_eq!(rig.ask(tcp(2, 1), 3, free(id, 1)).len(), 1);
    assert_eq!(
        code(&rig.ask(tcp(2, 1), 4, free(id, 1)), tcp(2, 1), 4),
        306,
        "the same asker hears of the first"
    );
    assert_eq!(rig.ask(tcp(2, 2), 1, free(id, 1)), [], "not gone before that is certain");
    assert_eq!(refusal(&rig.failed(2), tcp(2, 2), Some(1)), (104, Some(id), Some(BindId(1))));
    assert_eq!(rig.client(id).expect("registered").bindings[0].state, BindingState::Active);
}

#[test]
fn what_nobody_wants_any_more_is_removed_until_it_is_gone() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(
        rig.at(10).ask(udp(2), 3, leave(id)),
        [unregistered(id, 2, RemovalReason::DeRegistered), remove(2, web.clone())]
    );
    // The host need not wait for the repair, but nobody else gets the port.
    assert_eq!(
        rig.failed(2),
        [GatewayCommand::Event(Event::Stuck { rule: web.clone() }), send(udp(2), 3, left(id))]
    );
    let other = rig.register(udp(3));
    assert_eq!(code(&rig.ask(udp(3), 2, listen_on(other, 80)), udp(3), 2), 311);
    assert_eq!(rig.gateway.view(rig.now).departing, std::slice::from_ref(&web));
    assert_eq!(rig.wakes_at(), Some(15.0));

    assert_eq!(rig.at(15).timeout(), [remove(3, web.clone())]);
    assert_eq!(rig.failed(3), [GatewayCommand::Event(Event::Stuck { rule: web.clone() })]);
    assert_eq!(rig.at(20).timeout(), [remove(4, web.clone())]);
    assert_eq!(rig.done(4), [unbound(web, RemovalReason::DeRegistered)]);
    rig.obtain(udp(3), 3, listen_on(other, 80));
}

#[test]
fn leaving_waits_for_every_removal() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let mut rules = Vec::new();
    for (counter, port) in [(2, 80), (3, 81), (4, 82)] {
        rig.obtain(udp(2), counter, listen_on(id, port));
        rules.push(rule(id, counter - 1, 2, Ports::single(port)));
    }
    let commands = rig.ask(udp(2), 5, leave(id));
    assert_eq!(commands[0], unregistered(id, 2, RemovalReason::DeRegistered));
    assert_eq!(
        commands[1..],
        [remove(4, rules[0].clone()), remove(5, rules[1].clone()), remove(6, rules[2].clone())]
    );
    // In whatever order they come.
    assert_eq!(rig.done(6), [unbound(rules[2].clone(), RemovalReason::DeRegistered)]);
    assert_eq!(rig.done(4), [unbound(rules[0].clone(), RemovalReason::DeRegistered)]);
    assert_eq!(
        rig.done(5),
        [unbound(rules[1].clone(), RemovalReason::DeRegistered), send(udp(2), 5, left(id))]
    );
    assert!(rig.gateway.is_drained());
}

#[test]
fn leaving_while_a_request_is_under_way() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, listen_on(id, 80));
    let web = rule(id, 1, 2, Ports::single(80));
    let commands = rig.ask(udp(2), 3, leave(id));
    assert_eq!(commands[0], unregistered(id, 2, RemovalReason::DeRegistered));
    assert_eq!(refusal(&commands[1..], udp(2), Some(2)), (301, Some(id), None));
    // It holds now, so it has to be removed before its host has left.
    assert_eq!(rig.done(1), [remove(2, web)]);
    assert_eq!(rig.done(2), [send(udp(2), 3, left(id))]);
    assert_eq!(rig.pool()[0], 0);
}

#[test]
fn leaving_while_a_request_is_under_way_that_fails() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, listen_on(id, 80));
    rig.ask(udp(2), 3, leave(id));
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(rig.failed(1), [unbound(web, RemovalReason::InstallFailed), send(udp(2), 3, left(id))]);
    assert!(rig.gateway.is_drained());
}

#[test]
fn leaving_while_a_free_is_under_way_answers_both() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.obtain(tcp(2, 1), 2, listen_on(id, 80));
    rig.ask(tcp(2, 1), 3, free(id, 1));
    rig.ask(tcp(2, 1), 4, leave(id));
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(
        rig.done(2),
        [send(tcp(2, 1), 3, freed(id, 1)), unbound(web, RemovalReason::Freed), send(tcp(2, 1), 4, left(id)),]
    );
}

#[test]
fn a_host_that_left_may_come_back_before_its_rules_are_gone() {
    let mut rig = Rig::new(config());
    let old = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(old, 80));
    rig.ask(udp(2), 3, leave(old));
    rig.ask(udp(2), 4, Body::RegisterRequest);
    let new = rig.gateway.view(rig.now).clients[0].client_id;
    assert_ne!(old, new);
    assert_eq!(code(&rig.ask(udp(2), 5, listen_on(new, 80)), udp(2), 5), 311);
    rig.done(2);
    assert_eq!(rig.obtain(udp(2), 6, listen_on(new, 80)).bind_id, BindId(1));
}

#[test]
fn what_is_granted_to_a_connection_that_is_gone_is_undone() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.ask(tcp(2, 1), 2, listen_on(id, 80));
    rig.gateway.handle_disconnect(1, rig.now);
    assert_eq!(rig.commands(), []);
    assert!(rig.client(id).is_some(), "the registration stays");
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(rig.done(1), [remove(2, web)]);
    assert_eq!(rig.done(2), []);
    // So the host, which knows of nothing, gets it when it asks again.
    rig.obtain(tcp(2, 2), 1, listen_on(id, 80));
}

#[test]
fn nothing_is_sent_to_a_connection_that_is_gone() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.obtain(tcp(2, 1), 2, listen_on(id, 80));
    rig.ask(tcp(2, 1), 3, free(id, 1));
    rig.gateway.handle_disconnect(1, rig.now);
    assert_eq!(rig.done(2), [unbound(rule(id, 1, 2, Ports::single(80)), RemovalReason::Freed)]);
    rig.gateway.release_client(id, rig.now);
    assert_eq!(rig.commands(), [unregistered(id, 2, RemovalReason::Revoked)]);

    let id = rig.register(tcp(3, 2));
    rig.obtain(tcp(3, 2), 2, listen_on(id, 80));
    rig.ask(tcp(3, 2), 3, leave(id));
    rig.gateway.handle_disconnect(2, rig.now);
    assert_eq!(rig.done(4), [unbound(rule(id, 1, 3, Ports::single(80)), RemovalReason::DeRegistered)]);
}

#[test]
fn unasked_messages_go_where_the_host_spoke_last() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.ask(tcp(2, 2), 2, query(id));
    rig.gateway.handle_disconnect(1, rig.now);
    rig.gateway.release_client(id, rig.now);
    assert_eq!(rig.commands()[0], send(tcp(2, 2), 0, left(id)));

    let id = rig.register(udp(3));
    rig.ask(udp_from(3, 6000), 1, query(id));
    rig.gateway.release_client(id, rig.now);
    assert_eq!(rig.commands()[0], send(udp_from(3, 6000), 0, left(id)));
}

#[test]
fn an_outcome_that_nobody_waits_for_is_ignored() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    for op in [0, 1, 2, u64::MAX] {
        rig.gateway.handle_done(OpId(op), Ok(()), rig.now);
        assert_eq!(rig.failed(op), [], "{op}");
    }
    assert_eq!(rig.client(id).expect("registered").bindings[0].state, BindingState::Active);
}

#[test]
fn a_request_after_one_that_is_under_way_is_served_too() {
    let mut rig = Rig::new(config());
    let host = tcp(2, 1);
    let id = rig.register(host);
    rig.ask(host, 2, listen_on(id, 80));
    rig.ask(host, 3, listen_on(id, 81));
    let answer = |op| {
        let port = 79 + u16::try_from(op).expect("small");
        let rule = rule(id, op, 2, Ports::single(port));
        [send(host, op + 1, Body::ListenResponse(granted(&rule, LEASE))), bound(rule, LEASE, true)]
    };
    assert_eq!(rig.done(2), answer(2));
    assert_eq!(rig.done(1), answer(1));
    assert_eq!(code(&rig.ask(host, 4, listen_on(id, 80)), host, 4), ErrorCode::LocalAddrportInuse.number());
}
