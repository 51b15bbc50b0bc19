//! Renewal, changed attributes, the end.

use std::time::Duration;

use rsip_slp::service::{ConfigError, Event, Progress, Role, ServiceAgent, ServiceConfig};
use rsip_slp::text::{AttributeList, ScopeList};
use rsip_slp::wire::{Body, ErrorCode};

use crate::rig::{
    DA, OWN, Rig, Sent, To, URL, advert, alone, attributes, configured, datagram, registration,
};

fn rig() -> Rig {
    Rig::registered(configured(), &advert(1, "DEFAULT", ""))
}

fn is_fresh(sent: &Sent) -> bool {
    sent.message.flags.fresh
}

#[test]
fn renews_at_half_of_the_lifetime() {
    let mut rig = rig();
    for _ in 0..3 {
        let before = rig.at();
        let sent = rig.next();
        assert_eq!(sent.at - before, 300_000);
        assert!(is_fresh(&sent));
        rig.ack(DA, &sent, None);
    }
    assert!(rig.events().iter().all(|event| matches!(event, Event::Refreshed { .. })));
}

#[test]
fn tells_only_what_changed_and_not_more_often_than_configured() {
    let mut rig = rig();
    rig.agent.set_attributes(attributes(10), rig.now);
    rig.agent.set_attributes(attributes(12), rig.now);
    let before = rig.at();
    let sent = rig.next();
    assert_eq!(sent.at - before, 15_000, "since the registration");
    assert!(!is_fresh(&sent));
    let update = registration(&sent);
    assert_eq!((update.attributes.as_str(), update.scopes.as_str()), ("(load=12)", "DEFAULT"));
    assert_eq!((update.entry.url.as_str(), update.service_type.as_str()), (URL, "service:rsip"));
    rig.ack(DA, &sent, None);
    assert_eq!(rig.pass(100_000), [], "nothing changed");
    rig.agent.set_attributes(attributes(13), rig.now);
    let next = rig.next();
    assert_eq!(next.at, rig.at(), "the last update is old");
    rig.ack(DA, &next, None);
    let renewal = rig.next();
    assert!(is_fresh(&renewal), "an update is no renewal");
    assert!(registration(&renewal).attributes.contains("(load=13)"));
    assert_eq!(renewal.at - before, 300_000);
}

#[test]
fn a_change_that_is_taken_back_in_time_is_not_told() {
    let mut rig = rig();
    rig.agent.set_attributes(attributes(10), rig.now);
    rig.agent.set_attributes(attributes(0), rig.now);
    assert_eq!(rig.pass(200_000), []);
}

#[test]
fn an_attribute_that_is_gone_needs_a_whole_registration() {
    let mut rig = rig();
    let fewer = AttributeList::parse("(load=5)").expect("attributes");
    rig.agent.set_attributes(fewer, rig.now);
    let sent = rig.next();
    assert!(is_fresh(&sent));
    assert_eq!(registration(&sent).attributes, "(load=5)");
}

#[test]
fn one_that_cannot_update_gets_whole_registrations_from_then_on() {
    let mut rig = rig();
    rig.agent.set_attributes(attributes(10), rig.now);
    let update = rig.next();
    rig.ack(DA, &update, Some(ErrorCode::InvalidUpdate));
    let whole = rig.next();
    assert!(is_fresh(&whole));
    assert_eq!(whole.at - update.at, 1000, "not more than one a second");
    rig.ack(DA, &whole, None);
    rig.agent.set_attributes(attributes(20), rig.now);
    assert!(is_fresh(&rig.next()));
}

#[test]
fn keeps_to_the_refresh_interval_of_the_directory_agent() {
    let slow = advert(1, "DEFAULT", "(min-refresh-interval=1000)");
    let mut rig = Rig::new(configured());
    let asked = rig.next();
    rig.answer(DA, &asked, Body::DaAdvert(slow));
    let first = rig.next();
    assert_eq!(registration(&first).entry.lifetime, 2000, "lives long enough to be renewed in time");
    rig.ack(DA, &first, None);
    rig.agent.set_attributes(attributes(50), rig.now);
    let update = rig.next();
    assert_eq!(update.at - first.at, 1_000_000);
    // A renewal is due at the same time, and says it all.
    assert!(is_fresh(&update));
    assert!(registration(&update).attributes.contains("(load=50)"));
}

