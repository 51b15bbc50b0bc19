//! What is leased is given back, and everybody agrees about it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use rsip_lab::lab::gateway::State;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::{Host, agent, gateway, probe};

/// The ports that the kernel may choose by itself.
fn kernels_choice(system: &System, host: Host) -> Vec<u16> {
    let inside = system.lab.host(host);
    let range = inside.setting("net/ipv4/ip_local_port_range").unwrap();
    let (low, high) = range.split_once(' ').unwrap();
    let reserved = inside.setting("net/ipv4/ip_local_reserved_ports").unwrap();
    let taken: Vec<(u16, u16)> = reserved
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            (first.parse().unwrap(), last.parse().unwrap())
        })
        .collect();
    (low.parse().unwrap()..=high.parse().unwrap())
        .filter(|port| !taken.iter().any(|(first, last)| (first..=last).contains(&port)))
        .collect()
}

#[test]
fn after_200_ports_bound_and_released_only_the_block_is_leased() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let before = gateway::state(lab).unwrap();
    for udp in [&[][..], &["--udp"]] {
        probe::run(lab.host(Host::A), &[&["churn", "0.0.0.0:6000", "--count", "200"], udp].concat()).unwrap();
    }
    let clean = |state: &State| state.listening(Host::A).is_empty();
    let after = system.gateway_sees("nothing but the block", Duration::from_secs(60), clean).unwrap();
    // The gateway.
    assert_eq!(after.block(Host::A), before.block(Host::A));
    assert_eq!(after.pool[0].leased, before.pool[0].leased);
    let bindings = &after.client(Host::A).unwrap().bindings;
    assert!(bindings.iter().all(|binding| binding.installed == Some(true)), "{bindings:?}");
    // The agent.
    let leases = agent::status(lab, Host::A).unwrap().leases;
    let [block] = leases.as_slice() else { panic!("not the block alone: {leases:?}") };
    assert_eq!((block.kind.as_str(), block.count, block.sockets), ("block", 255, 0));
    // The kernel.
    assert_eq!(kernels_choice(&system, Host::A), after.block(Host::A));
    system.finish().unwrap();
}

#[test]
fn the_kernel_chooses_among_leased_ports_only() {
    let system = System::up().unwrap();
    for host in Host::ALL {
        assert_eq!(kernels_choice(&system, host), gateway::state(&system.lab).unwrap().block(host));
    }
    system.finish().unwrap();
}

#[test]
fn what_the_administrator_takes_back_is_gone_and_asked_for_again() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    gateway::ctl(lab, &["release", &Host::A.address().to_string()]).unwrap().success().unwrap();
    let back = |state: &State| !state.block(Host::A).is_empty();
    system.gateway_sees("host-a again", Duration::from_secs(40), back).unwrap();
    let (_, bound) = probe::bind(lab, lab.host(Host::A), &["0.0.0.0:6300"]).unwrap();
    bound.expect_ok().unwrap();
    system.finish().unwrap();
}

#[test]
fn ports_named_by_the_administrator_are_held_without_a_program() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    agent::client(lab, Host::A, &["listen", "6400", "6401"]).unwrap().success().unwrap();
    system.gateway_sees_listening(Host::A, &[6400, 6401]).unwrap();
    let (_, bound) = probe::bind(lab, lab.host(Host::B), &["0.0.0.0:6400"]).unwrap();
    bound.expect("EADDRINUSE").unwrap();
    // A program of the host itself gets it at once, and leaves it leased.
    let (program, bound) = probe::bind(lab, lab.host(Host::A), &["0.0.0.0:6400"]).unwrap();
    bound.expect_ok().unwrap();
    drop(program);
    std::thread::sleep(2 * agent::LINGER);
    assert_eq!(gateway::state(lab).unwrap().listening(Host::A), [6400, 6401]);
    system.finish().unwrap();
}

#[test]
fn hosts_share_one_address_until_the_ports_are_used_up() {
    // Room for one block of 255 and a bit.
    let options = Options {
        gateway: "PORT_RANGE = \"20000-20299\"\nLISTEN_RANGE = \"1-1023\"\nREST_TIME = 0".into(),
        ..Options::default()
    };
    let mut system = System::new(options).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    assert_eq!(gateway::state(&system.lab).unwrap().block(Host::A).len(), 255);
    // The second host gets what is left, not nothing.
    system.start_agent(Host::B).unwrap();
    let left = |state: &State| !state.block(Host::B).is_empty();
    let state = system.gateway_sees("a smaller block of host-b", NOTICE, left).unwrap();
    assert!(state.block(Host::B).len() <= 45, "{:?}", state.block(Host::B));
    assert_eq!(kernels_choice(&system, Host::B), state.block(Host::B));
    system.finish().unwrap();
}
