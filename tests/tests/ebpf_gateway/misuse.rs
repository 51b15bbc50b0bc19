//! What the programs report about hosts (RFC 3103, section 10.4), and how seldom.

use std::thread;
use std::time::Duration;

use crate::harness::*;

/// Sends one packet and compares what is dropped, counted and reported.
fn blame(
    gateway: &mut Gateway,
    name: &'static str,
    packet: Vec<u8>,
    counter: Counter,
    expected: Option<MisuseKind>,
) {
    gateway.forget_reports();
    gateway.check(programs::OUTWARD, vec![case(name, packet, Expected::Drop(counter))]);
    let reports: Vec<_> = gateway.misuses().into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(reports, Vec::from_iter(expected), "{name}: reports");
}

#[test]
fn a_source_address_that_is_not_the_hosts_is_reported() {
    let mut gateway = Gateway::new();
    let bad = Counter::BadSource;
    let address = Some(MisuseKind::LocalAddress);
    for (name, source) in [
        ("its private address", HOST_A),
        ("somebody's out there", PEER),
        ("another address of the pool", OTHER_PUBLIC),
        ("an address that another host holds whole", WHOLE_PUBLIC),
    ] {
        for (protocol, payload) in [
            (UDP, udp(PORT_A, 53, b"")),
            (ICMP, echo(8, 1, 1)),
            (SCTP, tcp(PORT_A, 53)),
            (TCP, tcp(PORT_A, 80)),
        ] {
            let packet = Ip::new(source, PEER, protocol, payload);
            blame(&mut gateway, name, from_a(&packet), bad, address);
        }
        let later = Ip::new(source, PEER, UDP, vec![2; 32]).fragment(9);
        blame(&mut gateway, name, from_a(&later), bad, address);
    }
    let mine = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b""));
    let stranger = mine.inside(STRANGER, GATEWAY).frame();
    blame(&mut gateway, "a host that holds nothing", stranger, bad, address);
}

#[test]
fn a_source_port_that_is_not_the_hosts_is_reported() {
    let mut gateway = Gateway::new();
    let port = Some(MisuseKind::LocalPort);
    for (name, number) in [("of B", PORT_B), ("of nobody", FREE), ("0", 0)] {
        for (protocol, payload) in [(UDP, udp(number, 53, b"")), (TCP, tcp(number, 80))] {
            let packet = Ip::new(PUBLIC, PEER, protocol, payload);
            blame(&mut gateway, name, from_a(&packet), Counter::BadSource, port);
        }
    }
    let error =
        Ip::new(PUBLIC, PEER, ICMP, icmp_error(3, 3, &Ip::new(PEER, PUBLIC, UDP, udp(5, PORT_B, b""))));
    blame(&mut gateway, "an error about B's datagram", from_a(&error), Counter::BadSource, port);
}

#[test]
fn what_is_only_broken_is_no_misuse() {
    let mut gateway = Gateway::new();
    let mine = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let no_ports = Ip::new(PUBLIC, PEER, UDP, vec![0, 80]);
    let sctp = Ip::new(PUBLIC, PEER, SCTP, tcp(PORT_A, 53));
    let overtaken = Ip::new(PUBLIC, PEER, UDP, vec![2; 32]).fragment(9);
    let to_multicast = Ip { destination: Ipv4Addr::new(224, 0, 0, 1), ..mine.clone() };
    for (name, packet, counter) in [
        ("TTL", mine.clone().ttl(1), Counter::TtlExceeded),
        ("no ports", no_ports, Counter::Malformed),
        ("a protocol without ports", sctp, Counter::Unsupported),
        ("a fragment that overtook the first", overtaken, Counter::Unsupported),
        ("multicast", to_multicast, Counter::Unsupported),
    ] {
        blame(&mut gateway, name, from_a(&packet), counter, None);
    }
    gateway.check(programs::OUTWARD, vec![case("what is right", from_a(&mine), out(&mine))]);
    let inward = Ip::new(PEER, PUBLIC, TCP, tcp(5000, FREE));
    gateway.check(programs::INWARD, vec![case("from outside", inward.frame(), Expected::Pass)]);
    assert_eq!(gateway.misuses(), []);
}