#[test]
fn a_rejected_refresh_leaves_the_registration_and_waits() {
    let mut rig = rig();
    let renewal = rig.next();
    rig.ack(DA, &renewal, Some(ErrorCode::RefreshRejected));
    assert_eq!(rig.agent.view(rig.now).directories[0].state, Progress::Registered);
    assert_eq!(rig.pass(59_999), []);
    assert!(is_fresh(&rig.next()));
}

#[test]
fn deregisters_at_the_end_with_the_scopes_of_the_registration() {
    let scopes = ScopeList::parse("X,Y").expect("scopes");
    let mut rig = Rig::registered(ServiceConfig { scopes, ..configured() }, &advert(1, "Y", ""));
    rig.agent.shutdown(rig.now);
    assert!(!rig.agent.is_drained());
    let sent = rig.pass(0);
    let [end] = sent.as_slice() else { unreachable!("{sent:?}") };
    let Body::SrvDeReg(body) = &end.message.body else { unreachable!("{end:?}") };
    assert_eq!((body.scopes.as_str(), body.entry.url.as_str(), body.tags.as_str()), ("Y", URL, ""));
    assert_eq!(rig.next().at - end.at, 2000, "sent again");
    rig.ack(DA, end, None);
    assert!(rig.agent.is_drained());
    assert!(matches!(rig.events().as_slice(), [Event::Deregistered { .. }]));
    assert_eq!(rig.agent.poll_timeout(), None);
}

#[test]
fn takes_back_what_may_have_been_registered() {
    let mut rig = Rig::new(configured());
    let asked = rig.next();
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "DEFAULT", "")));
    rig.next();
    rig.agent.shutdown(rig.now);
    let sent = rig.pass(15_000);
    assert!(matches!(sent[0].message.body, Body::SrvDeReg(_)));
    assert!(rig.agent.is_drained(), "silence ends it, too");
    for mut rig in [Rig::new(configured()), Rig::new(alone())] {
        rig.agent.shutdown(rig.now);
        assert!(rig.agent.is_drained(), "nothing was registered");
    }
}

#[test]
fn what_does_not_fit_into_a_datagram_goes_by_a_connection() {
    let mut rig = Rig::new(ServiceConfig { datagram_limit: 100, ..configured() });
    let asked = rig.next();
    assert_eq!(asked.to, datagram(DA));
    rig.answer(DA, &asked, Body::DaAdvert(advert(1, "DEFAULT", "")));
    let sent = rig.next();
    let to = std::net::SocketAddrV4::new(DA.into(), 427);
    assert_eq!(sent.to, To::Stream(to));
    assert_eq!(rig.pass(10_000), [], "a connection is not sent again");
    rig.agent.handle_failure(to, rig.now);
    assert!(matches!(rig.agent.view(rig.now).directories[0].state, Progress::Waiting));
}

#[test]
fn a_lifetime_that_is_short_is_renewed_in_time() {
    let mut rig = Rig::registered(ServiceConfig { lifetime: 1, ..configured() }, &advert(1, "DEFAULT", ""));
    let before = rig.at();
    let sent = rig.next();
    assert_eq!(sent.at - before, 1000);
    assert_eq!(
        registration(&sent).entry.lifetime,
        2,
        "renewed at half of it, and not more than once a second"
    );
}

#[test]
fn refuses_configurations_that_can_never_work() {
    let refused = |config: ServiceConfig| ServiceAgent::new(config, 1, std::time::Instant::now()).err();
    assert_eq!(refused(ServiceConfig { lifetime: 0, ..alone() }), Some(ConfigError::NoLifetime));
    let scopes = ScopeList::default();
    assert_eq!(refused(ServiceConfig { scopes, ..alone() }), Some(ConfigError::NoScope));
    let role = Role::Alone { addresses: vec![], directories: vec![] };
    assert_eq!(refused(ServiceConfig { role, ..alone() }), Some(ConfigError::NoAddress));
    let directories = (1..=17).map(|host| [10, 0, 0, host].into()).collect();
    let role = Role::Alone { addresses: vec![OWN], directories };
    assert_eq!(refused(ServiceConfig { role, ..alone() }), Some(ConfigError::TooManyDirectories(17)));
    let language = "x".repeat(70_000);
    assert!(matches!(refused(ServiceConfig { language, ..alone() }), Some(ConfigError::TooLong(_))));
    assert_eq!(refused(ServiceConfig { update_interval: Duration::ZERO, ..alone() }), None);
}
