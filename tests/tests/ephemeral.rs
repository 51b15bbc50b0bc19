//! Ephemeral ports on demand: blocks come as use rises and go as it falls, and no port is ever used that is not leased.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::gateway::State;
use rsip_lab::lab::swarm::Swarm;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{HOST_IF, INTERNET, PUBLIC};
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

/// A gateway with ports for everybody.
const PLENTY: &str = "PORT_RANGE = \"10000-49999\"\nMAX_PORTS_PER_CLIENT = 40000\nREST_TIME = 0";

#[test]
fn ten_thousand_connections_to_one_peer_work_from_what_they_need() {
    let system = one_host(PLENTY, &[]);
    let lab = &system.lab;
    let _server = Swarm::listen(lab, &lab.internet, "9000-9000").unwrap();
    let connect = ["connect", "10000", "198.51.100.2", "9000-9000", "--abort"];
    let (swarm, taken) = Swarm::take(lab, lab.host(Host::A), &connect, Duration::from_secs(60)).unwrap();
    println!("10,000 connections to one peer: {} ms, slowest {} us", taken.millis, taken.slowest_micros);
    assert_eq!((taken.taken, &taken.errors), (10_000, &BTreeMap::new()));
    let held = gateway::state(lab).unwrap().block(Host::A);
    assert!(held.len() >= 10_000 && held.len() <= 14_000, "{} ports for ten thousand", held.len());
    let held: BTreeSet<u16> = held.into_iter().collect();
    assert!(taken.ports.is_subset(&held), "{:?}", taken.ports.difference(&held).collect::<Vec<_>>());
    drop(swarm);
    leased(&system, 255);
    system.finish().unwrap();
}

#[test]
fn every_way_to_take_a_port_waits_for_the_next_block_and_none_fails() {
    let system = one_host(PLENTY, &["--block", "32"]);
    let lab = &system.lab;
    let _server = Swarm::listen(lab, &lab.internet, "9000-9000").unwrap();
    for (way, more) in [
        ("connect", &["9000-9000", "--abort", "--threads", "8"][..]),
        ("udp-connect", &["9000-9000"]),
        ("udp-send", &["9000-9000"]),
        ("bind", &[]),
        ("udp-bind", &["0-0", "--threads", "8"]),
    ] {
        let address = if way.ends_with("bind") { "0.0.0.0" } else { "198.51.100.2" };
        let arguments = [&[way, "400", address], more].concat();
        let (_swarm, taken) = Swarm::take(lab, lab.host(Host::A), &arguments, NOTICE).unwrap();
        println!("400 times {way}: {} ms, slowest {} us", taken.millis, taken.slowest_micros);
        assert_eq!((taken.taken, &taken.errors), (400, &BTreeMap::new()), "{way}");
        let held: BTreeSet<u16> = gateway::state(lab).unwrap().block(Host::A).into_iter().collect();
        assert!(taken.ports.is_subset(&held), "{way}: {:?}", taken.ports.difference(&held));
    }
    // Local programs take their ports from the same blocks.
    let _local = Swarm::listen(lab, lab.host(Host::A), "7000-7000").unwrap();
    for address in ["127.0.0.1", "10.77.0.2"] {
        let arguments = ["connect", "1000", address, "7000-7000", "--abort"];
        let (_swarm, taken) = Swarm::take(lab, lab.host(Host::A), &arguments, NOTICE).unwrap();
        assert_eq!((taken.taken, &taken.errors), (1000, &BTreeMap::new()), "{address}");
    }
    system.finish().unwrap();
}

