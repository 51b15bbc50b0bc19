//! Service agents, asked by multicast.

use rsip_slp::agent::Via;
use rsip_slp::text::ScopeList;
use rsip_slp::user::{Enough, UserConfig, Wish};
use rsip_slp::wire::message::{AttrRply, SrvRply};
use rsip_slp::wire::{Body, ErrorCode, Flags};

use crate::rig::{Rig, To, URL, found, load, requests, wanted};

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const DIRECTORY: &str = "service:directory-agent";
const RSIP: &str = "service:rsip";

/// The search for directory agents, in vain, is over at 6 s.
const SEARCHED: u64 = 6000;

#[test]
fn nobody_answers() {
    let mut rig = Rig::new(UserConfig::rsip());
    let sent = rig.until(14_999);
    let times = [(0, DIRECTORY), (2000, DIRECTORY), (6000, RSIP), (8000, RSIP), (12_000, RSIP)];
    assert_eq!(requests(&sent), times.map(|(at, wanted)| (at, To::Group, wanted)));
    assert_eq!(rig.outcome(), None);
    assert_eq!(rig.until(15_000), []);
    let error = rig.outcome().expect("an end").expect_err("nothing");
    assert_eq!(error.to_string(), "No service:rsip defined!");
    assert_eq!(rig.agent.poll_timeout(), None);
}

#[test]
fn a_request_says_what_is_wanted_and_keeps_its_transaction_id() {
    let mut rig =
        Rig::new(UserConfig { scopes: ScopeList::parse("A,b c").expect("scopes"), ..UserConfig::rsip() });
    let sent = rig.until(14_000);
    for sent in &sent {
        assert!(sent.message.flags.request_mcast);
        assert_eq!(sent.message.language, "en");
        let Body::SrvRqst(request) = &sent.message.body else { panic!("{sent:?}") };
        assert_eq!(request.scopes, "A,b c");
        assert_eq!(request.predicate, if request.service_type == RSIP { "(tunnel-type=IP-IP)" } else { "" });
        assert_eq!((request.previous_responders.as_str(), request.spi.as_str()), ("", ""));
    }
    let ids = |wanted_type| -> std::collections::BTreeSet<u16> {
        sent.iter().filter(|sent| wanted(sent) == wanted_type).map(|sent| sent.message.xid).collect()
    };
    assert_eq!((ids(DIRECTORY).len(), ids(RSIP).len()), (1, 1), "one for each request");
    assert_ne!(ids(DIRECTORY), ids(RSIP));
}

#[test]
fn whoever_answered_is_named_and_silence_after_that_is_the_end() {
    let mut rig = Rig::new(UserConfig { attributes: Wish::Nothing, ..UserConfig::rsip() });
    let first = rig.until(SEARCHED).pop().expect("a request");
    rig.until(6010);
    rig.answer(A, &first, found(&[URL]));
    rig.answer(B, &first, found(&["service:rsip://10.0.0.2"]));
    rig.answer(A, &first, found(&[URL]));
    let second = rig.until(8000).pop().expect("a retransmission");
    let Body::SrvRqst(request) = &second.message.body else { panic!("{second:?}") };
    assert_eq!(request.previous_responders, "10.0.0.1,10.0.0.2");
    assert_eq!(second.message.xid, first.message.xid);
    assert_eq!(rig.until(8999), []);
    assert_eq!(rig.outcome(), None);
    rig.until(9000);
    assert_eq!(rig.urls(), [URL, "service:rsip://10.0.0.2"]);
}

#[test]
fn who_answers_late_is_waited_for_again() {
    let mut rig = Rig::new(UserConfig { attributes: Wish::Nothing, ..UserConfig::rsip() });
    let request = rig.until(SEARCHED).pop().expect("a request");
    rig.answer(A, &request, found(&[URL]));
    rig.until(8500);
    rig.answer(B, &request, found(&["service:rsip://10.0.0.2"]));
    let sent = rig.until(13_000);
    assert_eq!(requests(&sent), [(12_000, To::Group, RSIP)], "the next wait is twice as long");
    assert_eq!(rig.urls().len(), 2);
}

