//! What is too big: octet for octet what its sender is told, and what becomes of it where it may be fragmented.

use rsip_lab::bpf::packet::{checksum, frame};

use crate::harness::*;

/// Of a datagram, quoted by the gateway.
const QUOTE: usize = 128;

/// The datagram that tells the sender of `about` what fits.
fn needed(about: &Ip, mtu: u16) -> Ip {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&about.bytes()[..QUOTE]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ip::new(about.destination, about.source, ICMP, message).fragment(DF).identification(0).tos(0xc0)
}

/// A router between gateway and host says that this tunnelled datagram did not fit.
fn narrow(tunnelled: &Ip, mtu: u16) -> Ip {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend_from_slice(&mtu.to_be_bytes());
    message.extend_from_slice(&tunnelled.bytes()[..28]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ip::new(STRANGER, tunnelled.source, ICMP, message)
}

fn from_outside(size: usize) -> Ip {
    let data: Vec<u8> = (0..size).map(|octet| u8::try_from(octet % 251).unwrap()).collect();
    Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, &data))
}

fn to_outside(size: usize) -> Ip {
    let back = from_outside(size);
    let payload = udp(PORT_A, 5000, &back.payload[8..]);
    Ip { source: PUBLIC, destination: PEER, payload, ..back }
}

/// Runs a packet that is dropped or sent on; gives its verdict, what is left of it, and which counters moved.
fn run(gateway: &mut Gateway, program: &str, packet: &[u8]) -> (i32, Vec<u8>, Vec<usize>) {
    let before = gateway.counters();
    let outcome = gateway.run(program, packet);
    let after = gateway.counters();
    let counted = (0..after.len()).filter(|&i| after[i] != before[i]).collect();
    (outcome.action, outcome.packet, counted)
}

const TOLD: [usize; 2] = [Counter::TooBig as usize, Counter::TooBigTold as usize];

#[test]
fn who_forbids_fragments_is_told_what_fits() {
    let mut gateway = Gateway::new();
    let inwards = from_outside(1453).fragment(DF);
    let told = (REDIRECT, needed(&inwards, 1480).frame(), TOLD.to_vec());
    assert_eq!(run(&mut gateway, programs::INWARD, &inwards.frame()), told);
    // With options the quote has room for more of the payload than anybody needs.
    let options = from_outside(1453).fragment(DF).with_options();
    let told = (REDIRECT, needed(&options, 1480).frame(), TOLD.to_vec());
    assert_eq!(run(&mut gateway, programs::INWARD, &options.frame()), told);

    // Towards a narrow outside, and the way back is the tunnel.
    let mut config = gateway.config.get(&0, 0).unwrap();
    config.external_mtu = 1300;
    gateway.config.set(0, config, 0).unwrap();
    let outwards = to_outside(1400).fragment(DF);
    let back = needed(&outwards, 1300).inside(GATEWAY, HOST_A);
    assert_eq!(
        run(&mut gateway, programs::OUTWARD, &from_a(&outwards)),
        (REDIRECT, back.frame(), TOLD.to_vec())
    );
}

#[test]
fn nobody_is_told_about_errors_later_fragments_or_too_often() {
    let mut gateway = Gateway::new();
    let dropped = (DROP, vec![Counter::TooBig as usize]);
    let verdict = |gateway: &mut Gateway, packet: &Ip| {
        let (action, _, counted) = run(gateway, programs::INWARD, &packet.frame());
        (action, counted)
    };
    let mut error = icmp_error(3, 3, &to_outside(10));
    error.resize(1470, 0);
    let error = Ip::new(PEER, PUBLIC, ICMP, error).fragment(DF);
    assert_eq!(verdict(&mut gateway, &error), dropped);
    let first = from_outside(100).fragment(MF);
    assert_eq!(verdict(&mut gateway, &first).0, REDIRECT);
    let later = Ip { payload: vec![1; 1464], ..from_outside(0) }.fragment(DF | 20);
    assert_eq!(verdict(&mut gateway, &later), dropped);

    let inwards = from_outside(1453).fragment(DF);
    let told = (0..2000).filter(|_| verdict(&mut gateway, &inwards).0 == REDIRECT).count();
    assert!((1..2000).contains(&told), "{told} of 2000");
}

