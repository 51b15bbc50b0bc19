//! An address that one host holds whole: everything is its own, whatever the protocol.

use crate::harness::*;

/// ESP, of which nobody but its ends can read a port.
const ESP: u8 = 50;
/// Not assigned to any protocol.
const UNHEARD_OF: u8 = 253;

/// One datagram of every kind, with these addresses.
fn every_kind(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<(&'static str, Ip)> {
    let ip = |protocol, payload| Ip::new(source, destination, protocol, payload);
    let quoted = Ip::new(destination, source, UDP, udp(7, 9, b""));
    vec![
        ("TCP", ip(TCP, tcp(5000, 22))),
        ("TCP from and to port 0", ip(TCP, tcp(0, 0))),
        ("UDP to the last port", ip(UDP, udp(65535, 65535, b"hello"))),
        ("UDP without room for ports", ip(UDP, vec![0, 80])),
        ("echo request", ip(ICMP, echo(8, 7, 1))),
        ("echo reply", ip(ICMP, echo(0, 7, 1))),
        ("redirect", ip(ICMP, icmp_error(5, 1, &quoted))),
        ("port unreachable", ip(ICMP, icmp_error(3, 3, &quoted))),
        ("ICMP without a header", ip(ICMP, vec![13])),
        ("SCTP", ip(SCTP, tcp(5000, 80))),
        ("GRE", ip(GRE, gre(0, &quoted.bytes()))),
        ("ESP", ip(ESP, vec![0xaa; 40])),
        ("a protocol of the future", ip(UNHEARD_OF, vec![1])),
        ("nothing behind the header", ip(UNHEARD_OF, vec![])),
        ("options", ip(UDP, udp(1, 2, b"")).with_options()),
        ("last fragment", ip(UDP, vec![2; 32]).fragment(9)),
        ("middle fragment", ip(TCP, vec![2; 32]).fragment(MF | 5)),
        ("first fragment", ip(TCP, tcp(1, 2)).fragment(MF)),
    ]
}

#[test]
fn everything_to_the_address_goes_to_its_host() {
    let mut gateway = Gateway::new();
    let cases = every_kind(PEER, WHOLE_PUBLIC)
        .into_iter()
        .map(|(name, packet)| case(name, packet.frame(), to_host(&packet, HOST_B)));
    gateway.check(programs::INWARD, cases.collect());
    // The neighbours are as they were.
    let free = Ip::new(PEER, PUBLIC, TCP, tcp(5000, FREE));
    let ping = Ip::new(PEER, PUBLIC, ICMP, echo(8, 7, 1));
    gateway.check(
        programs::INWARD,
        vec![
            case("a free port of a shared address", free.frame(), Expected::Pass),
            case("ping of a shared address", ping.frame(), Expected::Pass),
        ],
    );
}

#[test]
fn everything_from_the_address_leaves_if_its_host_sends_it() {
    let mut gateway = Gateway::new();
    for (name, packet) in every_kind(WHOLE_PUBLIC, PEER) {
        gateway
            .check(programs::OUTWARD, vec![case(name, packet.inside(HOST_B, GATEWAY).frame(), out(&packet))]);
        for host in [HOST_A, STRANGER] {
            assert_eq!(gateway.outward(&packet.inside(host, GATEWAY)).action, DROP, "{name}, from {host}");
        }
    }
}

#[test]
fn the_holder_of_one_address_is_nobody_at_another() {
    let mut gateway = Gateway::new();
    let at_shared = Ip::new(PUBLIC, PEER, SCTP, tcp(PORT_B, 80));
    let port_of_a = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 80, b""));
    gateway.check(
        programs::OUTWARD,
        vec![
            case(
                "a protocol without ports",
                at_shared.inside(HOST_B, GATEWAY).frame(),
                Expected::Drop(Counter::Unsupported),
            ),
            case(
                "a port of A",
                port_of_a.inside(HOST_B, GATEWAY).frame(),
                Expected::Drop(Counter::BadSource),
            ),
        ],
    );
}

#[test]
fn what_no_router_would_forward_is_not_forwarded() {
    let mut gateway = Gateway::new();
    let hit = Ip::new(PEER, WHOLE_PUBLIC, SCTP, vec![0; 20]);
    let mut version = hit.frame();
    version[14] = 0x65;
    let mut truncated = hit.frame();
    truncated.truncate(14 + 20 + 10);
    let fits = Ip::new(PEER, WHOLE_PUBLIC, SCTP, vec![0; 1460]);
    let from = |source| Ip { source, ..hit.clone() }.frame();
    gateway.check(
        programs::INWARD,
        vec![
            case("version 6", version, Expected::Drop(Counter::Malformed)),
            case("truncated", truncated, Expected::Drop(Counter::Malformed)),
            case("TTL 1", hit.clone().ttl(1).frame(), Expected::Drop(Counter::TtlExceeded)),
            case("as big as the tunnel takes", fits.frame(), to_host(&fits, HOST_B)),
            case("from itself", from(WHOLE_PUBLIC), Expected::Drop(Counter::Martian)),
            case("from another address of ours", from(PUBLIC), Expected::Drop(Counter::Martian)),
            case("from loopback", from(Ipv4Addr::LOCALHOST), Expected::Drop(Counter::Martian)),
        ],
    );
    let mine = Ip::new(WHOLE_PUBLIC, PEER, SCTP, vec![0; 20]);
    let from_b = |packet: &Ip| packet.inside(HOST_B, GATEWAY).frame();
    let to = |destination| from_b(&Ip { destination, ..mine.clone() });
    gateway.check(
        programs::OUTWARD,
        vec![
            case("TTL 1", from_b(&mine.clone().ttl(1)), Expected::Drop(Counter::TtlExceeded)),
            case("to loopback", to(Ipv4Addr::LOCALHOST), Expected::Drop(Counter::Unsupported)),
            case("to broadcast", to(Ipv4Addr::BROADCAST), Expected::Drop(Counter::Unsupported)),
        ],
    );
}

