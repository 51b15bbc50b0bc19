//! Whoever stops leaves nothing behind, in whatever order things stop.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::process::STOP;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, Lab, agent, gateway, probe};

#[test]
fn after_both_have_stopped_everything_is_as_before() {
    System::up().unwrap().finish().unwrap();
}

#[test]
fn the_gateway_may_stop_first() {
    let mut system = System::up().unwrap();
    assert_eq!(system.gateway().unwrap().process.stop().unwrap(), 0);
    for host in Host::ALL {
        assert_eq!(system.agent(host).unwrap().process.stop().unwrap(), 0);
    }
    system.expect_as_before().unwrap();
}

#[test]
fn an_agent_stops_in_time_while_the_gateway_is_silent() {
    let mut system = System::up().unwrap();
    system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
    assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
    system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
    system.finish().unwrap();
}

#[test]
fn the_gateway_and_the_agent_are_stopped_by_their_control_programs_and_by_interrupt() {
    let mut system = System::up().unwrap();
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    assert_eq!(system.agent(Host::A).unwrap().process.wait(STOP).unwrap(), 0);
    assert!(gateway::state(&system.lab).unwrap().client(Host::A).is_none(), "it has said good-bye");
    let b = &mut system.agent(Host::B).unwrap().process;
    b.signal(Signal::SIGINT).unwrap();
    assert_eq!(b.wait(STOP).unwrap(), 0);
    gateway::ctl(&system.lab, &["stop"]).unwrap().success().unwrap();
    assert_eq!(system.gateway().unwrap().process.wait(STOP).unwrap(), 0);
    system.expect_as_before().unwrap();
}

#[test]
fn an_agent_stops_while_servers_run_and_starts_again() {
    let mut system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
    // Its ports are free for others at once.
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::B), &["0.0.0.0:80"]).unwrap();
    bound.expect_ok().unwrap();
    system.gateway_sees_listening(Host::B, &[]).unwrap();
    // Without an agent the host is a plain host.
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:8081"]).unwrap();
    bound.expect_ok().unwrap();
    system.start_agent(Host::A).unwrap();
    apache.stop().unwrap();
    system.finish().unwrap();
}

#[test]
fn hosts_settings_of_their_own_come_back() {
    let mut system = System::new(Options::default()).unwrap();
    let host = system.lab.host(Host::A).clone();
    host.sysctl("net/ipv4/ip_local_port_range", "40000 50001").unwrap();
    host.sysctl("net/ipv4/ip_local_reserved_ports", "40100-40110,45000").unwrap();
    host.ip(&["rule", "add", "pref", "100", "to", "192.0.2.0/24", "lookup", "99"]).unwrap();
    let own = rsip_lab::lab::snapshot::Snapshot::take(&[&host]).unwrap();
    system.start_gateway().unwrap();
    for kill in [false, true] {
        system.start_agent(Host::A).unwrap();
        assert_ne!(host.setting("net/ipv4/ip_local_port_range").unwrap(), "40000 50001");
        if kill {
            system.agent(Host::A).unwrap().process.kill().unwrap();
            agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
        } else {
            assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
        }
        assert_eq!(host.setting("net/ipv4/ip_local_port_range").unwrap(), "40000 50001");
        assert_eq!(host.setting("net/ipv4/ip_local_reserved_ports").unwrap(), "40100-40110,45000");
    }
    system.gateway().unwrap().process.stop().unwrap();
    own.expect_again(&[&host]).unwrap();
}

#[test]
fn the_status_file_is_written_on_request() {
    let lab = Lab::new().unwrap();
    let file = lab.folder().join("rsipd.status");
    let gateway = format!("STATUS_FILE = \"{}\"", file.display());
    let mut system = System::in_lab(lab, Options { gateway, ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    assert!(!file.exists());
    system.gateway().unwrap().process.signal(Signal::SIGUSR1).unwrap();
    let text = wait::until("the status file", Duration::from_secs(10), || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ok(if text.contains("10.77.0.2") { Look::Ready(text) } else { Look::NotYet(text) })
    })
    .unwrap();
    let columns: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns.join(" "), "Client Leased Address STATE ID BID LT RLT TUNNEL PROTO PORTS REMOTE");
    let dump = system.dump().unwrap();
    assert_eq!(dump.lines().next(), text.lines().next());
    assert!(dump.contains("198.51.100.1"), "{dump}");
    system.finish().unwrap();
}
