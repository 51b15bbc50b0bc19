//! What a gateway answers to which bytes (RFC 3103 appendix A), and which of several mistakes it names.

use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::{
    BadParam, ErrorCode, Field, Message, MessageType, ParamType, ParseError, ParseErrorKind, Stage,
};

use crate::hex::bytes;

const CLIENT_ID: &str = "04 00 04 00 00 00 01";
const BIND_ID: &str = "05 00 04 00 00 00 01";
const COUNTER: &str = "0b 00 04 00 00 00 05";
const LEASE: &str = "03 00 04 00 00 07 08";
const ANY_ADDRESS: &str = "01 00 01 01";
const ANY_PORT: &str = "02 00 01 01";
const TUNNEL: &str = "06 00 01 01";
const UNKNOWN: &str = "0d 00 00";

const FREE: u8 = 12;
const EXTEND: u8 = 10;
const QUERY: u8 = 14;
const LISTEN: u8 = 16;

/// A message of these parameters, its header right.
fn message(message_type: u8, params: &[&str]) -> Vec<u8> {
    let params = bytes(&params.concat());
    let [high, low] = u16::try_from(params.len() + 4).expect("short").to_be_bytes();
    [&[1, message_type, high, low], params.as_slice()].concat()
}

/// LISTEN_REQUEST with these in the places of its two ends.
fn listen(ends: [&str; 4]) -> Vec<u8> {
    let [local_address, local_ports, remote_address, remote_ports] = ends;
    message(LISTEN, &[CLIENT_ID, local_address, local_ports, remote_address, remote_ports])
}

fn error(bytes: &[u8]) -> ParseError {
    Message::parse(bytes).expect_err("no message")
}

/// The reason, where it lies, and the code.
fn fault(bytes: &[u8]) -> (ParseErrorKind, usize, ErrorCode) {
    let error = error(bytes);
    (error.kind(), error.offset(), error.error_code())
}

fn bad(param: ParamType, reason: BadParam) -> ParseErrorKind {
    ParseErrorKind::BadParam { param, reason }
}

#[test]
fn unsupported_rsip_version_106() {
    for version in [0, 2, 255] {
        let expected = (ParseErrorKind::Version(version), 0, ErrorCode::UnsupportedRsipVersion);
        assert_eq!(fault(&[version, 2, 0, 4]), expected);
    }
    // Before a length that is wrong as well.
    assert_eq!(fault(&[2, 2, 0, 9]).2, ErrorCode::UnsupportedRsipVersion);
}

#[test]
fn missing_param_201() {
    for (params, missing) in [
        (vec![], Field::ClientId),
        (vec![COUNTER], Field::ClientId),
        (vec![CLIENT_ID], Field::BindId),
        (vec![BIND_ID, COUNTER], Field::ClientId),
    ] {
        let bytes = message(FREE, &params);
        assert_eq!(
            fault(&bytes),
            (ParseErrorKind::MissingParam(missing), bytes.len(), ErrorCode::MissingParam)
        );
    }
    // Two Addresses and two Ports are needed: which one is missing is told by how many there are.
    for (params, missing) in [
        (vec![CLIENT_ID], Field::LocalAddress),
        (vec![CLIENT_ID, ANY_ADDRESS], Field::LocalPorts),
        (vec![CLIENT_ID, ANY_ADDRESS, ANY_PORT], Field::RemoteAddress),
        (vec![CLIENT_ID, ANY_ADDRESS, ANY_PORT, ANY_PORT], Field::RemoteAddress),
        (vec![CLIENT_ID, ANY_ADDRESS, ANY_PORT, ANY_ADDRESS], Field::RemotePorts),
    ] {
        let (kind, _, code) = fault(&message(LISTEN, &params));
        assert_eq!((kind, code), (ParseErrorKind::MissingParam(missing), ErrorCode::MissingParam));
    }
}

