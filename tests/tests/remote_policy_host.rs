//! A host whose leases are for one peer (remote flow policy, RFC 3103 section 7.2): that peer is reached with what is leased,
//! and nobody else.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::lab::exec::{self, Output};
use rsip_lab::lab::probe::Probe;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, Lab, agent, binaries, gateway, probe};

/// A second host of the internet, on the same machine there.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);

/// A lab with two peers, a gateway with this policy, and the option that the agents are started with.
fn system(policy: &str, remote: &[&str]) -> System {
    let lab = Lab::new().unwrap();
    lab.internet.ip(&["address", "add", &format!("{OTHER}/24"), "dev", HOST_IF]).unwrap();
    let options = Options {
        gateway: format!("FLOW_POLICY = \"{policy}\""),
        agent: remote.iter().map(ToString::to_string).collect(),
    };
    let mut system = System::in_lab(lab, options).unwrap();
    system.start_gateway().unwrap();
    system
}

/// Servers of both peers, for TCP and UDP on two ports.
fn servers(lab: &Lab) -> Vec<Probe> {
    let mut all = Vec::new();
    for address in [INTERNET, OTHER] {
        for port in [9000, 9001] {
            let address = format!("{address}:{port}");
            all.push(probe::serve(lab, &lab.internet, &[&address]).unwrap());
            all.push(probe::serve(lab, &lab.internet, &["--udp", &address]).unwrap());
        }
    }
    all
}

/// Asks a peer by TCP, by UDP and by connected UDP from a host; all must end alike.
fn ask(system: &System, peer: Ipv4Addr, port: u16) -> Result<(), String> {
    let to = SocketAddrV4::new(peer, port);
    let ends: Vec<Result<(), String>> = [&[][..], &["--udp"], &["--udp", "--connected"]]
        .into_iter()
        .map(|arguments| match probe::ask(system.lab.host(Host::A), to, arguments) {
            Ok(answer) => {
                assert_eq!(answer.peer.ip(), &PUBLIC, "{arguments:?}");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        })
        .collect();
    assert!(ends.iter().all(Result::is_ok) || ends.iter().all(Result::is_err), "{to}: {ends:?}");
    ends.into_iter().next().unwrap()
}

fn is_no_route(error: &str) -> bool {
    error.contains("No route to host")
}

/// `rsip-client up` that must end by itself.
fn up(system: &System, more: &[&str]) -> Output {
    let mut command = system.lab.host(Host::A).command(binaries::under_test("rsip-client").unwrap());
    exec::run(command.args(["up", "--gateway", "10.77.0.1"]).args(more), Duration::from_secs(30)).unwrap()
}

#[test]
fn under_a_macro_policy_the_named_peer_is_reached_and_nobody_else() {
    let mut system = system("macro/macro", &["--remote", &INTERNET.to_string()]);
    system.start_agent(Host::A).unwrap();
    let servers = servers(&system.lab);
    for port in [9000, 9001] {
        ask(&system, INTERNET, port).unwrap();
        let error = ask(&system, OTHER, port).unwrap_err();
        assert!(is_no_route(&error), "{error}");
    }
    // A leased port by number is for the same peer.
    let from = ["--from", "0.0.0.0:6000"];
    let host = system.lab.host(Host::A);
    let answer = probe::ask(host, SocketAddrV4::new(INTERNET, 9000), &from).unwrap();
    assert_eq!(answer.peer, SocketAddrV4::new(PUBLIC, 6000));
    assert!(is_no_route(&probe::ask(host, SocketAddrV4::new(OTHER, 9000), &from).unwrap_err().to_string()));
    // The peer is not reached with the private address, which would be other local parameters.
    let private = format!("{}:0", Host::A.address());
    let error = probe::ask(host, SocketAddrV4::new(INTERNET, 9000), &["--from", &private]).unwrap_err();
    assert!(is_no_route(&error.to_string()), "{error}");
    // What no hook sees, as a ping with a source of its own, is stopped at the tunnel.
    let ping = |peer: Ipv4Addr| {
        host.tool("ping", &["-c", "2", "-W", "1", "-i", "0.2", "-I", &PUBLIC.to_string(), &peer.to_string()])
    };
    ping(INTERNET).unwrap();
    ping(OTHER).unwrap_err();
    // A server is there for the peer.
    let server = probe::serve(&system.lab, host, &["0.0.0.0:8080"]).unwrap();
    let asker = |from: Ipv4Addr| {
        let from = format!("{from}:0");
        probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 8080), &["--from", &from])
    };
    asker(INTERNET).unwrap();
    asker(OTHER).unwrap_err();
    // All of it can be seen.
    let status = agent::status(&system.lab, Host::A).unwrap();
    assert_eq!(status.registration.remote, Some(INTERNET.to_string()));
    assert!(status.counter("remote_refused").unwrap() >= 8, "{:?}", status.counters);
    assert!(status.counter("tunnel_bad_remote").unwrap() >= 2, "{:?}", status.counters);
    assert!(system.status(Host::A).unwrap().contains("peer       198.51.100.2, nobody else"));
    let state = gateway::state(&system.lab).unwrap();
    let bindings = &state.client(Host::A).unwrap().bindings;
    assert!(bindings.iter().all(|binding| binding.remote == INTERNET.to_string()), "{bindings:?}");
    drop((server, servers));
    system.finish().unwrap();
}

