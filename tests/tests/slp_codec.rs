//! The codec of SLP, judged by tshark's srvloc dissector: vectors and generated messages, field by field.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use rsip_lab::lab::exec;
use rsip_slp::strategies;
use rsip_slp::wire::message::{NamingAuthority, UrlEntry};
use rsip_slp::wire::{Body, ErrorCode, Function, Message};

/// tshark starts slowly on a busy machine.
const DECODE: Duration = Duration::from_secs(120);
/// Stands between two values of one field.
const BETWEEN: char = '|';
/// Generated messages that tshark is shown.
const GENERATED: usize = 400;

/// What tshark is to see: field to values. A field that is empty is none at all for tshark.
fn expected(message: &Message) -> BTreeMap<&'static str, String> {
    let bits = [
        (message.flags.overflow, 0x8000),
        (message.flags.fresh, 0x4000),
        (message.flags.request_mcast, 0x2000),
    ];
    let flags: u32 = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
    let mut fields = BTreeMap::from([
        ("srvloc.version", "2".to_owned()),
        ("srvloc.function", message.body.function().number().to_string()),
        ("srvloc.pktlen", message.encode().unwrap().len().to_string()),
        ("srvloc.flags_v2", format!("0x{flags:04x}")),
        ("srvloc.xid", message.xid.to_string()),
        ("srvloc.langtag", message.language.clone()),
        ("srvloc.nextextoff", "0".to_owned()),
    ]);
    fields.extend(body(&message.body));
    fields.retain(|_, value| !value.is_empty());
    fields
}

fn body(body: &Body) -> BTreeMap<&'static str, String> {
    let text = String::clone;
    match body {
        Body::SrvRqst(request) => BTreeMap::from([
            ("srvloc.srvreq.prlist", text(&request.previous_responders)),
            ("srvloc.srvreq.srvtypelist", text(&request.service_type)),
            ("srvloc.srvreq.scopelist", text(&request.scopes)),
            ("srvloc.srvreq.predicate", text(&request.predicate)),
            ("srvloc.srvreq.slpspi", text(&request.spi)),
        ]),
        Body::SrvRply(reply) => {
            let mut fields = entries(&reply.entries);
            fields.extend([error(reply.error), ("srvloc.srvreq.urlcount", reply.entries.len().to_string())]);
            fields
        }
        Body::SrvReg(registration) => {
            let mut fields = entries(std::slice::from_ref(&registration.entry));
            fields.extend([
                ("srvloc.srvreq.srvtype", text(&registration.service_type)),
                ("srvloc.srvreq.scopelist", text(&registration.scopes)),
                ("srvloc.srvreq.attrlist", text(&registration.attributes)),
                ("srvloc.srvreq.attrauthcount", "0".to_owned()),
            ]);
            fields
        }
        Body::SrvDeReg(end) => {
            let mut fields = entries(std::slice::from_ref(&end.entry));
            fields.extend([
                ("srvloc.srvdereq.scopelist", text(&end.scopes)),
                ("srvloc.srvdereq.taglist", text(&end.tags)),
            ]);
            fields
        }
        Body::SrvAck { error: code } => BTreeMap::from([error(*code)]),
        Body::AttrRqst(request) => BTreeMap::from([
            ("srvloc.attrreq.prlist", text(&request.previous_responders)),
            ("srvloc.attrreq.url", text(&request.url)),
            ("srvloc.attrreq.scopelist", text(&request.scopes)),
            ("srvloc.attrreq.taglist", text(&request.tags)),
            ("srvloc.attrreq.slpspi", text(&request.spi)),
        ]),
        Body::AttrRply(reply) => BTreeMap::from([
            error(reply.error),
            ("srvloc.attrrply.attrlist", text(&reply.attributes)),
            // Named like the field of another message.
            ("srvloc.srvreq.attrauthcount", "0".to_owned()),
        ]),
        Body::DaAdvert(advert) => BTreeMap::from([
            error(advert.error),
            ("srvloc.daadvert.url", text(&advert.url)),
            ("srvloc.daadvert.scopelist", text(&advert.scopes)),
            ("srvloc.daadvert.attrlist", text(&advert.attributes)),
            ("srvloc.daadvert.slpspi", text(&advert.spis)),
            ("srvloc.daadvert.authcount", "0".to_owned()),
        ]),
        Body::SrvTypeRqst(request) => BTreeMap::from([
            ("srvloc.srvtypereq.prlist", text(&request.previous_responders)),
            (
                "srvloc.srvtypereq.nameauthlist",
                match &request.naming_authority {
                    NamingAuthority::Named(name) => text(name),
                    NamingAuthority::Iana | NamingAuthority::All => String::new(),
                },
            ),
            ("srvloc.srvtypereq.scopelist", text(&request.scopes)),
        ]),
        Body::SrvTypeRply(reply) => BTreeMap::from([
            error(reply.error),
            ("srvloc.srvtyperply.srvtypelist", text(&reply.service_types)),
        ]),
        Body::SaAdvert(advert) => BTreeMap::from([
            ("srvloc.saadvert.url", text(&advert.url)),
            ("srvloc.saadvert.scopelist", text(&advert.scopes)),
            ("srvloc.saadvert.attrlist", text(&advert.attributes)),
            ("srvloc.saadvert.authcount", "0".to_owned()),
        ]),
    }
}

fn error(error: Option<ErrorCode>) -> (&'static str, String) {
    ("srvloc.errv2", error.map_or(0, ErrorCode::number).to_string())
}

