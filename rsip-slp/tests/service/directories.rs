//! Directory agents: searched, heard, configured, lost.

use rsip_slp::agent::Via;
use rsip_slp::service::{Event, Progress, ServiceConfig};
use rsip_slp::text::ScopeList;
use rsip_slp::wire::message::{DaAdvert, SrvRply};
use rsip_slp::wire::{Body, ErrorCode};

use crate::rig::{DA, Rig, Sent, To, URL, advert, alone, configured, datagram, registration, reply};

fn search(sent: &Sent) -> (&str, &str, &str, bool) {
    let Body::SrvRqst(request) = &sent.message.body else { unreachable!("{sent:?}") };
    (&request.service_type, &request.scopes, &request.previous_responders, sent.message.flags.request_mcast)
}

#[test]
fn searches_after_a_random_wait_with_doubling_waits_for_fifteen_seconds() {
    let mut rig = Rig::new(alone());
    let first = rig.next();
    assert!((1..=3000).contains(&first.at), "{}", first.at);
    assert_eq!(first.to, To::Group);
    assert_eq!(search(&first), ("service:directory-agent", "DEFAULT", "", true));
    let rest = rig.pass(100_000);
    let times: Vec<u64> = rest.iter().map(|sent| sent.at - first.at).collect();
    assert_eq!(times, [2000, 6000, 14_000]);
    assert!(rest.iter().all(|again| again.message == first.message));
}

#[test]
fn searches_are_900_seconds_apart_and_then_twice_as_much() {
    let mut rig = Rig::new(alone());
    let begun = rig.next().at;
    let mut sent = rig.pass(60_000_000);
    sent.retain(|sent| sent.at > begun + 15_000);
    let first_of_each = sent.chunks(4).map(|search| (search[0].at - begun) / 1000);
    // In the end as far apart as directory agents introduce themselves: 10800 s.
    let expected = [900, 2700, 6300, 13_500, 24_300, 35_100, 45_900, 56_700];
    assert_eq!(first_of_each.collect::<Vec<_>>(), expected);
}

#[test]
fn registers_with_one_that_answers_the_search() {
    let mut rig = Rig::new(alone());
    let first = rig.next();
    rig.answer(DA, &first, Body::DaAdvert(advert(1, "default,other", "")));
    let mut sent = rig.pass(4000);
    let position = sent.iter().position(|sent| sent.to == datagram(DA)).expect("a registration");
    let registered = sent.remove(position);
    assert!(registered.at - first.at <= 3000, "a random wait of up to 3 s");
    let body = registration(&registered);
    assert_eq!((body.entry.url.as_str(), body.entry.lifetime), (URL, 600));
    assert_eq!((body.service_type.as_str(), body.scopes.as_str()), ("service:rsip", "DEFAULT"));
    assert_eq!(
        body.attributes,
        "(ipsec-support=false),(ike-support=false),(tunnel-type=IP-IP),(transport=TCP,UDP),(load=0)"
    );
    assert!(registered.message.flags.fresh);
    let again = sent.iter().find(|sent| sent.to == To::Group).expect("the search goes on");
    assert_eq!(search(again).2, "10.0.0.9", "with those who answered");
    rig.ack(DA, &registered, None);
    assert_eq!(rig.agent.view(rig.now).directories[0].state, Progress::Registered);
    let events = rig.events();
    assert!(matches!(events.as_slice(), [Event::Found { .. }, Event::Registered { .. }]), "{events:?}");
}

#[test]
fn registers_in_all_scopes_that_both_have() {
    let scopes = ScopeList::parse("X,Y,Z").expect("scopes");
    let mut rig = Rig::new(ServiceConfig { scopes, ..configured() });
    let asked = rig.next();
    assert_eq!(search(&asked), ("service:directory-agent", "", "", false), "no scope is named");
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "a,z,Y", "")));
    let sent = rig.next();
    assert_eq!(registration(&sent).scopes, "Y,Z");
}

