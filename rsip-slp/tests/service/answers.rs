//! What the service agent answers, and to what it is silent.

use rsip_slp::agent::Via;
use rsip_slp::service::ServiceConfig;
use rsip_slp::text::ScopeList;
use rsip_slp::wire::message::{AttrRqst, NamingAuthority, SrvDeReg, SrvReg, SrvRqst, SrvTypeRqst, UrlEntry};
use rsip_slp::wire::{Body, ErrorCode, Flags, Message};

use crate::rig::{Rig, To, URL, alone, datagram};

const HOST: [u8; 4] = [10, 0, 0, 2];
const MCAST: Flags = Flags { overflow: false, fresh: false, request_mcast: true };

/// What a host gets for a request.
fn ask_as(flags: Flags, via: Via, language: &str, body: Body) -> Option<Body> {
    let mut rig = Rig::new(alone());
    let message = Message { flags, xid: 0x1234, language: language.to_owned(), body };
    rig.message(HOST, via, &message);
    let mut sent = rig.drain();
    assert!(sent.len() <= 1);
    let answer = sent.pop()?;
    let to = if let Via::Accepted(connection) = via { To::Connection(connection) } else { datagram(HOST) };
    assert_eq!((answer.to, answer.message.xid), (to, 0x1234));
    assert_eq!((answer.message.language.as_str(), answer.message.flags), (language, Flags::default()));
    Some(answer.message.body)
}

fn unicast(body: Body) -> Body {
    let answer = ask_as(Flags::default(), Via::Datagram, "en", body.clone()).expect("an answer");
    let stream = ask_as(Flags::default(), Via::Accepted(7), "en", body).expect("an answer");
    assert_eq!(answer, stream, "the same on both ways");
    answer
}

/// Both ways of telling that it is multicast.
fn multicast(body: Body) -> Option<Body> {
    let answer = ask_as(MCAST, Via::Group, "en", body.clone());
    assert_eq!(answer, ask_as(Flags::default(), Via::Group, "en", body.clone()), "the flag is missing");
    assert_eq!(answer, ask_as(MCAST, Via::Datagram, "en", body), "sent to the address");
    answer
}

fn wanted() -> SrvRqst {
    SrvRqst { service_type: "service:rsip".to_owned(), scopes: "DEFAULT".to_owned(), ..SrvRqst::default() }
}

fn error(body: &Body) -> Option<ErrorCode> {
    match body {
        Body::SrvRply(reply) => reply.error,
        Body::SrvAck { error } => *error,
        Body::AttrRply(reply) => reply.error,
        Body::SrvTypeRply(reply) => reply.error,
        other => unreachable!("{other:?}"),
    }
}

fn entries(body: &Body) -> Vec<UrlEntry> {
    match body {
        Body::SrvRply(reply) => reply.entries.clone(),
        other => unreachable!("{other:?}"),
    }
}

/// What is found is told to everybody.
fn assert_found(request: SrvRqst) {
    let answer = unicast(Body::SrvRqst(request.clone()));
    assert_eq!(error(&answer), None, "{request:?}");
    assert_eq!(entries(&answer), [UrlEntry { lifetime: 600, url: URL.to_owned() }], "{request:?}");
    assert_eq!(multicast(Body::SrvRqst(request)), Some(answer));
}

/// What is not found is told only to who asked by unicast.
fn assert_nothing(request: SrvRqst) {
    let answer = unicast(Body::SrvRqst(request.clone()));
    assert_eq!((error(&answer), entries(&answer)), (None, vec![]), "{request:?}");
    assert_eq!(multicast(Body::SrvRqst(request)), None);
}

fn assert_refused(request: SrvRqst, code: ErrorCode) {
    assert_eq!(error(&unicast(Body::SrvRqst(request.clone()))), Some(code), "{request:?}");
    assert_eq!(multicast(Body::SrvRqst(request)), None);
}

