//! What is no good request, and which of several errors is told.

use rsip_proto::gateway::GatewayConfig;
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::{Body, ErrorCode, Message, Ports};

use crate::rig::*;

/// What it is, its bytes, and the error that it gets (code and counter) over UDP and, where it can come, over TCP.
type Case = (&'static str, &'static [u8], (u16, u32), Option<(u16, Option<u32>)>);

const TABLE: &[Case] = &[
    ("nothing", &[], (207, 0), None),
    ("three bytes", &[1, 2, 0], (207, 0), None),
    ("version 2", &[2, 2, 0, 4], (106, 0), Some((106, None))),
    ("longer than it says", &[1, 2, 0, 4, 0], (207, 0), Some((207, None))),
    ("shorter than it says", &[1, 2, 0, 11], (207, 0), Some((207, None))),
    ("unknown type", &[1, 99, 0, 4], (206, 0), Some((206, None))),
    ("unknown type with counter", &[1, 99, 0, 11, 11, 0, 4, 0, 0, 0, 5], (206, 5), Some((206, Some(5)))),
    ("RSIPSEC", &[1, 22, 0, 4], (208, 0), Some((208, None))),
    ("a parameter that runs out", &[1, 2, 0, 8, 11, 0, 4, 0], (207, 0), Some((207, None))),
    ("no counter", &[1, 2, 0, 4], (105, 0), None),
    ("no counter before a bad parameter", &[1, 2, 0, 8, 4, 0, 1, 0], (105, 0), Some((203, None))),
    ("counter 0", &[1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 0], (205, 0), Some((205, Some(0)))),
    ("counter of 3 bytes", &[1, 2, 0, 10, 11, 0, 3, 0, 0, 1], (205, 0), Some((205, None))),
    ("unknown parameter", &[1, 2, 0, 14, 11, 0, 4, 0, 0, 0, 6, 99, 0, 0], (204, 6), Some((204, Some(6)))),
    ("a response", &[1, 5, 0, 11, 4, 0, 4, 0, 0, 0, 1], (206, 0), Some((206, None))),
    ("a response that is broken", &[1, 5, 0, 8, 4, 0, 1, 0], (206, 0), Some((206, None))),
    ("client ID missing", &[1, 4, 0, 11, 11, 0, 4, 0, 0, 0, 7], (201, 7), Some((201, Some(7)))),
    ("RSA-IP without anything", &[1, 6, 0, 4], (208, 0), Some((208, None))),
];

#[test]
fn bytes_that_are_no_request_get_their_error() {
    for (what, bytes, over_udp, over_tcp) in TABLE {
        let mut rig = Rig::new(config());
        let commands = rig.input(udp(2), bytes);
        let (code, counter) = *over_udp;
        assert_eq!(refusal(&commands, udp(2), Some(counter)).0, code, "{what} over UDP");
        if let Some((code, counter)) = over_tcp {
            let commands = rig.input(tcp(2, 1), bytes);
            assert_eq!(refusal(&commands, tcp(2, 1), *counter).0, *code, "{what} over TCP");
        }
        assert_eq!(rig.wakes_at(), None, "{what}");
    }
}

#[test]
fn an_error_response_is_never_answered() {
    let mut rig = Rig::new(config());
    let error = |counter| Message { counter, body: error(ErrorCode::UnknownError, None, None) };
    for counter in [None, Some(MessageCounter(0)), Some(MessageCounter(3))] {
        assert_eq!(rig.ask_message(udp(2), &error(counter)), []);
        assert_eq!(rig.ask_message(tcp(2, 1), &error(counter)), []);
    }
    assert_eq!(rig.input(udp(2), &[1, 1, 0, 7, 8, 0, 0]), [], "nor a broken one");
    assert_eq!(rig.input(udp(2), &[1, 1, 0, 4]), []);
}

#[test]
fn garbage_does_not_disturb_a_registered_host() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    let before = rig.gateway.view(rig.now);
    for (_, bytes, ..) in TABLE {
        for from in [udp(2), udp_from(2, 9), udp(3), tcp(2, 1)] {
            rig.input(from, bytes);
        }
    }
    assert_eq!(rig.gateway.view(rig.now), before);
    assert_eq!(rig.wakes_at(), Some(600.0));
    rig.obtain(udp(2), 3, listen_on(id, 81));
}

#[test]
fn whole_addresses_are_not_served_where_there_are_none() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let body = assign_whole(id);
    assert_eq!(refusal(&rig.ask(udp(2), 2, body.clone()), udp(2), Some(2)), (208, Some(id), None));
    // The message type is looked at before who sends it.
    assert_eq!(code(&rig.ask(udp(3), 1, body), udp(3), 1), 208);
}

#[test]
fn listen_is_not_served_where_it_is_switched_off() {
    let mut rig = Rig::new(GatewayConfig { listen: false, ..config() });
    let id = rig.register(udp(2));
    assert_eq!(code(&rig.ask(udp(2), 2, listen_on(id, 80)), udp(2), 2), 208);
    assert_eq!(code(&rig.input(udp(2), &[1, 16, 0, 11, 11, 0, 4, 0, 0, 0, 3]), udp(2), 3), 208);
    rig.obtain(udp(2), 4, assign_ports(id, Ports::single(80)));
}

#[test]
fn the_first_mistake_is_told() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let wrong = ClientId(id.0 ^ 1);
    // Unregistered before wrong client ID, wrong client ID before wrong bind ID.
    assert_eq!(code(&rig.ask(udp(3), 1, free(wrong, 9)), udp(3), 1), 301);
    assert_eq!(code(&rig.ask(udp(2), 2, free(wrong, 9)), udp(2), 2), 305);
    assert_eq!(refusal(&rig.ask(udp(2), 3, free(id, 9)), udp(2), Some(3)), (306, Some(id), Some(BindId(9))));
}

#[test]
fn errors_over_udp_are_limited_by_source() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let answered = (0..1000).filter(|counter| !rig.ask(udp(3), counter + 1, query(id)).is_empty()).count();
    assert_eq!(answered, 50);
    // Another source is not concerned, nor is what succeeds, nor TCP.
    assert_eq!(code(&rig.ask(udp(4), 1, query(id)), udp(4), 1), 301);
    rig.register(udp_from(3, 6000));
    for counter in 1..=100 {
        assert_eq!(code(&rig.ask(tcp(5, 1), counter, query(id)), tcp(5, 1), counter), 301);
    }
    // The same question again counts like a new one.
    rig.at(1);
    let commands = (0..1000).filter(|_| !rig.ask(udp(4), 1, query(id)).is_empty()).count();
    assert_eq!(commands, 50);
}

#[test]
fn garbage_in_a_hosts_name_does_not_keep_its_errors_from_it() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    let answered = (0..1000).filter(|_| !rig.input(host, &[1, 99, 0, 4]).is_empty()).count();
    assert_eq!(answered, 50);
    let registers = (2000..3000).filter(|counter| !rig.ask(host, *counter, Body::RegisterRequest).is_empty());
    assert_eq!(registers.count(), 0, "302 tells the name, so it is limited too");
    for counter in 2..200 {
        assert_eq!(code(&rig.ask(host, counter, free(id, 9)), host, counter), 306);
    }
    assert_eq!(rig.ask(host, 199, free(id, 9)).len(), 1, "also for duplicates");
}