#[test]
fn under_a_micro_policy_the_port_counts_too() {
    let peer = format!("{INTERNET}:9000");
    let mut system = system("micro/micro", &["--remote", &peer, "--block", "8"]);
    system.start_agent(Host::A).unwrap();
    let servers = servers(&system.lab);
    ask(&system, INTERNET, 9000).unwrap();
    for (address, port) in [(INTERNET, 9001), (OTHER, 9000)] {
        let error = ask(&system, address, port).unwrap_err();
        assert!(is_no_route(&error), "{error}");
    }
    // The local policy is micro as well: ports one by one, and the kernel chooses among them alone.
    let all = |state: &gateway::State| state.block(Host::A).len() == 8;
    let state = system.gateway_sees("eight ports", Duration::from_secs(20), all).unwrap();
    let bindings = &state.client(Host::A).unwrap().bindings;
    assert!(bindings.iter().all(|b| b.ports.len() == 1 && b.remote == peer), "{bindings:?}");
    let leased = state.block(Host::A);
    for answer in
        probe::ask_often(system.lab.host(Host::A), SocketAddrV4::new(INTERNET, 9000), 5, &["--udp"]).unwrap()
    {
        assert!(leased.contains(&answer.peer.port()), "{} is not of {leased:?}", answer.peer);
    }
    // A ping has no port to compare.
    system.lab.host(Host::A).tool("ping", &["-c", "1", "-W", "1", &INTERNET.to_string()]).unwrap_err();
    drop(servers);
    system.finish().unwrap();
}

#[test]
fn a_start_without_the_peer_that_the_gateway_demands_says_what_to_add() {
    let system = system("macro/macro", &[]);
    let output = up(&system, &[]);
    assert_eq!(output.code(), 4, "{}", output.stderr);
    assert!(output.stderr.contains("--remote ADDR"), "{}", output.stderr);
    system.finish().unwrap();
}

#[test]
fn a_start_without_the_port_that_the_gateway_demands_says_what_to_add() {
    let system = system("macro/micro", &[]);
    for more in [&[][..], &["--remote", "198.51.100.2"]] {
        let output = up(&system, more);
        assert_eq!(output.code(), 4, "{}", output.stderr);
        assert!(output.stderr.contains("--remote ADDR:PORT"), "{}", output.stderr);
    }
    system.finish().unwrap();
}

#[test]
fn a_peer_that_the_gateway_forbids_is_named_with_the_reason() {
    let mut system = {
        let lab = Lab::new().unwrap();
        let gateway = "FLOW_POLICY = \"macro/macro\"\nREMOTE_DENY = [\"203.0.113.0/24\"]".into();
        System::in_lab(lab, Options { gateway, ..Options::default() }).unwrap()
    };
    system.start_gateway().unwrap();
    let output = up(&system, &["--remote", "203.0.113.7"]);
    assert_eq!(output.code(), 4, "{}", output.stderr);
    assert!(output.stderr.contains("314") && output.stderr.contains("REMOTE_DENY"), "{}", output.stderr);
    system.finish().unwrap();
}

#[test]
fn whoever_names_a_peer_gets_it_alone_also_without_a_remote_policy() {
    let mut system = system("macro/none", &["--remote", &format!("{INTERNET}:9000")]);
    system.start_agent(Host::A).unwrap();
    let servers = servers(&system.lab);
    ask(&system, INTERNET, 9000).unwrap();
    assert!(is_no_route(&ask(&system, INTERNET, 9001).unwrap_err()));
    assert!(is_no_route(&ask(&system, OTHER, 9000).unwrap_err()));
    // The gateway lets everybody in; this host takes the peer alone.
    let server = probe::serve(&system.lab, system.lab.host(Host::A), &["0.0.0.0:8080"]).unwrap();
    probe::ask(&system.lab.internet, SocketAddrV4::new(PUBLIC, 8080), &["--from", &format!("{OTHER}:0")])
        .unwrap_err();
    let status = agent::status(&system.lab, Host::A).unwrap();
    assert!(status.counter("tunnel_bad_remote").unwrap() >= 1, "{:?}", status.counters);
    let log = system.agent(Host::A).unwrap().process.output();
    assert!(log.contains("no remote flow policy"), "{log}");
    drop((server, servers));
    system.finish().unwrap();
}
