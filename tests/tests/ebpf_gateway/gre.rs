//! Tunnels of two types at one gateway: each host has its own.

use rsip_lab::bpf::packet::checksum;

use crate::harness::*;

/// Host A has a GRE tunnel, host B one of the usual type.
fn gateway() -> Gateway {
    let mut gateway = Gateway::with_flags(FLAG_GRE);
    gateway.uses_gre(HOST_A);
    gateway
}

fn to_a() -> Ip {
    Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"hello"))
}

fn of_a() -> Ip {
    Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 5000, b"hello"))
}

fn of_b() -> Ip {
    Ip::new(PUBLIC, PEER, UDP, udp(PORT_B, 5000, b"hello"))
}

/// From host A, in a GRE header with these flags and optional fields.
fn from_a_with(flags: u16, fields: &[u8], inner: &Ip) -> Ip {
    let payload = gre(flags, &[fields, &inner.bytes()].concat());
    Ip { protocol: GRE, payload, ..inner.inside(HOST_A, GATEWAY) }
}

#[test]
fn each_host_gets_its_packets_in_its_own_tunnel() {
    let mut gateway = gateway();
    let to_b = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_B, b"hello"));
    let fits = Ip { payload: udp(5000, PORT_A, &[0; 1448]), ..to_a() }.fragment(DF);
    let in_gre = |packet: &Ip| Expected::ToHost(hop(packet).inside_gre(GATEWAY, HOST_A).frame());
    gateway.check(
        programs::INWARD,
        vec![
            case("GRE to A", to_a().frame(), in_gre(&to_a())),
            case("IP-IP to B", to_b.frame(), to_host(&to_b, HOST_B)),
            case("as big as GRE takes", fits.frame(), in_gre(&fits)),
        ],
    );
    let big = Ip { payload: udp(5000, PORT_A, &[0; 1449]), ..to_a() }.fragment(DF);
    let told = gateway.inward(&big);
    assert_eq!(told.action, REDIRECT);
    assert_eq!(told.packet[34..42], [3, 4, told.packet[36], told.packet[37], 0, 0, 0x05, 0xc4], "1476 fit");
}

#[test]
fn each_host_sends_through_its_own_tunnel_only() {
    let mut gateway = gateway();
    let summed = |wrong: u8| {
        let mut packet = from_a_with(0x8000, &[0, 0, 0, 0], &of_a());
        let sum = checksum(&packet.payload);
        packet.payload[4..6].copy_from_slice(&sum.to_be_bytes());
        packet.payload[4] ^= wrong;
        packet
    };
    let dropped = |name, packet: Ip, why| case(name, packet.frame(), Expected::Drop(why));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("GRE of A", of_a().inside_gre(HOST_A, GATEWAY).frame(), out(&of_a())),
            case("IP-IP of B", of_b().inside(HOST_B, GATEWAY).frame(), out(&of_b())),
            case(
                "reserved bits that are to be ignored",
                from_a_with(0x03f8, &[], &of_a()).frame(),
                out(&of_a()),
            ),
            case("a right checksum", summed(0).frame(), out(&of_a())),
            dropped("a wrong checksum", summed(1), Counter::BadGre),
            dropped("a key", from_a_with(0x2000, &[0, 0, 0, 1], &of_a()), Counter::BadGre),
            dropped("a sequence number", from_a_with(0x1000, &[0, 0, 0, 1], &of_a()), Counter::BadGre),
            dropped("routing", from_a_with(0x4000, &[0; 8], &of_a()), Counter::BadGre),
            dropped("version 1", from_a_with(0x0001, &[], &of_a()), Counter::BadGre),
            dropped("IP-IP of A", of_a().inside(HOST_A, GATEWAY), Counter::BadTunnel),
            dropped("GRE of B", of_b().inside_gre(HOST_B, GATEWAY), Counter::BadTunnel),
            dropped("what is B's", of_b().inside_gre(HOST_A, GATEWAY), Counter::BadSource),
        ],
    );
    let tunnel = |host| (host, MisuseKind::Tunnel);
    let reports = gateway.misuses();
    assert!(reports.contains(&tunnel(HOST_A)) && reports.contains(&tunnel(HOST_B)), "{reports:?}");
    let cut = Ip { payload: vec![0, 0], ..of_a().inside_gre(HOST_A, GATEWAY) };
    assert_eq!(gateway.outward(&cut).action, DROP);
}

#[test]
fn hosts_with_different_tunnels_reach_each_other() {
    let mut gateway = gateway();
    let there = Ip::new(PUBLIC, PUBLIC, UDP, udp(PORT_A, PORT_B, b"hello"));
    let back = Ip::new(PUBLIC, PUBLIC, UDP, udp(PORT_B, PORT_A, b"hello"));
    gateway.check(
        programs::OUTWARD,
        vec![
            case(
                "from GRE to IP-IP",
                there.inside_gre(HOST_A, GATEWAY).frame(),
                Expected::Turned(hop(&there).inside(GATEWAY, HOST_B).frame()),
            ),
            case(
                "from IP-IP to GRE",
                back.inside(HOST_B, GATEWAY).frame(),
                Expected::Turned(hop(&back).inside_gre(GATEWAY, HOST_A).frame()),
            ),
        ],
    );
}

#[test]
fn what_is_too_big_stays_in_its_tunnel() {
    let mut gateway = gateway();
    let mut config = gateway.config.get(&0, 0).unwrap();
    config.external_mtu = 1300;
    gateway.config.set(0, config, 0).unwrap();
    let data: Vec<u8> = (0..1400_u32).map(|octet| (octet % 251) as u8).collect();
    let big = Ip { payload: udp(PORT_A, 5000, &data), ..of_a() };
    let rest = Ip { payload: big.payload[1280..].to_vec(), ..big.clone() }.fragment(1280 / 8);
    let outcome = gateway.outward(&big.inside_gre(HOST_A, GATEWAY));
    assert_eq!((outcome.action, outcome.packet), (REDIRECT, rest.inside_gre(HOST_A, GATEWAY).frame()));
    let told = gateway.outward(&big.fragment(DF).inside_gre(HOST_A, GATEWAY));
    assert_eq!(told.action, REDIRECT);
    assert_eq!(told.packet[14 + 9], GRE, "the answer is in the tunnel");
    assert_eq!(told.packet[14 + 24 + 20..][..2], [3, 4]);
}
