//! The host's own network changes under the agent: another private address, another interface, none for a while.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::lab::gateway::{Client, State};
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::probe;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::talk::Talk;
use rsip_lab::lab::topology::{GATEWAY, HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, gateway, link, pins};

/// Another private address for host-a.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 7);

fn one_host(arguments: &[&str], settings: &str) -> System {
    let agent = arguments.iter().map(ToString::to_string).collect();
    let mut system = System::new(Options { agent, gateway: settings.to_owned() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

fn talk(system: &System) -> Talk {
    let at = SocketAddrV4::new(INTERNET, 9001);
    let mut talk = Talk::begin(&system.lab.internet, at, system.lab.host(Host::A)).unwrap();
    talk.go_on().unwrap();
    talk
}

fn bind(system: &System, address: &str) -> (probe::Probe, probe::Bound) {
    probe::bind(&system.lab, system.lab.host(Host::A), &[address]).unwrap()
}

fn at(state: &State, address: Ipv4Addr) -> Option<&Client> {
    state.clients.iter().find(|client| client.host == address)
}

/// All that a host at this address holds, ascending.
fn held(state: &State, address: Ipv4Addr) -> Vec<u16> {
    let bindings = at(state, address).into_iter().flat_map(|client| &client.bindings);
    let mut ports: Vec<u16> = bindings.flat_map(|binding| binding.ports.clone()).collect();
    ports.sort_unstable();
    ports
}

fn change_address(host: &Inside, interface: &str, old: Ipv4Addr, new: Ipv4Addr) {
    host.ip(&["address", "del", &format!("{old}/24"), "dev", interface]).unwrap();
    get_address(host, interface, new);
}

fn get_address(host: &Inside, interface: &str, new: Ipv4Addr) {
    link::address((host, interface), &format!("{new}/24")).unwrap();
    host.ip(&["route", "replace", "default", "via", &GATEWAY.to_string()]).unwrap();
}

/// What stays as it is whatever happens towards the gateway.
fn expect_private_side_works(system: &System) {
    for address in ["127.0.0.1:6190", "0.0.0.0:22"] {
        let (_, bound) = bind(system, address);
        bound.expect_ok().unwrap();
    }
    let host = system.lab.host(Host::A);
    let server = probe::serve(&system.lab, host, &["127.0.0.1:6191"]).unwrap();
    probe::ask(host, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6191), &[]).unwrap();
    drop(server);
}

/// For hosts whose interfaces are not those of the beginning: nothing of ours is left.
fn stop_and_expect_nothing_left(mut system: System) {
    system.stop_all().unwrap();
    let host = system.lab.host(Host::A);
    assert!(!host.ip(&["link"]).unwrap().contains(" rsip: "));
    let rules = host.ip(&["rule"]).unwrap();
    assert_eq!(rules.lines().count(), 3, "{rules}");
    assert_eq!(host.setting("net/ipv4/ip_local_port_range").unwrap(), "32768 60999");
    assert_eq!(pins::folders(host).unwrap(), Vec::<String>::new());
}

#[test]
fn under_another_private_address_programs_keep_ports_and_connections() {
    for transport in ["tcp", "udp"] {
        let mut system = one_host(&["--transport", transport], "");
        let host = system.lab.host(Host::A).clone();
        let server = probe::serve(&system.lab, &host, &["0.0.0.0:6100"]).unwrap();
        let mut talk = talk(&system);
        let before = held(&gateway::state(&system.lab).unwrap(), Host::A.address());
        assert!(before.contains(&6100) && before.len() > 100, "{before:?}");

        // No address for a while.
        host.ip(&["address", "del", &format!("{}/24", Host::A.address()), "dev", HOST_IF]).unwrap();
        system.agent_says(Host::A, "no way to the gateway").unwrap();
        let (_, bound) = bind(&system, "0.0.0.0:6101");
        bound.expect("EADDRINUSE").unwrap();
        assert!(bound.took() < Duration::from_secs(2), "{bound:?}");
        expect_private_side_works(&system);
        // And then another one.
        get_address(&host, HOST_IF, ELSEWHERE);
        let all = |state: &State| at(state, Host::A.address()).is_none() && held(state, ELSEWHERE) == before;
        system.gateway_sees("the same ports at the new address, and nobody at the old", NOTICE, all).unwrap();
        talk.go_on().unwrap();
        probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 6100), &[]).unwrap();
        system.agent_says(Host::A, "another private address").unwrap();
        let (other, bound) = bind(&system, "0.0.0.0:6102");
        bound.expect_ok().unwrap();
        let shown = system.status(Host::A).unwrap();
        assert!(shown.contains(&ELSEWHERE.to_string()), "{shown}");

        // And at once back, both addresses there for a moment, as some DHCP clients do it. Without this setting the second
        // address of a network goes with the first one.
        host.sysctl("net/ipv4/conf/all/promote_secondaries", "1").unwrap();
        get_address(&host, HOST_IF, Host::A.address());
        host.ip(&["address", "del", &format!("{ELSEWHERE}/24"), "dev", HOST_IF]).unwrap();
        host.ip(&["route", "replace", "default", "via", &GATEWAY.to_string()]).unwrap();
        let back = |state: &State| {
            at(state, ELSEWHERE).is_none()
                && before.iter().all(|port| held(state, Host::A.address()).contains(port))
        };
        system.gateway_sees("the host where it was", NOTICE, back).unwrap();
        talk.go_on().unwrap();
        host.sysctl("net/ipv4/conf/all/promote_secondaries", "0").unwrap();
        drop((server, other, talk));
        system.gateway_sees_listening(Host::A, &[]).unwrap();
        system.finish().unwrap();
    }
}