fn entries(entries: &[UrlEntry]) -> BTreeMap<&'static str, String> {
    let joined = |values: Vec<String>| values.join(&BETWEEN.to_string());
    let each = |value: fn(&UrlEntry) -> String| joined(entries.iter().map(value).collect());
    BTreeMap::from([
        ("srvloc.url.reserved", each(|_| "0x00".to_owned())),
        ("srvloc.url.lifetime", each(|entry| entry.lifetime.to_string())),
        ("srvloc.url.url", each(|entry| entry.url.clone())),
        ("srvloc.url.numauths", each(|_| "0".to_owned())),
    ])
}

/// Every field that [`expected`] may name, and what tshark has against a packet.
const FIELDS: [&str; 42] = [
    "_ws.malformed",
    "srvloc.version",
    "srvloc.function",
    "srvloc.pktlen",
    "srvloc.flags_v2",
    "srvloc.xid",
    "srvloc.langtag",
    "srvloc.nextextoff",
    "srvloc.errv2",
    "srvloc.srvreq.prlist",
    "srvloc.srvreq.srvtypelist",
    "srvloc.srvreq.scopelist",
    "srvloc.srvreq.predicate",
    "srvloc.srvreq.slpspi",
    "srvloc.srvreq.urlcount",
    "srvloc.srvreq.srvtype",
    "srvloc.srvreq.attrlist",
    "srvloc.srvreq.attrauthcount",
    "srvloc.url.reserved",
    "srvloc.url.lifetime",
    "srvloc.url.url",
    "srvloc.url.numauths",
    "srvloc.srvdereq.scopelist",
    "srvloc.srvdereq.taglist",
    "srvloc.attrreq.prlist",
    "srvloc.attrreq.url",
    "srvloc.attrreq.scopelist",
    "srvloc.attrreq.taglist",
    "srvloc.attrreq.slpspi",
    "srvloc.attrrply.attrlist",
    "srvloc.daadvert.url",
    "srvloc.daadvert.scopelist",
    "srvloc.daadvert.attrlist",
    "srvloc.daadvert.slpspi",
    "srvloc.daadvert.authcount",
    "srvloc.srvtypereq.prlist",
    "srvloc.srvtypereq.nameauthlist",
    "srvloc.srvtypereq.scopelist",
    "srvloc.srvtyperply.srvtypelist",
    "srvloc.saadvert.url",
    "srvloc.saadvert.scopelist",
    "srvloc.saadvert.attrlist",
];

/// What tshark sees in each message, sent as a datagram to port 427.
fn seen(messages: &[Vec<u8>]) -> Vec<BTreeMap<&'static str, String>> {
    let folder = tempfile::tempdir().unwrap();
    let capture = folder.path().join("slp.pcap");
    let mut writer = Command::new("text2pcap")
        .args(["-q", "-u", "427,427", "-"])
        .arg(&capture)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut dump = String::new();
    for bytes in messages {
        for (line, bytes) in bytes.chunks(16).enumerate() {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            dump.push_str(&format!("{:06x} {}\n", 16 * line, bytes.join(" ")));
        }
    }
    writer.stdin.take().unwrap().write_all(dump.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&capture).args([
        "-T",
        "fields",
        "-E",
        &format!("aggregator={BETWEEN}"),
        "-E",
        "separator=/t",
    ]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let output = exec::run(&mut tshark, DECODE).unwrap().success().unwrap();
    let row = |line: &str| {
        let values = FIELDS.into_iter().zip(line.split('\t').map(str::to_owned));
        values.filter(|(_, value)| !value.is_empty()).collect()
    };
    output.lines().map(row).collect()
}

fn judge(messages: &[(String, Message)]) {
    let bytes: Vec<_> = messages.iter().map(|(_, message)| message.encode().unwrap()).collect();
    let seen = seen(&bytes);
    assert_eq!(seen.len(), messages.len(), "tshark saw each message");
    let mut wrong = Vec::new();
    for ((name, message), seen) in messages.iter().zip(seen) {
        let expected = expected(message);
        for field in FIELDS.into_iter().filter(|field| seen.get(field) != expected.get(field)) {
            let (seen, expected) = (seen.get(field), expected.get(field));
            wrong.push(format!("{name}: {field}: {seen:?}, not {expected:?}: {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tshark_reads_the_vectors_as_we_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rsip-slp/tests/vectors");
    let mut messages = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let digits: String = text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect();
        let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect();
        messages.push((path.display().to_string(), Message::parse(&bytes).unwrap()));
    }
    for function in Function::ALL {
        assert!(messages.iter().any(|(_, message)| message.body.function() == function), "{function:?}");
    }
    judge(&messages);
}

#[test]
fn tshark_reads_whatever_we_write_as_we_meant_it() {
    let mut runner = TestRunner::deterministic();
    let strategy = strategies::message();
    let mut messages = Vec::new();
    while messages.len() < GENERATED {
        let message = strategy.new_tree(&mut runner).unwrap().current();
        // tshark 4.0 takes the strings for ASCII, whatever the RFC says of UTF-8.
        if format!("{message:?}").is_ascii() && !format!("{message:?}").contains("\\u{") {
            messages.push((format!("message {}", messages.len()), message));
        }
    }
    for function in Function::ALL {
        assert!(messages.iter().any(|(_, message)| message.body.function() == function), "{function:?}");
    }
    judge(&messages);
}
