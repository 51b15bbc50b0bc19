//! `rsip-client up` without a gateway's address.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use rsip_lab::lab::agent::{self, Agent};
use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::mountns::MountNs;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::slp::{self, Role, StandIn};
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{GATEWAY, HOST_IF, PUBLIC};
use rsip_lab::lab::{Host, Lab, binaries, exec, gateway, server};
use serde_json::json;

/// The switch of the private network, as a machine of its own.
const SWITCH: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);
/// A search, a start with one gateway that does not answer, and a busy machine.
const READY: Duration = Duration::from_secs(60);

/// Nothing runs yet; the switch has an address. The gateway does not advertise itself: what is advertised is the test's.
fn system() -> System {
    system_with("SLP = false")
}

fn system_with(gateway: &str) -> System {
    let lab = Lab::new().unwrap();
    lab.lan.ip(&["address", "add", &format!("{SWITCH}/24"), "dev", "br0"]).unwrap();
    System::in_lab(lab, Options { gateway: gateway.into(), ..Options::default() }).unwrap()
}

/// A directory agent that knows nothing yet.
fn directory(system: &System) -> StandIn {
    StandIn::start(&system.lab, &system.lab.lan, Role::DirectoryAgent, SWITCH, &[]).unwrap()
}

fn register(at: &StandIn, host: &str, attributes: &str) {
    let order = json!({"do": "register", "url": format!("service:rsip://{host}"), "type": "service:rsip",
        "scopes": "DEFAULT", "attributes": attributes, "lifetime": 600});
    assert_eq!(at.order(&order).unwrap()["complaints"], json!([]));
}

fn up(system: &System, more: &[&str]) -> Agent {
    let more: Vec<String> = more.iter().map(ToString::to_string).collect();
    Agent::launch_bare(&system.lab, Host::A, &more).unwrap()
}

/// Our own two programs, and nobody to help them.
#[test]
fn a_gateway_that_was_found_serves_programs_as_a_named_one_does() {
    let mut system = system_with("");
    system.start_gateway().unwrap();
    let recording = Recording::start(&system.lab, system.lab.host(Host::A), HOST_IF).unwrap();
    let mut agent = up(&system, &[]);
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    let said = agent.process.output();
    assert!(said.contains("found a gateway") && said.contains("service:rsip://10.77.0.1:4555"), "{said}");
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    system.gateway_sees_listening(Host::A, &[80]).unwrap();
    server::page(&system.lab.internet, SocketAddrV4::new(PUBLIC, 80)).unwrap();
    // Looking around is possible beside it, though its routes and hooks are there.
    let found = slp::discovered(&system.lab, Host::A, &[]).unwrap();
    assert_eq!(
        found.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(),
        ["service:rsip://10.77.0.1:4555"]
    );
    apache.stop().unwrap();
    assert_eq!(agent.process.stop().unwrap(), 0);
    slp::judge(&recording.stop().unwrap()).unwrap().expect_clean().unwrap();
    system.finish().unwrap();
}

#[test]
fn it_asks_a_directory_agent_for_what_it_can_use() {
    let mut system = system_with("");
    let da = directory(&system);
    system.start_gateway().unwrap();
    da.registrations_become("the gateway", READY, |all| all.len() == 1).unwrap();
    register(&da, "10.77.0.1:4", "(tunnel-type=L2TP),(load=0)");
    let mut agent = up(&system, &[]);
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    assert!(!agent.process.output().contains("service:rsip://10.77.0.1:4 "), "{}", agent.process.output());
    // RFC 3105 section 4, step 4.
    let asked = da.received_of("SrvRqst").unwrap();
    let mut predicates =
        asked.iter().filter(|one| one.text("type") == "service:rsip").map(|one| one.text("predicate"));
    assert!(predicates.any(|one| one.contains("tunnel-type=IP-IP") && one.contains("transport=TCP")));
    da.expect_no_complaints().unwrap();
    assert_eq!(agent.process.stop().unwrap(), 0);
    system.stop_all().unwrap();
    drop(da);
    system.finish().unwrap();
}