#[test]
fn attributes_are_asked_for_and_the_least_loaded_is_first() {
    let mut rig = Rig::new(UserConfig::rsip());
    let request = rig.until(SEARCHED).pop().expect("a request");
    let urls = ["service:rsip://10.0.0.1", "service:rsip://10.0.0.2", "service:rsip://10.0.0.3"];
    rig.answer(A, &request, found(&urls[..1]));
    rig.answer(B, &request, found(&urls[1..2]));
    rig.answer([10, 0, 0, 3], &request, found(&urls[2..]));
    let sent = rig.until(9000);
    let [_, asks @ ..] = sent.as_slice() else { panic!("{sent:?}") };
    let to: Vec<To> = asks.iter().map(|ask| ask.to).collect();
    assert_eq!(to, [A, B, [10, 0, 0, 3]].map(|host| To::Datagram(host.into())), "whoever told of it");
    for (ask, url) in asks.iter().zip(urls) {
        let Body::AttrRqst(request) = &ask.message.body else { panic!("{ask:?}") };
        assert_eq!((request.url.as_str(), request.tags.as_str()), (url, "load"));
        assert_eq!(request.scopes, "DEFAULT");
        assert!(!ask.message.flags.request_mcast);
    }
    rig.answer(A, &asks[0], load(80));
    let unsupported = AttrRply { error: Some(ErrorCode::MsgNotSupported), attributes: String::new() };
    rig.answer(B, &asks[1], Body::AttrRply(unsupported));
    assert_eq!(rig.outcome(), None);
    rig.answer([10, 0, 0, 3], &asks[2], load(7));
    assert_eq!(rig.urls(), [urls[2], urls[0], urls[1]], "who does not tell is last");
    let loads: Vec<_> =
        rig.services().iter().map(|service| service.load().map(|load| load.percent())).collect();
    assert_eq!(loads, [Some(7), Some(80), None]);
}

#[test]
fn an_attribute_request_without_an_answer_is_sent_again_and_given_up() {
    let mut rig = Rig::new(UserConfig { enough: Enough::First, ..UserConfig::rsip() });
    let request = rig.until(SEARCHED).pop().expect("a request");
    rig.answer(A, &request, found(&[URL]));
    let sent = rig.until(11_999);
    assert_eq!(requests(&sent), [6000, 8000].map(|at| (at, To::Datagram(A.into()), "")));
    assert_eq!(rig.outcome(), None);
    rig.until(12_000);
    assert_eq!(rig.urls(), [URL]);
    assert_eq!(rig.services()[0].attributes, None);
}

#[test]
fn the_first_is_enough_for_who_wants_no_more() {
    let mut rig =
        Rig::new(UserConfig { enough: Enough::First, attributes: Wish::Nothing, ..UserConfig::rsip() });
    let request = rig.until(SEARCHED).pop().expect("a request");
    rig.answer(A, &request, found(&[]));
    assert_eq!(rig.outcome(), None, "an empty answer is none");
    rig.answer(B, &request, found(&[URL]));
    assert_eq!(rig.urls(), [URL]);
}

#[test]
fn an_answer_that_did_not_fit_is_asked_for_by_a_connection() {
    let mut rig = Rig::new(UserConfig { attributes: Wish::Nothing, ..UserConfig::rsip() });
    let request = rig.until(SEARCHED).pop().expect("a request");
    let overflow = Flags { overflow: true, ..Flags::default() };
    rig.answer_with(A, &request, overflow, found(&[URL]));
    let sent = rig.until(6001);
    assert_eq!(requests(&sent), [(6000, To::Stream(A.into()), RSIP)]);
    assert_eq!(sent[0].message.xid, request.message.xid, "with the same transaction ID");
    assert!(!sent[0].message.flags.request_mcast);
    rig.answer(A, &sent[0], found(&[URL, "service:rsip://10.0.0.7"]));
    rig.until(9000);
    assert_eq!(rig.urls(), [URL, "service:rsip://10.0.0.7"]);
}

#[test]
fn a_connection_that_fails_leaves_what_was_in_the_datagram() {
    let mut rig = Rig::new(UserConfig { attributes: Wish::Nothing, ..UserConfig::rsip() });
    let request = rig.until(SEARCHED).pop().expect("a request");
    let overflow = Flags { overflow: true, ..Flags::default() };
    rig.answer_with(A, &request, overflow, found(&[URL]));
    rig.until(6001);
    rig.fail(A);
    rig.until(9000);
    assert_eq!(rig.urls(), [URL]);
}

#[test]
fn what_is_no_answer_changes_nothing() {
    let mut rig = Rig::new(UserConfig { attributes: Wish::Nothing, ..UserConfig::rsip() });
    let request = rig.until(SEARCHED).pop().expect("a request");
    let mut other = request.clone();
    other.message.xid = other.message.xid.wrapping_add(1);
    rig.answer(A, &other, found(&[URL]));
    rig.answer(A, &request, load(1));
    rig.answer(A, &request, request.message.body.clone());
    let error = SrvRply { error: Some(ErrorCode::ScopeNotSupported), entries: vec![] };
    rig.answer(A, &request, Body::SrvRply(error));
    rig.raw(A, Via::Datagram, b"garbage");
    rig.raw(A, Via::Datagram, &[]);
    rig.answer(A, &request, found(&["service:printer://10.0.0.1", "nonsense", "service:rsip://:1"]));
    rig.until(15_000);
    assert!(rig.outcome().expect("an end").is_err());
}
