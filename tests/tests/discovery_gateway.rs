//! `rsipd` as a service agent of SLP, seen by SLP programs that are none of ours.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::slp::{self, GROUP, Received, Role, StandIn, discovered, expect_none};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, GATEWAY, HOST_IF, INTERNAL_IF, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, Lab, binaries, exec, gateway, link, probe};
use serde_json::json;

/// The switch of the private network, as a machine of its own.
const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
const URL: &str = "service:rsip://10.77.0.1:4555";
/// CONFIG_START_WAIT, a search, CONFIG_REG_ACTIVE, a lost datagram or two, and a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// Only the network; the switch has an address.
fn system(gateway: &str) -> System {
    let lab = Lab::new().unwrap();
    lab.lan.ip(&["address", "add", &format!("{SWITCH}/24"), "dev", "br0"]).unwrap();
    System::in_lab(lab, Options { gateway: gateway.into(), ..Options::default() }).unwrap()
}

fn directory(system: &System, more: &[&str]) -> StandIn {
    StandIn::start(&system.lab, &system.lab.lan, Role::DirectoryAgent, SWITCH, more).unwrap()
}

fn order(at: &StandIn, order: serde_json::Value) {
    at.order(&order).unwrap();
}

/// What the user agent that is none of ours gets from host A.
fn ask(system: &System, arguments: &[&str]) -> Vec<Received> {
    let replies = slp::ask(&system.lab, system.lab.host(Host::A), arguments).unwrap();
    for reply in &replies {
        assert!(reply.complaints.is_empty(), "{arguments:?}: {reply:?}");
    }
    replies
}

/// The same, where there must be one answer.
fn one(system: &System, arguments: &[&str]) -> Received {
    let mut replies = ask(system, arguments);
    assert_eq!(replies.len(), 1, "{arguments:?}: {replies:?}");
    replies.remove(0)
}

