//! LISTEN: what may be left open, and what each form gets (RFC 3103 sections 9.16 and 9.17).

use rsip_proto::gateway::{GatewayCommand, GatewayConfig};
use rsip_proto::lease::Remote;
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::{Address, Body, Ports, TunnelType};

use crate::rig::*;

fn two_addresses() -> GatewayConfig {
    with_pool(vec![PUBLIC, SECOND_PUBLIC], Vec::new())
}

#[test]
fn address_and_ports_may_be_named_or_left_open() {
    let first = Address::Ipv4(PUBLIC);
    let second = Address::Ipv4(SECOND_PUBLIC);
    let any = |count| Ports::DontCare { count };
    let range = |first, count| Ports::Range { first, count };
    let list = || Ports::List(vec![443, 80, 1023]);
    // Asked for, and given. What is left open comes from PORT_RANGE, what is named from LISTEN_RANGE too.
    let table = [
        (Address::ANY, any(1), first.clone(), Ports::single(10_000)),
        (Address::ANY, any(255), first.clone(), range(10_000, 255)),
        (Address::DontCare(4), any(2), first.clone(), range(10_000, 2)),
        (second.clone(), any(1), second.clone(), Ports::single(10_000)),
        (second.clone(), any(4), second.clone(), range(10_000, 4)),
        (Address::ANY, Ports::single(80), first.clone(), Ports::single(80)),
        (Address::ANY, Ports::single(10_999), first.clone(), Ports::single(10_999)),
        (Address::ANY, range(80, 10), first.clone(), range(80, 10)),
        (Address::ANY, list(), first.clone(), list()),
        (first.clone(), Ports::single(1), first.clone(), Ports::single(1)),
        (second.clone(), Ports::single(1023), second.clone(), Ports::single(1023)),
        (second.clone(), range(80, 10), second.clone(), range(80, 10)),
        (second.clone(), list(), second, list()),
    ];
    for (address, ports, given_address, given_ports) in table {
        let mut rig = Rig::new(two_addresses());
        let id = rig.register(udp(2));
        let granted = rig.obtain(udp(2), 2, listen_at(id, address.clone(), ports.clone()));
        let given = (granted.local_address, granted.local_ports);
        assert_eq!(given, (given_address, given_ports), "{address:?} {ports:?}");
        assert_eq!((granted.client_id, granted.bind_id.0), (id, 1));
        assert_eq!((granted.remote_address, granted.remote_ports), (Address::ANY, Ports::ANY));
        assert_eq!((granted.lease_time, granted.tunnel_type), (LEASE, TunnelType::IpIp));
        assert_eq!(granted.tunnel_endpoint, None, "the gateway is the tunnel's end");
        let binding = &rig.client(id).unwrap().bindings[0];
        assert_eq!((binding.listen, binding.remote), (true, Remote::Any), "forwarded whoever sends it");
    }
}

#[test]
fn ports_outside_the_ranges_are_not_allowed() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let table = [
        (Ports::single(1024), "just above LISTEN_RANGE"),
        (Ports::single(9_999), "just below PORT_RANGE"),
        (Ports::single(11_000), "just above PORT_RANGE"),
        (Ports::Range { first: 1020, count: 5 }, "a range that leaves LISTEN_RANGE"),
        (Ports::Range { first: 10_990, count: 11 }, "a range that leaves PORT_RANGE"),
        (Ports::List(vec![80, 443, 22]), "a list with a reserved port"),
        (Ports::single(65_535), "the last port"),
    ];
    for (counter, (ports, what)) in (2..).zip(table) {
        let commands = rig.ask(udp(2), counter, listen_ports(id, ports));
        assert_eq!(refusal(&commands, udp(2), Some(counter)), (313, Some(id), None), "{what}");
    }
    assert_eq!(rig.pool()[0], 0);
}

#[test]
fn a_tuple_that_is_held_is_refused_to_its_holder_too() {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.obtain(udp(2), 2, assign(a, 10));
    // Within the block that was assigned, at its edge, and around it.
    let table = [
        Ports::single(10_004),
        Ports::Range { first: 10_009, count: 2 },
        Ports::List(vec![80, 10_000]),
        Ports::Range { first: 10_000, count: 10 },
    ];
    for (counter, ports) in (3..).zip(table) {
        for address in [Address::ANY, Address::Ipv4(PUBLIC)] {
            let body = listen_at(a, address.clone(), ports.clone());
            let own = udp_from(2, 6000 + u16::from(address == Address::ANY));
            assert_eq!(refusal(&rig.ask(own, counter, body), own, Some(counter)), (311, Some(a), None));
            let body = listen_at(b, address.clone(), ports.clone());
            let other = udp_from(3, 6000 + u16::from(address == Address::ANY));
            assert_eq!(refusal(&rig.ask(other, counter, body), other, Some(counter)), (311, Some(b), None));
        }
    }
    rig.obtain(udp(3), 2, listen_on(b, 10_010));
}

#[test]
fn a_port_taken_at_one_address_is_looked_for_at_the_others() {
    let mut rig = Rig::new(two_addresses());
    let (a, b, c) = (rig.register(udp(2)), rig.register(udp(3)), rig.register(udp(4)));
    assert_eq!(rig.obtain(udp(2), 2, listen_on(a, 80)).local_address, Address::Ipv4(PUBLIC));
    assert_eq!(rig.obtain(udp(3), 2, listen_on(b, 80)).local_address, Address::Ipv4(SECOND_PUBLIC));
    assert_eq!(code(&rig.ask(udp(4), 2, listen_on(c, 80)), udp(4), 2), 311);
    // All the ports of a list are at one address, or it is refused.
    rig.obtain(udp(2), 3, listen_at(a, Address::Ipv4(PUBLIC), Ports::single(81)));
    let list = listen_ports(c, Ports::List(vec![81, 80]));
    assert_eq!(code(&rig.ask(udp(4), 3, list), udp(4), 3), 311);
}

#[test]
fn what_is_left_open_and_cannot_be_had_is_unavailable() {
    let pool = PoolConfig { port_range: 10_000..=10_003, ..config().pool };
    let mut rig = Rig::new(GatewayConfig { pool, ..config() });
    let id = rig.register(udp(2));
    let open = |count| listen_ports(id, Ports::DontCare { count });
    assert_eq!(code(&rig.ask(udp(2), 2, open(5)), udp(2), 2), 309, "no part of it is given");
    rig.obtain(udp(2), 3, open(4));
    // Others can still be had by number: the address itself is available.
    assert_eq!(code(&rig.ask(udp(2), 4, open(1)), udp(2), 4), 309);
    rig.obtain(udp(2), 5, listen_on(id, 80));
}

#[test]
fn a_listener_is_extended_and_freed_like_every_binding() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_ports(id, Ports::List(vec![80, 443])));
    let both = rule(id, 1, 2, Ports::List(vec![80, 443]));
    let commands = rig.at(300).ask(udp(2), 3, extend(id, 1, None));
    let [GatewayCommand::Send { message, .. }, _] = &commands[..] else { panic!("{commands:?}") };
    assert!(matches!(message.body, Body::ExtendResponse { lease_time: 600, .. }));
    // Only as a whole: there is no way to give one port of it back.
    assert_eq!(rig.ask(udp(2), 4, free(id, 1)), [remove(2, both)]);
    rig.done(2);
    assert_eq!(rig.pool()[..2], [0, 2]);
}