#[test]
fn the_next_one_is_tried_where_the_best_cannot_be_used() {
    let mut system = system();
    system.start_gateway().unwrap();
    let da = directory(&system);
    // Nobody is there; somebody is there who speaks no RSIP; the host itself.
    register(&da, "10.77.0.250:4555", "(tunnel-type=IP-IP),(transport=TCP),(load=0)");
    register(&da, "10.77.0.4:427", "(load=1)");
    register(&da, "10.77.0.2:4555", "(load=2)");
    register(&da, "10.77.0.1:4555", "(load=90)");
    // This one has no tunnel for us.
    register(&da, "10.77.0.1:4", "(tunnel-type=L2TP),(load=0)");
    let mut agent = up(&system, &["--timeout", "2"]);
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    let said = agent.process.output();
    for tried in ["10.77.0.250:4555", "10.77.0.4:427", "10.77.0.2:4555", "10.77.0.1:4555"] {
        assert!(said.contains(&format!("service:rsip://{tried}")), "{tried}: {said}");
    }
    assert!(!said.contains("service:rsip://10.77.0.1:4 "), "{said}");
    assert!(gateway::state(&system.lab).unwrap().client(Host::A).is_some());
    assert_eq!(agent.process.stop().unwrap(), 0);
    drop(da);
    system.finish().unwrap();
}

#[test]
fn without_any_gateway_it_says_so_and_leaves_the_host_as_it_was() {
    let system = system();
    let mut agent = up(&system, &[]);
    assert_eq!(agent.process.wait(READY).unwrap(), 3);
    let said = agent.process.output();
    assert!(said.contains("rsip-client: No service:rsip defined!"), "{said}");
    // The one that is found speaks another transport than the wanted one.
    let da = directory(&system);
    register(&da, "10.77.0.1:4555", "(tunnel-type=IP-IP),(transport=TCP)");
    let mut agent = up(&system, &["--transport", "udp"]);
    assert_eq!(agent.process.wait(READY).unwrap(), 3);
    assert!(agent.process.output().contains("No service:rsip defined!"), "{}", agent.process.output());
    drop(da);
    system.finish().unwrap();
}

#[test]
fn with_persist_it_looks_again_until_there_is_a_gateway() {
    let mut system = system();
    let da = directory(&system);
    let mut agent = up(&system, &["--persist"]);
    agent.process.wait_for_output("looking again", READY).unwrap();
    let status = agent::client(&system.lab, Host::A, &["status"]).unwrap();
    assert!(status.stderr.contains("no gateway is found yet"), "{status:?}");
    system.start_gateway().unwrap();
    register(&da, "10.77.0.1:4555", "");
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    assert_eq!(agent.process.stop().unwrap(), 0);
    drop(da);
    system.finish().unwrap();
}

#[test]
fn down_and_signals_end_a_search() {
    let system = system();
    let mut agent = up(&system, &["--persist"]);
    agent.process.wait_for_output("looking again", READY).unwrap();
    let down = agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    assert!(down.contains("rsip-client: down"), "{down}");
    assert_eq!(agent.process.wait(exec::SHORT).unwrap(), 0);
    let mut agent = up(&system, &[]);
    agent.process.wait_for_output("looking for gateways", READY).unwrap();
    assert_eq!(agent.process.stop().unwrap(), 0);
    system.finish().unwrap();
}

