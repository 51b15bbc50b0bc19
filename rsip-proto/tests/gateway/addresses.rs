//! Which public addresses and ports are granted, and errors 308 to 313.

use std::net::{Ipv4Addr, Ipv6Addr};

use rsip_proto::gateway::GatewayConfig;
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::{Address, Ports};

use crate::rig::*;

fn two_addresses() -> GatewayConfig {
    let pool = PoolConfig { addresses: vec![PUBLIC, SECOND_PUBLIC], ..config().pool };
    GatewayConfig { pool, ..config() }
}

fn tiny() -> GatewayConfig {
    let pool = PoolConfig { port_range: 10_000..=10_003, listen_range: 10_000..=10_003, ..config().pool };
    GatewayConfig { pool, ..config() }
}

#[test]
fn what_is_not_for_lease_is_refused() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let any_address = || Address::ANY;
    let ours = Address::Ipv4(PUBLIC);
    let table = [
        (any_address(), Ports::single(22), 313, "reserved"),
        (any_address(), Ports::single(5000), 313, "in no range"),
        (any_address(), Ports::single(0), 313, "no port at all"),
        (any_address(), Ports::Range { first: 20, count: 5 }, 313, "reserved in the middle"),
        (any_address(), Ports::List(vec![80, 5000]), 313, "one of them in no range"),
        (ours.clone(), Ports::single(22), 313, "reserved, at a named address"),
        (Address::Ipv4(Ipv4Addr::new(192, 0, 2, 99)), Ports::single(80), 312, "an address of others"),
        (Address::Ipv4(Ipv4Addr::UNSPECIFIED), Ports::single(80), 312, "no address"),
        (Address::Ipv6(Ipv6Addr::LOCALHOST), Ports::single(80), 312, "IPv6"),
        (Address::Ipv4(Ipv4Addr::new(192, 0, 2, 99)), Ports::single(22), 312, "the address first"),
    ];
    for (counter, (address, ports, expected, what)) in (2..).zip(table) {
        let commands = rig.ask(udp(2), counter, listen_at(id, address, ports));
        assert_eq!(refusal(&commands, udp(2), Some(counter)), (expected, Some(id), None), "{what}");
    }
    assert_eq!(
        rig.obtain(udp(2), 99, listen_at(id, ours, Ports::single(80))).local_address,
        Address::Ipv4(PUBLIC)
    );
}

#[test]
fn more_ports_than_there_are() {
    let mut rig = Rig::new(tiny());
    let id = rig.register(udp(2));
    assert_eq!(code(&rig.ask(udp(2), 2, assign(id, 5)), udp(2), 2), 309);
    rig.obtain(udp(2), 3, assign(id, 3));
    assert_eq!(code(&rig.ask(udp(2), 4, assign(id, 2)), udp(2), 4), 309, "all or nothing");
    rig.obtain(udp(2), 5, assign(id, 1));
    // Nothing at all is left: that comes first, whatever is asked for.
    assert_eq!(code(&rig.ask(udp(2), 6, assign(id, 1)), udp(2), 6), 308);
    assert_eq!(code(&rig.ask(udp(2), 7, listen_on(id, 10_000)), udp(2), 7), 308);
    let elsewhere = listen_at(id, Address::Ipv4(SECOND_PUBLIC), Ports::single(22));
    assert_eq!(code(&rig.ask(udp(2), 8, elsewhere), udp(2), 8), 308);
}

#[test]
fn more_ports_than_one_host_may_have() {
    let mut rig = Rig::new(GatewayConfig { max_ports_per_client: 10, ..config() });
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.obtain(udp(2), 2, assign(a, 9));
    assert_eq!(code(&rig.ask(udp(2), 3, assign(a, 2)), udp(2), 3), 309);
    rig.obtain(udp(2), 4, listen_on(a, 80));
    assert_eq!(code(&rig.ask(udp(2), 5, listen_on(a, 81)), udp(2), 5), 309);
    assert_eq!(
        code(&rig.ask(udp(2), 6, listen_on(a, 22)), udp(2), 6),
        313,
        "what is wrong with the port comes first"
    );
    rig.obtain(udp(3), 2, assign(b, 10));
    rig.ask(udp(2), 7, free(a, 2));
    rig.done(4);
    rig.obtain(udp(2), 8, listen_on(a, 81));
}

