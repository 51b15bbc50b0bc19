//! Bounds, and what holds whatever comes.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use rsip_slp::agent::{Timing, Via};
use rsip_slp::strategies;
use rsip_slp::text::ScopeList;
use rsip_slp::user::{UserConfig, Wish};
use rsip_slp::wire::{Body, Message};

use crate::rig::{Rig, To, found, requests};

#[test]
fn the_whole_search_ends_in_time() {
    for seconds in [1, 3, 5, 10, 60] {
        let limit = Duration::from_secs(seconds);
        let mut rig = Rig::new(UserConfig { limit, ..UserConfig::rsip() });
        let sent = rig.until(seconds * 1000 - 1);
        let asked = |wanted: &str| requests(&sent).iter().any(|(_, _, this)| *this == wanted);
        assert!(asked("service:directory-agent") && asked("service:rsip"), "{seconds} s: both are asked");
        if seconds <= 15 {
            assert_eq!(rig.outcome(), None, "{seconds} s are used");
        }
        rig.until(seconds * 1000);
        assert!(rig.outcome().expect("an end").is_err(), "{seconds} s");
    }
}

#[test]
fn a_multicast_search_is_over_after_fifteen_seconds_however_long_there_is() {
    let limit = Duration::from_secs(60);
    let mut rig = Rig::new(UserConfig { limit, ..UserConfig::rsip() });
    let sent = rig.until(21_000);
    assert_eq!(sent.last().map(|sent| sent.at), Some(20_000), "6 s, and 2 + 4 + 8 s");
    assert!(rig.outcome().is_some());
}

#[test]
fn a_program_that_starts_with_its_host_waits() {
    let timing = Timing { start_wait: Duration::from_secs(3), ..Timing::default() };
    let mut rig = Rig::new(UserConfig { timing, ..UserConfig::rsip() });
    let first = rig.until(3000).first().map(|sent| sent.at);
    assert!(first.is_some_and(|at| at > 0), "{first:?}");
    rig.until(18_000);
    assert!(rig.outcome().is_some());
}

#[test]
fn a_list_of_responders_that_does_not_fit_ends_the_search() {
    let config = UserConfig { attributes: Wish::Nothing, datagram_limit: 200, ..UserConfig::rsip() };
    let mut rig = Rig::new(config);
    let request = rig.until(6000).pop().expect("a request");
    for host in 1..=20 {
        rig.answer([10, 20, 30, host], &request, found(&[&format!("service:rsip://10.20.30.{host}")]));
    }
    assert_eq!(rig.until(8000), [], "255 bytes of addresses");
    assert_eq!(rig.urls().len(), 20);
}

#[test]
fn no_more_than_64_services_are_remembered_and_8_are_asked_at_a_time() {
    let mut rig = Rig::new(UserConfig { directories: vec![[10, 0, 0, 9].into()], ..UserConfig::rsip() });
    let request = rig.until(1).pop().expect("a request");
    let urls: Vec<String> = (1..=100).map(|host| format!("service:rsip://10.0.1.{host}")).collect();
    rig.answer([10, 0, 0, 9], &request, found(&urls.iter().map(String::as_str).collect::<Vec<_>>()));
    let sent = rig.until(2);
    assert_eq!(sent.len(), 8);
    rig.answer([10, 0, 0, 9], &sent[0], crate::rig::load(5));
    assert_eq!(rig.until(3).len(), 1, "the next takes its place");
    rig.until(15_000);
    assert_eq!(rig.urls().len(), 64);
}

#[test]
fn without_a_scope_there_is_nothing_to_find() {
    let rig = Rig::new(UserConfig { scopes: ScopeList::default(), ..UserConfig::rsip() });
    assert!(rig.outcome().expect("an end").is_err());
}

#[test]
fn what_does_not_fit_into_a_request_is_no_configuration() {
    let config = UserConfig { predicate: "x".repeat(70_000), ..UserConfig::rsip() };
    let now = std::time::Instant::now();
    assert!(rsip_slp::user::UserAgent::new(config, 1, now).is_err());
}

/// Something that comes: an answer of any kind to what was sent last, or anything at all.
#[derive(Clone, Debug)]
enum Incoming {
    Answer(u8, Message),
    Bytes(u8, Vec<u8>),
    Failure(u8),
}

fn incoming() -> impl Strategy<Value = Incoming> {
    prop_oneof![
        4 => (1_u8..6, strategies::message()).prop_map(|(host, message)| Incoming::Answer(host, message)),
        1 => (1_u8..6, vec(any::<u8>(), 0..60)).prop_map(|(host, bytes)| Incoming::Bytes(host, bytes)),
        1 => (1_u8..6).prop_map(Incoming::Failure),
    ]
}

proptest! {
    #[test]
    fn every_search_ends_in_time_with_a_bounded_number_of_messages(
        inputs in vec((incoming(), 0_u64..1500), 0..40),
        configured: bool,
    ) {
        let directories = if configured { vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()] } else { vec![] };
        let mut rig = Rig::new(UserConfig { directories, ..UserConfig::rsip() });
        let mut sent = rig.until(0);
        let mut at = 0;
        for (input, wait) in inputs {
            match input {
                Incoming::Answer(host, mut message) => {
                    if let Some(last) = sent.last() {
                        message.xid = last.message.xid;
                    }
                    if let Body::SrvRply(reply) = &mut message.body {
                        reply.error = None;
                    }
                    let bytes = message.encode().expect("bytes");
                    rig.raw([10, 0, 0, host], Via::Datagram, &bytes);
                }
                Incoming::Bytes(host, bytes) => rig.raw([10, 0, 0, host], Via::Opened, &bytes),
                Incoming::Failure(host) => rig.fail([10, 0, 0, host]),
            }
            at += wait;
            sent.extend(rig.until(at.min(15_000)));
        }
        sent.extend(rig.until(15_000));
        prop_assert!(rig.outcome().is_some());
        prop_assert!(sent.len() < 100, "{} messages", sent.len());
        let multicast = sent.iter().filter(|sent| sent.to == To::Group).count();
        prop_assert!(multicast <= 8, "{} multicasts", multicast);
    }
}
