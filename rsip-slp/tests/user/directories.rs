//! Directory agents: configured, searched, silent, of other scopes.

use std::time::Duration;

use rsip_slp::text::ScopeList;
use rsip_slp::user::{UserConfig, Wish};
use rsip_slp::wire::message::{DaAdvert, SrvRply};
use rsip_slp::wire::{Body, ErrorCode, Flags};

use crate::rig::{Rig, Sent, To, URL, advert, found, load, requests};

const DA: [u8; 4] = [10, 0, 0, 9];
const OTHER: [u8; 4] = [10, 0, 0, 8];
const DIRECTORY: &str = "service:directory-agent";
const RSIP: &str = "service:rsip";

fn plain() -> UserConfig {
    UserConfig { attributes: Wish::Nothing, ..UserConfig::rsip() }
}

fn configured() -> UserConfig {
    UserConfig { directories: vec![DA.into()], ..plain() }
}

fn scopes(sent: &Sent) -> &str {
    match &sent.message.body {
        Body::SrvRqst(request) => &request.scopes,
        _ => "",
    }
}

fn refusal(error: ErrorCode) -> Body {
    Body::SrvRply(SrvRply { error: Some(error), entries: vec![] })
}

#[test]
fn a_configured_directory_agent_is_asked_and_nobody_else() {
    let mut rig = Rig::new(configured());
    let sent = rig.until(10);
    assert_eq!(requests(&sent), [(0, To::Datagram(DA.into()), RSIP)]);
    rig.answer(DA, &sent[0], found(&[URL]));
    assert_eq!(rig.urls(), [URL]);
    assert_eq!(rig.services()[0].lifetime, Duration::from_secs(300));
}

#[test]
fn what_a_directory_agent_does_not_have_is_not_looked_for_elsewhere() {
    let mut rig = Rig::new(configured());
    let sent = rig.until(10);
    rig.answer(DA, &sent[0], found(&[]));
    assert!(rig.outcome().expect("an end").is_err());
    assert_eq!(rig.until(20_000), []);
}

#[test]
fn the_directory_agent_tells_the_attributes_too() {
    let mut rig = Rig::new(UserConfig { directories: vec![DA.into()], ..UserConfig::rsip() });
    let sent = rig.until(10);
    rig.answer(DA, &sent[0], found(&[URL]));
    let sent = rig.until(20);
    assert_eq!(requests(&sent), [(10, To::Datagram(DA.into()), "")]);
    rig.answer(DA, &sent[0], load(3));
    assert_eq!(rig.services()[0].load().map(|load| load.percent()), Some(3));
}

#[test]
fn a_silent_directory_agent_gives_way_to_the_search_for_others() {
    let mut rig = Rig::new(configured());
    let sent = rig.until(7600);
    let datagram = |at| (at, To::Datagram(DA.into()), RSIP);
    let search = (7500, To::Group, DIRECTORY);
    assert_eq!(requests(&sent), [datagram(0), datagram(2000), datagram(6000), search], "doubling waits");
    assert!(sent[..3].iter().all(|again| again.message == sent[0].message), "the same bytes");
    rig.answer(OTHER, &sent[3], advert("10.0.0.8", "DEFAULT"));
    let sent = rig.until(12_000);
    assert_eq!(requests(&sent[..1]), [(9500, To::Group, DIRECTORY)]);
    assert_eq!(requests(&sent[1..2]), [(10_500, To::Datagram(OTHER.into()), RSIP)]);
    rig.answer(OTHER, &sent[1], found(&[URL]));
    assert_eq!(rig.urls(), [URL]);
}

#[test]
fn only_configured_ones_are_asked_where_it_is_so_configured() {
    let mut rig = Rig::new(UserConfig { only_configured: true, ..configured() });
    let sent = rig.until(15_000);
    assert!(sent.iter().all(|sent| sent.to == To::Datagram(DA.into())), "{sent:?}");
    assert!(rig.outcome().expect("an end").is_err());
    let rig = Rig::new(UserConfig { only_configured: true, ..plain() });
    assert!(rig.outcome().expect("an end").is_err(), "nobody to ask");
}

#[test]
fn a_directory_agent_that_is_found_is_asked_by_unicast_and_nothing_is_multicast() {
    let mut rig = Rig::new(plain());
    let sent = rig.until(10);
    rig.answer(DA, &sent[0], advert("10.0.0.9", "default,x"));
    let sent = rig.until(3100);
    assert_eq!(requests(&sent), [(2000, To::Group, DIRECTORY), (3000, To::Datagram(DA.into()), RSIP)]);
    let Body::SrvRqst(again) = &sent[0].message.body else { panic!("{sent:?}") };
    assert_eq!(again.previous_responders, "10.0.0.9");
    assert_eq!(scopes(&sent[1]), "DEFAULT");
    rig.answer(DA, &sent[1], found(&[URL]));
    assert_eq!(rig.urls(), [URL]);
    assert_eq!(rig.until(20_000), []);
}