#[test]
fn when_the_gateway_has_no_more_connect_and_bind_say_so_and_nothing_leaves_with_a_wrong_source() {
    let gateway = "PORT_RANGE = \"20000-20099\"\nLISTEN_RANGE = \"1-1023\"\nREST_TIME = 0";
    let system = one_host(gateway, &["--block", "50"]);
    let lab = &system.lab;
    let _server = Swarm::listen(lab, &lab.internet, "9000-9001").unwrap();
    let inner = Recording::start(lab, lab.host(Host::A), HOST_IF).unwrap();
    let outer = Recording::start(lab, &lab.internet, HOST_IF).unwrap();
    let host = lab.host(Host::A);
    let (mut refused, mut racing) = (0, 0);
    for (way, address, peer, threads) in [
        ("connect", "198.51.100.2", "9000-9000", "1"),
        ("connect", "198.51.100.2", "9001-9001", "4"),
        ("udp-connect", "198.51.100.2", "9000-9000", "1"),
        ("bind", "0.0.0.0", "0-0", "1"),
        ("udp-bind", "0.0.0.0", "0-0", "1"),
    ] {
        let arguments = [way, "130", address, peer, "--abort", "--threads", threads];
        let (swarm, taken) = Swarm::take(lab, host, &arguments, NOTICE).unwrap();
        println!("130 times {way}, 100 ports: {} and {:?}", taken.taken, taken.errors);
        assert_eq!(taken.errors.keys().collect::<Vec<_>>(), ["EADDRNOTAVAIL"], "{way}: {:?}", taken.errors);
        // Every port is used before one is missed; with several threads a look may come too soon for one or the other.
        let least = if threads == "1" { 100 } else { 90 };
        assert!(taken.taken >= least && taken.taken <= 100, "{way}: {taken:?}");
        assert!(taken.ports.iter().all(|port| (20_000..=20_099).contains(port)), "{way}: {taken:?}");
        refused += 130 - taken.taken;
        racing += if threads == "1" { 0 } else { 12 };
        let status = agent::status(lab, Host::A).unwrap();
        assert!(
            status.ephemeral.refused.is_some() && status.ephemeral.level == "scarce",
            "{:?}",
            status.ephemeral
        );
        let counted = status.counter("room_refused").unwrap();
        // Threads that run into each other at the last port are refused by the kernel itself, with the same errno.
        let refused: u64 = u64::try_from(refused).unwrap();
        assert!(counted <= refused && counted + racing >= refused, "{way}: {counted} of {refused}");
        drop(swarm);
    }
    let log = std::fs::read_to_string(lab.folder().join("rsip-client-host-a.log")).unwrap();
    assert_eq!(log.matches("the gateway gives no more").count(), 1, "{log}");
    let sent = "tcp || udp";
    for (leg, capture) in [("inner", inner.stop().unwrap()), ("outer", outer.stop().unwrap())] {
        let filter = format!("({sent}) && ip.src == {PUBLIC} && !icmp");
        for row in capture.fields(&filter, &["tcp.srcport", "udp.srcport"]).unwrap() {
            let port: u16 = row.iter().find(|field| !field.is_empty()).unwrap().parse().unwrap();
            assert!((20_000..=20_099).contains(&port), "{leg}: {port}");
        }
    }
    assert_eq!(gateway::state(lab).unwrap().counters.datapath("bad_source"), 0);
    // What the programs left free is there again.
    let (_swarm, taken) =
        Swarm::take(lab, host, &["connect", "60", "198.51.100.2", "9000-9000", "--abort"], NOTICE).unwrap();
    assert_eq!(taken.taken, 60, "{taken:?}");
    system.finish().unwrap();
}

#[test]
fn sixty_four_small_sets_all_over_the_range_are_all_used() {
    // 64 islands of four ports each, a thousand apart: the gateway can give no two sets in a row.
    let reserved: Vec<String> =
        (0..64_u16).map(|set| format!("\"{}-{}\"", 1028 + set * 1000, 2023 + set * 1000)).collect();
    let gateway = format!(
        "PORT_RANGE = \"1024-65023\"\nLISTEN_RANGE = \"1-1023\"\nRESERVED_PORTS = [{}]\nREST_TIME = 0",
        reserved.join(", ")
    );
    for block in ["4", "255"] {
        let system = one_host(&gateway, &["--block", block]);
        let lab = &system.lab;
        let _server = Swarm::listen(lab, &lab.internet, "9000-9000").unwrap();
        let arguments = ["connect", "256", "198.51.100.2", "9000-9000", "--abort"];
        let (_swarm, taken) = Swarm::take(lab, lab.host(Host::A), &arguments, NOTICE).unwrap();
        println!("blocks of {block}: {} of 256, {:?}, {} ms", taken.taken, taken.errors, taken.millis);
        assert_eq!((taken.taken, &taken.errors), (256, &BTreeMap::new()));
        let sets: BTreeSet<u16> = taken.ports.iter().map(|port| (port - 1024) / 1000).collect();
        assert_eq!(sets.len(), 64, "{sets:?}");
        assert!(taken.ports.iter().all(|port| (port - 1024) % 1000 < 4), "{:?}", taken.ports);
        let status = agent::status(lab, Host::A).unwrap();
        assert_eq!(status.ephemeral.leased, 256);
        system.finish().unwrap();
    }
}

/// In six programs, as one has twenty thousand descriptors at most.
#[test]
fn a_hundred_thousand_connections_to_many_peers_take_no_more_ports_than_the_busiest_peer_has() {
    let system = one_host(PLENTY, &[]);
    let lab = &system.lab;
    let _server = Swarm::listen(lab, &lab.internet, "9000-9999").unwrap();
    let host = lab.host(Host::A);
    let start = Instant::now();
    let arguments = ["connect", "17000", "198.51.100.2", "9000-9999", "--abort"];
    let mut swarms: Vec<Swarm> = (0..6).map(|_| Swarm::begin(lab, host, &arguments).unwrap()).collect();
    let held: BTreeSet<u16> = swarms
        .iter_mut()
        .flat_map(|swarm| {
            let taken = swarm.taken(Duration::from_secs(120)).unwrap();
            assert_eq!((taken.taken, &taken.errors), (17_000, &BTreeMap::new()));
            taken.ports
        })
        .collect();
    println!("102,000 connections to 1,000 peers: {:?}, {} ports", start.elapsed(), held.len());
    let leased = gateway::state(lab).unwrap().block(Host::A);
    assert!(held.iter().all(|port| leased.contains(port)));
    // 102 each.
    assert_eq!(leased.len(), 255);
    let status = agent::status(lab, Host::A).unwrap();
    assert!(status.ephemeral.need <= 102 && status.ephemeral.level == "enough", "{:?}", status.ephemeral);
    assert_eq!(status.counter("room_refused"), Some(0));
    drop(swarms);
    system.finish().unwrap();
}
