//! Remote flow policies (RFC 3103, section 7.2): with whom a port may be used, in both directions.

use crate::harness::*;

const MACRO: u32 = FLAG_REMOTE;
const MICRO: u32 = FLAG_REMOTE | FLAG_REMOTE_MICRO;
/// The peer's port under micro.
const PEER_PORT: u16 = 443;
const OTHER_PORT: u16 = 444;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn bad_remote() -> Expected {
    Expected::Drop(Counter::BadRemote)
}

/// Host A's port and host B's whole address are for [`PEER`] alone.
fn under_macro() -> Gateway {
    let mut gateway = Gateway::with_flags(MACRO);
    gateway.confine(0, PORT_A, HOST_A, PEER, 0);
    gateway.confine(2, 0, HOST_B, PEER, 0);
    gateway
}

/// The same for [`PEER_PORT`] of [`PEER`].
fn under_micro() -> Gateway {
    let mut gateway = Gateway::with_flags(MICRO);
    gateway.confine(0, PORT_A, HOST_A, PEER, PEER_PORT);
    gateway.confine(2, 0, HOST_B, PEER, PEER_PORT);
    gateway
}

fn from_b(packet: &Ip) -> Vec<u8> {
    packet.inside(HOST_B, GATEWAY).frame()
}

fn turned(packet: &Ip, host: Ipv4Addr) -> Expected {
    Expected::Turned(hop(packet).inside(GATEWAY, host).frame())
}

#[test]
fn without_a_policy_no_remote_is_looked_at() {
    let mut gateway = Gateway::new();
    gateway.confine(0, PORT_A, HOST_A, PEER, PEER_PORT);
    let inward = Ip::new(OTHER_PEER, PUBLIC, UDP, udp(OTHER_PORT, PORT_A, b""));
    let outward = Ip::new(PUBLIC, OTHER_PEER, UDP, udp(PORT_A, OTHER_PORT, b""));
    gateway.check(programs::INWARD, vec![case("in", inward.frame(), to_host(&inward, HOST_A))]);
    gateway.check(programs::OUTWARD, vec![case("out", from_a(&outward), out(&outward))]);
}

#[test]
fn macro_lets_through_one_peer_with_all_its_ports() {
    let mut gateway = under_macro();
    let inward = |peer, port| Ip::new(peer, PUBLIC, UDP, udp(port, PORT_A, b"x"));
    let outward = |peer, port| Ip::new(PUBLIC, peer, TCP, tcp(PORT_A, port));
    let free = Ip::new(OTHER_PEER, PUBLIC, TCP, tcp(1, FREE));
    let open = Ip::new(OTHER_PEER, PUBLIC, TCP, tcp(1, PORT_B));
    gateway.check(
        programs::INWARD,
        vec![
            case("the peer", inward(PEER, 1).frame(), to_host(&inward(PEER, 1), HOST_A)),
            case("another port", inward(PEER, 65535).frame(), to_host(&inward(PEER, 65535), HOST_A)),
            case("another peer", inward(OTHER_PEER, 1).frame(), bad_remote()),
            case("a port that nobody holds", free.frame(), Expected::Pass),
            case("a port for everybody", open.frame(), to_host(&open, HOST_B)),
        ],
    );
    gateway.check(
        programs::OUTWARD,
        vec![
            case("to the peer", from_a(&outward(PEER, 1)), out(&outward(PEER, 1))),
            case("to another port", from_a(&outward(PEER, 2)), out(&outward(PEER, 2))),
            case("to another peer", from_a(&outward(OTHER_PEER, 1)), bad_remote()),
        ],
    );
    assert_eq!(gateway.misuses(), [(HOST_A, MisuseKind::RemoteAddress)]);
}