#[test]
fn missing_tuple_members_201() {
    let address = "01 00 05 01 0a 14 3c 05";
    for tuple in [
        vec!["0a 00 02 00 01"],
        vec!["0a 00 02 00 02"],
        vec!["0a 00 02 00 02", address],
        vec!["0a 00 02 00 01", "0a 00 02 00 01", address],
    ] {
        let (kind, _, code) = fault(&message(QUERY, &[vec![CLIENT_ID], tuple].concat()));
        assert_eq!((kind, code), (ParseErrorKind::MissingParam(Field::QueryTuple), ErrorCode::MissingParam));
    }
}

#[test]
fn duplicate_param_202() {
    let cases = [
        (message(FREE, &[CLIENT_ID, CLIENT_ID, BIND_ID]), ParamType::ClientId, 11),
        (message(FREE, &[CLIENT_ID, BIND_ID, COUNTER, COUNTER]), ParamType::MessageCounter, 25),
        (message(EXTEND, &[CLIENT_ID, BIND_ID, LEASE, LEASE]), ParamType::LeaseTime, 25),
        (
            message(LISTEN, &[CLIENT_ID, ANY_ADDRESS, ANY_PORT, ANY_ADDRESS, ANY_PORT, ANY_PORT]),
            ParamType::Ports,
            27,
        ),
        (
            message(LISTEN, &[CLIENT_ID, ANY_ADDRESS, ANY_ADDRESS, ANY_PORT, ANY_ADDRESS, ANY_PORT]),
            ParamType::Address,
            23,
        ),
        // Several Tunnel Types are LISTEN's alone (section 9.16.2).
        (
            message(8, &[CLIENT_ID, ANY_ADDRESS, ANY_PORT, ANY_ADDRESS, ANY_PORT, TUNNEL, TUNNEL]),
            ParamType::TunnelType,
            31,
        ),
    ];
    for (bytes, param, offset) in cases {
        assert_eq!(fault(&bytes), (ParseErrorKind::DuplicateParam(param), offset, ErrorCode::DuplicateParam));
    }
}

#[test]
fn extra_param_203() {
    let cases = [
        (message(2, &[CLIENT_ID]), ParamType::ClientId, 4),
        (message(FREE, &[CLIENT_ID, BIND_ID, LEASE]), ParamType::LeaseTime, 18),
        (message(FREE, &[CLIENT_ID, BIND_ID, "0a 00 02 00 01"]), ParamType::Indicator, 18),
        (message(QUERY, &[CLIENT_ID, TUNNEL]), ParamType::TunnelType, 11),
        // An Address that no Indicator leads.
        (message(QUERY, &[CLIENT_ID, "01 00 05 01 0a 14 3c 05"]), ParamType::Address, 11),
    ];
    for (bytes, param, offset) in cases {
        assert_eq!(fault(&bytes), (ParseErrorKind::ExtraParam(param), offset, ErrorCode::ExtraParam));
    }
}

#[test]
fn illegal_param_204() {
    // 22 is the SPI of RFC 3104.
    for number in [0, 13, 22, 255] {
        let unknown = format!("{number:02x} 00 00");
        let bytes = message(FREE, &[CLIENT_ID, BIND_ID, &unknown]);
        assert_eq!(fault(&bytes), (ParseErrorKind::UnknownParam(number), 18, ErrorCode::IllegalParam));
    }
}