#[test]
fn a_service_is_found_by_type_scope_and_predicate() {
    assert_found(wanted());
    assert_found(SrvRqst { service_type: "SERVICE:Rsip".to_owned(), ..wanted() });
    assert_found(SrvRqst { scopes: "other,default".to_owned(), ..wanted() });
    for predicate in
        ["(&(tunnel-type=IP-IP)(transport=TCP))", "(load<=50)", "(ipsec-support=FALSE)", "(transport=u*)"]
    {
        assert_found(SrvRqst { predicate: predicate.to_owned(), ..wanted() });
    }
}

#[test]
fn whoever_asks_by_unicast_hears_that_there_is_nothing() {
    assert_nothing(SrvRqst { service_type: "service:printer".to_owned(), ..wanted() });
    assert_nothing(SrvRqst { service_type: "service:directory-agent".to_owned(), ..wanted() });
    assert_nothing(SrvRqst {
        service_type: "service:directory-agent".to_owned(),
        scopes: String::new(),
        ..wanted()
    });
    for predicate in ["(tunnel-type=L2TP)", "(load>=1)", "(ipsec-support=true)", "(!(transport=*))"] {
        assert_nothing(SrvRqst { predicate: predicate.to_owned(), ..wanted() });
    }
}

#[test]
fn errors_are_told_to_who_asked_by_unicast() {
    assert_refused(SrvRqst { scopes: "other".to_owned(), ..wanted() }, ErrorCode::ScopeNotSupported);
    assert_refused(SrvRqst { scopes: String::new(), ..wanted() }, ErrorCode::ScopeNotSupported);
    assert_refused(SrvRqst { scopes: "a(b".to_owned(), ..wanted() }, ErrorCode::ParseError);
    assert_refused(SrvRqst { service_type: String::new(), ..wanted() }, ErrorCode::ParseError);
    for predicate in ["load=1", "(load<=1*)", "(load=\\41)", "(&)", "((load=1))"] {
        assert_refused(SrvRqst { predicate: predicate.to_owned(), ..wanted() }, ErrorCode::ParseError);
    }
    assert_refused(SrvRqst { spi: "key".to_owned(), ..wanted() }, ErrorCode::AuthenticationUnknown);
}

#[test]
fn the_language_counts_where_there_is_a_predicate() {
    let predicate = SrvRqst { predicate: "(load=0)".to_owned(), ..wanted() };
    let ask = |language, request: &SrvRqst| {
        ask_as(Flags::default(), Via::Datagram, language, Body::SrvRqst(request.clone())).expect("an answer")
    };
    assert_eq!(error(&ask("de", &predicate)), Some(ErrorCode::LanguageNotSupported));
    assert_eq!(entries(&ask("en-GB", &predicate)).len(), 1, "the dialect does not");
    assert_eq!(entries(&ask("EN", &predicate)).len(), 1);
    assert_eq!(entries(&ask("de", &wanted())).len(), 1);
}

#[test]
fn whoever_has_the_answer_gets_none() {
    for own in ["10.0.0.1", "192.0.2.1", "10.0.0.77, 10.0.0.1", "nonsense,10.0.0.1"] {
        let request = SrvRqst { previous_responders: own.to_owned(), ..wanted() };
        assert_eq!(multicast(Body::SrvRqst(request.clone())), None, "{own}");
        let request = SrvRqst { service_type: "service:service-agent".to_owned(), ..request };
        assert_eq!(multicast(Body::SrvRqst(request)), None, "{own}");
    }
    assert_found(SrvRqst { previous_responders: "10.0.0.10,10.0.0.2,nonsense".to_owned(), ..wanted() });
}

#[test]
fn introduces_itself() {
    let ask = |scopes: &str, predicate: &str| {
        Body::SrvRqst(SrvRqst {
            service_type: "service:service-agent".to_owned(),
            scopes: scopes.to_owned(),
            predicate: predicate.to_owned(),
            ..SrvRqst::default()
        })
    };
    for body in [ask("", ""), ask("default", ""), ask("", "(service-type=service:rsip)")] {
        let Some(Body::SaAdvert(advert)) = multicast(body.clone()) else { unreachable!("{body:?}") };
        assert_eq!(advert.url, "service:service-agent://10.0.0.1");
        assert_eq!(
            (advert.scopes.as_str(), advert.attributes.as_str()),
            ("DEFAULT", "(service-type=service:rsip)")
        );
        assert_eq!(unicast(body), Body::SaAdvert(advert));
    }
    assert_eq!(multicast(ask("other", "")), None);
    assert_eq!(error(&unicast(ask("other", ""))), Some(ErrorCode::ScopeNotSupported));
    let not_satisfied = ask("", "(service-type=service:nfs)");
    assert_eq!(multicast(not_satisfied.clone()), None);
    assert_eq!(ask_as(Flags::default(), Via::Datagram, "en", not_satisfied), None, "MUST NOT respond");
}