fn to_all(more: &[&'static str]) -> Vec<&'static str> {
    [&["--to", "239.255.255.253", "--address", "10.77.0.2"][..], more].concat()
}

fn to_gateway(more: &[&'static str]) -> Vec<&'static str> {
    [&["--to", "10.77.0.1"][..], more].concat()
}

fn urls(reply: &Received) -> Vec<&str> {
    let entries = reply.fields["urls"].as_array().unwrap();
    entries.iter().map(|entry| entry["url"].as_str().unwrap()).collect()
}

#[test]
fn a_gateway_answers_who_looks_for_it_by_multicast() {
    let mut system = system("");
    let outside = Recording::start(&system.lab, &system.lab.gateway, EXTERNAL_IF).unwrap();
    let inside = Recording::start(&system.lab, &system.lab.gateway, INTERNAL_IF).unwrap();
    system.start_gateway().unwrap();
    // Found by our own client, with all that the template has.
    let found = discovered(&system.lab, Host::A, &[]).unwrap();
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((found.url.as_str(), found.load), (URL, Some(0)));
    assert_eq!(
        (found.tunnel_types.join(","), found.transports.join(",")),
        ("IP-IP".into(), "TCP,UDP".into())
    );
    assert!(!found.ipsec_support && !found.ike_support && found.lifetime > 0, "{found:?}");
    // And by another one.
    let reply = one(&system, &to_all(&[]));
    assert_eq!((reply.from.as_str(), urls(&reply)), ("10.77.0.1:427", vec![URL]));
    for predicate in ["(&(tunnel-type=ip-ip)(transport=TCP))", "(load<=100)", "(!(ipsec-support=true))"] {
        assert_eq!(urls(&one(&system, &to_all(&["--predicate", predicate]))), [URL], "{predicate}");
    }
    // RFC 2608 section 8.2: silence where nothing matches or the question is wrong.
    for more in [
        &["--predicate", "(tunnel-type=L2TP)"][..],
        &["--predicate", "(tunnel-type="],
        &["--scopes", "OTHER"],
        &["--scopes", ""],
        &["--type", "service:printer"],
        &["--type", ""],
        &["--previous", "10.77.0.1"],
        &["--previous", "192.0.2.1,198.51.100.1"],
        &["--language", "de", "--predicate", "(load=0)"],
    ] {
        assert!(ask(&system, &to_all(more)).is_empty(), "{more:?}");
    }
    assert_eq!(urls(&one(&system, &to_all(&["--previous", "10.77.0.9,nonsense"]))), [URL]);
    let advert = one(&system, &to_all(&["--type", "service:service-agent"]));
    assert_eq!(advert.text("url"), "service:service-agent://10.77.0.1");
    assert_eq!(advert.text("scopes"), "DEFAULT");

    system.stop_all().unwrap();
    assert!(ask(&system, &to_all(&[])).is_empty(), "a gateway that has ended");
    let verdict = slp::judge(&inside.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    let own = verdict.sent(GATEWAY, 1);
    assert!(!own.is_empty(), "it looks for directory agents: {verdict:?}");
    for packet in own {
        assert_eq!((packet.destination.clone(), packet.ttl), (GROUP.to_string(), 255));
        assert_eq!(packet.strings[0], "service:directory-agent");
    }
    // The external side heard and saw nothing of all this.
    let outside = slp::judge(&outside.stop().unwrap()).unwrap();
    assert!(outside.packets.is_empty() && outside.bad.is_empty(), "{outside:?}");
    system.finish().unwrap();
}

#[test]
fn a_gateway_answers_what_is_asked_of_it_alone() {
    let mut system = system("");
    system.start_gateway().unwrap();
    for way in [&[][..], &["--tcp"]] {
        let reply = one(&system, &to_gateway(way));
        assert_eq!((reply.number("error"), urls(&reply)), (0, vec![URL]));
        // RFC 2608 section 8.2: an empty reply, or an error; never silence.
        let error = |more: &[&'static str]| {
            let reply = one(&system, &to_gateway(&[way, more].concat()));
            let entries = reply.fields.get("urls").and_then(|urls| urls.as_array().map(Vec::len));
            (reply.number("error"), entries.unwrap_or_default())
        };
        assert_eq!(error(&["--predicate", "(tunnel-type=L2TP)"]), (0, 0));
        assert_eq!(error(&["--type", "service:printer"]), (0, 0));
        assert_eq!(error(&["--scopes", "OTHER"]), (4, 0));
        assert_eq!(error(&["--scopes", ""]), (4, 0));
        assert_eq!(error(&["--type", ""]), (2, 0));
        assert_eq!(error(&["--predicate", "(tunnel-type="]), (2, 0));
        assert_eq!(error(&["--language", "de", "--predicate", "(load=0)"]), (1, 0));
        let attributes =
            |more: &[&'static str]| one(&system, &to_gateway(&[&["--attributes"][..], way, more].concat()));
        assert_eq!(attributes(&["--type", URL, "--tags", "LOAD"]).text("attributes"), "(load=0)");
        let all = attributes(&["--type", URL]).text("attributes").to_owned();
        for part in
            ["(ipsec-support=false)", "(ike-support=false)", "(tunnel-type=IP-IP)", "(transport=TCP,UDP)"]
        {
            assert!(all.contains(part), "{all}");
        }
        assert_eq!(attributes(&["--type", "service:rsip"]).text("attributes"), all);
    }
    // Version 1, in the layout that both versions share.
    let version_1 = "0101002d0000000000000001000000000000";
    let replies =
        slp::ask(&system.lab, system.lab.host(Host::A), &to_gateway(&["--hex", version_1])).unwrap();
    assert!(replies.iter().all(|reply| reply.number("error") == 9), "{replies:?}");
    system.finish().unwrap();
}

#[test]
fn the_external_side_gets_no_answer() {
    let mut system = system("");
    system.start_gateway().unwrap();
    system.lab.internet.ip(&["route", "add", "10.77.0.0/24", "via", &PUBLIC.to_string()]).unwrap();
    let (public, private, group, own) =
        (PUBLIC.to_string(), GATEWAY.to_string(), GROUP.to_string(), INTERNET.to_string());
    for arguments in [
        &["--to", &public][..],
        &["--to", &private],
        &["--to", &group, "--address", &own],
        &["--to", "198.51.100.255"],
        &["--to", &public, "--attributes"],
    ] {
        let replies = slp::ask(&system.lab, &system.lab.internet, arguments).unwrap();
        assert!(replies.is_empty(), "{arguments:?}: {replies:?}");
    }
    for address in [&public, &private] {
        let mut command = system.lab.internet.command("nc");
        command.args(["-z", "-w", "1", address, "427"]);
        assert_ne!(exec::run(&mut command, exec::SHORT).unwrap().code(), 0, "{address}");
    }
    assert_eq!(urls(&one(&system, &to_all(&[]))), [URL], "the private side");
    system.lab.internet.ip(&["route", "del", "10.77.0.0/24"]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_gateway_registers_with_a_directory_agent_and_leaves_it_when_it_ends() {
    let mut system = system("");
    let da = directory(&system, &[]);
    let recording = Recording::start(&system.lab, &system.lab.gateway, INTERNAL_IF).unwrap();
    system.start_gateway().unwrap();
    let held = da.registrations_become("the gateway", SOON, |all| all.len() == 1).unwrap();
    let [held] = held.as_slice() else { panic!("{held:?}") };
    assert_eq!((held.url.as_str(), held.service_type.as_str()), (URL, "service:rsip"));
    assert_eq!((held.scopes.as_str(), held.number("load")), ("DEFAULT", Some(0)));
    assert_eq!(held.attributes["tunnel-type"], json!(["ip-ip"]));
    assert_eq!(held.attributes["transport"], json!(["tcp", "udp"]));
    assert_eq!(held.attributes["ipsec-support"], json!(["false"]));
    // The client finds it there.
    let found = discovered(&system.lab, Host::A, &[]).unwrap();
    assert_eq!(found.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), [URL]);
    let asked = da.received_of("SrvRqst").unwrap();
    assert!(asked.iter().any(|one| one.via == "udp" && one.from.starts_with("10.77.0.2:")), "{asked:?}");
    // More load is told: an update, not a new registration.
    system.start_agent(Host::A).unwrap();
    let held = da
        .registrations_become("more load", SOON, |all| all.iter().any(|one| one.number("load") > Some(0)))
        .unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].attributes["tunnel-type"], json!(["ip-ip"]), "the rest stays: {held:?}");
    let registered = da.received_of("SrvReg").unwrap();
    assert!(registered.first().unwrap().flag("fresh") && !registered.last().unwrap().flag("fresh"));

    system.stop_all().unwrap();
    assert!(da.registrations().unwrap().is_empty());
    let left = da.received_of("SrvDeReg").unwrap();
    assert!(left.iter().all(|one| one.text("url") == URL && one.text("scopes") == "DEFAULT"), "{left:?}");
    da.expect_no_complaints().unwrap();
    let verdict = slp::judge(&recording.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    let of = |function| verdict.sent(GATEWAY, function);
    assert!(of(3).iter().all(|one| one.urls == URL && one.destination == SWITCH.to_string()), "{verdict:?}");
    assert!(of(3).first().unwrap().strings[3].contains("(load=0)"), "{verdict:?}");
    assert!(!of(4).is_empty() && of(4).iter().all(|one| one.urls == URL), "{verdict:?}");
    drop(da);
    system.finish().unwrap();
}

#[test]
fn a_directory_agent_that_comes_later_restarts_or_goes_is_noticed() {
    let mut system = system("");
    system.start_gateway().unwrap();
    wait::until("the gateway to answer", SOON, || {
        let replies = slp::ask(&system.lab, system.lab.host(Host::A), &to_all(&[]))?;
        Ok(if replies.is_empty() { Look::NotYet("silence".into()) } else { Look::Ready(()) })
    })
    .unwrap();
    // It comes, and says so to all.
    let da = directory(&system, &[]);
    da.registrations_become("the gateway", SOON, |all| all.len() == 1).unwrap();
    let first = da.received_of("SrvReg").unwrap().len();
    // The same advertisement again changes nothing; a later boot does: it has lost its registrations.
    order(&da, json!({"do": "advertise"}));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(da.received_of("SrvReg").unwrap().len(), first, "it knows the gateway already");
    order(&da, json!({"do": "restart"}));
    da.registrations_become("the gateway again", SOON, |all| all.len() == 1).unwrap();
    let registered = da.received_of("SrvReg").unwrap();
    assert!(registered.len() > first && registered.last().unwrap().flag("fresh"), "{registered:?}");
    // It goes: nothing more is sent to it (RFC 2608 section 12.2.2), and the gateway answers by itself as before.
    order(&da, json!({"do": "goodbye"}));
    std::thread::sleep(Duration::from_secs(1));
    let before = da.received().unwrap().len();
    assert_eq!(urls(&one(&system, &to_all(&[]))), [URL]);
    system.stop_all().unwrap();
    let since = da.received().unwrap().split_off(before);
    let by_gateway: Vec<_> = since.iter().filter(|one| one.from.starts_with("10.77.0.1:")).collect();
    assert!(by_gateway.iter().all(|one| one.via == "multicast"), "{by_gateway:?}");
    da.expect_no_complaints().unwrap();
    drop(da);
    system.finish().unwrap();
}

#[test]
fn a_directory_agent_that_is_busy_or_deaf_is_told_again_with_doubling_waits() {
    let mut system = system("");
    let da = directory(&system, &["--min-refresh", "2"]);
    order(&da, json!({"do": "set", "mute": 2, "busy": 1}));
    system.start_gateway().unwrap();
    da.registrations_become("the gateway", Duration::from_secs(90), |all| all.len() == 1).unwrap();
    let registered = da.received_of("SrvReg").unwrap();
    let [first, second, third, ..] = registered.as_slice() else { panic!("{registered:?}") };
    assert!(first.fields["xid"] == second.fields["xid"] && second.fields["xid"] == third.fields["xid"]);
    let (one, two) = (second.t - first.t, third.t - second.t);
    assert!((1.5..3.0).contains(&one) && (3.5..6.0).contains(&two), "waits of {one} s and {two} s");
    assert_eq!(third.answer["error"], 11);
    da.expect_no_complaints().unwrap();
    drop(da);
    system.finish().unwrap();
}

#[test]
fn where_an_slp_daemon_runs_the_gateway_registers_with_it() {
    let mut system = system("");
    let slpd = StandIn::start(&system.lab, &system.lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    let loopback = Recording::start(&system.lab, &system.lab.gateway, "lo").unwrap();
    system.start_gateway().unwrap();
    slpd.registrations_become("the gateway", SOON, |all| all.len() == 1 && all[0].url == URL).unwrap();
    let registered = slpd.received_of("SrvReg").unwrap();
    assert!(registered.iter().all(|one| one.from.starts_with("127.0.0.1:")), "{registered:?}");
    // The daemon answers, and nobody else.
    let reply = one(&system, &to_all(&[]));
    assert_eq!(urls(&reply), [URL]);
    let asked = slpd.received_of("SrvRqst").unwrap();
    assert_eq!(asked.last().unwrap().answer["urls"], json!([URL]), "{asked:?}");
    let found = discovered(&system.lab, Host::A, &[]).unwrap();
    assert_eq!((found.len(), found[0].load), (1, Some(0)));
    system.stop_all().unwrap();
    assert!(slpd.registrations().unwrap().is_empty(), "it deregisters when it ends");
    expect_none(&system.lab, Host::A, &["--timeout", "3"]).unwrap();
    slpd.expect_no_complaints().unwrap();
    let verdict = slp::judge(&loopback.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    for function in [3, 4, 5] {
        assert!(verdict.packets.iter().any(|packet| packet.function == function), "{function}: {verdict:?}");
    }
    drop(slpd);
    system.finish().unwrap();
}

#[test]
fn a_gateway_is_found_in_its_scopes_and_in_no_other() {
    let mut system = system("SLP_SCOPES = [\"upper\", \"lower floor\"]\nSLP_LIFETIME = 120");
    let da = directory(&system, &["--scopes", "UPPER,DEFAULT"]);
    system.start_gateway().unwrap();
    let held = da.registrations_become("the gateway", SOON, |all| all.len() == 1).unwrap();
    // RFC 2608 section 8.3: those scopes that the directory agent has.
    assert_eq!((held[0].scopes.to_lowercase().as_str(), held[0].lifetime), ("upper", 120));
    let found = |scope: &str| discovered(&system.lab, Host::A, &["--scope", scope]).unwrap();
    // By the directory agent, by multicast, by both.
    for scope in ["Upper", "Lower  Floor", "upper,lower floor"] {
        let found = found(scope);
        assert_eq!(found.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), [URL], "scope {scope}");
        assert!(found[0].lifetime <= 120, "{found:?}");
    }
    for scope in ["DEFAULT", "lower"] {
        expect_none(&system.lab, Host::A, &["--scope", scope, "--timeout", "5"]).unwrap();
    }
    system.stop_all().unwrap();
    assert!(da.registrations().unwrap().is_empty());
    da.expect_no_complaints().unwrap();
    drop(da);
    system.finish().unwrap();
}

/// A second gateway on host B, with a public address of its own; it ends when it is dropped.
fn second_gateway(system: &System) -> Process {
    let lab = &system.lab;
    link::cable((lab.host(Host::B), EXTERNAL_IF), (&lab.internet, "second")).unwrap();
    link::address((lab.host(Host::B), EXTERNAL_IF), "203.0.113.1/24").unwrap();
    let path = lab.folder().join("second.conf");
    fs::write(&path, format!("INT_IF = \"{HOST_IF}\"\nEXT_IF = \"{EXTERNAL_IF}\"\n")).unwrap();
    let mut command = lab.host(Host::B).command(binaries::under_test("rsipd").unwrap());
    command.args(["run", "--config"]).arg(path);
    Process::start("rsipd", &mut command, &lab.folder().join("second.log")).unwrap()
}

#[test]
fn of_two_gateways_the_less_loaded_one_comes_first() {
    let mut system = System::new(Options::default()).unwrap();
    let mut second = second_gateway(&system);
    system.start_gateway().unwrap();
    let both = |system: &System| {
        let found = discovered(&system.lab, Host::A, &[]).unwrap();
        let loads: Vec<_> = found.iter().map(|one| (one.url.clone(), one.load.unwrap())).collect();
        loads
    };
    let urls = |all: &[(String, u8)]| all.iter().map(|(url, _)| url.clone()).collect::<Vec<_>>();
    let mut idle = both(&system);
    idle.sort();
    assert_eq!(idle, [(URL.to_owned(), 0), ("service:rsip://10.77.0.3:4555".to_owned(), 0)]);
    // A host that uses the first one makes it the second choice.
    system.start_agent(Host::A).unwrap();
    let loaded = wait::until("the load to show", SOON, || {
        let all = both(&system);
        Ok(match all.iter().find(|(url, _)| url == URL) {
            Some((_, load)) if *load > 0 => Look::Ready(all),
            other => Look::NotYet(format!("{other:?}")),
        })
    })
    .unwrap();
    assert_eq!(urls(&loaded), ["service:rsip://10.77.0.3:4555", URL], "{loaded:?}");
    second.expect_running().unwrap();
    assert_eq!(second.stop().unwrap(), 0);
    assert_eq!(urls(&both(&system)), [URL]);
    system.lab.host(Host::B).ip(&["link", "del", "dev", EXTERNAL_IF]).unwrap();
    system.finish().unwrap();
}

#[test]
fn garbage_at_the_slp_port_disturbs_nobody() {
    const NOISE: &str = r"
import os, random, socket, struct
random.seed(7)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('10.77.0.3'))
def text(value):
    return struct.pack('>H', len(value)) + value
def message(function, body, flags=0):
    return bytes([2, function]) + (16 + len(body)).to_bytes(3, 'big') + struct.pack('>H', flags) + b'\0\0\0\0\1' + text(b'en') + body
good = message(1, text(b'') + text(b'service:rsip') + text(b'DEFAULT') + text(b'(load=0)') + text(b''))
deep = message(1, text(b'') + text(b'service:rsip') + text(b'DEFAULT') + text(b'(!' * 600 + b'(a=1)' + b')' * 600) + text(b''))
lies = [message(8, b'\0\0' + os.urandom(4) + text(b'service:directory-agent://' + host) + text(b'DEFAULT') + text(b'') + text(b'') + b'\0')
        for host in [b'0.0.0.0', b'255.255.255.255', b'10.77.0.1', b'127.0.0.1', b'nowhere', b'']]
for number in range(3000):
    data = bytearray(random.choice([good, deep, os.urandom(random.randrange(0, 1400))] + lies))
    for _ in range(random.randrange(0, 4)):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    udp.sendto(bytes(data[:random.randrange(len(data) + 1)] if number % 3 else data), (random.choice(['10.77.0.1', '239.255.255.253']), 427))
for number in range(60):
    try:
        with socket.create_connection(('10.77.0.1', 427), 2) as tcp:
            tcp.sendall(random.choice([os.urandom(5000), b'\2\1\xff\xff\xff' + os.urandom(2000), good[:-3], good * 50]))
    except OSError:
        pass
print('done', flush=True)
";
    let mut system = System::up().unwrap();
    let before = gateway::state(&system.lab).unwrap();
    let mut command = system.lab.host(Host::B).command("/usr/bin/python3");
    let log = system.lab.folder().join("noise.log");
    let mut noise = Process::start("noise", command.args(["-c", NOISE]), &log).unwrap();
    // Meanwhile hosts get their ports.
    for port in 6500..6505 {
        let (_, bound) =
            probe::bind(&system.lab, system.lab.host(Host::A), &[&format!("0.0.0.0:{port}")]).unwrap();
        bound.expect_ok().unwrap();
    }
    noise.wait_for_output("done", Duration::from_secs(60)).unwrap();
    system.gateway().unwrap().process.expect_running().unwrap();
    let reply = wait::until("the gateway to answer", SOON, || {
        let mut replies = slp::ask(&system.lab, system.lab.host(Host::A), &to_gateway(&[]))?;
        Ok(replies.pop().map_or_else(|| Look::NotYet("silence".into()), Look::Ready))
    })
    .unwrap();
    assert_eq!(urls(&reply), [URL]);
    assert_eq!(urls(&one(&system, &to_gateway(&["--tcp"]))), [URL]);
    let after = gateway::state(&system.lab).unwrap();
    for host in Host::ALL {
        let id = |state: &gateway::State| state.client(host).unwrap().client_id;
        assert_eq!(id(&after), id(&before), "{} is registered as before", host.name());
    }
    system.finish().unwrap();
}
