//! `rsip-client discover` against SLP programs that are none of ours.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::slp::{self, GROUP, Role, StandIn, discover, discovered, expect_none};
use rsip_lab::lab::topology::{GATEWAY, HOST_IF};
use rsip_lab::lab::{Host, Lab, exec};
use serde_json::json;

/// The switch of the private network, as a machine of its own.
const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
const FULL: &str = "(ipsec-support=false),(ike-support=true),(tunnel-type=IP-IP,GRE),(transport=TCP,UDP)";

fn lab() -> Lab {
    let lab = Lab::new().unwrap();
    lab.lan.ip(&["address", "add", &format!("{SWITCH}/24"), "dev", "br0"]).unwrap();
    lab
}

/// A service that the stand-in knows from now on.
fn register(at: &StandIn, url: &str, attributes: &str, scopes: &str) {
    let order = json!({"do": "register", "url": url, "type": "service:rsip", "scopes": scopes,
        "attributes": attributes, "lifetime": 300});
    assert_eq!(at.order(&order).unwrap()["complaints"], json!([]));
}

fn urls(found: &[slp::Found]) -> Vec<&str> {
    found.iter().map(|one| one.url.as_str()).collect()
}

#[test]
fn says_no_service_defined_where_nothing_answers() {
    let lab = lab();
    let recording = Recording::start(&lab, lab.host(Host::A), HOST_IF).unwrap();
    let start = Instant::now();
    expect_none(&lab, Host::A, &[]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let start = Instant::now();
    expect_none(&lab, Host::A, &["--json", "--timeout", "2"]).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // Somebody speaks SLP, and knows nothing of RSIP.
    let _slpd = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    expect_none(&lab, Host::A, &["--timeout", "3"]).unwrap();
    let verdict = slp::judge(&recording.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    // All of it to the group, with the time to live that RFC 2608 section 6.1 names.
    let sent = verdict.sent(Host::A.address(), 1);
    assert!(sent.iter().all(|one| one.destination == GROUP.to_string() && one.ttl == 255), "{sent:?}");
    assert!(sent.iter().any(|one| one.strings[0] == "service:directory-agent"));
    assert!(sent.iter().any(|one| one.strings[0] == "service:rsip" && one.strings[1] == "DEFAULT"));
}

#[test]
fn an_interface_that_will_not_do_is_named() {
    let lab = lab();
    let output = discover(&lab, Host::A, &["--interface", "eth9"]).unwrap();
    assert_eq!(output.code(), 78);
    assert!(output.stderr.contains("eth9"), "{}", output.stderr);
    lab.host(Host::A).ip(&["link", "set", "dev", HOST_IF, "down"]).unwrap();
    for more in [&[][..], &["--interface", HOST_IF]] {
        let output = discover(&lab, Host::A, more).unwrap();
        assert_eq!(output.code(), 3);
        assert!(output.stderr.contains("No service:rsip defined!"), "{}", output.stderr);
        assert!(output.stderr.contains("interface"), "{}", output.stderr);
    }
}

#[test]
fn multicast_finds_all_gateways_and_the_least_loaded_comes_first() {
    let lab = lab();
    let gateway = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    let switch = StandIn::start(&lab, &lab.lan, Role::Daemon, SWITCH, &[]).unwrap();
    let other = StandIn::start(&lab, lab.host(Host::B), Role::Daemon, Host::B.address(), &[]).unwrap();
    register(&gateway, "service:rsip://10.77.0.1:4555", &format!("{FULL},(load=40)"), "DEFAULT");
    register(&switch, "service:rsip://10.77.0.4", "", "DEFAULT");
    register(&other, "service:rsip://10.77.0.3:4000", &format!("{FULL},(load=5)"), "DEFAULT");
    let recording = Recording::start(&lab, lab.host(Host::A), HOST_IF).unwrap();
    let found = discovered(&lab, Host::A, &[]).unwrap();
    assert_eq!(
        urls(&found),
        ["service:rsip://10.77.0.3:4000", "service:rsip://10.77.0.1:4555", "service:rsip://10.77.0.4"]
    );
    let [best, _, untold] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(best.addresses, ["10.77.0.3:4000"]);
    assert_eq!((best.load, best.ipsec_support, best.ike_support), (Some(5), false, true));
    assert_eq!(
        (best.tunnel_types.join(","), best.transports.join(",")),
        ("IP-IP,GRE".into(), "TCP,UDP".into())
    );
    assert!((290..=300).contains(&best.lifetime), "{best:?}");
    // The template's defaults, and RSIP's own port.
    assert_eq!((untold.tunnel_types.join(","), untold.transports.join(",")), ("IP-IP".into(), "TCP".into()));
    assert_eq!((untold.load, untold.addresses.clone()), (None, vec!["10.77.0.4:4555".to_owned()]));
    // For people: a line for each.
    let text = discover(&lab, Host::A, &["--interface", HOST_IF]).unwrap().success().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for word in
        ["service:rsip://10.77.0.3:4000", " 10.77.0.3:4000 ", "IP-IP,GRE", "TCP,UDP", "load 5", "lifetime"]
    {
        assert!(lines[0].contains(word), "{word}: {text}");
    }
    for stand_in in [&gateway, &switch, &other] {
        stand_in.expect_no_complaints().unwrap();
        // The convergence algorithm: whoever is in the list of previous responders stays silent.
        let asked = stand_in.received_of("SrvRqst").unwrap();
        let again =
            asked.iter().filter(|one| one.text("type") == "service:rsip" && !one.text("previous").is_empty());
        for one in again {
            assert!(one.answer.is_null() && one.text("previous").split(',').count() == 3, "{one:?}");
        }
    }
    let verdict = slp::judge(&recording.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    assert!(verdict.sent(Host::A.address(), 6).len() >= 3, "attributes are asked for: {verdict:?}");
}

#[test]
fn a_directory_agent_is_asked_instead_of_everybody() {
    let lab = lab();
    let da = StandIn::start(&lab, &lab.lan, Role::DirectoryAgent, SWITCH, &[]).unwrap();
    let slpd = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    register(&da, "service:rsip://10.77.0.1:4555", &format!("{FULL},(load=99)"), "DEFAULT");
    register(&da, "service:rsip://10.77.0.3:4555", &format!("{FULL},(load=98)"), "DEFAULT");
    register(&slpd, "service:rsip://10.77.0.9:4555", FULL, "DEFAULT");
    let recording = Recording::start(&lab, lab.host(Host::A), HOST_IF).unwrap();
    let found = discovered(&lab, Host::A, &[]).unwrap();
    assert_eq!(urls(&found), ["service:rsip://10.77.0.3:4555", "service:rsip://10.77.0.1:4555"]);
    // RFC 2608 section 11.1: nothing is multicast for a scope that a directory agent has.
    let asked = slpd.received_of("SrvRqst").unwrap();
    assert!(asked.iter().all(|one| one.text("type") == "service:directory-agent"), "{asked:?}");
    da.expect_no_complaints().unwrap();
    slpd.expect_no_complaints().unwrap();
    let verdict = slp::judge(&recording.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    let to_da = verdict.sent(Host::A.address(), 1);
    assert!(to_da.iter().any(|one| one.destination == SWITCH.to_string()), "{to_da:?}");
}

#[test]
fn a_named_directory_agent_is_asked_where_no_multicast_leads() {
    let lab = lab();
    let internet = Ipv4Addr::new(198, 51, 100, 2);
    // It does not know the private network: the gateway's NAT stands for whatever routes there.
    lab.gateway
        .tool("nft", &["add table ip lab; add chain ip lab out { type nat hook postrouting priority 100; }; add rule ip lab out oif ext0 masquerade"])
        .unwrap();
    let da = StandIn::start(&lab, &lab.internet, Role::DirectoryAgent, internet, &["--quiet"]).unwrap();
    register(&da, "service:rsip://10.77.0.1:4555", FULL, "DEFAULT");
    expect_none(&lab, Host::A, &["--timeout", "3"]).unwrap();
    let found = discovered(&lab, Host::A, &["--da", "198.51.100.2"]).unwrap();
    assert_eq!(urls(&found), ["service:rsip://10.77.0.1:4555"]);
    da.expect_no_complaints().unwrap();
    // One that does not answer, and one that does.
    let found = discovered(&lab, Host::A, &["--da", "10.77.0.250", "--da", "198.51.100.2"]).unwrap();
    assert_eq!(urls(&found), ["service:rsip://10.77.0.1:4555"]);
    // Where the named one is dead, gateways are asked.
    let slpd = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    register(&slpd, "service:rsip://10.77.0.1:4556", FULL, "DEFAULT");
    let found = discovered(&lab, Host::A, &["--da", "10.77.0.250", "--timeout", "30"]).unwrap();
    assert_eq!(urls(&found), ["service:rsip://10.77.0.1:4556"]);
}

#[test]
fn only_gateways_of_its_scopes_are_found() {
    let lab = lab();
    let da = StandIn::start(&lab, &lab.lan, Role::DirectoryAgent, SWITCH, &["--scopes", "A,B"]).unwrap();
    let slpd = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &["--scopes", "C,D"]).unwrap();
    register(&da, "service:rsip://10.77.0.1:1", &format!("{FULL},(load=1)"), "A");
    register(&da, "service:rsip://10.77.0.1:2", &format!("{FULL},(load=2)"), "B");
    register(&slpd, "service:rsip://10.77.0.1:3", &format!("{FULL},(load=3)"), "C");
    expect_none(&lab, Host::A, &["--timeout", "5"]).unwrap();
    for (scopes, ports) in [("a", &[1][..]), ("B,A", &[1, 2]), ("c", &[3]), ("B,C", &[2, 3])] {
        let found = discovered(&lab, Host::A, &["--scope", scopes]).unwrap();
        let expected: Vec<String> =
            ports.iter().map(|port| format!("service:rsip://10.77.0.1:{port}")).collect();
        assert_eq!(urls(&found), expected, "scopes {scopes}");
    }
    da.expect_no_complaints().unwrap();
    slpd.expect_no_complaints().unwrap();
}

#[test]
fn what_does_not_fit_into_a_datagram_is_asked_for_over_a_connection() {
    let lab = lab();
    let da = StandIn::start(&lab, &lab.lan, Role::DirectoryAgent, SWITCH, &[]).unwrap();
    let many: Vec<String> = (1..=60).map(|port| format!("service:rsip://10.77.0.1:{port}")).collect();
    for (load, url) in many.iter().enumerate() {
        register(&da, url, &format!("{FULL},(load={load})"), "DEFAULT");
    }
    let recording = Recording::start(&lab, lab.host(Host::A), HOST_IF).unwrap();
    let found = discovered(&lab, Host::A, &[]).unwrap();
    assert_eq!(urls(&found), many);
    let asked = da.received_of("SrvRqst").unwrap();
    let unicast: Vec<_> = asked.iter().filter(|one| one.text("type") == "service:rsip").collect();
    let ways: Vec<&str> = unicast.iter().map(|one| one.via.as_str()).collect();
    assert_eq!(ways, ["udp", "tcp"], "{unicast:?}");
    assert!(unicast.windows(2).all(|pair| pair[0].fields["xid"] == pair[1].fields["xid"]));
    assert_eq!(unicast[0].answer["overflow"], true);
    da.expect_no_complaints().unwrap();
    slp::judge(&recording.stop().unwrap()).unwrap().expect_clean().unwrap();
}

#[test]
fn requests_are_repeated_with_doubling_waits_until_they_are_answered() {
    let lab = lab();
    let da = StandIn::start(&lab, &lab.lan, Role::DirectoryAgent, SWITCH, &[]).unwrap();
    register(&da, "service:rsip://10.77.0.1:4555", FULL, "DEFAULT");
    // The first request is not heard, the second one refused for a while.
    da.order(&json!({"do": "set", "mute": 1, "busy": 1})).unwrap();
    let found = discovered(&lab, Host::A, &["--timeout", "30"]).unwrap();
    assert_eq!(urls(&found), ["service:rsip://10.77.0.1:4555"]);
    let asked = da.received_of("SrvRqst").unwrap();
    let asked: Vec<_> = asked.iter().filter(|one| one.text("type") == "service:rsip").collect();
    let [first, second, third] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(first.fields["xid"] == second.fields["xid"] && second.fields["xid"] == third.fields["xid"]);
    let (one, two) = (second.t - first.t, third.t - second.t);
    assert!((1.5..3.0).contains(&one) && (3.5..6.0).contains(&two), "waits of {one} s and {two} s");
    da.expect_no_complaints().unwrap();
}

/// Answers every request with bytes that mean harm, beside a good gateway.
const ROGUE: &str = r"
import os, socket, struct
group = socket.inet_aton('239.255.255.253') + socket.inet_aton('10.77.0.3')
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
sock.bind(('0.0.0.0', 427))
def text(value):
    return struct.pack('>H', len(value)) + value
def reply(xid, body, function=2, flags=0):
    head = bytes([2, function]) + (16 + len(body)).to_bytes(3, 'big') + struct.pack('>H', flags) + b'\0\0\0'
    return head + struct.pack('>H', xid) + text(b'en') + body
def urls(*all):
    return b'\0\0' + struct.pack('>H', len(all)) + b''.join(b'\0\1\x2c' + text(url) + b'\0' for url in all)
print('listening', flush=True)
while True:
    data, source = sock.recvfrom(65535)
    if len(data) < 12:
        continue
    xid = struct.unpack('>H', data[10:12])[0]
    good = reply(xid, urls(b'service:rsip://10.77.0.9:9'))
    for bad in [
        b'', b'\x02', os.urandom(1400), good[:-3], b'\x01' + good[1:], good[:2] + b'\xff\xff\xff' + good[5:],
        reply(xid, b'\0\0\xff\xff'), reply(xid, b'\0\x63\0\0'), reply(xid, urls(b'')),
        reply(xid, urls(b'service:printer:lpr://10.77.0.9')), reply(xid, urls(b'http://10.77.0.9')),
        reply(xid, urls(b'service:rsip://\xff\xfe')), reply(xid, urls(b'service:rsip://10.77.0.9:99999')),
        reply(xid, urls(b'service:rsip://\x1b[31mred')), reply(xid ^ 1, urls(b'service:rsip://10.77.0.8')),
        reply(xid, b'\0\0\0\1\0\0\0\0\0' , 8), reply(xid, os.urandom(900), 8),
        reply(xid, b'\0\0' + struct.pack('>I', 5) + text(b'service:directory-agent://10.77.0.3') + text(b'X') + text(b'') + text(b'') + b'\0', 8),
        reply(xid, urls(), 2, 0x8000),
    ]:
        sock.sendto(bad, source)
";

#[test]
fn answers_that_mean_harm_do_none() {
    let lab = lab();
    let slpd = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    register(&slpd, "service:rsip://10.77.0.1:4555", FULL, "DEFAULT");
    let mut command = lab.host(Host::B).command("/usr/bin/python3");
    let log = lab.folder().join("rogue.log");
    let mut rogue = Process::start("rogue", command.args(["-c", ROGUE]), &log).unwrap();
    rogue.wait_for_output("listening", exec::SHORT).unwrap();
    let output = discover(&lab, Host::A, &[]).unwrap();
    assert_eq!(output.code(), 0, "{}", output.stderr);
    // What nobody can tell from a gateway may be there; nothing else is.
    for line in output.stdout.lines() {
        assert!(line.starts_with("service:rsip://10.77.0.1:4555 "), "{:?}", output.stdout);
    }
    assert_eq!(output.stdout.lines().count(), 1);
    rogue.expect_running().unwrap();
}