#[test]
fn an_interface_that_is_made_anew_is_used_again() {
    let mut system = one_host(&[], "");
    let host = system.lab.host(Host::A).clone();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:6110"]).unwrap();
    let mut talk = talk(&system);
    let before = gateway::state(&system.lab).unwrap();
    host.ip(&["link", "del", HOST_IF]).unwrap();
    system.agent_says(Host::A, "no way to the gateway").unwrap();
    expect_private_side_works(&system);
    link::cable((&host, HOST_IF), (&system.lab.lan, "a")).unwrap();
    system.lab.lan.ip(&["link", "set", "dev", "a", "master", "br0"]).unwrap();
    get_address(&host, HOST_IF, Host::A.address());
    talk.go_on().unwrap();
    probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 6110), &[]).unwrap();
    let (other, bound) = bind(&system, "0.0.0.0:6111");
    bound.expect_ok().unwrap();
    let after = gateway::state(&system.lab).unwrap();
    let name = |state: &State| state.client(Host::A).map(|client| client.client_id);
    assert_eq!(name(&after), name(&before), "it is the same host to the gateway");
    drop((server, other, talk));
    stop_and_expect_nothing_left(system);
}

#[test]
fn a_cable_that_is_pulled_and_an_interface_that_is_switched_off_are_no_end() {
    let mut system = one_host(&[], "");
    let host = system.lab.host(Host::A).clone();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:6120"]).unwrap();
    let mut talk = talk(&system);
    for (inside, interface) in [(&*system.lab.lan, "a"), (&host, HOST_IF)] {
        inside.ip(&["link", "set", "dev", interface, "down"]).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        inside.ip(&["link", "set", "dev", interface, "up"]).unwrap();
        host.ip(&["route", "replace", "default", "via", &GATEWAY.to_string()]).unwrap();
        talk.go_on().unwrap();
        probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 6120), &[]).unwrap();
    }
    drop((server, talk));
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    assert_eq!(system.agent(Host::A).unwrap().process.output().matches("\" registered\"").count(), 0);
    stop_and_expect_nothing_left(system);
}

