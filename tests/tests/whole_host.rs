//! A host that leases a whole public address (RSA-IP): every port of it is its own at once, and so is its ICMP.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::lab::agent::{self, Agent, Lease};
use rsip_lab::lab::exec;
use rsip_lab::lab::gateway::State;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, gateway, probe};

/// The address that is leased whole.
const WHOLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
const SERVER: SocketAddrV4 = SocketAddrV4::new(INTERNET, 9000);
const RANGE: &str = "net/ipv4/ip_local_port_range";

/// A gateway that leases ports of its own address, and one more address whole. Its host runs nothing yet.
fn gateway_with_a_whole_address() -> System {
    let options = Options {
        gateway: format!("POOL = [\"{PUBLIC}\"]\nRSA_POOL = [\"{WHOLE}\"]"),
        agent: vec!["--method".into(), "rsa-ip".into()],
    };
    let lab = rsip_lab::lab::Lab::new().unwrap();
    lab.gateway.ip(&["address", "add", &format!("{WHOLE}/24"), "dev", EXTERNAL_IF]).unwrap();
    let mut system = System::in_lab(lab, options).unwrap();
    system.start_gateway().unwrap();
    system
}

fn only_lease(system: &System) -> Lease {
    let mut leases = agent::status(&system.lab, Host::A).unwrap().leases;
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases.remove(0)
}

fn holds_the_address(state: &State) -> bool {
    let bindings = state.client(Host::A).map(|client| client.bindings.as_slice());
    matches!(bindings, Some([one]) if one.whole && one.address == WHOLE && one.installed == Some(true))
}

#[test]
fn every_port_is_the_hosts_own_at_once_in_both_directions() {
    let mut system = gateway_with_a_whole_address();
    let host = system.lab.host(Host::A).clone();
    let range = host.setting(RANGE).unwrap();
    system.start_agent(Host::A).unwrap();
    let lab = &system.lab;
    let lease = only_lease(&system);
    assert_eq!((lease.address, lease.ports.as_str(), lease.kind.as_str()), (WHOLE, "all", "address"));
    let status = agent::status(lab, Host::A).unwrap();
    assert_eq!(status.registration.method, "RSA-IP");
    assert!(!status.ephemeral.confined);
    assert_eq!(host.setting(RANGE).unwrap(), range, "the kernel's own choice is left alone");

    // Servers, on ports high and low; also what RSAP-IP would leave to the private side.
    for (port, udp) in [(80, false), (53, true), (6010, false), (22, false), (65_535, true)] {
        let address = format!("0.0.0.0:{port}");
        let kind: &[&str] = if udp { &["--udp"] } else { &[] };
        let server = probe::serve(lab, &host, &[&[address.as_str()], kind].concat()).unwrap();
        let answer = probe::ask(&lab.internet, SocketAddrV4::new(WHOLE, port), kind).unwrap();
        assert_eq!(answer.peer.ip(), &INTERNET, "{port}");
        drop(server);
    }
    // Clients: the address is theirs, the port any that the kernel likes, or one by number.
    let (tcp, udp) = (
        probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap(),
        probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap(),
    );
    for arguments in [&[][..], &["--udp"], &["--from", "0.0.0.0:0"]] {
        for answer in probe::ask_often(&host, SERVER, 5, arguments).unwrap() {
            assert_eq!(answer.peer.ip(), &WHOLE, "{arguments:?}");
        }
    }
    // Once: whoever closes a connection first keeps its ports in TIME_WAIT.
    let answer = probe::ask(&host, SERVER, &["--from", "0.0.0.0:7777"]).unwrap();
    assert_eq!(answer.peer, SocketAddrV4::new(WHOLE, 7777));
    let state = gateway::state(lab).unwrap();
    assert!(holds_the_address(&state), "one binding, no LISTEN: {:?}", state.clients);
    let asked = agent::status(lab, Host::A).unwrap();
    assert_eq!(
        (asked.counter("bind_timeout"), asked.counter("parked")),
        (Some(0), Some(0)),
        "no bind waited"
    );
    // 22 is private by default: its bind is not asked about, and still the port is the host's.
    assert!(asked.counter("bind_granted").unwrap() >= 5, "{:?}", asked.counters);
    drop((tcp, udp));
    system.finish().unwrap();
}

#[test]
fn a_ping_from_outside_is_answered_by_the_host_itself() {
    let mut system = gateway_with_a_whole_address();
    system.start_agent(Host::A).unwrap();
    let lab = &system.lab;
    let ping = |count: &str| {
        let whole = WHOLE.to_string();
        let mut command = lab.internet.command("ping");
        exec::run(command.args(["-c", count, "-W", "2", "-i", "0.2", &whole]), exec::SHORT).unwrap()
    };
    assert_eq!(ping("3").code(), 0);
    // Who else could have answered: the gateway, whose interface has the address.
    lab.host(Host::A).sysctl("net/ipv4/icmp_echo_ignore_all", "1").unwrap();
    assert_ne!(ping("2").code(), 0, "the host keeps silent, and nobody speaks for it");
    lab.host(Host::A).sysctl("net/ipv4/icmp_echo_ignore_all", "0").unwrap();
    // And the other way round, with nothing that the gateway has to remember.
    lab.host(Host::A).tool("ping", &["-c", "2", "-W", "2", "-i", "0.2", &INTERNET.to_string()]).unwrap();
    // A port that nobody serves is refused by the host's own stack.
    let refused = probe::ask(&lab.internet, SocketAddrV4::new(WHOLE, 4321), &[]).unwrap_err().to_string();
    assert!(refused.to_lowercase().contains("refused"), "{refused}");
    let unreachable =
        probe::ask(&lab.internet, SocketAddrV4::new(WHOLE, 4321), &["--udp", "--connected"]).unwrap_err();
    assert!(unreachable.to_string().to_lowercase().contains("refused"), "by ICMP: {unreachable}");
    system.finish().unwrap();
}