#[test]
fn bad_param_lengths_205() {
    let length = |param, length| bad(param, BadParam::Length(length));
    let cases = [
        (message(FREE, &["04 00 03 00 00 01", BIND_ID]), length(ParamType::ClientId, 3), 4),
        (message(FREE, &[CLIENT_ID, "05 00 05 00 00 00 00 01"]), length(ParamType::BindId, 5), 11),
        (message(2, &["0b 00 00"]), length(ParamType::MessageCounter, 0), 4),
        (message(EXTEND, &[CLIENT_ID, BIND_ID, "03 00 02 07 08"]), length(ParamType::LeaseTime, 2), 18),
        (message(QUERY, &[CLIENT_ID, "0a 00 00"]), length(ParamType::Indicator, 0), 11),
        (message(QUERY, &[CLIENT_ID, "0a 00 03 00 00 01"]), length(ParamType::Indicator, 3), 11),
        // Vendor ID and subtype are not there.
        (message(2, &["0c 00 03 00 f1 00"]), length(ParamType::VendorSpecific, 3), 4),
        (listen(["01 00 00", ANY_PORT, ANY_ADDRESS, ANY_PORT]), length(ParamType::Address, 0), 11),
        (listen([ANY_ADDRESS, "02 00 00", ANY_ADDRESS, ANY_PORT]), length(ParamType::Ports, 0), 15),
        (listen([ANY_ADDRESS, "02 00 02 01 50", ANY_ADDRESS, ANY_PORT]), length(ParamType::Ports, 2), 15),
        (
            listen([ANY_ADDRESS, "02 00 04 01 00 50 00", ANY_ADDRESS, ANY_PORT]),
            length(ParamType::Ports, 4),
            15,
        ),
        (
            listen(["01 00 04 01 c0 00 02", ANY_PORT, ANY_ADDRESS, ANY_PORT]),
            length(ParamType::Address, 4),
            11,
        ),
        (
            listen(["01 00 06 01 c0 00 02 01 00", ANY_PORT, ANY_ADDRESS, ANY_PORT]),
            length(ParamType::Address, 6),
            11,
        ),
        (
            listen(["01 00 05 03 c0 00 02 01", ANY_PORT, ANY_ADDRESS, ANY_PORT]),
            length(ParamType::Address, 5),
            11,
        ),
    ];
    for (bytes, kind, offset) in cases {
        assert_eq!(fault(&bytes), (kind, offset, ErrorCode::BadParam));
    }
}

#[test]
fn bad_addresses_205() {
    let address = |reason| bad(ParamType::Address, reason);
    let too_long = format!("01 01 01 04 {}", "61".repeat(256));
    let cases = [
        (["01 00 05 05 c0 00 02 01", ANY_PORT, ANY_ADDRESS, ANY_PORT], address(BadParam::AddressType(5)), 11),
        (["01 00 05 00 c0 00 02 01", ANY_PORT, ANY_ADDRESS, ANY_PORT], address(BadParam::AddressType(0)), 11),
        // A name cannot be leased.
        (["01 00 02 04 61", ANY_PORT, ANY_ADDRESS, ANY_PORT], address(BadParam::LocalFqdn), 11),
        (["01 00 05 02 ff ff ff 00", ANY_PORT, ANY_ADDRESS, ANY_PORT], address(BadParam::Netmask), 11),
        ([ANY_ADDRESS, ANY_PORT, "01 00 05 02 ff ff ff 00", ANY_PORT], address(BadParam::Netmask), 19),
        ([ANY_ADDRESS, ANY_PORT, &too_long, ANY_PORT], address(BadParam::Fqdn), 19),
        // A line feed, a terminator, a letter that is not ASCII.
        ([ANY_ADDRESS, ANY_PORT, "01 00 03 04 61 0a", ANY_PORT], address(BadParam::Fqdn), 19),
        ([ANY_ADDRESS, ANY_PORT, "01 00 03 04 61 00", ANY_PORT], address(BadParam::Fqdn), 19),
        ([ANY_ADDRESS, ANY_PORT, "01 00 03 04 c3 a4", ANY_PORT], address(BadParam::Fqdn), 19),
    ];
    for (ends, kind, offset) in cases {
        assert_eq!(fault(&listen(ends)), (kind, offset, ErrorCode::BadParam));
    }
}