#[test]
fn from_wired_to_wireless_and_back() {
    let system = one_host(&[], "");
    let host = system.lab.host(Host::A).clone();
    link::cable((&host, "wlan0"), (&system.lab.lan, "w")).unwrap();
    system.lab.lan.ip(&["link", "set", "dev", "w", "master", "br0"]).unwrap();
    host.ip(&["address", "add", &format!("{ELSEWHERE}/24"), "dev", "wlan0", "noprefixroute"]).unwrap();
    host.ip(&[
        "route",
        "add",
        "10.77.0.0/24",
        "dev",
        "wlan0",
        "src",
        &ELSEWHERE.to_string(),
        "metric",
        "600",
    ])
    .unwrap();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:6130"]).unwrap();
    let mut talk = talk(&system);
    let before = held(&gateway::state(&system.lab).unwrap(), Host::A.address());
    for (state, address) in [("down", ELSEWHERE), ("up", Host::A.address())] {
        host.ip(&["link", "set", "dev", HOST_IF, state]).unwrap();
        let moved = |state: &State| state.clients.len() == 1 && held(state, address) == before;
        system.gateway_sees(&format!("the host at {address}"), NOTICE, moved).unwrap();
        talk.go_on().unwrap();
        probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 6130), &[]).unwrap();
    }
    drop((server, talk));
    stop_and_expect_nothing_left(system);
}

#[test]
fn ports_that_the_gateway_keeps_for_the_old_address_come_back_when_it_lets_them_go() {
    let mut system = one_host(&[], "LEASE_TIME = 8\nMAX_LEASE_TIME = 8");
    let host = system.lab.host(Host::A).clone();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:6140"]).unwrap();
    system.gateway_sees_listening(Host::A, &[6140]).unwrap();
    // A router on the way that passes no packet with a source that belongs elsewhere.
    let nft = |arguments: &[&str]| system.lab.gateway.tool("nft", arguments).unwrap();
    nft(&["add", "table", "ip", "strict"]);
    nft(&["add", "chain", "ip", "strict", "in", "{ type filter hook input priority 0; }"]);
    nft(&["add", "rule", "ip", "strict", "in", "udp", "dport", "4555", "drop"]);
    change_address(&host, HOST_IF, Host::A.address(), ELSEWHERE);
    system.agent_says(Host::A, "the gateway does not give it again: 311").unwrap();
    // Something new works at once.
    let (other, bound) = bind(&system, "0.0.0.0:6141");
    bound.expect_ok().unwrap();
    let back =
        |state: &State| at(state, Host::A.address()).is_none() && held(state, ELSEWHERE).contains(&6140);
    system.gateway_sees("the port with its program again", NOTICE, back).unwrap();
    wait::until("the server to be reached again", NOTICE, || {
        let asked = probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 6140), &[]);
        Ok(asked.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Ready(())))
    })
    .unwrap();
    system.lab.gateway.tool("nft", &["delete", "table", "ip", "strict"]).unwrap();
    drop((server, other));
    stop_and_expect_nothing_left(system);
}

#[test]
fn a_host_without_an_address_is_restored_and_an_agent_that_was_killed_before_it_moved_finds_its_ports() {
    let mut system = one_host(&[], "");
    let host = system.lab.host(Host::A).clone();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:6150"]).unwrap();
    let before = held(&gateway::state(&system.lab).unwrap(), Host::A.address());
    system.agent(Host::A).unwrap().process.kill().unwrap();
    change_address(&host, HOST_IF, Host::A.address(), ELSEWHERE);
    system.start_agent(Host::A).unwrap();
    let moved = |state: &State| state.clients.len() == 1 && held(state, ELSEWHERE) == before;
    system.gateway_sees("the same ports at the new address", NOTICE, moved).unwrap();
    probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 6150), &[]).unwrap();
    drop(server);

    host.ip(&["address", "del", &format!("{ELSEWHERE}/24"), "dev", HOST_IF]).unwrap();
    system.agent_says(Host::A, "no way to the gateway").unwrap();
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    get_address(&host, HOST_IF, Host::A.address());
    system.finish().unwrap();
}
