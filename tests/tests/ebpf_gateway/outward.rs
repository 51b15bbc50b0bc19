//! From a host to the outside, and to another host of the same gateway.

use crate::harness::*;

#[test]
fn outward_lets_out_what_the_host_holds() {
    let mut gateway = Gateway::new();
    let datagram = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let segment = Ip::new(PUBLIC, PEER, TCP, tcp(PORT_A, 443)).fragment(DF).tos(0x10);
    let options = datagram.clone().with_options();
    let b = Ip::new(OTHER_PUBLIC, PEER, TCP, tcp(PORT_A, 443));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("UDP", from_a(&datagram), out(&datagram)),
            case("TCP", from_a(&segment), out(&segment)),
            case("IP options inside", from_a(&options), out(&options)),
            case("the other address", b.inside(HOST_B, GATEWAY).frame(), out(&b)),
        ],
    );
}

#[test]
fn outward_drops_what_the_host_does_not_hold() {
    let mut gateway = Gateway::new();
    let mine = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let send = |source, port| Ip::new(source, PEER, TCP, tcp(port, 443));
    let bad = || Expected::Drop(Counter::BadSource);
    let stolen = send(PUBLIC, PORT_B);
    let free = send(PUBLIC, FREE);
    let other = send(OTHER_PUBLIC, PORT_A);
    let private = send(HOST_A, PORT_A);
    let spoofed = send(PEER, PORT_A);
    gateway.check(
        programs::OUTWARD,
        vec![
            case("a port of B", from_a(&stolen), bad()),
            case("a port of nobody", from_a(&free), bad()),
            case("its own port of an address where B has it", from_a(&other), bad()),
            case("its private address", from_a(&private), bad()),
            case("somebody else's address", from_a(&spoofed), bad()),
            case("who holds nothing", mine.inside(STRANGER, GATEWAY).frame(), bad()),
            case("outer source 0.0.0.0", free.inside(Ipv4Addr::UNSPECIFIED, GATEWAY).frame(), bad()),
        ],
    );
}

#[test]
fn outward_drops_what_contradicts_itself() {
    let mut gateway = Gateway::new();
    let mine = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let malformed = || Expected::Drop(Counter::Malformed);
    let unsupported = || Expected::Drop(Counter::Unsupported);
    let mut truncated = from_a(&mine);
    truncated.truncate(14 + 20 + 22);
    let empty = Ip::new(HOST_A, GATEWAY, IPIP, vec![]);
    let half = Ip::new(HOST_A, GATEWAY, IPIP, mine.bytes()[..19].to_vec());
    let mut lies = mine.bytes();
    lies[2..4].copy_from_slice(&200u16.to_be_bytes());
    let lies = Ip::new(HOST_A, GATEWAY, IPIP, lies);
    let mut ipv6 = mine.bytes();
    ipv6[0] = 0x65;
    let ipv6 = Ip::new(HOST_A, GATEWAY, IPIP, ipv6);
    let no_ports = Ip::new(PUBLIC, PEER, UDP, vec![0, 80]);
    let outer_options = mine.inside(HOST_A, GATEWAY).with_options();
    let outer_fragment = mine.inside(HOST_A, GATEWAY).fragment(MF);
    let sctp = Ip::new(PUBLIC, PEER, 132, tcp(PORT_A, 53));
    let to = |destination| from_a(&Ip { destination, ..mine.clone() });
    gateway.check(
        programs::OUTWARD,
        vec![
            case("outer packet truncated", truncated, malformed()),
            case("nothing inside", empty.frame(), malformed()),
            case("half a header inside", half.frame(), malformed()),
            case("inner length beyond the outer one", lies.frame(), malformed()),
            case("IPv6 inside", ipv6.frame(), malformed()),
            case("no ports inside", from_a(&no_ports), malformed()),
            case("outer options", outer_options.frame(), unsupported()),
            case("outer fragment", outer_fragment.frame(), unsupported()),
            case("a protocol without ports", from_a(&sctp), unsupported()),
            case("to loopback", to(Ipv4Addr::LOCALHOST), unsupported()),
            case("to multicast", to(Ipv4Addr::new(224, 0, 0, 1)), unsupported()),
            case("to broadcast", to(Ipv4Addr::BROADCAST), unsupported()),
            case("TTL 1", from_a(&mine.clone().ttl(1)), Expected::Drop(Counter::TtlExceeded)),
            case("TTL 0", from_a(&mine.clone().ttl(0)), Expected::Drop(Counter::TtlExceeded)),
        ],
    );
}