#[test]
fn micro_lets_through_one_port_of_one_peer() {
    let mut gateway = under_micro();
    let inward = |peer, port| Ip::new(peer, PUBLIC, UDP, udp(port, PORT_A, b"x"));
    let outward = |peer, port| Ip::new(PUBLIC, peer, TCP, tcp(PORT_A, port));
    let right = inward(PEER, PEER_PORT);
    gateway.check(
        programs::INWARD,
        vec![
            case("the peer", right.frame(), to_host(&right, HOST_A)),
            case("another port", inward(PEER, OTHER_PORT).frame(), bad_remote()),
            case("its port, octets swapped", inward(PEER, PEER_PORT.swap_bytes()).frame(), bad_remote()),
            case("another peer", inward(OTHER_PEER, PEER_PORT).frame(), bad_remote()),
        ],
    );
    let right = outward(PEER, PEER_PORT);
    gateway.check(
        programs::OUTWARD,
        vec![
            case("to the peer", from_a(&right), out(&right)),
            case("to another port", from_a(&outward(PEER, OTHER_PORT)), bad_remote()),
            case("to another peer", from_a(&outward(OTHER_PEER, PEER_PORT)), bad_remote()),
        ],
    );
    assert_eq!(gateway.misuses(), [(HOST_A, MisuseKind::RemotePort)]);
}

#[test]
fn icmp_errors_are_about_the_one_peer() {
    for (mut gateway, right, wrong) in [
        (under_macro(), (PEER, OTHER_PORT), (OTHER_PEER, PEER_PORT)),
        (under_micro(), (PEER, PEER_PORT), (PEER, OTHER_PORT)),
        (under_micro(), (PEER, PEER_PORT), (OTHER_PEER, PEER_PORT)),
    ] {
        let sent = |(peer, port): (Ipv4Addr, u16)| Ip::new(PUBLIC, peer, UDP, udp(PORT_A, port, b"q"));
        let got = |(peer, port): (Ipv4Addr, u16)| Ip::new(peer, PUBLIC, UDP, udp(port, PORT_A, b"q"));
        let from = |source, quoted: &Ip| Ip::new(source, PUBLIC, ICMP, icmp_error(11, 0, quoted));
        let to = |destination, quoted: &Ip| Ip::new(PUBLIC, destination, ICMP, icmp_error(3, 3, quoted));
        let on_the_way = from(ROUTER, &sent(right));
        let by_the_peer = from(PEER, &sent(right));
        let about_another = from(ROUTER, &sent(wrong));
        gateway.check(
            programs::INWARD,
            vec![
                case("by a router", on_the_way.frame(), to_host(&on_the_way, HOST_A)),
                case("by the peer", by_the_peer.frame(), to_host(&by_the_peer, HOST_A)),
                case("about a datagram to somebody else", about_another.frame(), bad_remote()),
            ],
        );
        let answer = to(PEER, &got(right));
        let made_up = to(wrong.0, &got(wrong));
        let astray = to(ROUTER, &got(right));
        gateway.check(
            programs::OUTWARD,
            vec![
                case("about the peer's datagram", from_a(&answer), out(&answer)),
                case("about somebody else's", from_a(&made_up), bad_remote()),
                case("to somebody else", from_a(&astray), bad_remote()),
            ],
        );
    }
}

#[test]
fn echo_is_for_the_one_peer_under_macro() {
    let mut gateway = under_macro();
    let ask = |peer| Ip::new(PUBLIC, peer, ICMP, echo(8, 7, 1));
    let answer = |peer| Ip::new(peer, PUBLIC, ICMP, echo(0, 7, 1));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("to the peer", from_a(&ask(PEER)), out(&ask(PEER))),
            case("to another", from_a(&ask(OTHER_PEER)), bad_remote()),
        ],
    );
    assert_eq!(gateway.misuses(), [(HOST_A, MisuseKind::RemoteAddress)]);
    let unreachable = Ip::new(ROUTER, PUBLIC, ICMP, icmp_error(3, 1, &ask(PEER)));
    gateway.check(
        programs::INWARD,
        vec![
            case("the peer answers", answer(PEER).frame(), to_host(&answer(PEER), HOST_A)),
            case("another answers", answer(OTHER_PEER).frame(), Expected::Pass),
            case("an error about the request", unreachable.frame(), to_host(&unreachable, HOST_A)),
        ],
    );
}

