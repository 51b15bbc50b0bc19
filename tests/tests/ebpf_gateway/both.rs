//! What holds in both directions.

use crate::harness::*;

#[test]
fn a_port_that_is_given_back_is_nobodys_at_once() {
    let mut gateway = Gateway::new();
    let packet = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b""));
    let answer = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 5000, b"")).inside(HOST_A, GATEWAY);
    assert_eq!((gateway.inward(&packet).action, gateway.outward(&answer).action), (REDIRECT, REDIRECT));
    gateway.ports.set(u32::from(PORT_A), 0, 0).unwrap();
    assert_eq!((gateway.inward(&packet).action, gateway.outward(&answer).action), (PASS, DROP));
}

#[test]
fn no_packet_of_any_length_or_bit_upsets_it() {
    let mut gateway = Gateway::new();
    let inward = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"hello")).frame();
    let outward = from_a(&Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query")));
    for (program, packet) in [(programs::INWARD, inward), (programs::OUTWARD, outward)] {
        // Newer kernels refuse test runs of IPv4 packets without a whole header.
        for length in 14 + 20..packet.len() {
            let outcome = gateway.run(program, &packet[..length]);
            assert_ne!(outcome.action, REDIRECT, "{program}: {length} octets of {}", packet.len());
        }
        for bit in 14 * 8..packet.len() * 8 {
            let mut damaged = packet.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let outcome = gateway.run(program, &damaged);
            assert!([PASS, DROP, REDIRECT].contains(&outcome.action), "{program}: bit {bit}: {outcome:?}");
        }
    }
}