#[test]
fn an_agent_that_crashed_goes_back_to_its_gateway_without_looking() {
    let mut system = system();
    system.start_gateway().unwrap();
    let da = directory(&system);
    register(&da, "10.77.0.1:4555", "(load=3)");
    let mut agent = up(&system, &["--listen", "6700"]);
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    system.gateway_sees_listening(Host::A, &[6700]).unwrap();
    let before = gateway::state(&system.lab).unwrap();
    agent.process.kill().unwrap();
    let asked = da.received().unwrap().len();
    // A better one that nobody may be lured away to: what the host holds is held at the first.
    register(&da, "10.77.0.250:4555", "(load=0)");
    let mut agent = up(&system, &["--listen", "6700"]);
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    assert!(agent.process.output().contains("back to the gateway of the last agent"));
    let after = gateway::state(&system.lab).unwrap();
    assert_eq!(after.client(Host::A).unwrap().client_id, before.client(Host::A).unwrap().client_id);
    assert_eq!(after.block(Host::A), before.block(Host::A));
    let since = da.received().unwrap().split_off(asked);
    let by_us = since.iter().filter(|one| one.from.starts_with("10.77.0.2:")).count();
    assert_eq!(by_us, 0, "{since:?}");
    assert_eq!(agent.process.stop().unwrap(), 0);
    drop(da);
    system.finish().unwrap();
}

#[test]
fn where_the_gateway_of_a_crashed_agent_is_gone_another_one_is_looked_for() {
    let mut system = system();
    system.start_gateway().unwrap();
    let mut agent = Agent::start(&system.lab, Host::A, &[]).unwrap();
    agent.process.kill().unwrap();
    assert_eq!(system.gateway().unwrap().process.stop().unwrap(), 0);
    let mut agent = up(&system, &["--timeout", "1", "--persist"]);
    agent.process.wait_for_output("looking again", READY).unwrap();
    // What the crashed one left is undone, though there is no gateway to tell.
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    assert_eq!(agent.process.wait(exec::SHORT).unwrap(), 0);
    system.finish().unwrap();
}

#[test]
fn a_host_name_in_the_url_is_resolved_by_the_system() {
    let mut system = system();
    system.start_gateway().unwrap();
    let da = directory(&system);
    register(&da, "nowhere.lab:4555", "(load=0)");
    register(&da, "gw.lab", "(load=1)");
    let (hosts, order) = (system.lab.folder().join("hosts"), system.lab.folder().join("nsswitch.conf"));
    fs::write(&hosts, format!("127.0.0.1 localhost\n::1 gw.lab\n{GATEWAY} gw.lab\n")).unwrap();
    fs::write(&order, "hosts: files\n").unwrap();
    let overlays: [(PathBuf, PathBuf); 2] =
        [(hosts, "/etc/hosts".into()), (order, "/etc/nsswitch.conf".into())];
    let mounts = MountNs::new(&overlays).unwrap();
    let mut command =
        system.lab.host(Host::A).command_in(binaries::under_test("rsip-client").unwrap(), Some(&mounts));
    command.arg("up").env_remove("RSIP_GATEWAY");
    let log = system.lab.folder().join("rsip-client-host-a.log");
    let process = Process::start("rsip-client", &mut command, &log).unwrap();
    let mut agent = Agent { process };
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    let said = agent.process.output();
    assert!(said.contains("service:rsip://gw.lab") && said.contains("nowhere.lab"), "{said}");
    assert_eq!(agent.process.stop().unwrap(), 0);
    drop(da);
    system.finish().unwrap();
}

#[test]
fn a_gateway_named_by_the_environment_needs_no_search() {
    let mut system = system();
    system.start_gateway().unwrap();
    let recording = Recording::start(&system.lab, system.lab.host(Host::A), HOST_IF).unwrap();
    let mut command = system.lab.host(Host::A).command(binaries::under_test("rsip-client").unwrap());
    command.arg("up").env("RSIP_GATEWAY", GATEWAY.to_string());
    let log = system.lab.folder().join("rsip-client-host-a.log");
    let mut agent = Agent { process: Process::start("rsip-client", &mut command, &log).unwrap() };
    agent.becomes_ready(&system.lab, Host::A, READY).unwrap();
    assert_eq!(agent.process.stop().unwrap(), 0);
    let verdict = slp::judge(&recording.stop().unwrap()).unwrap();
    assert!(verdict.sent(Host::A.address(), 1).is_empty(), "{verdict:?}");
    system.finish().unwrap();
}