#[test]
fn echo_has_no_port_and_so_no_place_under_micro() {
    let mut gateway = under_micro();
    let ask = Ip::new(PUBLIC, PEER, ICMP, echo(8, 7, 1));
    let whole = Ip::new(WHOLE_PUBLIC, PEER, ICMP, echo(8, 7, 1));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("of a port's holder", from_a(&ask), bad_remote()),
            case("of an address's holder", from_b(&whole), bad_remote()),
        ],
    );
    assert_eq!(gateway.misuses(), [(HOST_A, MisuseKind::RemotePort), (HOST_B, MisuseKind::RemotePort)]);
    let ask = Ip::new(PEER, WHOLE_PUBLIC, ICMP, echo(8, 7, 1));
    gateway.check(programs::INWARD, vec![case("to a whole address", ask.frame(), bad_remote())]);
}

#[test]
fn an_answer_comes_too_late_for_a_host_whose_lease_has_ended() {
    let mut gateway = under_macro();
    let ask = Ip::new(PUBLIC, PEER, ICMP, echo(8, 7, 1));
    let answer = Ip::new(PEER, PUBLIC, ICMP, echo(0, 7, 1));
    gateway.check(programs::OUTWARD, vec![case("asked", from_a(&ask), out(&ask))]);
    gateway.confine(0, PORT_A, HOST_A, OTHER_PEER, 0);
    gateway.check(programs::INWARD, vec![case("answered", answer.frame(), Expected::Pass)]);
}

#[test]
fn fragments_follow_the_first_one_that_was_let_through() {
    for mut gateway in [under_macro(), under_micro()] {
        for (local, host) in [(PUBLIC, HOST_A), (WHOLE_PUBLIC, HOST_B)] {
            let first = |peer, identification| {
                let payload = udp(PEER_PORT, PORT_A, &[1; 64]);
                Ip::new(peer, local, UDP, payload).fragment(MF).identification(identification)
            };
            let later = |peer, identification| {
                Ip::new(peer, local, UDP, vec![2; 32]).fragment(9).identification(identification)
            };
            let (right, wrong) = (first(PEER, 5), first(OTHER_PEER, 6));
            gateway.check(
                programs::INWARD,
                vec![
                    case("first of the peer", right.frame(), to_host(&right, host)),
                    case("its later one", later(PEER, 5).frame(), to_host(&later(PEER, 5), host)),
                    case("first of another", wrong.frame(), bad_remote()),
                ],
            );
            let stray = gateway.inward(&later(OTHER_PEER, 6));
            assert_ne!(stray.action, REDIRECT, "the later one of another: {local}");

            let first = |peer, identification| {
                let payload = udp(PORT_A, PEER_PORT, &[1; 64]);
                Ip::new(local, peer, UDP, payload).fragment(MF).identification(identification)
            };
            let later = |peer, identification| {
                Ip::new(local, peer, UDP, vec![2; 32]).fragment(9).identification(identification)
            };
            let inside = |packet: &Ip| packet.inside(host, GATEWAY).frame();
            let (right, wrong) = (first(PEER, 7), first(OTHER_PEER, 8));
            gateway.check(
                programs::OUTWARD,
                vec![
                    case("first to the peer", inside(&right), out(&right)),
                    case("its later one", inside(&later(PEER, 7)), out(&later(PEER, 7))),
                    case("first to another", inside(&wrong), bad_remote()),
                ],
            );
            let stray = gateway.outward(&later(OTHER_PEER, 8).inside(host, GATEWAY));
            assert_eq!(stray.action, DROP, "the later one to another: {local}");
        }
    }
}