#[test]
fn configured_ones_are_asked_who_they_are_and_others_are_not_searched() {
    let mut rig = Rig::new(configured());
    let sent = rig.pass(14_999);
    let times: Vec<_> = sent.iter().map(|sent| (sent.at, sent.to)).collect();
    assert_eq!(times, [0, 2000, 6000, 14_000].map(|at| (at, datagram(DA))));
    assert_eq!(rig.events(), []);
    rig.pass(1);
    assert!(matches!(rig.events().as_slice(), [Event::Silent { .. }]));
    // It is asked again and again, ever more rarely, and never forgotten.
    let sent = rig.pass(20_000_000);
    assert!(sent.iter().all(|sent| sent.to == datagram(DA)));
    let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(gaps.iter().all(|gap| *gap <= 901_000), "{gaps:?}");
    assert!(sent.len() < 120, "{}", sent.len());
    rig.advert(&advert(1, "DEFAULT", ""));
    let sent = rig.next();
    assert_eq!(registration(&sent).scopes, "DEFAULT", "its own word brings it back");
}

#[test]
fn registers_with_one_that_introduces_itself() {
    let mut rig = Rig::new(configured());
    rig.message(
        [10, 0, 0, 8],
        Via::Group,
        &reply(
            0,
            Body::DaAdvert(DaAdvert {
                url: "service:directory-agent://10.0.0.8".to_owned(),
                ..advert(5, "DEFAULT", "")
            }),
        ),
    );
    let sent = rig.pass(3000);
    let registered = sent.iter().find(|sent| sent.to == datagram([10, 0, 0, 8])).expect("a registration");
    assert_eq!(registration(registered).entry.url, URL);
}

#[test]
fn one_of_other_scopes_and_one_that_is_going_down_get_nothing() {
    for advert in [
        advert(1, "other", ""),
        advert(1, "", ""),
        advert(0, "DEFAULT", ""),
        DaAdvert { url: "ldap://10.0.0.9".to_owned(), ..advert(1, "DEFAULT", "") },
        DaAdvert { url: "service:directory-agent://da.example".to_owned(), ..advert(1, "DEFAULT", "") },
        DaAdvert { url: "service:directory-agent://127.0.0.1".to_owned(), ..advert(1, "DEFAULT", "") },
        DaAdvert { url: "service:directory-agent://10.0.0.1".to_owned(), ..advert(1, "DEFAULT", "") },
        DaAdvert { error: Some(ErrorCode::InternalError), ..advert(1, "DEFAULT", "") },
    ] {
        let mut rig = Rig::new(alone());
        rig.advert(&advert);
        assert!(rig.pass(60_000).iter().all(|sent| sent.to == To::Group), "{advert:?}");
        assert_eq!(rig.agent.view(rig.now).directories, []);
    }
}

#[test]
fn an_answer_that_nobody_asked_for_is_no_introduction() {
    let mut rig = Rig::new(alone());
    let first = rig.next();
    let body = Body::DaAdvert(advert(1, "DEFAULT", ""));
    rig.message(DA, Via::Datagram, &reply(first.message.xid ^ 1, body));
    assert_eq!(rig.agent.view(rig.now).directories, []);
}

#[test]
fn retransmits_a_registration_and_backs_off_when_there_is_no_answer() {
    let mut rig = Rig::new(configured());
    let asked = rig.next();
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "DEFAULT", "")));
    let first = rig.next();
    let rest = rig.pass(15_000);
    let times: Vec<u64> = rest.iter().map(|sent| sent.at - first.at).collect();
    assert_eq!(times, [2000, 6000, 14_000]);
    assert!(rest.iter().all(|again| again.message == first.message), "the same transaction ID");
    assert!(rig.events().iter().any(|event| matches!(event, Event::Silent { .. })));
    let next = rig.next();
    assert_eq!(search(&next).0, "service:directory-agent", "is it still there?");
    assert_eq!(next.at - first.at, 15_000 + 4000);
}

#[test]
fn one_that_was_found_is_forgotten_after_three_attempts_in_vain() {
    let mut rig = Rig::new(alone());
    rig.advert(&advert(1, "DEFAULT", ""));
    let sent = rig.pass(200_000);
    let to_it = sent.iter().filter(|sent| sent.to == datagram(DA)).count();
    assert_eq!(to_it, 12, "four messages for each attempt");
    assert_eq!(rig.agent.view(rig.now).directories, []);
    rig.advert(&advert(1, "DEFAULT", ""));
    let sent = rig.pass(3000);
    assert!(sent.iter().any(|sent| sent.to == datagram(DA)), "it may come back");
}

#[test]
fn a_busy_one_is_asked_again_with_exponential_back_off() {
    let mut rig = Rig::new(configured());
    let asked = rig.next();
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "DEFAULT", "")));
    let sent = rig.next();
    rig.ack(DA, &sent, Some(ErrorCode::DaBusyNow));
    let asked = rig.next();
    assert_eq!(asked.at - sent.at, 4000);
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "DEFAULT", "")));
    let again = rig.next();
    assert!(again.message.flags.fresh && again.message.xid != sent.message.xid);
    rig.ack(DA, &again, None);
    assert_eq!(rig.agent.view(rig.now).directories[0].state, Progress::Registered);
}

