//! Months in minutes: the gateway forgets, is away for longer than leases last, comes back with another address; the agent stands
//! still meanwhile. Programs are not started anew, and nothing is used that is not leased.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::gateway::{Gateway, State};
use rsip_lab::lab::probe::{self, Probe};
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::talk::Talk;
use rsip_lab::lab::topology::{EXTERNAL_IF, HOST_IF, INTERNET, Lab, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, gateway};

/// Another address that the gateway may lease.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
/// Leases that end soon.
const SHORT: &str = "LEASE_TIME = 4\nMAX_LEASE_TIME = 4";

fn one_host(settings: &str) -> System {
    let mut system = System::new(Options { gateway: settings.to_owned(), ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

fn serve(system: &System, port: u16) -> Probe {
    let address = format!("0.0.0.0:{port}");
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &[&address]).unwrap();
    system.gateway_sees_listening(Host::A, &[port]).unwrap();
    server
}

fn comes_again(system: &System, target: SocketAddrV4) {
    wait::until(&format!("{target} to be reached again"), Duration::from_secs(40), || {
        let asked = probe::ask(&system.lab.internet, target, &[]);
        Ok(asked.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Ready(())))
    })
    .unwrap();
}

fn log(system: &mut System) -> String {
    system.agent(Host::A).unwrap().process.output()
}

fn expect_no_lease(system: &System) {
    wait::until("every lease to be out of use", NOTICE, || {
        let status = agent::status(&system.lab, Host::A)?;
        let none = status.leases.is_empty() && status.tunnel.as_ref().is_none_or(|it| it.address.is_none());
        Ok(if none {
            Look::Ready(())
        } else {
            Look::NotYet(format!("{:?} {:?}", status.leases, status.tunnel))
        })
    })
    .unwrap();
}

#[test]
fn another_public_address_is_used_from_then_on_and_the_old_one_no_more() {
    let lab = Lab::new().unwrap();
    lab.gateway.ip(&["address", "add", &format!("{OTHER}/32"), "dev", EXTERNAL_IF]).unwrap();
    let mut system = System::in_lab(lab, Options::default()).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let host = system.lab.host(Host::A).clone();
    let server = serve(&system, 6200);
    let internet = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    let at = SocketAddrV4::new(INTERNET, 9001);
    let mut talk = Talk::begin(&system.lab.internet, at, &host).unwrap();
    talk.go_on().unwrap();
    system.gateway().unwrap().process.kill().unwrap();

    let settings = gateway::configuration(&format!("POOL = [\"{OTHER}\"]"));
    let mut second = Gateway::start(&system.lab, &settings).unwrap();
    wait::until("the tunnel to have the new address", NOTICE, || {
        let tunnel = agent::status(&system.lab, Host::A)?.tunnel;
        let there = tunnel.as_ref().is_some_and(|tunnel| tunnel.address == Some(OTHER));
        Ok(if there { Look::Ready(()) } else { Look::NotYet(format!("{tunnel:?}")) })
    })
    .unwrap();
    let recording = Recording::start(&system.lab, &host, HOST_IF).unwrap();
    comes_again(&system, SocketAddrV4::new(OTHER, 6200));
    let answer = probe::ask(&host, SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    assert_eq!(answer.peer.ip(), &OTHER);
    let (other, bound) = probe::bind(&system.lab, &host, &["0.0.0.0:6201"]).unwrap();
    bound.expect_ok().unwrap();
    wait::until("the old connection to have ended", NOTICE, || {
        Ok(talk.say().map_or_else(|_| Look::Ready(()), |()| Look::NotYet("it takes more".into())))
    })
    .unwrap();
    let old = format!("ip.src == {PUBLIC}");
    let leaked = recording.stop().unwrap().fields(&old, &["frame.number", "ip.src", "ip.dst"]).unwrap();
    assert_eq!(leaked, Vec::<Vec<String>>::new(), "nothing has the old source");
    assert!(!host.ip(&["address"]).unwrap().contains(&PUBLIC.to_string()));
    let shown = system.status(Host::A).unwrap();
    assert!(shown.contains(&OTHER.to_string()) && !shown.contains(&PUBLIC.to_string()), "{shown}");
    let log = log(&mut system);
    for words in ["another public address", "312 LOCAL_ADDR_UNALLOWED", "ports=6200"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    drop((server, other, internet, talk));
    system.stop_all().unwrap();
    assert_eq!(second.process.stop().unwrap(), 0);
    system.expect_as_before().unwrap();
}

#[test]
fn a_registration_that_the_gateway_ended_is_made_anew_and_what_another_host_took_is_told() {
    let mut system = System::up().unwrap();
    let server = serve(&system, 6210);
    let before = gateway::state(&system.lab).unwrap();
    let release = |state: &State| {
        let name = state.client(Host::A).unwrap().client_id.to_string();
        gateway::ctl(&system.lab, &["release", &name]).unwrap().success().unwrap();
    };
    release(&before);
    comes_again(&system, SocketAddrV4::new(PUBLIC, 6210));
    let after = system.gateway_sees_listening(Host::A, &[6210]).unwrap();
    assert_eq!(after.block(Host::A), before.block(Host::A), "the same ephemeral ports");
    assert_ne!(after.client(Host::A).unwrap().client_id, before.client(Host::A).unwrap().client_id);

    // The same while the agent cannot know, and somebody else is faster.
    release(&after);
    let stopped = system.agent(Host::A).unwrap();
    stopped.process.signal(Signal::SIGSTOP).unwrap();
    let state = gateway::state(&system.lab).unwrap();
    if state.client(Host::A).is_some() {
        let name = state.client(Host::A).unwrap().client_id.to_string();
        gateway::ctl(&system.lab, &["release", &name]).unwrap().success().unwrap();
    }
    let (thief, bound) = probe::bind(&system.lab, system.lab.host(Host::B), &["0.0.0.0:6210"]).unwrap();
    bound.expect_ok().unwrap();
    system.agent(Host::A).unwrap().process.signal(Signal::SIGCONT).unwrap();
    system.agent_says(Host::A, "refused port=6210 why=\"311 LOCAL_ADDRPORT_INUSE").unwrap();
    assert_eq!(gateway::state(&system.lab).unwrap().holder(6210), Some(Host::B.address()));
    // And when that one is done with it, it comes back to the program that still serves it.
    drop(thief);
    system.gateway_sees_listening(Host::A, &[6210]).unwrap();
    comes_again(&system, SocketAddrV4::new(PUBLIC, 6210));
    drop(server);
    system.finish().unwrap();
}

#[test]
fn a_gateway_that_is_away_for_many_leases_is_all_there_is_to_miss() {
    let mut system = one_host(SHORT);
    let host = system.lab.host(Host::A).clone();
    let server = serve(&system, 6220);
    let private = probe::serve(&system.lab, system.lab.host(Host::B), &["10.77.0.3:7000"]).unwrap();
    let internet = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    let before = gateway::state(&system.lab).unwrap();
    system.gateway().unwrap().process.kill().unwrap();
    expect_no_lease(&system);
    // Three more of them.
    std::thread::sleep(Duration::from_secs(12));
    let recording = Recording::start(&system.lab, &host, HOST_IF).unwrap();
    let answer = probe::ask(&host, SocketAddrV4::new(Host::B.address(), 7000), &[]);
    // Private connections need a port of a block, too: see below.
    if let Ok(answer) = answer {
        assert_eq!(answer.peer.ip(), &Host::A.address());
    }
    for address in ["127.0.0.1:6290", "10.77.0.2:6291", "0.0.0.0:22"] {
        let (_, bound) = probe::bind(&system.lab, &host, &[address]).unwrap();
        bound.expect_ok().unwrap();
    }
    let (_, bound) = probe::bind(&system.lab, &host, &["0.0.0.0:6221"]).unwrap();
    bound.expect("EADDRINUSE").unwrap();
    assert!(bound.took() < Duration::from_secs(2), "{bound:?}");
    probe::ask(&host, SocketAddrV4::new(INTERNET, 9000), &[]).unwrap_err();
    let to_internet = format!("ip.dst == {INTERNET}");
    let leaked = recording.stop().unwrap().fields(&to_internet, &["frame.number", "ip.src"]).unwrap();
    assert_eq!(leaked, Vec::<Vec<String>>::new(), "it fails closed");

    system.start_gateway().unwrap();
    comes_again(&system, SocketAddrV4::new(PUBLIC, 6220));
    let after = system.gateway_sees_listening(Host::A, &[6220]).unwrap();
    assert_eq!(after.block(Host::A), before.block(Host::A), "the same ephemeral ports");
    assert_eq!(probe::ask(&host, SocketAddrV4::new(INTERNET, 9000), &[]).unwrap().peer.ip(), &PUBLIC);
    // Away for good: the host is restored without it.
    drop((server, private, internet));
    assert_eq!(system.gateway().unwrap().process.stop().unwrap(), 0);
    expect_no_lease(&system);
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    system.expect_as_before().unwrap();
}

#[test]
fn an_agent_that_stood_still_for_longer_than_a_lease_uses_nothing_past_its_end() {
    let mut system = one_host(SHORT);
    let server = serve(&system, 6230);
    let before = gateway::state(&system.lab).unwrap();
    system.agent(Host::A).unwrap().process.signal(Signal::SIGSTOP).unwrap();
    let gone = |state: &State| state.client(Host::A).is_none();
    system.gateway_sees("that host-a is gone", NOTICE, gone).unwrap();
    let written = log(&mut system).len();
    system.agent(Host::A).unwrap().process.signal(Signal::SIGCONT).unwrap();
    let after = system.gateway_sees_listening(Host::A, &[6230]).unwrap();
    assert_eq!(after.block(Host::A), before.block(Host::A), "the same ephemeral ports");
    comes_again(&system, SocketAddrV4::new(PUBLIC, 6230));
    let log = log(&mut system);
    let since = log.get(written..).unwrap();
    let (ended, anew) = (since.find("no longer leased"), since.find(" registered "));
    assert!(ended.is_some() && ended < anew, "out of use first: {since}");
    assert!(!since.contains("INFO leased again"), "nothing is taken for granted: {since}");
    drop(server);
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}