#[test]
fn a_whole_address_under_macro_is_for_one_peer_whatever_the_protocol() {
    let mut gateway = under_macro();
    for (name, protocol, payload) in [
        ("TCP", TCP, tcp(1, 2)),
        ("UDP", UDP, udp(1, 2, b"")),
        ("echo request", ICMP, echo(8, 1, 1)),
        ("echo reply", ICMP, echo(0, 1, 1)),
        ("SCTP", SCTP, tcp(1, 2)),
        ("GRE", GRE, gre(0, &[0; 20])),
    ] {
        let inward = |peer| Ip::new(peer, WHOLE_PUBLIC, protocol, payload.clone());
        let outward = |peer| Ip::new(WHOLE_PUBLIC, peer, protocol, payload.clone());
        gateway.check(
            programs::INWARD,
            vec![
                case(name, inward(PEER).frame(), to_host(&inward(PEER), HOST_B)),
                case(name, inward(OTHER_PEER).frame(), bad_remote()),
                case(name, inward(PEER).fragment(9).frame(), to_host(&inward(PEER).fragment(9), HOST_B)),
                case(name, inward(OTHER_PEER).fragment(9).frame(), bad_remote()),
            ],
        );
        gateway.check(
            programs::OUTWARD,
            vec![
                case(name, from_b(&outward(PEER)), out(&outward(PEER))),
                case(name, from_b(&outward(OTHER_PEER)), bad_remote()),
                case(name, from_b(&outward(PEER).fragment(9)), out(&outward(PEER).fragment(9))),
                case(name, from_b(&outward(OTHER_PEER).fragment(9)), bad_remote()),
            ],
        );
    }
    assert_eq!(gateway.misuses(), [(HOST_B, MisuseKind::RemoteAddress)]);
}

#[test]
fn a_whole_address_under_micro_is_for_one_port_of_one_peer() {
    let mut gateway = under_micro();
    let inward = |peer, port| Ip::new(peer, WHOLE_PUBLIC, TCP, tcp(port, 5000));
    let outward = |peer, port| Ip::new(WHOLE_PUBLIC, peer, UDP, udp(5000, port, b""));
    let right = inward(PEER, PEER_PORT);
    let sctp = Ip::new(PEER, WHOLE_PUBLIC, SCTP, tcp(PEER_PORT, 5000));
    let unheard = Ip::new(PEER, WHOLE_PUBLIC, TCP, vec![0; 32]).fragment(9).identification(99);
    let no_ports = Ip::new(PEER, WHOLE_PUBLIC, UDP, vec![0, 80]);
    gateway.check(
        programs::INWARD,
        vec![
            case("the peer", right.frame(), to_host(&right, HOST_B)),
            case("another port", inward(PEER, OTHER_PORT).frame(), bad_remote()),
            case("another peer", inward(OTHER_PEER, PEER_PORT).frame(), bad_remote()),
            case("no ports of ours", sctp.frame(), bad_remote()),
            case("a later fragment without a first one", unheard.frame(), bad_remote()),
            case("ports cut off", no_ports.frame(), Expected::Drop(Counter::Malformed)),
        ],
    );
    let right = outward(PEER, PEER_PORT);
    let sctp = Ip::new(WHOLE_PUBLIC, PEER, SCTP, tcp(5000, PEER_PORT));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("to the peer", from_b(&right), out(&right)),
            case("to another port", from_b(&outward(PEER, OTHER_PORT)), bad_remote()),
            case("to another peer", from_b(&outward(OTHER_PEER, PEER_PORT)), bad_remote()),
            case("no ports of ours", from_b(&sctp), bad_remote()),
        ],
    );
}

