//! Data that a host may not send, and faults of the gateway itself (RFC 3103 section 10.4).

use std::net::Ipv4Addr;

use rsip_proto::gateway::{Event, GatewayCommand, Misuse, Peer, RemovalReason};
use rsip_proto::ids::ClientId;
use rsip_proto::wire::{Body, ErrorCode, Ports};

use crate::rig::*;

fn told(to: Peer, client_id: ClientId, misuse: Misuse, number: u16) -> [GatewayCommand; 2] {
    let host = *to.address.ip();
    [
        send(to, 0, error(ErrorCode::from_number(number), Some(client_id), None)),
        GatewayCommand::Event(Event::Misused { client_id, host, misuse }),
    ]
}

fn misuse(rig: &mut Rig, host: u8, misuse: Misuse) -> Vec<GatewayCommand> {
    rig.gateway.handle_misuse(Ipv4Addr::new(10, 0, 0, host), misuse, rig.now);
    rig.commands()
}

#[test]
fn a_host_is_told_what_it_may_not_send() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let table = [
        (Misuse::LocalAddress, 312),
        (Misuse::LocalPort, 313),
        (Misuse::RemoteAddress, 314),
        (Misuse::RemotePort, 315),
        (Misuse::Tunnel, 307),
    ];
    assert_eq!(table.map(|(kind, _)| kind), Misuse::ALL);
    for (kind, number) in table {
        assert_eq!(misuse(&mut rig, 2, kind), told(udp(2), id, kind, number), "{kind:?}");
    }
}

#[test]
fn a_host_is_told_of_each_kind_once_a_second() {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    let kind = Misuse::LocalPort;
    assert_eq!(misuse(&mut rig, 2, kind), told(udp(2), a, kind, 313));
    for _ in 0..1000 {
        assert_eq!(misuse(&mut rig, 2, kind), []);
    }
    // Neither another kind nor another host is kept from it.
    assert_eq!(misuse(&mut rig, 2, Misuse::RemotePort), told(udp(2), a, Misuse::RemotePort, 315));
    assert_eq!(misuse(&mut rig, 3, kind), told(udp(3), b, kind, 313));
    rig.at(1);
    assert_eq!(misuse(&mut rig, 2, kind), told(udp(2), a, kind, 313));
    assert_eq!(misuse(&mut rig, 2, kind), []);
}

#[test]
fn who_is_not_registered_is_told_nothing() {
    let mut rig = Rig::new(config());
    for kind in Misuse::ALL {
        assert_eq!(misuse(&mut rig, 2, kind), []);
    }
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, leave(id));
    assert_eq!(misuse(&mut rig, 2, Misuse::LocalPort), []);
    assert_eq!(rig.wakes_at(), None);
}

#[test]
fn misuse_over_tcp_is_told_on_the_newest_connection() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.ask(tcp(2, 2), 2, query(id));
    assert_eq!(misuse(&mut rig, 2, Misuse::LocalPort), told(tcp(2, 2), id, Misuse::LocalPort, 313));
    rig.gateway.handle_disconnect(2, rig.now);
    let commands = misuse(&mut rig, 2, Misuse::LocalAddress);
    assert_eq!(commands, told(tcp(2, 2), id, Misuse::LocalAddress, 312)[1..], "nobody hears it, but the log");
}

#[test]
fn misuse_changes_nothing_else() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.at(100);
    let before = rig.gateway.view(rig.now);
    misuse(&mut rig, 2, Misuse::LocalPort);
    assert_eq!(rig.gateway.view(rig.now), before);
    assert_eq!(rig.wakes_at(), Some(600.0), "data renews no registration");
    // A duplicate still gets its own answer, not the error.
    let web = rule(id, 1, 2, Ports::single(80));
    let answer = send(udp(2), 2, Body::ListenResponse(granted(&web, LEASE)));
    assert_eq!(rig.ask(udp(2), 2, listen_on(id, 80)), [answer]);
}

#[test]
fn misuse_after_the_lease_has_ended_is_nobodys() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.at(600);
    let commands = misuse(&mut rig, 2, Misuse::LocalPort);
    assert_eq!(commands, [send(udp(2), 0, left(id)), unregistered(id, 2, RemovalReason::Expired)]);
}

#[test]
fn a_fault_is_told_to_nobody_whose_lease_has_ended() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.at(600);
    rig.gateway.fail(rig.now);
    assert_eq!(rig.commands(), [send(udp(2), 0, left(id)), unregistered(id, 2, RemovalReason::Expired)]);
}

#[test]
fn a_fault_of_the_server_is_told_before_everything_ends() {
    let mut rig = Rig::new(config());
    let a = rig.register(tcp(2, 1));
    let b = rig.register(udp(3));
    rig.obtain(udp(3), 2, listen_on(b, 81));
    rig.gateway.fail(rig.now);
    let commands = rig.commands();
    for (id, peer) in [(a, tcp(2, 1)), (b, udp(3))] {
        let place = |wanted: &GatewayCommand| commands.iter().position(|command| command == wanted);
        let fault = place(&send(peer, 0, error(ErrorCode::InternalServerError, Some(id), None)));
        let end = place(&send(peer, 0, left(id)));
        assert!(fault.is_some() && fault < end, "{commands:?}");
    }
    assert!(commands.contains(&GatewayCommand::Close { peer: tcp(2, 1) }));
    assert!(commands.contains(&remove(2, rule(b, 1, 3, Ports::single(81)))));
    assert_eq!(code(&rig.ask(udp(4), 1, Body::RegisterRequest), udp(4), 1), 304);
}
