//! Every RSIP message on the internal leg, judged by tshark; every leased packet inside IP-in-IP.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::capture::{Capture, Recording};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, INTERNAL_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, probe, server};

/// ERROR, REGISTER, DE-REGISTER, ASSIGN RSAP-IP, EXTEND, FREE and LISTEN, requests and responses, by their numbers in
/// RFC 3103 section 9.
const TYPES: [u8; 13] = [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17];

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
    check(transport, &inner.stop().unwrap(), &outer.stop().unwrap());
    system.finish().unwrap();
}

fn check(transport: &str, inner: &Capture, outer: &Capture) {
    let verdict = inner.rsip().unwrap();
    verdict.expect_clean().unwrap();
    let seen: BTreeSet<u8> = verdict.types.keys().copied().collect();
    assert!(TYPES.iter().all(|number| seen.contains(number)), "{transport}: {:?}", verdict.types);
    let other = if transport == "tcp" { "udp" } else { "tcp" };
    assert!(inner.fields(&format!("{other}.port == 4555"), &["frame.number"]).unwrap().is_empty());

    // Whatever carries the public address between host and gateway is inside a tunnel.
    let naked =
        inner.fields("ip.version == 4 && ip.addr == 198.51.100.1 && !(ip.proto == 4)", &["frame.number"]);
    assert!(naked.unwrap().is_empty(), "packets with the public address outside the tunnel");
    let tunnelled = inner.fields("ip.proto == 4 && ip.addr == 198.51.100.1", &["ip.src"]).unwrap();
    assert!(!tunnelled.is_empty());
    // And nothing of the private network is seen outside.
    let private = outer.fields("ip.addr == 10.77.0.0/24", &["ip.src", "ip.dst", "ip.proto"]).unwrap();
    assert!(private.is_empty(), "{private:?}");
    assert!(!outer.fields("tcp.port == 80 && ip.src == 198.51.100.1", &["ip.src"]).unwrap().is_empty());
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
