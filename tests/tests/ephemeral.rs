//! Ephemeral ports on demand: blocks come as use rises and go as it falls, and no port is ever used that is not leased.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::gateway::State;
use rsip_lab::lab::swarm::Swarm;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, gateway, probe};

const SERVER: SocketAddrV4 = SocketAddrV4::new(INTERNET, 9000);

/// A gateway and host-a alone.
fn one_host(gateway: &str, agent: &[&str]) -> System {
    let agent = agent.iter().map(ToString::to_string).collect();
    let mut system = System::new(Options { agent, gateway: gateway.into() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

/// Waits until host-a holds so many ephemeral ports.
fn leased(system: &System, count: usize) -> State {
    let holds = |state: &State| state.block(Host::A).len() == count;
    system.gateway_sees(&format!("{count} ephemeral ports"), NOTICE * 2, holds).unwrap()
}

/// Waits until the status of host-a is as wanted.
fn status_says(system: &System, what: &str, wanted: impl Fn(&agent::Status) -> bool) -> agent::Status {
    wait::until(what, NOTICE, || {
        let status = agent::status(&system.lab, Host::A)?;
        Ok(if wanted(&status) {
            Look::Ready(status)
        } else {
            Look::NotYet(format!("{:?}", status.ephemeral))
        })
    })
    .unwrap()
}

#[test]
fn blocks_come_with_use_and_go_with_it() {
    let system = one_host("REST_TIME = 0", &["--block", "16"]);
    let lab = &system.lab;
    let mut swarms = Vec::new();
    for count in [32, 48, 64] {
        let arguments = ["udp-bind", "12", "0.0.0.0"];
        let (swarm, taken) = Swarm::take(lab, lab.host(Host::A), &arguments, NOTICE).unwrap();
        assert_eq!(taken.taken, 12, "{taken:?}");
        let state = leased(&system, count);
        assert!(taken.ports.iter().all(|port| state.block(Host::A).contains(port)), "{taken:?}");
        swarms.push((swarm, taken));
    }
    status_says(&system, "four blocks", |status| status.ephemeral.blocks == 4 && status.ephemeral.need == 36);
    // One socket is left: it keeps its block, whichever that is.
    let (last, _) = swarms.pop().unwrap();
    drop(swarms);
    let state = leased(&system, 64);
    drop(last);
    let after = leased(&system, 16);
    let block = after.block(Host::A);
    assert!(block.iter().all(|port| state.block(Host::A).contains(port)), "{block:?}");
    let status = status_says(&system, "one block", |status| status.ephemeral.blocks == 1);
    assert_eq!((status.ephemeral.leased, status.ephemeral.returning), (16, 0));
    assert_eq!(status.ephemeral.choice, format!("{}-{}", block[0], block[15]));
    // It is used as ever.
    let (_swarm, taken) =
        Swarm::take(lab, lab.host(Host::A), &["udp-bind", "10", "0.0.0.0"], NOTICE).unwrap();
    assert!(taken.taken == 10 && taken.ports.iter().all(|port| block.contains(port)), "{taken:?}");
    system.finish().unwrap();
}

#[test]
fn a_block_with_a_port_in_use_is_not_given_back_not_even_in_time_wait() {
    let system = one_host("REST_TIME = 0", &["--block", "16"]);
    let lab = &system.lab;
    let _server = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    let (first, _) = Swarm::take(lab, lab.host(Host::A), &["udp-bind", "12", "0.0.0.0"], NOTICE).unwrap();
    leased(&system, 32);
    let answers = probe::ask_often(lab.host(Host::A), SERVER, 8, &[]).unwrap();
    let waiting: Vec<u16> = answers.iter().map(|answer| answer.peer.port()).collect();
    let sockets = lab.host(Host::A).tool("ss", &["-tanH", "state", "time-wait"]).unwrap();
    assert!(waiting.iter().all(|port| sockets.contains(&format!("{PUBLIC}:{port}"))), "{sockets}");
    drop(first);
    status_says(&system, "a block on its way back", |status| status.ephemeral.returning == 1);
    std::thread::sleep(Duration::from_secs(5));
    let held = gateway::state(lab).unwrap().block(Host::A);
    assert!(waiting.iter().all(|port| held.contains(port)), "{waiting:?} of {held:?}");
    system.finish().unwrap();
}