#[test]
fn an_agent_that_was_killed_goes_on_with_its_address() {
    let mut system = gateway_with_a_whole_address();
    let range = system.lab.host(Host::A).setting(RANGE).unwrap();
    system.start_agent(Host::A).unwrap();
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &["0.0.0.0:8080"]).unwrap();
    let before = gateway::state(&system.lab).unwrap().client(Host::A).unwrap().bindings[0].bind_id;
    system.agent(Host::A).unwrap().process.kill().unwrap();
    system.start_agent(Host::A).unwrap();
    let state = system.gateway_sees("the same lease", NOTICE, holds_the_address).unwrap();
    assert_eq!(state.client(Host::A).unwrap().bindings[0].bind_id, before, "taken over, not asked for anew");
    probe::ask(&system.lab.internet, SocketAddrV4::new(WHOLE, 8080), &[]).unwrap();
    assert_eq!(only_lease(&system).ports, "all");
    // And where nobody comes back, `down` puts everything in order.
    system.agent(Host::A).unwrap().process.kill().unwrap();
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    assert_eq!(system.lab.host(Host::A).setting(RANGE).unwrap(), range);
    system.gateway_sees("nobody", NOTICE, |state| state.clients.is_empty()).unwrap();
    drop(server);
    system.finish().unwrap();
}

#[test]
fn the_same_address_comes_back_when_the_gateway_was_killed() {
    let mut system = gateway_with_a_whole_address();
    system.start_agent(Host::A).unwrap();
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &["0.0.0.0:8080"]).unwrap();
    system.gateway().unwrap().process.kill().unwrap();
    system.start_gateway().unwrap();
    system.gateway_sees("the address again", Duration::from_secs(40), holds_the_address).unwrap();
    wait::until("the server to be reached", NOTICE, || {
        let answer = probe::ask(&system.lab.internet, SocketAddrV4::new(WHOLE, 8080), &[]);
        Ok(answer.map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Ready(())))
    })
    .unwrap();
    drop(server);
    system.finish().unwrap();
}

#[test]
fn ports_named_by_the_administrator_come_with_the_address() {
    let mut system = gateway_with_a_whole_address();
    system.start_agent(Host::A).unwrap();
    let said = agent::client(&system.lab, Host::A, &["listen", "443", "8443"]).unwrap().success().unwrap();
    assert_eq!(said, format!("443: leased at {WHOLE}\n8443: leased at {WHOLE}\n"));
    assert!(holds_the_address(&gateway::state(&system.lab).unwrap()), "nothing more is leased");
    let said = agent::client(&system.lab, Host::A, &["unlisten", "443"]).unwrap().success().unwrap();
    assert_eq!(said, "443: let go\n");
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &["0.0.0.0:443"]).unwrap();
    probe::ask(&system.lab.internet, SocketAddrV4::new(WHOLE, 443), &[]).unwrap();
    drop(server);
    system.finish().unwrap();
}

#[test]
fn another_method_is_another_registration() {
    let mut system = gateway_with_a_whole_address();
    system.start_agent(Host::A).unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    let mut ports = Agent::start(&system.lab, Host::A, &[]).unwrap();
    let of_ports = |state: &State| !state.block(Host::A).is_empty() && !holds_the_address(state);
    let state = system.gateway_sees("ports", NOTICE, of_ports).unwrap();
    assert!(
        state.client(Host::A).unwrap().bindings.iter().all(|binding| !binding.whole),
        "{:?}",
        state.clients
    );
    assert_eq!(only_lease(&system).kind, "block");
    ports.process.kill().unwrap();
    system.start_agent(Host::A).unwrap();
    system.gateway_sees("the address", NOTICE, holds_the_address).unwrap();
    drop(ports);
    system.finish().unwrap();
}

#[test]
fn without_an_address_to_give_the_start_fails_and_says_why() {
    let mut system = gateway_with_a_whole_address();
    system.start_agent(Host::A).unwrap();
    let up = |host: Host| {
        let arguments = ["up", "--gateway", "10.77.0.1", "--method", "rsa-ip"];
        let mut command =
            system.lab.host(host).command(rsip_lab::lab::binaries::under_test("rsip-client").unwrap());
        exec::run(command.args(arguments), Duration::from_secs(30)).unwrap()
    };
    let output = up(Host::B);
    assert_eq!(output.code(), 4, "{}", output.stderr);
    assert!(
        output.stderr.contains("unable to get port assignments: leases no whole address: 308"),
        "{}",
        output.stderr
    );
    system.stop_all().unwrap();
    // A gateway that has none at all does not offer the method.
    let mut system = {
        drop(system);
        System::new(Options::default()).unwrap()
    };
    system.start_gateway().unwrap();
    let mut command =
        system.lab.host(Host::A).command(rsip_lab::lab::binaries::under_test("rsip-client").unwrap());
    let output = exec::run(
        command.args(["up", "--gateway", "10.77.0.1", "--method", "rsa-ip"]),
        Duration::from_secs(30),
    )
    .unwrap();
    assert_eq!(output.code(), 4, "{}", output.stderr);
    assert!(
        output.stderr.contains("does not offer RSA-IP") && output.stderr.contains("--method rsap-ip"),
        "{}",
        output.stderr
    );
    system.finish().unwrap();
}