#[test]
fn a_foreign_tunnel_is_reported_and_does_not_carry_leased_addresses() {
    let mut gateway = Gateway::new();
    let mine = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let tunnel = |payload| Ip::new(HOST_A, GATEWAY, GRE, payload);
    let with_key = [&[0, 0, 0, 1][..], &mine.bytes()].concat();
    let with_all = [&[0; 12][..], &mine.bytes()].concat();
    let bad = Counter::BadTunnel;
    let reported = Some(MisuseKind::Tunnel);
    blame(&mut gateway, "GRE", tunnel(gre(0, &mine.bytes())).frame(), bad, reported);
    blame(&mut gateway, "GRE with a key", tunnel(gre(0x2000, &with_key)).frame(), bad, reported);
    blame(&mut gateway, "GRE with all fields", tunnel(gre(0xb000, &with_all)).frame(), bad, reported);
    let with_options = tunnel(gre(0, &mine.bytes())).with_options();
    blame(&mut gateway, "GRE behind IP options", with_options.frame(), bad, reported);

    // What carries nothing of ours is the administrator's, or nobody's.
    let private = Ip::new(HOST_A, Ipv4Addr::new(172, 16, 0, 1), UDP, udp(1, 2, b""));
    let mut ipv6 = gre(0, &[0x60; 40]);
    ipv6[2..4].copy_from_slice(&[0x86, 0xdd]);
    gateway.forget_reports();
    gateway.check(
        programs::OUTWARD,
        vec![
            case("private addresses inside", tunnel(gre(0, &private.bytes())).frame(), Expected::Pass),
            case("IPv6 inside", tunnel(ipv6).frame(), Expected::Pass),
            case("nothing inside", tunnel(gre(0, &[])).frame(), Expected::Pass),
            case("half a GRE header", tunnel(vec![0, 0]).frame(), Expected::Pass),
        ],
    );
    assert_eq!(gateway.misuses(), [(HOST_A, MisuseKind::Tunnel)], "one a second");
    gateway.forget_reports();
    let elsewhere = Ip::new(HOST_A, PEER, GRE, gre(0, &mine.bytes()));
    gateway.check(programs::OUTWARD, vec![case("to somebody else", elsewhere.frame(), Expected::Pass)]);
    assert_eq!(gateway.misuses(), []);
}

#[test]
fn each_host_is_reported_once_a_second_for_each_kind() {
    let mut gateway = Gateway::new();
    let address = |host| Ip::new(PEER, PEER, UDP, udp(1, 2, b"")).inside(host, GATEWAY);
    let port = |host| Ip::new(PUBLIC, PEER, UDP, udp(FREE, 2, b"")).inside(host, GATEWAY);
    for _ in 0..50 {
        for host in [HOST_A, HOST_B] {
            assert_eq!(gateway.outward(&address(host)).action, DROP);
            assert_eq!(gateway.outward(&port(host)).action, DROP);
        }
    }
    let once = [
        (HOST_A, MisuseKind::LocalAddress),
        (HOST_A, MisuseKind::LocalPort),
        (HOST_B, MisuseKind::LocalAddress),
        (HOST_B, MisuseKind::LocalPort),
    ];
    assert_eq!(gateway.misuses(), once);
    assert_eq!(gateway.counters()[Counter::BadSource as usize], 200, "counted all the same");
    thread::sleep(Duration::from_millis(1010));
    assert_eq!(gateway.outward(&port(HOST_A)).action, DROP);
    assert_eq!(gateway.misuses(), [(HOST_A, MisuseKind::LocalPort)], "a second later");
}

#[test]
fn a_flood_from_many_sources_is_not_a_flood_of_reports() {
    const SOURCES: u16 = 3000;
    let cpus = u64::try_from(thread::available_parallelism().unwrap().get()).unwrap();
    let mut gateway = Gateway::new();
    let start = std::time::Instant::now();
    for number in 0..SOURCES {
        let [high, low] = number.to_be_bytes();
        let spoofed =
            Ip::new(PEER, PEER, UDP, udp(1, 2, b"")).inside(Ipv4Addr::new(10, 9, high, low), GATEWAY);
        assert_eq!(gateway.outward(&spoofed).action, DROP);
    }
    let seconds = start.elapsed().as_secs() + 1;
    let reports = u64::try_from(gateway.misuses().len()).unwrap();
    assert!(reports >= 100, "{reports}");
    assert!(reports <= 128 * cpus * seconds, "{reports} reports in {seconds} s");
    assert_eq!(gateway.counters()[Counter::BadSource as usize], u64::from(SOURCES));
}
