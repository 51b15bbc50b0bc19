//! What has no port and follows something that had one: ICMP and fragments.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rsip_ebpf_common::gateway::Fragment;

use crate::harness::*;

#[test]
fn icmp_errors_go_to_who_sent_the_quoted_datagram() {
    let mut gateway = Gateway::new();
    let sent = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"query"));
    let error = |quoted: &Ip| Ip::new(PEER, PUBLIC, ICMP, icmp_error(3, 3, quoted));
    let unreachable = error(&sent);
    let exceeded = Ip::new(Ipv4Addr::new(192, 0, 2, 1), PUBLIC, ICMP, icmp_error(11, 0, &sent));
    let with_options = error(&sent.clone().with_options());
    let of_b = error(&Ip::new(PUBLIC, PEER, TCP, tcp(PORT_B, 443)));
    let of_nobody = error(&Ip::new(PUBLIC, PEER, TCP, tcp(FREE, 443)));
    let foreign = error(&Ip::new(OTHER_PUBLIC, PEER, UDP, udp(PORT_A, 53, b"")));
    let mut cut = Ip::new(PEER, PUBLIC, ICMP, icmp_error(3, 3, &sent));
    cut.payload.truncate(8 + 20 + 2);
    let other_protocol = error(&Ip::new(PUBLIC, PEER, 132, tcp(PORT_A, 53)));
    gateway.check(
        programs::INWARD,
        vec![
            case("port unreachable", unreachable.frame(), to_host(&unreachable, HOST_A)),
            case("time exceeded, from a router", exceeded.frame(), to_host(&exceeded, HOST_A)),
            case("the quoted header has options", with_options.frame(), to_host(&with_options, HOST_A)),
            case("of B's datagram", of_b.frame(), to_host(&of_b, HOST_B)),
            case("of a port that nobody holds", of_nobody.frame(), Expected::Pass),
            case("quotes another address than it was sent to", foreign.frame(), Expected::Pass),
            case("quotes too little", cut.frame(), Expected::Pass),
            case("quotes a protocol without ports", other_protocol.frame(), Expected::Pass),
        ],
    );
}

#[test]
fn echo_replies_go_to_who_asked() {
    let mut gateway = Gateway::new();
    let request = |identifier, sequence| Ip::new(PUBLIC, PEER, ICMP, echo(8, identifier, sequence));
    let reply = |identifier, sequence| Ip::new(PEER, PUBLIC, ICMP, echo(0, identifier, sequence));
    let (of_a, of_b) = (request(7, 1), request(7, 2));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("A asks", from_a(&of_a), out(&of_a)),
            case("B asks with the same identifier", of_b.inside(HOST_B, GATEWAY).frame(), out(&of_b)),
            case(
                "a host without ports of the address",
                of_a.inside(STRANGER, GATEWAY).frame(),
                Expected::Drop(Counter::BadSource),
            ),
            case(
                "A, of an address where it has nothing",
                from_a(&Ip { source: OTHER_PUBLIC, ..of_a.clone() }),
                Expected::Drop(Counter::BadSource),
            ),
            case(
                "a host answers what nobody forwarded",
                from_a(&Ip::new(PUBLIC, PEER, ICMP, echo(0, 7, 1))),
                Expected::Drop(Counter::Unsupported),
            ),
        ],
    );
    let elsewhere = Ip { source: Ipv4Addr::new(192, 0, 2, 1), ..reply(7, 1) };
    let exceeded = Ip::new(PEER, PUBLIC, ICMP, icmp_error(11, 0, &of_b));
    gateway.check(
        programs::INWARD,
        vec![
            case("to A", reply(7, 1).frame(), to_host(&reply(7, 1), HOST_A)),
            case("to B", reply(7, 2).frame(), to_host(&reply(7, 2), HOST_B)),
            case("an answer of the stack's own question", reply(7, 3).frame(), Expected::Pass),
            case("from somebody who was not asked", elsewhere.frame(), Expected::Pass),
            case("an error about B's question", exceeded.frame(), to_host(&exceeded, HOST_B)),
        ],
    );
}

