//! What ends when (RFC 3103 section 6).

use rsip_proto::gateway::{ClientState, RemovalReason};
use rsip_proto::wire::{Body, Ports};

use crate::rig::*;

#[test]
fn a_silent_host_is_unregistered_and_told() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    assert_eq!(rig.at(599).timeout(), []);
    assert_eq!(
        rig.at(600).timeout(),
        [send(udp(2), 0, left(id)), unregistered(id, 2, RemovalReason::Expired)]
    );
    assert_eq!(rig.wakes_at(), None);
    assert_eq!(code(&rig.ask(udp(2), 2, query(id)), udp(2), 2), 301);
}

#[test]
fn every_request_of_the_host_renews_its_registration() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.at(500).ask(udp(2), 2, query(id));
    assert_eq!(rig.wakes_at(), Some(1100.0));
    // A refused one too: it shows that the host is alive.
    assert_eq!(code(&rig.at(1000).ask(udp(2), 3, free(id, 7)), udp(2), 3), 306);
    assert_eq!(rig.wakes_at(), Some(1600.0));
    // But not one with a wrong name, nor one of another host.
    let wrong = rsip_proto::ids::ClientId(id.0 ^ 1);
    rig.at(1500).ask(udp(2), 4, query(wrong));
    rig.ask(udp(3), 1, query(id));
    assert_eq!(rig.wakes_at(), Some(1600.0));
}

#[test]
fn a_registration_lasts_as_long_as_its_longest_binding() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.ask(udp(2), 3, extend(id, 1, Some(3600)));
    rig.ask(udp(2), 4, free(id, 1));
    rig.done(2);
    // Freeing takes nothing away from the registration.
    assert_eq!(rig.wakes_at(), Some(3600.0));
    assert_eq!(rig.client(id).expect("registered").lease_left.as_secs(), 3600);
}

#[test]
fn a_binding_that_ends_is_taken_back_and_the_host_told() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.at(300).ask(udp(2), 3, query(id));
    assert_eq!(rig.wakes_at(), Some(600.0));
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(rig.at(600).timeout(), [send(udp(2), 0, freed(id, 1)), remove(2, web.clone())]);
    assert_eq!(rig.done(2), [unbound(web, RemovalReason::Expired)]);
    assert_eq!(rig.client(id).expect("registered").state, ClientState::Registered);
    assert_eq!(rig.wakes_at(), Some(900.0));
}

#[test]
fn at_one_moment_bindings_end_before_their_registration() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(
        rig.at(10_000).timeout(),
        [
            send(udp(2), 0, freed(id, 1)),
            remove(2, web.clone()),
            send(udp(2), 0, left(id)),
            unregistered(id, 2, RemovalReason::Expired),
        ]
    );
    assert_eq!(rig.done(2), [unbound(web, RemovalReason::Expired)]);
    assert!(rig.gateway.is_drained());
}

#[test]
fn a_request_that_comes_when_the_lease_has_ended_is_too_late() {
    // The shell's timer may be late: no lease is longer for it.
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.at(300).ask(udp(2), 3, query(id));
    let commands = rig.at(601).ask(udp(2), 4, extend(id, 1, None));
    assert_eq!(commands[..2], [send(udp(2), 0, freed(id, 1)), remove(2, rule(id, 1, 2, Ports::single(80))),]);
    assert_eq!(code(&commands[2..], udp(2), 4), 306);
}

#[test]
fn a_registration_that_ends_while_a_request_is_under_way() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.at(599).ask(udp(2), 2, query(id));
    rig.ask(udp(2), 3, listen_on(id, 80));
    let commands = rig.at(1199).timeout();
    assert_eq!(commands[..2], [send(udp(2), 0, left(id)), unregistered(id, 2, RemovalReason::Expired)]);
    assert_eq!(code(&commands[2..], udp(2), 3), 301);
    assert_eq!(rig.done(1), [remove(2, rule(id, 1, 2, Ports::single(80)))]);
    assert_eq!(rig.done(2), []);
    assert!(rig.gateway.is_drained());
}

#[test]
fn a_lease_that_ended_while_its_free_failed_ends_at_once() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.at(590).ask(udp(2), 3, free(id, 1));
    assert_eq!(rig.wakes_at(), Some(1190.0), "nothing ends by itself while it is being removed");
    assert_eq!(code(&rig.at(700).failed(2), udp(2), 3), 104);
    assert_eq!(rig.wakes_at(), Some(600.0));
    assert_eq!(rig.timeout(), [send(udp(2), 0, freed(id, 1)), remove(3, rule(id, 1, 2, Ports::single(80)))]);
}

#[test]
fn leases_of_many_hosts_end_in_order() {
    let mut rig = Rig::new(config());
    for host in 1..=100 {
        rig.at(u64::from(host)).register(udp(host));
    }
    for host in 1..=100u8 {
        let end = 600 + u64::from(host);
        assert_eq!(rig.wakes_at(), Some(end as f64));
        let commands = rig.at(end).timeout();
        let [rsip_proto::gateway::GatewayCommand::Send { to, message }, _] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!(*to, udp(host));
        assert!(matches!(message.body, Body::DeRegisterResponse { .. }));
    }
    assert_eq!(rig.wakes_at(), None);
}

#[test]
fn an_outcome_that_comes_when_the_registration_has_ended_is_too_late() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, listen_on(id, 80));
    let commands = rig.at(601).done(1);
    assert_eq!(commands[..2], [send(udp(2), 0, left(id)), unregistered(id, 2, RemovalReason::Expired)]);
    let [refused @ .., undone] = &commands[2..] else { panic!("{commands:?}") };
    assert_eq!(code(refused, udp(2), 2), 301);
    assert_eq!(*undone, remove(2, rule(id, 1, 2, Ports::single(80))));
}