#[test]
fn a_refusal_is_told_and_tried_again_after_a_minute() {
    let mut rig = Rig::new(configured());
    let asked = rig.next();
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "DEFAULT", "")));
    let sent = rig.next();
    rig.events();
    rig.ack(DA, &sent, Some(ErrorCode::ScopeNotSupported));
    let events = rig.events();
    let [Event::Refused { error: ErrorCode::ScopeNotSupported, .. }] = events.as_slice() else {
        unreachable!("{events:?}")
    };
    assert_eq!(rig.pass(59_999), []);
    let asked = rig.next();
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "other", "")));
    rig.pass(3000);
    assert_eq!(rig.agent.view(rig.now).directories[0].state, Progress::OtherScopes);
}

#[test]
fn one_that_does_not_say_who_it_is_is_asked_again() {
    for answer in [
        Body::SrvRply(SrvRply { error: Some(ErrorCode::ParseError), entries: vec![] }),
        Body::SrvRply(SrvRply::default()),
        Body::DaAdvert(DaAdvert { error: Some(ErrorCode::InternalError), ..DaAdvert::default() }),
    ] {
        let mut rig = Rig::new(configured());
        let asked = rig.next();
        rig.answer(DA, &asked, answer.clone());
        assert_eq!(rig.next().at, 4000, "{answer:?}");
    }
}

#[test]
fn a_reboot_makes_it_register_again_and_nothing_else_does() {
    let mut rig = Rig::registered(configured(), &advert(100, "DEFAULT", ""));
    for same_or_older in [100, 99, 1] {
        rig.advert(&advert(same_or_older, "DEFAULT", ""));
        assert_eq!(rig.pass(5000), [], "booted at {same_or_older}");
    }
    rig.advert(&advert(101, "DEFAULT", ""));
    let sent = rig.next();
    assert!(sent.message.flags.fresh);
    rig.ack(DA, &sent, None);
    let events = rig.events();
    assert!(matches!(events.as_slice(), [Event::Rebooted { .. }, Event::Registered { .. }]), "{events:?}");
    rig.advert(&advert(101, "DEFAULT", ""));
    assert_eq!(rig.pass(5000), []);
}

#[test]
fn boot_timestamps_wrap_around() {
    let mut rig = Rig::registered(configured(), &advert(u32::MAX - 1, "DEFAULT", ""));
    rig.advert(&advert(5, "DEFAULT", ""));
    assert!(rig.next().message.flags.fresh);
}

#[test]
fn one_that_goes_down_gets_no_further_message_until_it_comes_back() {
    let mut rig = Rig::registered(configured(), &advert(100, "DEFAULT", ""));
    rig.advert(&advert(0, "DEFAULT", ""));
    assert!(matches!(rig.events().as_slice(), [Event::GoingDown { .. }]));
    assert_eq!(rig.pass(800_000), [], "not even a renewal");
    rig.advert(&advert(200, "DEFAULT", ""));
    assert!(rig.next().message.flags.fresh);
}

#[test]
fn scopes_that_changed_make_it_register_in_those() {
    let scopes = ScopeList::parse("X,Y").expect("scopes");
    let config = ServiceConfig { scopes, ..configured() };
    let mut rig = Rig::registered(config, &advert(100, "X", ""));
    rig.advert(&advert(100, "X,Y", ""));
    let sent = rig.next();
    assert_eq!(registration(&sent).scopes, "X,Y");
    assert!(sent.message.flags.fresh);
}

#[test]
fn no_more_than_sixteen_are_remembered_and_those_that_work_are_kept() {
    let mut rig = Rig::registered(configured(), &advert(1, "DEFAULT", ""));
    for host in 1..=200 {
        let forged =
            DaAdvert { url: format!("service:directory-agent://10.9.9.{host}"), ..advert(1, "DEFAULT", "") };
        rig.advert(&forged);
    }
    let directories = rig.agent.view(rig.now).directories;
    assert_eq!(directories.len(), 16);
    assert_eq!(directories[0].state, Progress::Registered);
    assert!(directories.iter().any(|known| *known.address.ip() == std::net::Ipv4Addr::new(10, 9, 9, 200)));
}
