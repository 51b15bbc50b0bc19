//! Leases that run short, are taken back, or are used for what they are not for: what the host does, and what it tells.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::gateway::State;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{GATEWAY, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, gateway, probe};

/// A gateway and host-a alone.
fn one_host(agent: &[&str]) -> System {
    let agent = agent.iter().map(ToString::to_string).collect();
    let mut system = System::new(Options { agent, ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

#[test]
fn more_ports_are_leased_before_the_last_one_is_in_use() {
    let system = one_host(&["--block", "16", "--blocks", "2"]);
    let lab = &system.lab;
    let (mut sockets, mut ports) = (Vec::new(), Vec::new());
    let mut take = |count: usize| {
        for _ in 0..count {
            let (socket, bound) = probe::bind(lab, lab.host(Host::A), &["--udp", "0.0.0.0:0"]).unwrap();
            bound.expect_ok().unwrap();
            sockets.push(socket);
            ports.push(bound.port);
        }
        ports.clone()
    };
    take(12);
    let blocks = |state: &State| state.block(Host::A).len() == 32;
    let state = system.gateway_sees("a second block", NOTICE, blocks).unwrap();
    // Without it four more would be all.
    let all = take(12);
    assert!(all.iter().all(|port| state.block(Host::A).contains(port)), "{all:?}");
    // As many blocks as were allowed.
    take(6);
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(gateway::state(lab).unwrap().block(Host::A).len(), 32);
    drop(sockets);
    system.finish().unwrap();
}

#[test]
fn what_the_gateway_takes_back_is_out_of_use_and_its_consequence_is_told() {
    let mut system = one_host(&[]);
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &["0.0.0.0:6500"]).unwrap();
    let target = SocketAddrV4::new(PUBLIC, 6500);
    probe::ask(&system.lab.internet, target, &[]).unwrap();
    let state = system.gateway_sees_listening(Host::A, &[6500]).unwrap();
    let client = state.client(Host::A).unwrap();
    let binding = client.bindings.iter().find(|binding| binding.listen).unwrap();
    let name = format!("{}/{}", client.client_id, binding.bind_id);
    gateway::ctl(&system.lab, &["release", &name]).unwrap().success().unwrap();
    wait::until("the host to have withdrawn the port", NOTICE, || {
        let leases = agent::status(&system.lab, Host::A)?.leases;
        let gone = leases.iter().all(|lease| lease.ports != "6500");
        Ok(if gone { Look::Ready(()) } else { Look::NotYet(format!("{leases:?}")) })
    })
    .unwrap();
    probe::ask(&system.lab.internet, target, &[]).unwrap_err();
    let log = system.agent(Host::A).unwrap().process.output();
    assert!(log.contains("nobody reaches the servers") && log.contains("ports=6500"), "{log}");
    // The block was not meant, and a program that binds the port asks for it again.
    drop(server);
    let (again, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:6500"]).unwrap();
    bound.expect_ok().unwrap();
    system.gateway_sees_listening(Host::A, &[6500]).unwrap();
    drop(again);
    system.finish().unwrap();
}

#[test]
fn what_the_gateway_complains_of_is_shown_and_told() {
    let mut system = one_host(&[]);
    let arguments = [
        "tunnel",
        &GATEWAY.to_string(),
        &format!("{PUBLIC}:7777"),
        &format!("{INTERNET}:9000"),
        "--count",
        "5",
    ];
    probe::run(system.lab.host(Host::A), &arguments).unwrap();
    let complaint = wait::until("the complaint", NOTICE, || {
        let complaints = agent::status(&system.lab, Host::A)?.registration.complaints;
        Ok(complaints.first().map_or_else(|| Look::NotYet("none".into()), |one| Look::Ready(one.clone())))
    })
    .unwrap();
    assert!(complaint.name.starts_with("313 ") && complaint.value >= 1, "{complaint:?}");
    assert!(system.status(Host::A).unwrap().contains("complaint  "));
    let log = system.agent(Host::A).unwrap().process.output();
    assert!(log.contains("a source port that is not leased"), "{log}");
    system.finish().unwrap();
}
