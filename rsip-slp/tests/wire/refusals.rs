//! Bytes that are no message, what is passed over, and what is cut off.

use rsip_slp::wire::message::{AttrRply, SrvRply, SrvRqst, UrlEntry};
use rsip_slp::wire::{Body, EncodeError, ErrorCode, Flags, Function, Message, ParseErrorKind};

use crate::hex;

fn vector(name: &str) -> Vec<u8> {
    hex::files().remove(name).expect("a vector")
}

fn refused(bytes: &[u8]) -> (ParseErrorKind, ErrorCode, bool) {
    let error = Message::parse(bytes).expect_err("no message");
    (error.kind.clone(), error.code(), error.header.is_some())
}

/// The message with `tail` behind it, its length told right.
fn longer(bytes: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut longer = [bytes, tail].concat();
    let length = u32::try_from(longer.len()).expect("short").to_be_bytes();
    longer[2..5].copy_from_slice(&length[1..]);
    longer
}

fn with_extension(offset: usize, tail: &[u8]) -> Vec<u8> {
    let mut bytes = longer(&vector("srv_rqst_multicast"), tail);
    let offset = u32::try_from(offset).expect("short").to_be_bytes();
    bytes[7..10].copy_from_slice(&offset[1..]);
    bytes
}

#[test]
fn a_message_that_is_cut_off_anywhere_is_refused() {
    for (name, bytes) in hex::files() {
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let parsed = Message::parse(cut);
            // Only a reply that says so may be cut off.
            if name != "srv_rply_two" {
                assert!(parsed.is_err(), "{name} cut to {length}");
            }
            if let (true, Err(error)) = (length >= 16 && name != "srv_rply_two", parsed) {
                assert!(error.header.is_some(), "{name} cut to {length}: {error}");
            }
        }
    }
}

#[test]
fn of_a_reply_that_was_cut_off_the_whole_entries_are_read() {
    let bytes = vector("srv_rply_two");
    let message = Message::parse(&bytes[..bytes.len() - 5]).expect("one entry");
    let Body::SrvRply(SrvRply { entries, .. }) = message.body else { panic!("{message:?}") };
    assert_eq!(entries.len(), 1);
    assert!(message.flags.overflow);
}

#[test]
fn any_other_reply_that_was_cut_off_tells_of_its_overflow() {
    let mut bytes = vector("attr_rply_load");
    bytes[5] = 0x80;
    let error = Message::parse(&bytes[..bytes.len() - 5]).expect_err("cut off");
    assert_eq!(error.kind, ParseErrorKind::Truncated);
    assert!(error.header.is_some_and(|header| header.flags.overflow && header.xid == 0x1235));
}

#[test]
fn lengths_must_be_those_of_the_bytes() {
    let bytes = vector("srv_ack");
    let (kind, code, answerable) = refused(&[bytes.as_slice(), &[0]].concat());
    assert_eq!(kind, ParseErrorKind::Length { says: 18, are: 19 });
    assert_eq!((code, answerable), (ErrorCode::ParseError, true));
    assert_eq!(refused(&longer(&bytes, &[0])).0, ParseErrorKind::TrailingBytes(1));
}

#[test]
fn another_version_is_refused_with_its_own_error() {
    let mut bytes = vector("srv_rqst_multicast");
    bytes[0] = 3;
    assert_eq!(refused(&bytes), (ParseErrorKind::Version(3), ErrorCode::VerNotSupported, true));
    bytes[0] = 1;
    let (kind, code, answerable) = refused(&bytes);
    assert_eq!((kind, code), (ParseErrorKind::Version(1), ErrorCode::VerNotSupported));
    assert!(!answerable, "SLPv1 has another header");
    bytes[0] = 2;
    bytes[1] = 12;
    assert_eq!(refused(&bytes).0, ParseErrorKind::Function(12));
}

#[test]
fn strings_must_be_utf_8() {
    let mut bytes = vector("srv_rqst_multicast");
    bytes[20] = 0xff;
    assert_eq!(refused(&bytes), (ParseErrorKind::NotUtf8, ErrorCode::ParseError, true));
}

#[test]
fn optional_extensions_are_passed_over() {
    let plain = Message::parse(&vector("srv_rqst_multicast"));
    let one = with_extension(82, &[0x00, 0x01, 0, 0, 0, 1, 2, 3]);
    assert_eq!(Message::parse(&one), plain);
    let two = with_extension(82, &[0x00, 0x02, 0, 0, 87, 0x80, 0x00, 0, 0, 0]);
    assert_eq!(Message::parse(&two), plain);
}

#[test]
fn mandatory_extensions_are_not_understood() {
    let bytes = with_extension(82, &[0x40, 0x01, 0, 0, 0]);
    assert_eq!(
        refused(&bytes),
        (ParseErrorKind::MandatoryExtension(0x4001), ErrorCode::OptionNotUnderstood, true)
    );
    let second = with_extension(82, &[0x00, 0x02, 0, 0, 87, 0x7f, 0xff, 0, 0, 0]);
    assert_eq!(refused(&second).1, ErrorCode::OptionNotUnderstood);
}