#[test]
fn bad_ports_205() {
    let cases = [
        // A number of 0: in remote ports it is read as don't care, see the accepted vectors.
        ("02 00 01 00", BadParam::NoPorts),
        ("02 00 03 00 00 50", BadParam::NoPorts),
        ("02 00 03 02 ff ff", BadParam::PortRange { first: 65535, count: 2 }),
        ("02 00 03 ff ff 02", BadParam::PortRange { first: 65282, count: 255 }),
        ("02 00 05 01 00 50 00 51", BadParam::PortFields { fields: 2, number: 1 }),
        ("02 00 05 03 00 50 00 51", BadParam::PortFields { fields: 2, number: 3 }),
        ("02 00 05 00 00 50 00 51", BadParam::PortFields { fields: 2, number: 0 }),
        ("02 00 07 03 00 51 00 50 00 51", BadParam::RepeatedPort(81)),
    ];
    for (ports, reason) in cases {
        let bytes = listen([ANY_ADDRESS, ports, ANY_ADDRESS, ANY_PORT]);
        assert_eq!(fault(&bytes), (bad(ParamType::Ports, reason), 15, ErrorCode::BadParam), "{ports}");
    }
    // More port fields than the number can tell.
    let ports = format!("02 02 01 00 {}", (0..256).map(|port| format!("{port:04x}")).collect::<String>());
    let bytes = listen([ANY_ADDRESS, &ports, ANY_ADDRESS, ANY_PORT]);
    assert_eq!(fault(&bytes).0, bad(ParamType::Ports, BadParam::PortFields { fields: 256, number: 0 }));
}

#[test]
fn bad_tuples_205() {
    let (address, network) = ("0a 00 02 00 01", "0a 00 02 00 02");
    let (v4, v6) = ("01 00 05 01 0a 14 3c 00", "01 00 11 03 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 00");
    let (mask, name) = ("01 00 05 02 ff ff ff 00", "01 00 02 04 61");
    let indicator = |value| bad(ParamType::Indicator, BadParam::Indicator(value));
    let cases = [
        (vec!["0a 00 02 00 00", v4], indicator(0)),
        // A question knows no remote.
        (vec!["0a 00 02 00 03", v4], indicator(3)),
        (vec!["0a 00 02 00 04", v4, mask], indicator(4)),
        (vec!["0a 00 02 00 05", v4], indicator(5)),
        (vec!["0a 00 02 01 01", v4], indicator(257)),
        (vec![address, mask], bad(ParamType::Address, BadParam::TupleAddress)),
        (vec![address, ANY_ADDRESS], bad(ParamType::Address, BadParam::TupleAddress)),
        (vec![network, name, mask], bad(ParamType::Address, BadParam::TupleNetwork)),
        (vec![network, mask, mask], bad(ParamType::Address, BadParam::TupleNetwork)),
        // There is no netmask for it.
        (vec![network, v6, mask], bad(ParamType::Address, BadParam::TupleNetwork)),
        (vec![network, v4, v4], bad(ParamType::Address, BadParam::TupleNetmask)),
    ];
    for (tuple, kind) in cases {
        assert_eq!(
            fault(&message(QUERY, &[vec![CLIENT_ID], tuple].concat())),
            (kind, 11, ErrorCode::BadParam)
        );
    }
}

#[test]
fn illegal_message_206() {
    // 23 is RFC 3104's response.
    for number in [0, 18, 21, 23, 241, 255] {
        let expected = (ParseErrorKind::UnknownType(number), 1, ErrorCode::IllegalMessage);
        assert_eq!(fault(&[1, number, 0, 4]), expected);
    }
}

#[test]
fn bad_message_207() {
    for length in 0..4 {
        let bytes = [1, 2, 0][..length.min(3)].to_vec();
        assert_eq!(fault(&bytes), (ParseErrorKind::ShortHeader(length), 0, ErrorCode::BadMessage));
    }
    for stated in [0, 3, 5, u16::MAX] {
        let [high, low] = stated.to_be_bytes();
        let kind = ParseErrorKind::OverallLength { stated, actual: 4 };
        assert_eq!(fault(&[1, 2, high, low]), (kind, 2, ErrorCode::BadMessage));
    }
    for cut in ["0b", "0b 00", "0b 00 04", "0b 00 04 00 00 00", "0b ff ff 00 00 00 01"] {
        let bytes = message(FREE, &[CLIENT_ID, cut]);
        assert_eq!(fault(&bytes), (ParseErrorKind::Overrun, 11, ErrorCode::BadMessage), "{cut}");
    }
}

