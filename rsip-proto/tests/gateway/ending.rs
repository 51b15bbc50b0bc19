//! The administrator and the daemon's end.

use rsip_proto::gateway::{GatewayCommand, RemovalReason};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::wire::{Body, Ports};

use crate::rig::*;

#[test]
fn the_administrator_ends_a_registration() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.obtain(tcp(2, 1), 2, listen_on(id, 80));
    let web = rule(id, 1, 2, Ports::single(80));
    assert!(rig.gateway.release_client(id, rig.now));
    assert_eq!(
        rig.commands(),
        [send(tcp(2, 1), 0, left(id)), unregistered(id, 2, RemovalReason::Revoked), remove(2, web.clone()),]
    );
    assert_eq!(rig.done(2), [unbound(web, RemovalReason::Revoked)]);
    assert!(!rig.gateway.release_client(id, rig.now));
    assert_eq!(rig.commands(), []);
}

#[test]
fn the_administrator_ends_a_binding() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    let web = rule(id, 1, 2, Ports::single(80));
    assert!(!rig.gateway.release_bind(id, BindId(2), rig.now));
    assert!(!rig.gateway.release_bind(ClientId(id.0 ^ 1), BindId(1), rig.now));
    assert_eq!(rig.commands(), []);
    assert!(rig.gateway.release_bind(id, BindId(1), rig.now));
    assert_eq!(rig.commands(), [send(udp(2), 0, freed(id, 1)), remove(2, web.clone())]);
    // Saying it twice changes nothing.
    assert!(rig.gateway.release_bind(id, BindId(1), rig.now));
    assert_eq!(rig.commands(), []);
    assert_eq!(rig.done(2), [unbound(web, RemovalReason::Revoked)]);
    assert!(rig.client(id).is_some());
}

#[test]
fn the_administrator_ends_what_has_not_begun() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, listen_on(id, 80));
    assert!(rig.gateway.release_bind(id, BindId(1), rig.now));
    let commands = rig.commands();
    assert_eq!(refusal(&commands, udp(2), Some(2)), (313, Some(id), None));
    assert_eq!(rig.done(1), [remove(2, rule(id, 1, 2, Ports::single(80)))]);
    assert_eq!(rig.done(2), []);
    assert_eq!(rig.pool()[0], 0);
}

#[test]
fn shutting_down_ends_everything() {
    let mut rig = Rig::new(config());
    let a = rig.register(tcp(2, 1));
    let b = rig.register(udp(3));
    rig.obtain(tcp(2, 1), 2, listen_on(a, 80));
    rig.obtain(udp(3), 2, listen_on(b, 81));
    rig.ask(udp(3), 3, listen_on(b, 82));
    rig.gateway.shutdown(rig.now);
    let commands = rig.commands();
    for (id, peer) in [(a, tcp(2, 1)), (b, udp(3))] {
        assert!(commands.contains(&send(peer, 0, left(id))), "{commands:?}");
    }
    let closes: Vec<_> =
        commands.iter().filter(|command| matches!(command, GatewayCommand::Close { .. })).collect();
    assert_eq!(closes, [&GatewayCommand::Close { peer: tcp(2, 1) }]);
    let told = commands.iter().position(|command| *command == send(tcp(2, 1), 0, left(a)));
    let closed = commands.iter().position(|command| matches!(command, GatewayCommand::Close { .. }));
    assert!(told < closed, "told before the connection is closed");
    assert_eq!(commands.iter().filter(|command| matches!(command, GatewayCommand::Remove { .. })).count(), 2);
    assert!(!rig.gateway.is_drained());

    assert_eq!(rig.done(3).len(), 1, "what came to hold meanwhile is removed too");
    for op in 4..=6 {
        rig.done(op);
    }
    assert!(rig.gateway.is_drained());
    assert_eq!((rig.pool()[0], rig.wakes_at()), (0, None));

    assert_eq!(code(&rig.ask(udp(4), 1, Body::RegisterRequest), udp(4), 1), 304);
    assert_eq!(code(&rig.ask(udp(3), 4, query(b)), udp(3), 4), 301);
}