fn attributes(url: &str, tags: &str) -> AttrRqst {
    AttrRqst {
        url: url.to_owned(),
        scopes: "DEFAULT".to_owned(),
        tags: tags.to_owned(),
        ..AttrRqst::default()
    }
}

fn told(request: AttrRqst) -> String {
    let answer = unicast(Body::AttrRqst(request));
    assert_eq!(error(&answer), None);
    match answer {
        Body::AttrRply(reply) => reply.attributes,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn tells_its_attributes() {
    assert_eq!(told(attributes(URL, "load")), "(load=0)");
    assert_eq!(
        told(attributes("service:rsip", "t*,LOAD")),
        "(tunnel-type=IP-IP),(transport=TCP,UDP),(load=0)"
    );
    let all = "(ipsec-support=false),(ike-support=false),(tunnel-type=IP-IP),(transport=TCP,UDP),(load=0)";
    assert_eq!(told(attributes(URL, "")), all);
    assert!(multicast(Body::AttrRqst(attributes("service:rsip", "load"))).is_some());
    assert_eq!(told(attributes(URL, "nothing")), "");
    assert_eq!(told(attributes("service:printer", "")), "");
    assert_eq!(told(attributes("service:rsip://10.0.0.1:4555/", "")), "", "another URL");
    assert_eq!(told(attributes("service:rsip://10.0.0.1", "")), "", "URLs are compared as they are");
    for silent in [attributes(URL, "nothing"), attributes("service:printer", "")] {
        assert_eq!(multicast(Body::AttrRqst(silent)), None);
    }
}

#[test]
fn refuses_to_tell_attributes() {
    let refused = |request: AttrRqst| {
        assert_eq!(multicast(Body::AttrRqst(request.clone())), None);
        error(&unicast(Body::AttrRqst(request)))
    };
    let other = AttrRqst { scopes: "other".to_owned(), ..attributes(URL, "") };
    assert_eq!(refused(other), Some(ErrorCode::ScopeNotSupported));
    assert_eq!(refused(attributes(URL, "a(")), Some(ErrorCode::ParseError));
    assert_eq!(refused(attributes("", "")), Some(ErrorCode::ParseError));
    let signed = AttrRqst { spi: "key".to_owned(), ..attributes(URL, "") };
    assert_eq!(refused(signed), Some(ErrorCode::AuthenticationUnknown));
    let french = ask_as(Flags::default(), Via::Datagram, "fr", Body::AttrRqst(attributes(URL, "")));
    assert_eq!(error(&french.expect("an answer")), Some(ErrorCode::LanguageNotSupported));
    let heard = AttrRqst { previous_responders: "10.0.0.1".to_owned(), ..attributes(URL, "") };
    assert_eq!(multicast(Body::AttrRqst(heard)), None);
}

#[test]
fn tells_its_service_type() {
    let ask = |naming_authority, scopes: &str| {
        Body::SrvTypeRqst(SrvTypeRqst {
            previous_responders: String::new(),
            naming_authority,
            scopes: scopes.to_owned(),
        })
    };
    let types = |body: Body| match body {
        Body::SrvTypeRply(reply) => reply.service_types,
        other => unreachable!("{other:?}"),
    };
    for all in [NamingAuthority::All, NamingAuthority::Iana] {
        assert_eq!(types(unicast(ask(all.clone(), "DEFAULT"))), "service:rsip");
        assert_eq!(multicast(ask(all, "DEFAULT")).map(types), Some("service:rsip".to_owned()));
    }
    let acme = NamingAuthority::Named("acme".to_owned());
    assert_eq!(types(unicast(ask(acme.clone(), "DEFAULT"))), "");
    assert_eq!(multicast(ask(acme, "DEFAULT")), None);
    assert_eq!(error(&unicast(ask(NamingAuthority::All, "x"))), Some(ErrorCode::ScopeNotSupported));
}

#[test]
fn registers_nobody() {
    for body in [Body::SrvReg(SrvReg::default()), Body::SrvDeReg(SrvDeReg::default())] {
        assert_eq!(error(&unicast(body.clone())), Some(ErrorCode::MsgNotSupported));
        assert_eq!(multicast(body), None);
    }
}

fn raw(via: Via, bytes: &[u8]) -> Option<Message> {
    let mut rig = Rig::new(alone());
    rig.bytes(HOST, via, bytes);
    rig.drain().pop().map(|sent| sent.message)
}

#[test]
fn bytes_that_are_no_request_are_refused_by_unicast_where_they_can_be() {
    let message = Message {
        flags: Flags::default(),
        xid: 77,
        language: "en".to_owned(),
        body: Body::SrvRqst(wanted()),
    };
    let good = message.encode().expect("bytes");
    let cut = &good[..good.len() - 2];
    let mut shorter = cut.to_vec();
    shorter[4] = u8::try_from(cut.len()).expect("short");
    let answer = raw(Via::Datagram, &shorter).expect("an answer");
    assert_eq!((answer.xid, error(&answer.body)), (77, Some(ErrorCode::ParseError)));
    assert_eq!(raw(Via::Group, &shorter), None);
    let mut version = good.clone();
    version[0] = 3;
    let answer = raw(Via::Datagram, &version).expect("an answer");
    assert_eq!(error(&answer.body), Some(ErrorCode::VerNotSupported));
    version[0] = 1;
    assert_eq!(raw(Via::Datagram, &version), None, "SLPv1");
    assert_eq!(raw(Via::Datagram, &good[..10]), None);
    assert_eq!(raw(Via::Datagram, &[]), None);
    let mut mandatory = [good.as_slice(), &[0x40, 0, 0, 0, 0]].concat();
    mandatory[9] = u8::try_from(good.len()).expect("short");
    mandatory[4] = u8::try_from(mandatory.len()).expect("short");
    let answer = raw(Via::Datagram, &mandatory).expect("an answer");
    assert_eq!(error(&answer.body), Some(ErrorCode::OptionNotUnderstood));
    assert_eq!(raw(Via::Group, &mandatory), None);
}

#[test]
fn what_does_not_fit_into_a_datagram_is_cut_and_says_so() {
    let mut rig = Rig::new(ServiceConfig { datagram_limit: 50, ..alone() });
    let message = |body| Message { flags: Flags::default(), xid: 1, language: "en".to_owned(), body };
    let request = message(Body::AttrRqst(attributes(URL, "")));
    rig.message(HOST, Via::Datagram, &request);
    rig.message(HOST, Via::Accepted(3), &request);
    let sent = rig.drain();
    assert!(sent[0].message.flags.overflow && !sent[1].message.flags.overflow);
    assert_eq!(sent[0].message.xid, 1);
    let Body::AttrRply(whole) = &sent[1].message.body else { unreachable!("{sent:?}") };
    assert!(whole.attributes.ends_with("(load=0)"));
}

#[test]
fn scopes_are_those_that_are_configured() {
    let scopes = ScopeList::from_names(["Building 32"]).expect("scopes");
    let mut rig = Rig::new(ServiceConfig { scopes, ..alone() });
    for (asked, found) in [("building  32", true), ("DEFAULT", false)] {
        let request = SrvRqst { scopes: asked.to_owned(), ..wanted() };
        let message =
            Message { flags: MCAST, xid: 1, language: "en".to_owned(), body: Body::SrvRqst(request) };
        rig.message(HOST, Via::Group, &message);
        assert_eq!(!rig.drain().is_empty(), found, "{asked}");
    }
}
