//! Generators of messages and of what stands in them, for property tests (feature `testing`).

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::text::{Attribute, AttributeList, Value};
use crate::wire::message::{
    AttrRply, AttrRqst, DaAdvert, NamingAuthority, SaAdvert, SrvDeReg, SrvReg, SrvRply, SrvRqst, SrvTypeRply,
    SrvTypeRqst, UrlEntry,
};
use crate::wire::{Body, ErrorCode, Flags, Message};

/// Any message that can be encoded.
pub fn message() -> impl Strategy<Value = Message> {
    let flags = any::<(bool, bool, bool)>().prop_map(|(overflow, fresh, request_mcast)| Flags {
        overflow,
        fresh,
        request_mcast,
    });
    (flags, any::<u16>(), "[a-zA-Z]{1,8}(-[a-zA-Z]{1,8})?", body())
        .prop_map(|(flags, xid, language, body)| Message { flags, xid, language, body })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        [text(), text(), text(), text(), text()].prop_map(
            |[previous_responders, service_type, scopes, predicate, spi]| Body::SrvRqst(SrvRqst {
                previous_responders,
                service_type,
                scopes,
                predicate,
                spi
            })
        ),
        (error(), vec(entry(), 0..4))
            .prop_map(|(error, entries)| { Body::SrvRply(SrvRply { error, entries: kept(error, entries) }) }),
        (entry(), text(), text(), text()).prop_map(|(entry, service_type, scopes, attributes)| {
            Body::SrvReg(SrvReg { entry, service_type, scopes, attributes })
        }),
        (text(), entry(), text()).prop_map(|(scopes, entry, tags)| Body::SrvDeReg(SrvDeReg {
            scopes,
            entry,
            tags
        })),
        error().prop_map(|error| Body::SrvAck { error }),
        [text(), text(), text(), text(), text()].prop_map(|[previous_responders, url, scopes, tags, spi]| {
            Body::AttrRqst(AttrRqst { previous_responders, url, scopes, tags, spi })
        }),
        (error(), text()).prop_map(|(error, attributes)| {
            Body::AttrRply(AttrRply { error, attributes: kept(error, attributes) })
        }),
        da_advert().prop_map(Body::DaAdvert),
        (text(), naming_authority(), text()).prop_map(|(previous_responders, naming_authority, scopes)| {
            Body::SrvTypeRqst(SrvTypeRqst { previous_responders, naming_authority, scopes })
        }),
        (error(), text()).prop_map(|(error, service_types)| {
            Body::SrvTypeRply(SrvTypeRply { error, service_types: kept(error, service_types) })
        }),
        [text(), text(), text()].prop_map(|[url, scopes, attributes]| Body::SaAdvert(SaAdvert {
            url,
            scopes,
            attributes
        })),
    ]
}

fn da_advert() -> impl Strategy<Value = DaAdvert> {
    (error(), any::<u32>(), [text(), text(), text(), text()]).prop_map(
        |(error, boot_timestamp, [url, scopes, attributes, spis])| {
            kept_or(
                error,
                DaAdvert { error, boot_timestamp, url, scopes, attributes, spis },
                DaAdvert { error, ..DaAdvert::default() },
            )
        },
    )
}

/// Nothing is said after an error.
fn kept<T: Default>(error: Option<ErrorCode>, rest: T) -> T {
    kept_or(error, rest, T::default())
}

fn kept_or<T>(error: Option<ErrorCode>, rest: T, otherwise: T) -> T {
    if error.is_none() { rest } else { otherwise }
}

fn error() -> impl Strategy<Value = Option<ErrorCode>> {
    prop_oneof![3 => Just(0), 1 => any::<u16>()].prop_map(ErrorCode::from_number)
}

fn entry() -> impl Strategy<Value = UrlEntry> {
    (any::<u16>(), text()).prop_map(|(lifetime, url)| UrlEntry { lifetime, url })
}

fn naming_authority() -> impl Strategy<Value = NamingAuthority> {
    prop_oneof![
        Just(NamingAuthority::Iana),
        Just(NamingAuthority::All),
        "[a-z]{1,20}".prop_map(NamingAuthority::Named),
    ]
}

/// What may stand in any string, and more often than not means something.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("service:rsip".to_owned()),
        Just("service:rsip://10.0.0.1:4555".to_owned()),
        Just("DEFAULT".to_owned()),
        attributes().prop_map(|list| list.to_string()),
        predicate(),
        "\\PC{0,40}",
        "[ -~]{0,40}",
    ]
}

/// Attribute lists that are consistent.
pub fn attributes() -> impl Strategy<Value = AttributeList> {
    let values = prop_oneof![
        vec(any::<bool>().prop_map(Value::Boolean), 0..3),
        vec(any::<i32>().prop_map(Value::Integer), 0..3),
        vec(vec(any::<u8>(), 1..4).prop_map(Value::Opaque), 0..3),
        vec("\\PC{0,8}[g-z(),\\\\=*]\\PC{0,8}".prop_map(string_value), 0..3),
    ];
    vec(("[a-z_(,\\\\=]{1,6}", values), 0..5).prop_map(|attributes| {
        let mut list = AttributeList::default();
        let attributes = attributes.into_iter().filter_map(|(tag, values)| Attribute::new(&tag, values).ok());
        attributes.for_each(|attribute| list.set(attribute));
        list
    })
}

fn string_value(text: String) -> Value {
    Value::from_text(&text)
        .filter(|value| matches!(value, Value::String(_)))
        .unwrap_or(Value::String("x".to_owned()))
}

/// Predicates that can be read.
pub fn predicate() -> impl Strategy<Value = String> {
    let item = (option::of("[a-e]"), prop_oneof![Just("="), Just("<="), Just(">=")], "[a-z0-9]{1,4}")
        .prop_map(|(tag, operator, value)| {
            format!("({}{operator}{value})", tag.unwrap_or("load".to_owned()))
        });
    let leaf = prop_oneof![item, Just("(a=*)".to_owned()), Just("(b=x*y)".to_owned())];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 1..4).prop_map(|filters| format!("(&{})", filters.concat())),
            vec(inner.clone(), 1..4).prop_map(|filters| format!("(|{})", filters.concat())),
            inner.prop_map(|filter| format!("(!{filter})")),
        ]
    })
}
