//! From outside to the host that holds the destination port.

use crate::harness::*;

#[test]
fn inward_goes_to_who_holds_the_destination_port() {
    let mut gateway = Gateway::new();
    let plain = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"hello"));
    let syn = Ip::new(PEER, PUBLIC, TCP, tcp(5000, PORT_B)).fragment(DF);
    let free = Ip::new(PEER, PUBLIC, TCP, tcp(5000, FREE));
    let other = Ip::new(PEER, OTHER_PUBLIC, TCP, tcp(5000, PORT_A));
    let other_free = Ip::new(PEER, OTHER_PUBLIC, TCP, tcp(5000, PORT_B));
    let marked = Ip { tos: 0xbb, ..plain.clone() };
    let options = plain.clone().with_options();
    let mut padded = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"")).frame();
    padded.resize(60, 0xee);
    let mut padded_out =
        hop(&Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b""))).inside(GATEWAY, HOST_A).frame();
    padded_out.resize(80, 0xee);
    gateway.check(
        programs::INWARD,
        vec![
            case("UDP to A", plain.frame(), to_host(&plain, HOST_A)),
            case("TCP to B", syn.frame(), to_host(&syn, HOST_B)),
            case("nobody holds the port", free.frame(), Expected::Pass),
            case("the other address has holders of its own", other.frame(), to_host(&other, HOST_B)),
            case("and free ports of its own", other_free.frame(), Expected::Pass),
            case("TOS and congestion mark are copied", marked.frame(), to_host(&marked, HOST_A)),
            case("IP options", options.frame(), to_host(&options, HOST_A)),
            case("padding of a short frame is not counted in", padded, Expected::ToHost(padded_out)),
        ],
    );
}

#[test]
fn inward_leaves_alone_what_is_not_for_a_host() {
    let mut gateway = Gateway::new();
    let hit = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"x"));
    let mut elsewhere = hit.frame();
    elsewhere[0..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    let mut other_ethertype = hit.frame();
    other_ethertype[12..14].copy_from_slice(&[0x88, 0xb5]);
    let not_ours = Ip::new(PEER, Ipv4Addr::new(203, 0, 113, 3), UDP, udp(5000, PORT_A, b"x"));
    let ping = Ip::new(PEER, PUBLIC, ICMP, echo(8, 1, 1));
    let sctp = Ip::new(PEER, PUBLIC, 132, tcp(5000, PORT_A));
    let redirect =
        Ip::new(PEER, PUBLIC, ICMP, icmp_error(5, 1, &Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 9, b""))));
    gateway.check(
        programs::INWARD,
        vec![
            case("another address", not_ours.frame(), Expected::Pass),
            case("a frame for another machine", elsewhere, Expected::Pass),
            case("not IPv4", other_ethertype, Expected::Pass),
            case("echo request from outside", ping.frame(), Expected::Pass),
            case("a protocol without ports of ours", sctp.frame(), Expected::Pass),
            case("ICMP redirect", redirect.frame(), Expected::Pass),
        ],
    );
}

#[test]
fn inward_drops_what_contradicts_itself() {
    let mut gateway = Gateway::new();
    let hit = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"hello"));
    let mut truncated = hit.frame();
    truncated.truncate(14 + 26);
    let mut version = hit.frame();
    version[14] = 0x65;
    let mut short_header = hit.frame();
    short_header[14] = 0x44;
    let mut long_header = hit.frame();
    long_header[14] = 0x4f;
    let mut lying = hit.frame();
    lying[16..18].copy_from_slice(&10u16.to_be_bytes());
    // The ports are there, but in the padding of the frame.
    let mut in_padding = hit.frame();
    in_padding[16..18].copy_from_slice(&22u16.to_be_bytes());
    let no_icmp = Ip::new(PEER, PUBLIC, ICMP, vec![0, 0, 0, 0]);
    let fits = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, &[0; 1452]));
    gateway.check(
        programs::INWARD,
        vec![
            case("truncated", truncated, Expected::Drop(Counter::Malformed)),
            case("version 6", version, Expected::Drop(Counter::Malformed)),
            case("header shorter than a header", short_header, Expected::Drop(Counter::Malformed)),
            case("header longer than the packet", long_header, Expected::Drop(Counter::Malformed)),
            case("shorter than its header", lying, Expected::Drop(Counter::Malformed)),
            case("ports beyond the end", in_padding, Expected::Drop(Counter::Malformed)),
            case("ICMP without a header", no_icmp.frame(), Expected::Drop(Counter::Malformed)),
            case("TTL 1", hit.clone().ttl(1).frame(), Expected::Drop(Counter::TtlExceeded)),
            case("TTL 0", hit.clone().ttl(0).frame(), Expected::Drop(Counter::TtlExceeded)),
            case("TTL 2", hit.clone().ttl(2).frame(), to_host(&hit.clone().ttl(2), HOST_A)),
            case("as big as the tunnel takes", fits.frame(), to_host(&fits, HOST_A)),
        ],
    );
    for source in [PUBLIC, OTHER_PUBLIC, Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED] {
        let martian = Ip { source, ..hit.clone() };
        gateway.check(
            programs::INWARD,
            vec![case("a source that cannot be outside", martian.frame(), Expected::Drop(Counter::Martian))],
        );
    }
}
