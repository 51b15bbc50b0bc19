//! Hosts that mean no good: what others hold is none of their business, and what they can use up is bounded.

use std::net::{Ipv4Addr, SocketAddrV4};

use rsip_proto::gateway::{GatewayCommand, GatewayConfig, Peer, Transport};
use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::{Address, Body, Message, Ports, QueryTuple};

use crate::rig::*;

/// One of very many sources.
fn source(number: u32) -> Peer {
    let address = Ipv4Addr::from_bits(0x0a01_0000 + number);
    Peer { address: SocketAddrV4::new(address, 5000), transport: Transport::Udp }
}

#[test]
fn a_host_neither_extends_nor_frees_what_another_holds() {
    let mut rig = Rig::new(with_whole());
    let (victim, thief) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.obtain(udp(2), 2, listen_on(victim, 80));
    rig.obtain_whole(udp(2), 3, assign_whole(victim));
    let before = rig.client(victim);
    // In its own name it has no such binding; in the other's it is not known at its address.
    let mut counter = 1;
    for bind in 1..=2 {
        for (name, expected) in [(thief, 306), (victim, 305)] {
            for body in [free(name, bind), extend(name, bind, Some(3600))] {
                counter += 1;
                assert_eq!(code(&rig.ask(udp(3), counter, body), udp(3), counter), expected);
            }
        }
    }
    assert_eq!(code(&rig.ask(udp(3), 50, leave(victim)), udp(3), 50), 305);
    assert_eq!(rig.client(victim), before);
    assert_eq!(rig.wakes_at(), Some(600.0));
}

#[test]
fn a_refusal_does_not_tell_who_holds_what() {
    let mut rig = Rig::new(with_pool(vec![PUBLIC, SECOND_PUBLIC], vec![SECOND_PUBLIC, WHOLE]));
    let (victim, spy) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.obtain(udp(2), 2, listen_at(victim, Address::Ipv4(PUBLIC), Ports::single(80)));
    rig.obtain_whole(udp(2), 3, assign_whole_at(victim, Address::Ipv4(SECOND_PUBLIC)));
    let table = [
        (listen_at(spy, Address::Ipv4(PUBLIC), Ports::single(80)), 311),
        (listen_at(spy, Address::Ipv4(SECOND_PUBLIC), Ports::single(80)), 310),
        (assign_whole_at(spy, Address::Ipv4(SECOND_PUBLIC)), 310),
    ];
    for (counter, (body, expected)) in (2..).zip(table) {
        // The only name in it is that of the one who asked.
        assert_eq!(
            refusal(&rig.ask(udp(3), counter, body), udp(3), Some(counter)),
            (expected, Some(spy), None)
        );
    }
    let Some(GatewayCommand::Send { message, .. }) = rig.ask(udp(3), 9, query(spy)).pop() else { panic!() };
    assert_eq!(message.body, Body::QueryResponse { client_id: spy, tuples: Vec::new() });
}

#[test]
fn strangers_leave_nothing_behind() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    let before = rig.gateway.view(rig.now);
    let nobody = ClientId(id.0 ^ 1);
    for number in 0..5_000 {
        for body in [query(nobody), leave(nobody), free(nobody, 1), assign(nobody, 1), assign_whole(nobody)] {
            rig.ask(source(number), number + 1, body);
        }
    }
    assert_eq!(rig.gateway.view(rig.now), before);
    assert_eq!(rig.wakes_at(), Some(600.0), "nothing else is waited for");
    // Whoever is registered is served as before, also with an error.
    assert_eq!(code(&rig.ask(udp(2), 2, free(id, 9)), udp(2), 2), 306);
    rig.obtain(udp(2), 3, listen_on(id, 80));
}