#[test]
fn icmp_errors_of_a_whole_address_are_about_the_one_peer() {
    for (mut gateway, right, wrong) in [
        (under_macro(), (PEER, OTHER_PORT), (OTHER_PEER, PEER_PORT)),
        (under_micro(), (PEER, PEER_PORT), (PEER, OTHER_PORT)),
    ] {
        let sent = |(peer, port): (Ipv4Addr, u16)| Ip::new(WHOLE_PUBLIC, peer, TCP, tcp(5000, port));
        let got = |(peer, port): (Ipv4Addr, u16)| Ip::new(peer, WHOLE_PUBLIC, TCP, tcp(port, 5000));
        let from = |source, quoted: &Ip| Ip::new(source, WHOLE_PUBLIC, ICMP, icmp_error(3, 1, quoted));
        let to =
            |destination, quoted: &Ip| Ip::new(WHOLE_PUBLIC, destination, ICMP, icmp_error(3, 3, quoted));
        let on_the_way = from(ROUTER, &sent(right));
        let of_another = from(ROUTER, &Ip { source: PUBLIC, ..sent(right) });
        let mut cut = on_the_way.clone();
        cut.payload.truncate(8 + 10);
        gateway.check(
            programs::INWARD,
            vec![
                case("by a router", on_the_way.frame(), to_host(&on_the_way, HOST_B)),
                case("about a datagram to somebody else", from(ROUTER, &sent(wrong)).frame(), bad_remote()),
                case("about a datagram from another address", of_another.frame(), bad_remote()),
                case("quotes too little", cut.frame(), bad_remote()),
            ],
        );
        let answer = to(PEER, &got(right));
        gateway.check(
            programs::OUTWARD,
            vec![
                case("about the peer's datagram", from_b(&answer), out(&answer)),
                case("about somebody else's", from_b(&to(PEER, &got(wrong))), bad_remote()),
                case("to somebody else", from_b(&to(ROUTER, &got(right))), bad_remote()),
            ],
        );
    }
    // What has no ports has no right port either, whatever stands in its place.
    let sctp = Ip::new(WHOLE_PUBLIC, PEER, SCTP, tcp(5000, PEER_PORT));
    let error = Ip::new(ROUTER, WHOLE_PUBLIC, ICMP, icmp_error(3, 1, &sctp));
    under_macro().check(programs::INWARD, vec![case("macro", error.frame(), to_host(&error, HOST_B))]);
    under_micro().check(programs::INWARD, vec![case("micro", error.frame(), bad_remote())]);

    // A fragment that is quoted has no ports, but the first one had.
    let mut gateway = under_micro();
    let first =
        Ip::new(WHOLE_PUBLIC, PEER, UDP, udp(5000, PEER_PORT, &[1; 64])).fragment(MF).identification(3);
    let later = Ip::new(WHOLE_PUBLIC, PEER, UDP, vec![2; 32]).fragment(9).identification(3);
    let unheard = later.clone().identification(4);
    let error = |quoted: &Ip| Ip::new(ROUTER, WHOLE_PUBLIC, ICMP, icmp_error(11, 1, quoted));
    gateway.check(programs::OUTWARD, vec![case("first", from_b(&first), out(&first))]);
    gateway.check(
        programs::INWARD,
        vec![
            case("quotes a later fragment", error(&later).frame(), to_host(&error(&later), HOST_B)),
            case("quotes one that nobody sent", error(&unheard).frame(), bad_remote()),
        ],
    );
}

#[test]
fn between_hosts_the_policy_of_both_counts() {
    let mut gateway = Gateway::with_flags(MACRO);
    gateway.confine(0, PORT_A, HOST_A, WHOLE_PUBLIC, 0);
    gateway.confine(2, 0, HOST_B, PUBLIC, 0);
    let a_to_b = Ip::new(PUBLIC, WHOLE_PUBLIC, TCP, tcp(PORT_A, 80));
    let b_to_a = Ip::new(WHOLE_PUBLIC, PUBLIC, TCP, tcp(80, PORT_A));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("A to B", from_a(&a_to_b), turned(&a_to_b, HOST_B)),
            case("B to A", from_b(&b_to_a), turned(&b_to_a, HOST_A)),
        ],
    );
    // B is for the peer outside now: A may send, but B does not get it, and nobody is to blame.
    gateway.confine(2, 0, HOST_B, PEER, 0);
    gateway.check(
        programs::OUTWARD,
        vec![case("A to B, who is for somebody else", from_a(&a_to_b), bad_remote())],
    );
    assert_eq!(gateway.misuses(), []);
    gateway.check(programs::OUTWARD, vec![case("B to A", from_b(&b_to_a), bad_remote())]);
    assert_eq!(gateway.misuses(), [(HOST_B, MisuseKind::RemoteAddress)]);
}