#[test]
fn a_block_in_pieces_is_a_list() {
    let mut rig = Rig::new(tiny());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 10_001));
    assert_eq!(rig.obtain(udp(2), 3, assign(id, 3)).local_ports, Ports::List(vec![10_000, 10_002, 10_003]));
}

#[test]
fn a_freed_port_rests_while_there_are_others() {
    let mut rig = Rig::new(tiny());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, assign(id, 1));
    rig.ask(udp(2), 3, free(id, 1));
    rig.done(2);
    assert_eq!(rig.pool(), [0, 1, 3]);
    assert_eq!(rig.at(119).obtain(udp(2), 4, assign(id, 1)).local_ports, Ports::single(10_001));
    assert_eq!(rig.at(120).obtain(udp(2), 5, assign(id, 1)).local_ports, Ports::single(10_000));
}

#[test]
fn where_ports_are_scarce_the_longest_rested_come_first() {
    let mut rig = Rig::new(tiny());
    let id = rig.register(udp(2));
    for port in 0..4 {
        rig.obtain(udp(2), 2 + port, assign(id, 1));
    }
    // Freed in the order 10002, 10000, 10003: their bind IDs are 3, 1, 4.
    for (counter, bind, op) in [(6, 3, 5), (7, 1, 6), (8, 4, 7)] {
        rig.at(u64::from(counter)).ask(udp(2), counter, free(id, bind));
        rig.done(op);
    }
    assert_eq!(rig.pool(), [1, 3, 0]);
    for (counter, port) in [(9, 10_002), (10, 10_000), (11, 10_003)] {
        assert_eq!(rig.obtain(udp(2), counter, assign(id, 1)).local_ports, Ports::single(port));
    }
}

#[test]
fn a_host_stays_at_its_address() {
    let mut rig = Rig::new(two_addresses());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    let first = Address::Ipv4(PUBLIC);
    let second = Address::Ipv4(SECOND_PUBLIC);
    // A asks for port 80 at the second address; all else follows there.
    assert_eq!(rig.obtain(udp(2), 2, listen_at(a, second.clone(), Ports::single(80))).local_address, second);
    assert_eq!(rig.obtain(udp(2), 3, assign(a, 255)).local_address, second);
    assert_eq!(rig.obtain(udp(2), 4, listen_on(a, 81)).local_address, second);
    // B gets the first one that has what it wants.
    assert_eq!(rig.obtain(udp(3), 2, listen_on(b, 80)).local_address, first);
    assert_eq!(rig.obtain(udp(3), 3, listen_on(b, 81)).local_address, first);
    // Port 82 is taken where B is: another address is better than none.
    assert_eq!(rig.obtain(udp(2), 5, listen_at(a, first.clone(), Ports::single(82))).local_address, first);
    assert_eq!(rig.obtain(udp(3), 4, listen_on(b, 82)).local_address, second);
    assert_eq!(code(&rig.ask(udp(3), 5, listen_on(b, 82)), udp(3), 5), 311, "taken everywhere");
    assert_eq!(code(&rig.ask(udp(3), 6, listen_at(b, first, Ports::single(82))), udp(3), 6), 311);
}

#[test]
fn ports_may_be_had_at_several_addresses() {
    let pool = PoolConfig { addresses: vec![PUBLIC, SECOND_PUBLIC], ..tiny().pool };
    let mut rig = Rig::new(GatewayConfig { pool, ..config() });
    let id = rig.register(udp(2));
    assert_eq!(rig.obtain(udp(2), 2, assign(id, 3)).local_address, Address::Ipv4(PUBLIC));
    assert_eq!(rig.obtain(udp(2), 3, assign(id, 3)).local_address, Address::Ipv4(SECOND_PUBLIC));
    assert_eq!(code(&rig.ask(udp(2), 4, assign(id, 2)), udp(2), 4), 309, "not two at any one address");
}
