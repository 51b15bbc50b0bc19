//! Every RSIP message on the internal leg, judged by tshark; every leased packet inside IP-in-IP.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::capture::{Capture, Recording};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, INTERNAL_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, Lab, probe, server};

/// ERROR, REGISTER, DE-REGISTER, ASSIGN RSAP-IP, EXTEND, FREE, QUERY and LISTEN, requests and responses, by their numbers
/// in RFC 3103 section 9.
const TYPES: [u8; 15] = [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
/// REGISTER, DE-REGISTER, ASSIGN RSA-IP, EXTEND and QUERY.
const WHOLE_TYPES: [u8; 10] = [2, 3, 4, 5, 6, 7, 10, 11, 14, 15];

/// A whole life of a gateway and its hosts, with both legs recorded.
fn life(transport: &str) {
    let options = Options {
        gateway: "LEASE_TIME = 4\nMAX_LEASE_TIME = 4".into(),
        agent: vec!["--transport".into(), transport.into()],
    };
    let mut system = System::new(options).unwrap();
    let inner = Recording::start(&system.lab, &system.lab.gateway, INTERNAL_IF).unwrap();
    let outer = Recording::start(&system.lab, &system.lab.gateway, EXTERNAL_IF).unwrap();
    system.start_gateway().unwrap();
    for host in Host::ALL {
        system.start_agent(host).unwrap();
    }
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    server::page(&system.lab.internet, SocketAddrV4::new(PUBLIC, 80)).unwrap();
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::B), &["0.0.0.0:80"]).unwrap();
    bound.expect("EADDRINUSE").unwrap();
    let web = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    for host in Host::ALL {
        probe::ask_often(system.lab.host(host), SocketAddrV4::new(INTERNET, 9000), 5, &[]).unwrap();
    }
    // Long enough for leases to be extended.
    std::thread::sleep(Duration::from_secs(5));
    apache.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    drop(web);
    system.stop_all().unwrap();
    check(transport, &TYPES, PUBLIC, &inner.stop().unwrap(), &outer.stop().unwrap());
    system.finish().unwrap();
}

/// A whole address, for one peer alone.
fn whole_life(transport: &str) {
    let whole = Ipv4Addr::new(198, 51, 100, 3);
    let options = Options {
        gateway: format!(
            "LEASE_TIME = 4\nMAX_LEASE_TIME = 4\nRSA_POOL = [\"{whole}\"]\nFLOW_POLICY = \"macro/macro\""
        ),
        agent: ["--transport", transport, "--method", "rsa-ip", "--remote", &INTERNET.to_string()]
            .map(str::to_owned)
            .to_vec(),
    };
    let lab = Lab::new().unwrap();
    lab.gateway.ip(&["address", "add", &format!("{whole}/24"), "dev", EXTERNAL_IF]).unwrap();
    let mut system = System::in_lab(lab, options).unwrap();
    let inner = Recording::start(&system.lab, &system.lab.gateway, INTERNAL_IF).unwrap();
    let outer = Recording::start(&system.lab, &system.lab.gateway, EXTERNAL_IF).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let web = probe::serve(&system.lab, system.lab.host(Host::A), &["0.0.0.0:80"]).unwrap();
    probe::ask(&system.lab.internet, SocketAddrV4::new(whole, 80), &[]).unwrap();
    // Long enough for the lease to be extended.
    std::thread::sleep(Duration::from_secs(5));
    drop(web);
    system.stop_all().unwrap();
    check(transport, &WHOLE_TYPES, whole, &inner.stop().unwrap(), &outer.stop().unwrap());
    system.finish().unwrap();
}

fn check(transport: &str, types: &[u8], leased: Ipv4Addr, inner: &Capture, outer: &Capture) {
    let verdict = inner.rsip_is_clean().unwrap();
    let seen: BTreeSet<u8> = verdict.types.keys().map(|message_type| message_type.number()).collect();
    assert!(types.iter().all(|number| seen.contains(number)), "{transport}: {:?}", verdict.types);
    let other = if transport == "tcp" { "udp" } else { "tcp" };
    assert!(inner.fields(&format!("{other}.port == 4555"), &["frame.number"]).unwrap().is_empty());

    // Whatever carries the public address between host and gateway is inside a tunnel.
    let naked = inner
        .fields(&format!("ip.version == 4 && ip.addr == {leased} && !(ip.proto == 4)"), &["frame.number"]);
    assert!(naked.unwrap().is_empty(), "packets with the public address outside the tunnel");
    let tunnelled = inner.fields(&format!("ip.proto == 4 && ip.addr == {leased}"), &["ip.src"]).unwrap();
    assert!(!tunnelled.is_empty());
    // And nothing of the private network is seen outside.
    let private = outer.fields("ip.addr == 10.77.0.0/24", &["ip.src", "ip.dst", "ip.proto"]).unwrap();
    assert!(private.is_empty(), "{private:?}");
    assert!(!outer.fields(&format!("tcp.port == 80 && ip.src == {leased}"), &["ip.src"]).unwrap().is_empty());
    // Outer and inner IPv4 headers add up.
    assert!(inner.fields("ip.checksum.status == 0", &["frame.number"]).unwrap().is_empty());
}

#[test]
fn tshark_finds_every_message_over_tcp_well_formed() {
    life("tcp");
}

#[test]
fn tshark_finds_every_message_over_udp_well_formed() {
    life("udp");
}

#[test]
fn tshark_finds_every_message_about_a_whole_address_over_tcp_well_formed() {
    whole_life("tcp");
}

#[test]
fn tshark_finds_every_message_about_a_whole_address_over_udp_well_formed() {
    whole_life("udp");
}