#[test]
fn wrong_order_207() {
    let order = |expected, found| ParseErrorKind::Order { expected, found };
    let v4 = "01 00 05 01 0a 14 3c 05";
    let indicator = "0a 00 02 00 01";
    let cases = [
        (message(FREE, &[BIND_ID, CLIENT_ID]), order(Field::ClientId, ParamType::BindId), 4),
        // Optional ones come after all that is required.
        (message(FREE, &[COUNTER, CLIENT_ID, BIND_ID]), order(Field::ClientId, ParamType::MessageCounter), 4),
        (message(FREE, &[CLIENT_ID, COUNTER, BIND_ID]), order(Field::BindId, ParamType::MessageCounter), 11),
        (
            message(LISTEN, &[CLIENT_ID, ANY_ADDRESS, ANY_ADDRESS, ANY_PORT, ANY_PORT]),
            order(Field::LocalPorts, ParamType::Address),
            15,
        ),
        // A tuple is not split.
        (
            message(QUERY, &[CLIENT_ID, indicator, COUNTER, v4]),
            order(Field::QueryTuple, ParamType::MessageCounter),
            16,
        ),
        (message(QUERY, &[CLIENT_ID, v4, indicator]), order(Field::QueryTuple, ParamType::Address), 11),
    ];
    for (bytes, kind, offset) in cases {
        assert_eq!(fault(&bytes), (kind, offset, ErrorCode::BadMessage));
    }
}

#[test]
fn lease_time_and_tunnel_type_in_the_other_order_207() {
    let ends = [CLIENT_ID, BIND_ID, ANY_ADDRESS, ANY_PORT, ANY_ADDRESS, ANY_PORT];
    let with = |message_type, last: [&str; 2]| {
        Message::parse(&message(message_type, &[&ends[..], &last[..]].concat()))
    };
    let (assign, listen) = (9, 17);
    assert!(with(assign, [LEASE, TUNNEL]).is_ok());
    assert!(with(listen, [TUNNEL, LEASE]).is_ok());
    let order = |expected, found| ParseErrorKind::Order { expected, found };
    let kind = |message_type, last| with(message_type, last).expect_err("the wrong order").kind();
    assert_eq!(kind(assign, [TUNNEL, LEASE]), order(Field::LeaseTime, ParamType::TunnelType));
    assert_eq!(kind(listen, [LEASE, TUNNEL]), order(Field::TunnelType, ParamType::LeaseTime));
}

#[test]
fn unsupported_message_208() {
    assert_eq!(
        fault(&[1, 22, 0, 4]),
        (ParseErrorKind::UnsupportedType(22), 1, ErrorCode::UnsupportedMessage)
    );
}

/// Of two mistakes the earlier kind is told, wherever it stands.
#[test]
fn the_kind_of_mistake_decides_not_its_place() {
    let (extra, bad_bind) = (LEASE, "05 00 01 01");
    let cut = "03 00 04";
    let cases: [(&[&str], ErrorCode); 7] = [
        (&[UNKNOWN, extra, cut], ErrorCode::BadMessage),
        (&[extra, CLIENT_ID, CLIENT_ID, bad_bind, UNKNOWN], ErrorCode::IllegalParam),
        (&[CLIENT_ID, CLIENT_ID, bad_bind, extra], ErrorCode::ExtraParam),
        (&[bad_bind, CLIENT_ID, CLIENT_ID], ErrorCode::DuplicateParam),
        (&[COUNTER, bad_bind], ErrorCode::BadParam),
        (&[COUNTER, BIND_ID], ErrorCode::MissingParam),
        (&[COUNTER, BIND_ID, CLIENT_ID], ErrorCode::BadMessage),
    ];
    for (params, code) in cases {
        assert_eq!(error(&message(FREE, params)).error_code(), code, "{params:?}");
    }
}

