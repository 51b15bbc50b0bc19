//! Either daemon is killed at any moment, and the other side and the kernel come to terms with it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddrV4;
use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::agent::Agent;
use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::probe::Probe;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, gateway, probe, server};

const WEB: SocketAddrV4 = SocketAddrV4::new(PUBLIC, 80);

/// Waits until the internet host gets Apache's page again.
fn page_comes(system: &System) {
    wait::until("the page to come again", Duration::from_secs(40), || {
        let output = server::curl(&system.lab.internet, &format!("http://{WEB}/"))?;
        Ok(if output.code() == 0 { Look::Ready(()) } else { Look::NotYet(output.stderr) })
    })
    .unwrap();
}

#[test]
fn an_agent_that_was_killed_goes_on_where_it_was_when_it_is_started_again() {
    let mut system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    let before = gateway::state(&system.lab).unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();

    system.start_agent(Host::A).unwrap();
    page_comes(&system);
    let after = gateway::state(&system.lab).unwrap();
    assert_eq!(after.listening(Host::A), [80]);
    assert_eq!(after.block(Host::A), before.block(Host::A), "the ephemeral ports are the same");
    // The use of the port is known again: it is given back when Apache ends.
    apache.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn apache_may_end_while_no_agent_runs() {
    let mut system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    apache.stop().unwrap();
    system.start_agent(Host::A).unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn down_restores_the_host_after_the_agent_was_killed() {
    let mut system = System::up().unwrap();
    for host in Host::ALL {
        system.agent(host).unwrap().process.kill().unwrap();
        agent::client(&system.lab, host, &["down"]).unwrap().success().unwrap();
    }
    system.gateway().unwrap().process.stop().unwrap();
    system.expect_as_before().unwrap();
    // And there is nothing more to do.
    let again = agent::client(&system.lab, Host::A, &["down"]).unwrap();
    assert!(again.stderr.lines().count() <= 1, "{}", again.stderr);
    system.expect_as_before().unwrap();
}

#[test]
fn hosts_register_again_by_themselves_after_the_gateway_was_killed() {
    let mut system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    server::page(&system.lab.internet, WEB).unwrap();
    let before = gateway::state(&system.lab).unwrap();
    let pid = apache.pid();
    system.gateway().unwrap().process.kill().unwrap();

    system.start_gateway().unwrap();
    page_comes(&system);
    let all = |state: &gateway::State| Host::ALL.iter().all(|host| !state.block(*host).is_empty());
    let after = system.gateway_sees("both hosts again", Duration::from_secs(40), all).unwrap();
    assert_eq!(after.holder(80), Some(Host::A.address()));
    assert_eq!(apache.pid(), pid, "Apache has noticed nothing");
    for host in Host::ALL {
        assert_eq!(after.block(host), before.block(host), "the ephemeral ports are the same");
    }
    apache.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn the_same_over_udp() {
    let mut system =
        System::up_with(Options { agent: vec!["--transport".into(), "udp".into()], ..Options::default() })
            .unwrap();
    assert!(gateway::state(&system.lab).unwrap().clients.iter().all(|client| client.transport == "udp"));
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    system.gateway().unwrap().process.kill().unwrap();
    system.start_gateway().unwrap();
    page_comes(&system);
    system.agent(Host::A).unwrap().process.kill().unwrap();
    system.start_agent(Host::A).unwrap();
    page_comes(&system);
    apache.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_gateway_that_ends_cleanly_tells_its_hosts_and_they_come_back() {
    let mut system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    assert_eq!(system.gateway().unwrap().process.stop().unwrap(), 0);
    system.agent(Host::A).unwrap().process.expect_running().unwrap();
    system.start_gateway().unwrap();
    page_comes(&system);
    apache.stop().unwrap();
    system.finish().unwrap();
}

#[test]
fn leases_of_a_host_that_is_gone_end_by_themselves() {
    let mut system = System::up_with(Options {
        gateway: "LEASE_TIME = 4\nMAX_LEASE_TIME = 4".into(),
        ..Options::default()
    })
    .unwrap();
    let (holder, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:5900"]).unwrap();
    bound.expect_ok().unwrap();
    // While the agent lives, leases are extended.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(gateway::state(&system.lab).unwrap().holder(5900), Some(Host::A.address()));
    system.agent(Host::A).unwrap().process.kill().unwrap();
    let gone = |state: &gateway::State| state.client(Host::A).is_none();
    system.gateway_sees("that host-a is gone", Duration::from_secs(10), gone).unwrap();
    assert!(gateway::state(&system.lab).unwrap().client(Host::B).is_some());
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::B), &["0.0.0.0:5900"]).unwrap();
    bound.expect_ok().unwrap();
    drop(holder);
    // The state that the dead agent left says leases that are no more; the next one finds out.
    system.start_agent(Host::A).unwrap();
    let internet = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    let answer = probe::ask(system.lab.host(Host::A), SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    let block = gateway::state(&system.lab).unwrap().block(Host::A);
    assert!(block.contains(&answer.peer.port()), "{} is not of {block:?}", answer.peer);
    drop(internet);
    system.finish().unwrap();
}

#[test]
fn both_may_be_killed_together() {
    let mut system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    system.gateway().unwrap().process.kill().unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    page_comes(&system);
    apache.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_program_that_waits_when_a_daemon_is_killed_is_let_go() {
    let mut system = System::up().unwrap();
    for kill_agent in [true, false] {
        system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
        let mut waiting =
            Probe::start(&system.lab, system.lab.host(Host::A), &["bind", "0.0.0.0:5930"]).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(waiting.process.output(), "", "it waits");
        if kill_agent {
            system.agent(Host::A).unwrap().process.kill().unwrap();
        } else {
            system.gateway().unwrap().process.kill().unwrap();
        }
        // Without an agent, or without a gateway, there is no port to be had.
        let bound = waiting.bound(Duration::from_secs(10)).unwrap();
        bound.expect("EADDRINUSE").unwrap();
        drop(waiting);
        if kill_agent {
            system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
            system.start_agent(Host::A).unwrap();
        } else {
            system.start_gateway().unwrap();
        }
    }
    let all = |state: &gateway::State| Host::ALL.iter().all(|host| !state.block(*host).is_empty());
    system.gateway_sees("both hosts again", Duration::from_secs(40), all).unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_daemon_that_is_killed_while_it_starts_leaves_what_the_next_start_can_handle() {
    let mut system = System::new(Options::default()).unwrap();
    for delay in [5, 20, 50, 100, 200, 400] {
        system.start_gateway().unwrap();
        let mut agent = Agent::launch(&system.lab, Host::A, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        agent.process.kill().unwrap();
        system.gateway().unwrap().process.kill().unwrap();
    }
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    page_comes(&system);
    apache.stop().unwrap();
    system.finish().unwrap();
}