#[test]
fn extensions_lead_forwards_and_not_out_of_the_message() {
    for (offset, tail) in [
        (1, vec![]),
        (83, vec![]),
        (0x00ff_ffff, vec![]),
        (82, vec![0, 2, 0, 0, 82]),
        (82, vec![0, 2, 0, 0, 1]),
        (82, vec![0, 2, 0]),
    ] {
        assert!(Message::parse(&with_extension(offset, &tail)).is_err(), "{offset} {tail:?}");
    }
}

#[test]
fn authentication_blocks_are_passed_over() {
    let block = [0, 2, 0, 14, 0, 0, 0, 0, 0, 2, b'X', b'Y', 9, 9];
    let mut bytes = vector("srv_rply");
    let plain = Message::parse(&bytes);
    *bytes.last_mut().expect("bytes") = 2;
    let bytes = longer(&bytes, &[block, block].concat());
    assert_eq!(Message::parse(&bytes), plain);
    let mut short = bytes.clone();
    let at = short.len() - 2 * block.len() + 3;
    short[at] = 9;
    assert_eq!(refused(&short).0, ParseErrorKind::AuthenticationBlock(9));
}

#[test]
fn nothing_is_expected_after_an_error() {
    let bytes = hex::bytes("02 02 00 00 12 00 00 00 00 00 00 08 00 02 65 6e 00 04");
    let reply = SrvRply { error: Some(ErrorCode::ScopeNotSupported), entries: vec![] };
    assert_eq!(Message::parse(&bytes).map(|message| message.body), Ok(Body::SrvRply(reply)));
    for function in [7, 8, 10] {
        let mut bytes = bytes.clone();
        bytes[1] = function;
        let message = Message::parse(&bytes).expect("an error");
        assert_eq!(message.body.function().number(), function);
    }
}

#[test]
fn what_no_length_field_can_tell_is_not_written() {
    let message = |body| Message { flags: Flags::default(), xid: 1, language: "en".to_owned(), body };
    let request = SrvRqst { predicate: "x".repeat(65536), ..SrvRqst::default() };
    let expected = EncodeError::TooLong { field: "predicate", length: 65536, most: 65535 };
    assert_eq!(message(Body::SrvRqst(request)).encode(), Err(expected));
    let entry = UrlEntry { lifetime: 1, url: "x".repeat(60000) };
    let huge = SrvRply { error: None, entries: vec![entry; 300] };
    assert_eq!(message(Body::SrvRply(huge)).encode(), Err(EncodeError::Huge(16 + 4 + 300 * 60006)));
    let many = SrvRply { error: None, entries: vec![UrlEntry::default(); 65536] };
    assert_eq!(message(Body::SrvRply(many)).encode(), Err(EncodeError::TooMany(65536)));
}

#[test]
fn what_does_not_fit_into_a_datagram_is_cut_at_whole_items() {
    let message = |body| Message { flags: Flags::default(), xid: 1, language: "en".to_owned(), body };
    let entry = |number| UrlEntry { lifetime: 1, url: format!("service:rsip://10.0.0.{number}") };
    let reply = message(Body::SrvRply(SrvRply { error: None, entries: (10..20).map(entry).collect() }));
    let whole = reply.encode().expect("bytes").len();
    assert_eq!(reply.encode_datagram(whole), reply.encode(), "fits");
    for limit in [whole - 1, whole - 29, whole - 30, 60, 20] {
        let bytes = reply.encode_datagram(limit).expect("bytes");
        assert!(bytes.len() <= limit && bytes.len() + 29 > limit.min(whole - 29), "{limit}: {}", bytes.len());
        assert!(Message::parse(&bytes).expect("whole").flags.overflow);
    }
    let attributes = "(a=1),(b=2,3),key,(c=4)".to_owned();
    let reply = message(Body::AttrRply(AttrRply { error: None, attributes }));
    let whole = reply.encode().expect("bytes").len();
    for (less, expected) in [
        (1, "(a=1),(b=2,3),key"),
        (6, "(a=1),(b=2,3),key"),
        (7, "(a=1),(b=2,3)"),
        (11, "(a=1)"),
        (18, "(a=1)"),
        (19, ""),
    ] {
        let bytes = reply.encode_datagram(whole - less).expect("bytes");
        let cut = Message::parse(&bytes).expect("whole");
        assert_eq!(
            cut.body,
            Body::AttrRply(AttrRply { error: None, attributes: expected.to_owned() }),
            "{less}"
        );
        assert!(cut.flags.overflow);
    }
}

#[test]
fn only_requests_have_a_refusal_of_their_own_kind() {
    let refusal = |function: Function| function.refusal(ErrorCode::ParseError).map(|body| body.function());
    assert_eq!(refusal(Function::SrvRqst), Some(Function::SrvRply));
    assert_eq!(refusal(Function::SrvReg), Some(Function::SrvAck));
    assert_eq!(refusal(Function::SrvDeReg), Some(Function::SrvAck));
    assert_eq!(refusal(Function::AttrRqst), Some(Function::AttrRply));
    assert_eq!(refusal(Function::SrvTypeRqst), Some(Function::SrvTypeRply));
    for function in
        [Function::SrvRply, Function::SrvAck, Function::AttrRply, Function::DaAdvert, Function::SaAdvert]
    {
        assert_eq!(refusal(function), None, "an error is never answered with an error");
    }
}