#[test]
fn what_may_be_fragmented_is_split_and_comes_in_again() {
    let mut gateway = Gateway::new();
    let split = vec![Counter::Split as usize];
    // 1480 take 1460 octets of payload, 1456 in units of eight.
    let inwards = from_outside(1992);
    let rest = Ip { payload: inwards.payload[1456..].to_vec(), ..inwards.clone() }.fragment(1456 / 8);
    assert_eq!(
        run(&mut gateway, programs::INWARD, &inwards.frame()),
        (REDIRECT, rest.frame(), split.clone())
    );
    // A piece of a datagram keeps its place in it.
    let middle = Ip { payload: vec![9; 1992], ..from_outside(0) }.fragment(MF | 100);
    let first = from_outside(100).fragment(MF);
    run(&mut gateway, programs::INWARD, &first.frame());
    let rest =
        Ip { payload: middle.payload[1456..].to_vec(), ..middle.clone() }.fragment(MF | (100 + 1456 / 8));
    assert_eq!(run(&mut gateway, programs::INWARD, &middle.frame()), (REDIRECT, rest.frame(), split.clone()));
    // The first part is sent without what follows it.
    let marked = Ip { payload: inwards.payload[..1456].to_vec(), ..inwards.clone() }.fragment(MF);
    let mut copy = marked.bytes();
    copy.extend_from_slice(&inwards.payload[1456..]);
    let (action, out, _) = run(&mut gateway, programs::INWARD, &frame(&copy));
    assert_eq!((action, out), (REDIRECT, hop(&marked).inside(GATEWAY, HOST_A).frame()));

    let mut config = gateway.config.get(&0, 0).unwrap();
    config.external_mtu = 1300;
    gateway.config.set(0, config, 0).unwrap();
    let outwards = to_outside(1400);
    let rest = Ip { payload: outwards.payload[1280..].to_vec(), ..outwards.clone() }.fragment(1280 / 8);
    assert_eq!(
        run(&mut gateway, programs::OUTWARD, &from_a(&outwards)),
        (REDIRECT, rest.inside(HOST_A, GATEWAY).frame(), split)
    );
    // No room for options in what a cut can do.
    let options = from_outside(1992).with_options();
    let (action, _, counted) = run(&mut gateway, programs::INWARD, &options.frame());
    assert_eq!((action, counted), (DROP, vec![Counter::TooBig as usize]));
}

#[test]
fn a_narrow_path_to_one_host_is_that_hosts_alone() {
    let mut gateway = Gateway::new();
    let to_a = from_outside(1400).fragment(DF);
    let to_b = Ip { payload: udp(5000, PORT_B, &[0; 1400]), ..to_a.clone() };
    let tunnelled = hop(&to_a).inside(GATEWAY, HOST_A);
    let hears = |gateway: &mut Gateway, packet: &Ip| {
        let outcome = gateway.outward(packet);
        assert_eq!((outcome.action, outcome.packet), (PASS, packet.frame()), "the stack may hear it too");
    };
    // About packets that are none of ours, nothing is learnt.
    let foreign = [
        narrow(&Ip { source: STRANGER, ..tunnelled.clone() }, 1000),
        narrow(&Ip { protocol: UDP, ..tunnelled.clone() }, 1000),
        Ip::new(STRANGER, GATEWAY, ICMP, echo(8, 1, 1)),
        Ip::new(STRANGER, GATEWAY, ICMP, icmp_error(3, 3, &tunnelled)),
        narrow(&tunnelled, 1000).fragment(MF),
    ];
    for packet in &foreign {
        hears(&mut gateway, &Ip { destination: GATEWAY, ..packet.clone() });
    }
    gateway.check(programs::INWARD, vec![case("wide", to_a.frame(), to_host(&to_a, HOST_A))]);
    for (said, taken) in [(1400, 1380), (0, 556), (100, 532)] {
        hears(&mut gateway, &narrow(&tunnelled, said));
        let told = (REDIRECT, needed(&to_a, taken).frame(), TOLD.to_vec());
        assert_eq!(run(&mut gateway, programs::INWARD, &to_a.frame()), told, "a router says {said}");
        gateway.check(programs::INWARD, vec![case("to another host", to_b.frame(), to_host(&to_b, HOST_B))]);
    }
    let small = from_outside(400).fragment(DF);
    gateway.check(programs::INWARD, vec![case("fits anywhere", small.frame(), to_host(&small, HOST_A))]);
}