/// No gateway expects a response, so what is wrong inside does not matter.
#[test]
fn a_broken_response_is_an_illegal_message() {
    for message_type in MessageType::ALL.iter().filter(|message_type| message_type.is_response()) {
        for params in [[UNKNOWN].as_slice(), &["03 00 04"], &[]] {
            let error = error(&message(message_type.number(), params));
            assert_eq!(error.error_code(), ErrorCode::IllegalMessage, "{message_type}");
        }
    }
    // Unless it is no message of this version, or not even whole.
    assert_eq!(error(&[2, 3, 0, 4]).error_code(), ErrorCode::UnsupportedRsipVersion);
    assert_eq!(error(&[1, 3, 0, 5]).error_code(), ErrorCode::BadMessage);
}

/// Or two gateways would answer each other for ever.
#[test]
fn what_may_be_an_error_response_is_never_answered() {
    for bytes in [vec![1, 1], vec![1, 1, 0, 3], vec![2, 1, 0, 4], message(1, &[UNKNOWN]), message(1, &[])] {
        assert!(!error(&bytes).is_answerable(), "{bytes:?}");
    }
    for bytes in [vec![], vec![1], vec![1, 2], message(3, &[UNKNOWN]), message(FREE, &[])] {
        assert!(error(&bytes).is_answerable(), "{bytes:?}");
    }
}

#[test]
fn tells_what_the_answer_needs() {
    let error = error(&message(FREE, &[CLIENT_ID, BIND_ID, COUNTER, UNKNOWN]));
    assert_eq!(error.message_type(), Some(MessageType::FreeRequest));
    assert_eq!(error.message_type_number(), Some(FREE));
    assert_eq!(error.counter(), Some(MessageCounter(5)));
    assert_eq!(error.client_id(), Some(ClientId(1)));
    assert_eq!(error.bind_id(), Some(BindId(1)));
    assert_eq!(error.stage(), Stage::Parameters);
    assert_eq!(error.to_string(), "parameter type 13 is not understood (byte 25)");
}

#[test]
fn reads_the_counter_as_far_as_the_parameters_go() {
    let counter = |bytes: &[u8]| error(bytes).counter();
    // Past the counter a parameter is cut; the datagram is cut; there is more than the header says.
    assert_eq!(counter(&message(FREE, &[COUNTER, "04 00 04 00"])), Some(MessageCounter(5)));
    assert_eq!(counter(&message(FREE, &[COUNTER, CLIENT_ID])[..15]), Some(MessageCounter(5)));
    assert_eq!(counter(&[message(2, &[COUNTER]), vec![0; 3]].concat()), Some(MessageCounter(5)));
    // Of two, the first.
    assert_eq!(counter(&message(2, &[COUNTER, "0b 00 04 00 00 00 06"])), Some(MessageCounter(5)));
    // Another version that looks the same.
    let mut other = message(2, &[COUNTER]);
    other[0] = 2;
    assert_eq!(counter(&other), Some(MessageCounter(5)));
    // Past the message's end.
    assert_eq!(counter(&[message(2, &[]), bytes(COUNTER)].concat()), None);
}

#[test]
fn tells_a_missing_counter_from_one_that_cannot_be_read() {
    let lacks = |params: &[&str]| error(&message(FREE, params)).lacks_counter();
    assert!(lacks(&[CLIENT_ID]));
    assert!(lacks(&[CLIENT_ID, BIND_ID, UNKNOWN]));
    assert!(!lacks(&[CLIENT_ID, COUNTER]));
    assert!(!lacks(&[CLIENT_ID, BIND_ID, "0b 00 02 00 05"]));
    // Where parameters cannot be told apart, nobody knows.
    assert!(!lacks(&[CLIENT_ID, "05 00 04"]));
    assert!(!error(&[1, 99, 0, 4]).lacks_counter());
}
