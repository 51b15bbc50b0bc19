//! Every message type byte by byte, both ways: the files in `tests/vectors/` against values.

use rsip_slp::wire::message::{
    AttrRply, AttrRqst, DaAdvert, NamingAuthority, SaAdvert, SrvDeReg, SrvReg, SrvRply, SrvRqst, SrvTypeRply,
    SrvTypeRqst, UrlEntry,
};
use rsip_slp::wire::{Body, ErrorCode, Flags, Function, Message};

use crate::hex;

const URL: &str = "service:rsip://10.0.0.1:4555";
const TYPE: &str = "service:rsip";
const ATTRIBUTES: &str =
    "(ipsec-support=false),(ike-support=false),(tunnel-type=IP-IP,GRE),(transport=TCP,UDP),(load=12)";
const PLAIN: Flags = Flags { overflow: false, fresh: false, request_mcast: false };
const MCAST: Flags = Flags { request_mcast: true, ..PLAIN };

fn text(text: &str) -> String {
    text.to_owned()
}

fn message(xid: u16, flags: Flags, body: Body) -> Message {
    Message { flags, xid, language: text("en"), body }
}

fn entry(url: &str, lifetime: u16) -> UrlEntry {
    UrlEntry { lifetime, url: text(url) }
}

fn requests() -> Vec<(&'static str, Message)> {
    let rsip = SrvRqst {
        service_type: text(TYPE),
        scopes: text("DEFAULT"),
        predicate: text("(&(tunnel-type=IP-IP)(transport=TCP))"),
        ..SrvRqst::default()
    };
    let directory = SrvRqst {
        previous_responders: text("10.0.0.9"),
        service_type: text("service:directory-agent"),
        scopes: text("DEFAULT"),
        ..SrvRqst::default()
    };
    let load =
        AttrRqst { url: text(URL), scopes: text("DEFAULT"), tags: text("load"), ..AttrRqst::default() };
    let of_type = AttrRqst {
        previous_responders: text("10.0.0.1,10.0.0.2"),
        url: text(TYPE),
        scopes: text("DEFAULT"),
        ..AttrRqst::default()
    };
    let types = |naming_authority| {
        Body::SrvTypeRqst(SrvTypeRqst {
            previous_responders: String::new(),
            naming_authority,
            scopes: text("DEFAULT"),
        })
    };
    vec![
        ("srv_rqst_multicast", message(0x1234, MCAST, Body::SrvRqst(rsip))),
        ("srv_rqst_directory_agent", message(7, MCAST, Body::SrvRqst(directory))),
        ("attr_rqst_load", message(0x1235, PLAIN, Body::AttrRqst(load))),
        ("attr_rqst_type", message(12, MCAST, Body::AttrRqst(of_type))),
        ("srv_type_rqst_all", message(13, PLAIN, types(NamingAuthority::All))),
        ("srv_type_rqst_named", message(14, PLAIN, types(NamingAuthority::Named(text("acme"))))),
        ("srv_type_rqst_iana", message(15, PLAIN, types(NamingAuthority::Iana))),
    ]
}

fn replies() -> Vec<(&'static str, Message)> {
    let found = |entries| Body::SrvRply(SrvRply { error: None, entries });
    let two = vec![entry(URL, 65535), entry("service:rsip://gateway.example", 0)];
    let overflow = Flags { overflow: true, ..PLAIN };
    let wrong = Body::SrvRply(SrvRply { error: Some(ErrorCode::ScopeNotSupported), entries: vec![] });
    let load = Body::AttrRply(AttrRply { error: None, attributes: text("(load=12)") });
    let types = SrvTypeRply { error: None, service_types: text("service:rsip,service:printer:lpr") };
    vec![
        ("srv_rply", message(0x1234, PLAIN, found(vec![entry(URL, 300)]))),
        ("srv_rply_two", Message { language: text("en-GB"), ..message(0xffff, overflow, found(two)) }),
        ("srv_rply_error", message(8, PLAIN, wrong)),
        ("attr_rply_load", message(0x1235, PLAIN, load)),
        ("srv_type_rply", message(13, PLAIN, Body::SrvTypeRply(types))),
    ]
}

fn registrations() -> Vec<(&'static str, Message)> {
    let fresh = Flags { fresh: true, ..PLAIN };
    let registration = |scopes, attributes| {
        Body::SrvReg(SrvReg {
            entry: entry(URL, 300),
            service_type: text(TYPE),
            scopes: text(scopes),
            attributes: text(attributes),
        })
    };
    let end =
        |tags| Body::SrvDeReg(SrvDeReg { scopes: text("DEFAULT"), entry: entry(URL, 0), tags: text(tags) });
    let ack = |error| Body::SrvAck { error };
    vec![
        ("srv_reg_fresh", message(0x1236, fresh, registration("DEFAULT", ATTRIBUTES))),
        ("srv_reg_incremental", message(9, PLAIN, registration("DEFAULT,Building 32", "(load=13)"))),
        ("srv_de_reg", message(0x1237, PLAIN, end(""))),
        ("srv_de_reg_tags", message(10, PLAIN, end("load"))),
        ("srv_ack", message(0x1236, PLAIN, ack(None))),
        ("srv_ack_busy", message(11, PLAIN, ack(Some(ErrorCode::DaBusyNow)))),
    ]
}

fn adverts() -> Vec<(&'static str, Message)> {
    let up = DaAdvert {
        error: None,
        boot_timestamp: 1_001_894_400,
        url: text("service:directory-agent://10.0.0.9"),
        scopes: text("DEFAULT,Building 32"),
        attributes: text("(min-refresh-interval=60)"),
        spis: String::new(),
    };
    let down =
        DaAdvert { boot_timestamp: 0, scopes: text("DEFAULT"), attributes: String::new(), ..up.clone() };
    let agent = SaAdvert {
        url: text("service:service-agent://10.0.0.1"),
        scopes: text("DEFAULT"),
        attributes: text("(service-type=service:rsip)"),
    };
    vec![
        ("da_advert", message(0, PLAIN, Body::DaAdvert(up))),
        ("da_advert_down", message(0, PLAIN, Body::DaAdvert(down))),
        ("sa_advert", message(16, PLAIN, Body::SaAdvert(agent))),
    ]
}

/// The cases with the bytes of their files, which must be the same set.
fn paired() -> Vec<(&'static str, Vec<u8>, Message)> {
    let mut files = hex::files();
    let cases = [requests(), replies(), registrations(), adverts()].into_iter().flatten();
    let pairs: Vec<_> = cases
        .map(|(name, message)| {
            assert!(files.contains_key(name), "no file {name}.hex");
            let bytes = files.remove(name).expect("just seen");
            (name, bytes, message)
        })
        .collect();
    assert!(files.is_empty(), "files that no case uses: {:?}", files.keys());
    pairs
}

#[test]
fn bytes_become_values() {
    for (name, bytes, message) in paired() {
        assert_eq!(Message::parse(&bytes), Ok(message), "{name}");
    }
}

#[test]
fn values_become_bytes() {
    for (name, bytes, message) in paired() {
        assert_eq!(message.encode(), Ok(bytes), "{name}");
    }
}

#[test]
fn every_function_has_a_vector() {
    let seen: Vec<Function> = paired().iter().map(|(_, _, message)| message.body.function()).collect();
    for function in Function::ALL {
        assert!(seen.contains(&function), "{function:?}");
    }
}
