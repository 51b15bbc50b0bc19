//! What is not ours is left alone: other namespaces' programs, other devices, rules and settings.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::system::System;
use rsip_lab::lab::{Host, agent, exec, gateway, probe};

#[test]
fn programs_of_other_network_namespaces_on_the_machine_are_not_intercepted() {
    let mut system = System::up().unwrap();
    // Were anybody of them asked about, the silent gateway would make it wait.
    system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
    let lab = &system.lab;
    for inside in [&lab.internet, &lab.lan, &lab.gateway] {
        for arguments in [&["0.0.0.0:5950"][..], &["[::]:5950"], &["--udp", "0.0.0.0:5950"], &["0.0.0.0:0"]] {
            let (_, bound) = probe::bind(lab, inside, arguments).unwrap();
            bound.expect_ok().unwrap();
            assert!(bound.took() < Duration::from_millis(200), "{} {arguments:?}: {bound:?}", inside.name());
        }
    }
    system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
    system.finish().unwrap();
}

#[test]
fn two_agents_on_one_machine_mind_their_own_hosts() {
    let mut system = System::up().unwrap();
    let lab = &system.lab;
    let [a, b] = [(Host::A, 5960), (Host::B, 5961)].map(|(host, port)| {
        let (probe, bound) = probe::bind(lab, lab.host(host), &[&format!("0.0.0.0:{port}")]).unwrap();
        bound.expect_ok().unwrap();
        probe
    });
    let state = gateway::state(lab).unwrap();
    assert_eq!((state.listening(Host::A), state.listening(Host::B)), (vec![5960], vec![5961]));
    drop((a, b));
    // One that stops takes only its own programs off the cgroup that they share.
    assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
    let hooks = agent::status(&system.lab, Host::B).unwrap().hooks.programs;
    assert!(hooks.len() > 5 && hooks.iter().all(|program| program.attached), "{hooks:?}");
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::B), &["0.0.0.0:5962"]).unwrap();
    bound.expect_ok().unwrap();
    assert_eq!(gateway::state(&system.lab).unwrap().holder(5962), Some(Host::B.address()));
    system.finish().unwrap();
}

#[test]
fn rules_routes_and_firewalls_of_the_administrator_survive() {
    let mut system = System::up().unwrap();
    let host = system.lab.host(Host::A).clone();
    host.ip(&["rule", "add", "pref", "4550", "to", "192.0.2.0/24", "lookup", "99"]).unwrap();
    host.ip(&["route", "add", "192.0.2.0/24", "via", "10.77.0.3"]).unwrap();
    host.tool("nft", &["add", "table", "inet", "mine"]).unwrap();
    let gate = system.lab.gateway.clone();
    gate.tool("nft", &["add", "table", "ip", "nat"]).unwrap();
    system.stop_all().unwrap();
    assert!(host.ip(&["rule", "show"]).unwrap().contains("4550:"));
    assert!(host.ip(&["route", "show"]).unwrap().contains("192.0.2.0/24"));
    assert!(host.tool("nft", &["list", "ruleset"]).unwrap().contains("table inet mine"));
    assert!(gate.tool("nft", &["list", "ruleset"]).unwrap().contains("table ip nat"));
}

#[test]
fn the_gateway_forwards_for_hosts_without_rsip_as_before() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    // A third host behind the gateway that knows nothing of RSIP, with the gateway's ordinary masquerade.
    lab.gateway
        .tool("nft", &["add table ip nat; add chain ip nat out { type nat hook postrouting priority srcnat; };                         add rule ip nat out oifname ext0 ip saddr 10.77.0.50 masquerade"])
        .unwrap();
    lab.lan.ip(&["address", "add", "10.77.0.50/24", "dev", "br0"]).unwrap();
    lab.lan.ip(&["route", "add", "default", "via", "10.77.0.1"]).unwrap();
    let server = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    let answer = probe::ask(&lab.lan, "198.51.100.2:9000".parse().unwrap(), &[]).unwrap();
    assert_eq!(answer.peer.ip().to_string(), "198.51.100.1");
    // The gateway's own traffic too, in both directions.
    lab.gateway.tool("ping", &["-n", "-c", "1", "-W", "2", "198.51.100.2"]).unwrap();
    probe::ask(&lab.gateway, "198.51.100.2:9000".parse().unwrap(), &[]).unwrap();
    exec::run(lab.internet.command("ping").args(["-n", "-c", "1", "-W", "2", "198.51.100.1"]), exec::SHORT)
        .unwrap()
        .success()
        .unwrap();
    drop(server);
    lab.gateway.tool("nft", &["delete", "table", "ip", "nat"]).unwrap();
    lab.lan.ip(&["route", "del", "default"]).unwrap();
    lab.lan.ip(&["address", "del", "10.77.0.50/24", "dev", "br0"]).unwrap();
    system.finish().unwrap();
}