#[test]
fn scopes_without_a_directory_agent_are_multicast() {
    let both = ScopeList::parse("X,Y,Z").expect("scopes");
    let mut rig = Rig::new(UserConfig { scopes: both, ..plain() });
    let sent = rig.until(10);
    rig.answer(DA, &sent[0], advert("10.0.0.9", "Y"));
    rig.answer(OTHER, &sent[0], advert("10.0.0.8", "y,z"));
    let sent = rig.until(3100);
    let asks = &sent[1..];
    let to = |host: [u8; 4]| (3000, To::Datagram(host.into()), RSIP);
    assert_eq!(requests(asks), [to(DA), to(OTHER)]);
    assert_eq!((scopes(&asks[0]), scopes(&asks[1])), ("Y", "Z"), "each scope once");
    rig.answer(DA, &asks[0], found(&[URL]));
    rig.answer(OTHER, &asks[1], found(&[]));
    let sent = rig.until(3200);
    assert_eq!(requests(&sent), [(3100, To::Group, RSIP)]);
    assert_eq!(scopes(&sent[0]), "X");
}

#[test]
fn another_directory_agent_is_asked_when_the_first_is_silent_or_refuses() {
    let mut rig = Rig::new(plain());
    let sent = rig.until(10);
    rig.answer(DA, &sent[0], advert("10.0.0.9", "DEFAULT"));
    rig.answer(OTHER, &sent[0], advert("10.0.0.8", "DEFAULT"));
    let sent = rig.until(3100);
    assert_eq!(requests(&sent[1..]), [(3000, To::Datagram(DA.into()), RSIP)], "one is enough");
    rig.answer(DA, &sent[1], refusal(ErrorCode::InternalError));
    let sent = rig.until(3200);
    assert_eq!(requests(&sent), [(3100, To::Datagram(OTHER.into()), RSIP)]);
    rig.answer(OTHER, &sent[0], refusal(ErrorCode::ScopeNotSupported));
    let sent = rig.until(3300);
    assert_eq!(requests(&sent), [(3200, To::Group, RSIP)], "then service agents");
}

#[test]
fn a_busy_directory_agent_is_asked_again() {
    let mut rig = Rig::new(configured());
    let sent = rig.until(10);
    rig.answer(DA, &sent[0], refusal(ErrorCode::DaBusyNow));
    let sent = rig.until(2000);
    assert_eq!(requests(&sent), [(2000, To::Datagram(DA.into()), RSIP)]);
    rig.answer(DA, &sent[0], found(&[URL]));
    assert_eq!(rig.urls(), [URL]);
}

#[test]
fn an_overflow_is_followed_by_a_connection_with_the_same_transaction_id() {
    let mut rig = Rig::new(configured());
    let sent = rig.until(10);
    let overflow = Flags { overflow: true, ..Flags::default() };
    rig.answer_with(DA, &sent[0], overflow, found(&[URL]));
    let again = rig.until(20);
    assert_eq!(requests(&again), [(10, To::Stream(DA.into()), RSIP)]);
    assert_eq!(again[0].message, sent[0].message);
    rig.answer(DA, &again[0], found(&[URL, "service:rsip://10.0.0.2"]));
    assert_eq!(rig.urls(), [URL, "service:rsip://10.0.0.2"]);
}

#[test]
fn advertisements_that_lead_nowhere_are_passed_over() {
    let adverts = [
        advert("gateway.example", "DEFAULT"),
        advert("127.0.0.1", "DEFAULT"),
        advert("239.255.255.253", "DEFAULT"),
        advert("10.0.0.9", ""),
        advert("10.0.0.9", "other"),
        Body::DaAdvert(DaAdvert {
            boot_timestamp: 0,
            url: "service:directory-agent://10.0.0.9".to_owned(),
            scopes: "DEFAULT".to_owned(),
            ..DaAdvert::default()
        }),
        Body::DaAdvert(DaAdvert {
            boot_timestamp: 1,
            url: "ldap://10.0.0.9".to_owned(),
            scopes: "DEFAULT".to_owned(),
            ..DaAdvert::default()
        }),
    ];
    for advert in adverts {
        let mut rig = Rig::new(plain());
        let sent = rig.until(10);
        rig.answer(DA, &sent[0], advert.clone());
        let sent = rig.until(15_000);
        assert!(sent.iter().all(|sent| sent.to == To::Group), "{advert:?}: {sent:?}");
        assert!(sent.iter().any(|sent| crate::rig::wanted(sent) == RSIP), "{advert:?}");
    }
}

#[test]
fn an_answer_from_somebody_else_is_none() {
    let mut rig = Rig::new(configured());
    let sent = rig.until(10);
    rig.answer(OTHER, &sent[0], found(&[URL]));
    assert_eq!(rig.outcome(), None);
}

#[test]
fn a_service_that_several_know_is_found_once() {
    let directories = vec![DA.into(), OTHER.into()];
    let mut rig = Rig::new(UserConfig { directories, ..plain() });
    let sent = rig.until(10);
    assert_eq!(sent.len(), 2, "all that are configured are asked");
    rig.answer(DA, &sent[0], found(&[URL]));
    rig.answer(OTHER, &sent[1], found(&[URL, "service:rsip://10.0.0.2"]));
    assert_eq!(rig.urls(), [URL, "service:rsip://10.0.0.2"]);
}