#[test]
fn hosts_reach_each_other_at_whole_addresses() {
    let mut gateway = Gateway::new();
    let turned = |packet: &Ip, host| Expected::Turned(hop(packet).inside(GATEWAY, host).frame());
    let from_b = |packet: &Ip| packet.inside(HOST_B, GATEWAY).frame();
    let a_to_b = Ip::new(PUBLIC, WHOLE_PUBLIC, TCP, tcp(PORT_A, 1));
    let b_to_a = Ip::new(WHOLE_PUBLIC, PUBLIC, TCP, tcp(1, PORT_A));
    let ask = Ip::new(PUBLIC, WHOLE_PUBLIC, ICMP, echo(8, 7, 1));
    let answer = Ip::new(WHOLE_PUBLIC, PUBLIC, ICMP, echo(0, 7, 1));
    let unasked = Ip::new(WHOLE_PUBLIC, PUBLIC, ICMP, echo(0, 7, 2));
    let ping_shared = Ip::new(WHOLE_PUBLIC, PUBLIC, ICMP, echo(8, 7, 1));
    let to_itself = Ip::new(WHOLE_PUBLIC, WHOLE_PUBLIC, SCTP, vec![1; 8]);
    let to_nobody = Ip::new(WHOLE_PUBLIC, PUBLIC, UDP, udp(1, FREE, b""));
    let sctp_to_shared = Ip::new(WHOLE_PUBLIC, PUBLIC, SCTP, tcp(1, PORT_A));
    let error = Ip::new(
        WHOLE_PUBLIC,
        PUBLIC,
        ICMP,
        icmp_error(3, 3, &Ip::new(PUBLIC, WHOLE_PUBLIC, TCP, tcp(PORT_A, 1))),
    );
    gateway.check(
        programs::OUTWARD,
        vec![
            case("A to B's address", from_a(&a_to_b), turned(&a_to_b, HOST_B)),
            case("B to A's port", from_b(&b_to_a), turned(&b_to_a, HOST_A)),
            case("A pings B", from_a(&ask), turned(&ask, HOST_B)),
            case("B answers", from_b(&answer), turned(&answer, HOST_A)),
            case("B answers what nobody asked", from_b(&unasked), Expected::Drop(Counter::Unsupported)),
            case("B's error reaches A", from_b(&error), turned(&error, HOST_A)),
            case("B to itself", from_b(&to_itself), turned(&to_itself, HOST_B)),
            case("B pings a shared address", from_b(&ping_shared), Expected::Drop(Counter::Unsupported)),
            case("to a port of nobody", from_b(&to_nobody), Expected::Drop(Counter::Unsupported)),
            case("SCTP to a shared address", from_b(&sctp_to_shared), Expected::Drop(Counter::Unsupported)),
        ],
    );
}

#[test]
fn an_address_that_is_given_back_is_nobodys_at_once() {
    let mut gateway = Gateway::new();
    let ping = Ip::new(PEER, WHOLE_PUBLIC, ICMP, echo(8, 7, 1));
    let answer = Ip::new(WHOLE_PUBLIC, PEER, ICMP, echo(0, 7, 1)).inside(HOST_B, GATEWAY);
    assert_eq!((gateway.inward(&ping).action, gateway.outward(&answer).action), (REDIRECT, REDIRECT));
    gateway.ports.set(2 << 16, 0, 0).unwrap();
    gateway.forget_holder(2, HOST_B);
    assert_eq!((gateway.inward(&ping).action, gateway.outward(&answer).action), (PASS, DROP));
}

#[test]
fn congestion_marks_and_tos_are_treated_alike() {
    let mut gateway = Gateway::new();
    let marked = Ip::new(PEER, WHOLE_PUBLIC, SCTP, vec![0; 20]).tos(0xbb);
    gateway.check(programs::INWARD, vec![case("copied inward", marked.frame(), to_host(&marked, HOST_B))]);
    let inner = Ip::new(WHOLE_PUBLIC, PEER, SCTP, vec![0; 20]).tos(2);
    let outer = inner.inside(HOST_B, GATEWAY).tos(3).frame();
    gateway.check(programs::OUTWARD, vec![case("CE comes out", outer, out(&inner.clone().tos(3)))]);
}