#[test]
fn errors_of_hosts_leave_if_they_got_the_datagram() {
    let mut gateway = Gateway::new();
    let error = |quoted: &Ip| Ip::new(PUBLIC, PEER, ICMP, icmp_error(3, 3, quoted));
    let got = error(&Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_A, b"")));
    let of_b = error(&Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_B, b"")));
    let of_other = error(&Ip::new(PEER, OTHER_PUBLIC, UDP, udp(5000, PORT_A, b"")));
    let made_up = error(&Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, b"")));
    gateway.check(
        programs::OUTWARD,
        vec![
            case("about what it got", from_a(&got), out(&got)),
            case("about what B got", from_a(&of_b), Expected::Drop(Counter::BadSource)),
            case(
                "about what came to an address where it has nothing",
                from_a(&of_other),
                Expected::Drop(Counter::BadSource),
            ),
            case("about what nobody got", from_a(&made_up), Expected::Drop(Counter::BadSource)),
        ],
    );
}

#[test]
fn fragments_follow_the_first() {
    let mut gateway = Gateway::new();
    let first = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_B, &[1; 64])).fragment(MF);
    let later = Ip::new(PEER, PUBLIC, UDP, vec![2; 32]).fragment(9);
    let quoted = Ip::new(PEER, PUBLIC, ICMP, icmp_error(11, 1, &later));
    let unheard = later.clone().identification(1);
    let free = Ip::new(PEER, PUBLIC, UDP, udp(5000, FREE, &[1; 64])).fragment(MF).identification(2);
    let free_later = later.clone().identification(2);
    assert_eq!(gateway.inward(&later).action, PASS, "nothing is known of it yet");
    gateway.check(
        programs::INWARD,
        vec![
            case("first", first.frame(), to_host(&first, HOST_B)),
            case("later", later.frame(), to_host(&later, HOST_B)),
            case("of another datagram", unheard.frame(), Expected::Pass),
            case("first to nobody", free.frame(), Expected::Pass),
            case("later to nobody", free_later.frame(), Expected::Pass),
            case("an error about the peer's own datagram", quoted.frame(), Expected::Pass),
        ],
    );

    let first = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, &[1; 64])).fragment(MF).identification(5);
    let later = Ip::new(PUBLIC, PEER, UDP, vec![2; 32]).fragment(9).identification(5);
    let error = Ip::new(PEER, PUBLIC, ICMP, icmp_error(11, 1, &later));
    assert_eq!(gateway.outward(&later.inside(HOST_A, GATEWAY)).action, DROP, "the first one is missing");
    gateway.check(
        programs::OUTWARD,
        vec![
            case("first", from_a(&first), out(&first)),
            case("later", from_a(&later), out(&later)),
            case(
                "later, of another host",
                later.inside(HOST_B, GATEWAY).frame(),
                Expected::Drop(Counter::Unsupported),
            ),
        ],
    );
    gateway.check(
        programs::INWARD,
        vec![case("an error that quotes a later fragment", error.frame(), to_host(&error, HOST_A))],
    );
}

#[test]
fn later_fragments_are_waited_for_half_a_minute() {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut gateway = Gateway::new();
    let first = Ip::new(PEER, PUBLIC, UDP, udp(5000, PORT_B, &[1; 64])).fragment(MF);
    let later = Ip::new(PEER, PUBLIC, UDP, vec![2; 32]).fragment(9);
    let own_first = Ip::new(PUBLIC, PEER, UDP, udp(PORT_A, 53, &[1; 64])).fragment(MF);
    let own_later = Ip::new(PUBLIC, PEER, UDP, vec![2; 32]).fragment(9);
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    let before = now();
    assert_eq!(gateway.inward(&first).action, REDIRECT);
    assert_eq!(gateway.outward(&own_first.inside(HOST_A, GATEWAY)).action, REDIRECT);
    let after = now();
    for memory in &mut gateway.fragments {
        let entries: Vec<_> = memory.iter().map(Result::unwrap).collect();
        let [(key, entry)] = entries[..] else { unreachable!("{entries:?}") };
        let until = Duration::from_nanos(entry.until_ns);
        assert!((before + LIMIT..=after + LIMIT).contains(&until), "{until:?}, now {after:?}");
        // As if the time were over.
        let ended = u64::try_from(after.as_nanos()).unwrap();
        memory.insert(key, Fragment { until_ns: ended, ..entry }, 0).unwrap();
    }
    gateway.check(programs::INWARD, vec![case("too late", later.frame(), Expected::Pass)]);
    gateway.check(
        programs::OUTWARD,
        vec![case("too late", from_a(&own_later), Expected::Drop(Counter::Unsupported))],
    );
}