#[test]
fn registrations_are_bounded_and_come_free_again() {
    let mut rig = Rig::new(GatewayConfig { max_clients: 100, ..config() });
    let registered = |rig: &mut Rig| {
        for number in 0..5_000 {
            rig.ask(source(number), 1, Body::RegisterRequest);
        }
        rig.gateway.view(rig.now).clients.len()
    };
    assert_eq!(registered(&mut rig), 100);
    assert_eq!(rig.wakes_at(), Some(600.0));
    rig.at(600).timeout();
    assert!(rig.gateway.view(rig.now).clients.is_empty());
    assert_eq!(registered(&mut rig), 100);
}

#[test]
fn coming_and_going_ties_up_no_more_than_the_pool_has() {
    // The data path hangs: what is given up is not forgotten, and stays taken.
    let mut rig = Rig::new(GatewayConfig { max_clients: 1, ..with_whole() });
    let mut held = 0;
    for round in 0..1_000u32 {
        let host = source(round);
        rig.ask(host, 1, Body::RegisterRequest);
        let id = rig.gateway.view(rig.now).clients[0].client_id;
        for body in [assign(id, 255), assign(id, 255), assign_whole(id), listen_on(id, 80)] {
            held += rig
                .ask(host, round + 2, body)
                .iter()
                .filter(|c| matches!(c, GatewayCommand::Install { .. }))
                .count();
        }
        rig.ask(host, round + 3, leave(id));
        assert!(rig.gateway.view(rig.now).clients.is_empty());
    }
    // 1000 ports make three blocks of 255; two whole addresses; port 80.
    assert_eq!(held, 6);
    let view = rig.gateway.view(rig.now);
    assert!(view.departing.len() <= 6, "{:?}", view.departing);
    for op in 1..=6 {
        rig.done(op);
    }
    for op in 7..=12 {
        rig.done(op);
    }
    assert!(rig.gateway.is_drained());
}

#[test]
fn a_long_question_gets_a_short_answer() {
    let private_nets = vec![(Ipv4Addr::new(10, 0, 0, 0), 8)];
    let mut rig = Rig::new(GatewayConfig { private_nets, ..config() });
    let id = rig.register(udp(2));
    let tuple = || QueryTuple::Address { local: false, address: Address::Ipv4(Ipv4Addr::new(10, 1, 1, 1)) };
    let asked = Body::QueryRequest { client_id: id, tuples: vec![tuple(); 4_000] };
    let commands = rig.ask(udp(2), 2, asked);
    let [GatewayCommand::Send { message, .. }] = &commands[..] else { panic!("{commands:?}") };
    let net = QueryTuple::Network {
        local: true,
        network: Address::Ipv4(Ipv4Addr::new(10, 0, 0, 0)),
        netmask: Address::Netmask(Ipv4Addr::new(255, 0, 0, 0)),
    };
    assert_eq!(message.body, Body::QueryResponse { client_id: id, tuples: vec![net] });
}

#[test]
fn ports_are_bounded_for_each_host_whatever_it_asks_for() {
    let mut rig = Rig::new(GatewayConfig { max_ports_per_client: 20, ..config() });
    let id = rig.register(udp(2));
    let mut counter = 1;
    for _ in 0..100 {
        for body in [assign(id, 7), listen_ports(id, Ports::DontCare { count: 3 }), assign(id, 1)] {
            counter += 1;
            for command in rig.ask(udp(2), counter, body) {
                if let GatewayCommand::Install { op, .. } = command {
                    rig.done(op.0);
                }
            }
        }
    }
    assert_eq!(rig.pool()[0], 20);
}

#[test]
fn a_connection_that_floods_does_not_disturb_its_neighbour() {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.register(tcp(2, 1)), rig.register(tcp(3, 2)));
    rig.obtain(tcp(3, 2), 2, listen_on(b, 80));
    let before = rig.client(b);
    for counter in 2..3_000u32 {
        let message = Message { counter: Some(MessageCounter(counter)), body: listen_on(a, 80) };
        assert_eq!(code(&rig.ask_message(tcp(2, 1), &message), tcp(2, 1), counter), 311);
    }
    assert_eq!(rig.client(b), before);
}