#[test]
fn outward_leaves_alone_what_is_no_tunnel_to_us() {
    let mut gateway = Gateway::new();
    let mine = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let plain = Ip::new(HOST_A, PEER, UDP, udp(PORT_A, 53, b"query"));
    let rsip = Ip::new(HOST_A, GATEWAY, UDP, udp(4555, 4555, b"REGISTER"));
    let foreign_tunnel = mine.inside(HOST_A, PEER);
    let mut elsewhere = from_a(&mine);
    elsewhere[0..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    gateway.check(
        programs::OUTWARD,
        vec![
            case("plain traffic, for NAT beside", plain.frame(), Expected::Pass),
            case("RSIP itself", rsip.frame(), Expected::Pass),
            case("somebody else's tunnel", foreign_tunnel.frame(), Expected::Pass),
            case("a frame for another machine", elsewhere, Expected::Pass),
        ],
    );
    gateway.config.set(0, Config::default(), 0).unwrap();
    gateway.check(programs::OUTWARD, vec![case("before it is set up", from_a(&mine), Expected::Pass)]);
}

#[test]
fn congestion_marks_of_the_tunnel_come_out_of_it() {
    let mut gateway = Gateway::new();
    let capable = Ip::new(PUBLIC, PEER, TCP, tcp(PORT_A, 443)).tos(2);
    let incapable = capable.clone().tos(0);
    let marked = |inner: &Ip| inner.inside(HOST_A, GATEWAY).tos(3).frame();
    gateway.check(
        programs::OUTWARD,
        vec![
            case("ECT(0) becomes CE", marked(&capable), out(&capable.clone().tos(3))),
            case("not-ECT is dropped", marked(&incapable), Expected::Drop(Counter::Failed)),
        ],
    );
}

#[test]
fn hosts_reach_each_other_at_the_public_address() {
    let mut gateway = Gateway::new();
    let turned = |packet: &Ip, host| Expected::Turned(hop(packet).inside(GATEWAY, host).frame());
    let to_b = Ip::new(PUBLIC, PUBLIC, TCP, tcp(PORT_A, PORT_B)).tos(2);
    let to_itself = Ip::new(PUBLIC, PUBLIC, UDP, udp(PORT_A, PORT_A, b"me"));
    let to_other = Ip::new(PUBLIC, OTHER_PUBLIC, UDP, udp(PORT_A, PORT_A, b"you"));
    let to_nobody = Ip::new(PUBLIC, PUBLIC, TCP, tcp(PORT_A, FREE));
    let stolen = Ip::new(PUBLIC, PUBLIC, TCP, tcp(PORT_B, PORT_A));
    let error = Ip::new(
        PUBLIC,
        PUBLIC,
        ICMP,
        icmp_error(3, 3, &Ip::new(PUBLIC, PUBLIC, UDP, udp(PORT_B, PORT_A, b""))),
    );
    let first = Ip::new(PUBLIC, PUBLIC, UDP, udp(PORT_A, PORT_B, &[0; 64])).fragment(MF);
    let later = Ip::new(PUBLIC, PUBLIC, UDP, vec![0; 64]).fragment(9);
    gateway.check(
        programs::OUTWARD,
        vec![
            case("A to B", from_a(&to_b), turned(&to_b, HOST_B)),
            case("A to itself", from_a(&to_itself), turned(&to_itself, HOST_A)),
            case("to the other address", from_a(&to_other), turned(&to_other, HOST_B)),
            case("an error to B", from_a(&error), turned(&error, HOST_B)),
            case("first fragment", from_a(&first), turned(&first, HOST_B)),
            case("later fragment", from_a(&later), turned(&later, HOST_B)),
            case("nobody holds the port", from_a(&to_nobody), Expected::Drop(Counter::Unsupported)),
            case("from a port of B", from_a(&stolen), Expected::Drop(Counter::BadSource)),
        ],
    );
}

#[test]
fn a_marked_outer_header_is_remade_when_it_turns() {
    let mut gateway = Gateway::new();
    let inner = Ip::new(PUBLIC, PUBLIC, TCP, tcp(PORT_A, PORT_B)).tos(2);
    let expected = hop(&inner).tos(3).inside(GATEWAY, HOST_B).frame();
    gateway.check(
        programs::OUTWARD,
        vec![case("CE", inner.inside(HOST_A, GATEWAY).tos(3).frame(), Expected::Turned(expected))],
    );
}
