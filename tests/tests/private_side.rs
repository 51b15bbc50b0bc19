//! What the private network notices of a host that has leased something: nothing that it should not.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::lab::arp::{self, Mac};
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, agent, gateway, probe};

/// Everybody on the private network who says to have an address, as host-b hears it.
fn who_has(system: &System, target: Ipv4Addr) -> BTreeSet<Mac> {
    let wait = Duration::from_millis(500);
    arp::who_has(system.lab.host(Host::B), HOST_IF, Host::B.address(), target, wait).unwrap()
}

/// The Ethernet address of a host.
fn mac(inside: &Inside) -> Mac {
    let text = inside.ip(&["-json", "link", "show", "dev", HOST_IF]).unwrap();
    let links: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let octets =
        links[0]["address"].as_str().unwrap().split(':').map(|part| u8::from_str_radix(part, 16).unwrap());
    Mac(octets.collect::<Vec<u8>>().try_into().unwrap())
}

#[test]
fn nobody_hears_by_arp_that_the_leased_address_is_on_a_host() {
    let mut system = System::new(Options::default()).unwrap();
    let host = system.lab.host(Host::A).clone();
    let its_own = mac(&host);
    assert_eq!(who_has(&system, Host::A.address()), [its_own].into());
    // What a host that knows nothing of RSIP does with an address on another of its interfaces.
    host.ip(&["address", "add", &format!("{PUBLIC}/32"), "dev", "lo"]).unwrap();
    assert!(who_has(&system, PUBLIC).contains(&its_own), "otherwise there is nothing to prevent");
    host.ip(&["address", "del", &format!("{PUBLIC}/32"), "dev", "lo"]).unwrap();

    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let settings = ["all", "default", HOST_IF]
        .map(|name| host.setting(&format!("net/ipv4/conf/{name}/arp_ignore")).unwrap());
    assert_eq!(settings, ["0", "0", "0"], "no setting of the host has changed");
    assert!(!who_has(&system, PUBLIC).contains(&its_own));
    assert_eq!(who_has(&system, Host::A.address()), [its_own].into(), "its own address as before");
    assert!(agent::status(&system.lab, Host::A).unwrap().counter("arp_silenced").unwrap() >= 1);
    system.finish().unwrap();
}

#[test]
fn a_private_network_without_a_route_of_its_own_is_left_out_of_the_tunnel() {
    let far = Ipv4Addr::new(10, 88, 0, 2);
    let options =
        Options { agent: vec!["--private-net".into(), "10.88.0.0/24".into()], ..Options::default() };
    let mut system = System::new(options).unwrap();
    // Behind host-b, which the gateway has a route for; host-a has its default route alone.
    let b = system.lab.host(Host::B).clone();
    b.ip(&["address", "add", &format!("{far}/24"), "dev", "lo"]).unwrap();
    system.lab.gateway.ip(&["route", "add", "10.88.0.0/24", "via", &Host::B.address().to_string()]).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let server = probe::serve(&system.lab, &b, &["10.88.0.2:7100"]).unwrap();
    let answer = probe::ask(system.lab.host(Host::A), SocketAddrV4::new(far, 7100), &[]).unwrap();
    assert_eq!(answer.peer.ip(), &Host::A.address(), "its private address, not the leased one");
    let networks = agent::status(&system.lab, Host::A).unwrap().direct;
    assert!(
        networks.iter().any(|n| n.network == "10.88.0.0/24" && n.from == "--private-net"),
        "{networks:?}"
    );
    let internet = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    let answer = probe::ask(system.lab.host(Host::A), SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    assert_eq!(answer.peer.ip(), &PUBLIC);
    drop((server, internet));
    system.stop_all().unwrap();
    let rules = system.lab.host(Host::A).ip(&["rule"]).unwrap();
    assert!(!rules.contains("10.88.0.0/24"), "{rules}");
}

#[test]
fn what_comes_through_a_tunnel_that_is_no_more_reaches_no_program() {
    // RFC 3103 section 10.2.1: a host discards such packets, or lets its stack answer by ICMP.
    let mut system = System::up().unwrap();
    let port = gateway::state(&system.lab).unwrap().block(Host::A)[0];
    let address = format!("0.0.0.0:{port}");
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &["--udp", &address]).unwrap();
    let internet = system.lab.internet.clone();
    let ask = || probe::ask(&internet, SocketAddrV4::new(PUBLIC, port), &["--udp"]);
    assert_eq!(ask().unwrap().peer.ip(), &INTERNET);
    // The gateway still has the lease and forwards, since nobody can tell it otherwise; the program still serves the port on
    // all addresses. A dead agent leaves its tunnel; `down` takes it away.
    let before = gateway::state(&system.lab).unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    let host = system.lab.host(Host::A);
    host.tool("nft", &["add", "table", "ip", "cut"]).unwrap();
    host.tool("nft", &["add", "chain", "ip", "cut", "out", "{ type filter hook output priority 0; }"])
        .unwrap();
    host.tool("nft", &["add", "rule", "ip", "cut", "out", "tcp", "dport", "4555", "drop"]).unwrap();
    let down = agent::client(&system.lab, Host::A, &["down"]).unwrap();
    host.tool("nft", &["delete", "table", "ip", "cut"]).unwrap();
    down.success().unwrap();
    ask().unwrap_err();
    let after = gateway::state(&system.lab).unwrap();
    assert!(
        after.counters.datapath("inward_packets") > before.counters.datapath("inward_packets"),
        "it was sent: {:?}",
        after.counters
    );
    assert!(after.client(Host::A).is_some(), "it still has the lease");
    drop(server);
    system.finish().unwrap();
}
