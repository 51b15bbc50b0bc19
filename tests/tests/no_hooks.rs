//! The user-mode client: what is leased at start is what there is, and no program is looked at.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::agent::{self, TUNNEL};
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{GATEWAY, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, binaries, gateway, probe, server};

const SERVER: SocketAddrV4 = SocketAddrV4::new(INTERNET, 9000);

fn options(gateway: &str, agent: &[&str]) -> Options {
    Options { gateway: gateway.to_owned(), agent: agent.iter().map(|word| (*word).to_owned()).collect() }
}

/// Kinds of the links that a process holds, from the kernel's own account of its descriptors.
fn links(process: &Process) -> Vec<String> {
    let folder = format!("/proc/{}/fdinfo", process.pid());
    let infos =
        fs::read_dir(folder).unwrap().filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    infos
        .filter_map(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("link_type:"))?;
            Some(line.trim().to_owned())
        })
        .collect()
}

/// The two settings that say which ports the kernel may choose.
fn choice(system: &System) -> String {
    let keys = ["net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"];
    system.lab.host(Host::A).tool("sysctl", &["-n", keys[0], keys[1]]).unwrap()
}

#[test]
fn leases_what_was_named_and_looks_at_no_program() {
    let arguments =
        ["--no-hooks", "--ports", "300", "--listen", "8080,8443", "--listen", "80", "--mtu", "1400"];
    let mut system = System::new(options("LEASE_TIME = 4", &arguments)).unwrap();
    let before = choice(&system);
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let state = system
        .gateway_sees("300 ports and three servers", NOTICE, |state| {
            state.block(Host::A).len() == 300 && state.listening(Host::A) == [80, 8080, 8443]
        })
        .unwrap();
    let block: BTreeSet<u16> = state.block(Host::A).into_iter().collect();
    assert_eq!(block.len(), 300);

    // Nothing is hooked, and everybody is told so.
    let held = links(&system.agent(Host::A).unwrap().process);
    assert!(!held.iter().any(|kind| kind == "cgroup" || kind == "tracing"), "{held:?}");
    assert!(held.iter().any(|kind| kind == "tcx"), "the tunnel's programs are there: {held:?}");
    let lab = &system.lab;
    assert!(agent::status(lab, Host::A).unwrap().hooks.programs.is_empty());
    let text = system.status(Host::A).unwrap();
    assert!(text.contains("hooks      none (--no-hooks)"), "{text}");
    let link = lab.host(Host::A).ip(&["link", "show", TUNNEL]).unwrap();
    assert!(link.contains("mtu 1400 "), "{link}");

    // Clients use what is leased, servers too; what was not named is leased for nobody, and nobody waits.
    let outside = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    for answer in probe::ask_often(lab.host(Host::A), SERVER, 20, &[]).unwrap() {
        assert_eq!(answer.peer.ip(), &PUBLIC);
        assert!(block.contains(&answer.peer.port()), "{}", answer.peer);
    }
    let inside = probe::serve(lab, lab.host(Host::A), &["0.0.0.0:8080"]).unwrap();
    let answer = probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 8080), &[]).unwrap();
    assert_eq!(answer.peer.ip(), &INTERNET);
    let unnamed = probe::serve(lab, lab.host(Host::A), &["0.0.0.0:8081"]).unwrap();
    probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 8081), &[]).unwrap_err();

    // The leases are longer than they were granted for, and the same ones.
    let names = |state: &gateway::State| -> BTreeSet<u32> {
        state.client(Host::A).unwrap().bindings.iter().map(|binding| binding.bind_id).collect()
    };
    let first = names(&state);
    let mut least = u64::MAX;
    wait::until("the leases to be extended", NOTICE, || {
        let now = gateway::state(lab).unwrap();
        assert_eq!(names(&now), first, "leased anew");
        assert_eq!(now.listening(Host::A), [80, 8080, 8443], "a program's bind was seen");
        let left = now.client(Host::A).unwrap().bindings.iter().map(|b| b.lease_left).min().unwrap();
        let extended = left > least;
        least = least.min(left);
        Ok(if extended { Look::Ready(()) } else { Look::NotYet(format!("{left} s left")) })
    })
    .unwrap();
    probe::ask(lab.host(Host::A), SERVER, &[]).unwrap();

    drop((outside, inside, unnamed));
    system.stop_all().unwrap();
    assert_eq!(choice(&system), before);
    system.expect_as_before().unwrap();
}

#[test]
fn needs_fewer_capabilities_and_is_undone_after_a_crash() {
    let mut system = System::new(Options::default()).unwrap();
    let before = choice(&system);
    system.start_gateway().unwrap();
    let lab = &system.lab;
    let mut command = lab.host(Host::A).command("setpriv");
    command
        .args(["--bounding-set", "-all,+net_admin,+bpf,+perfmon", "--"])
        .arg(binaries::under_test("rsip-client").unwrap())
        .args(["up", "--no-hooks", "--gateway", &GATEWAY.to_string(), "--listen", "8080"])
        .env_remove("RSIP_GATEWAY");
    let mut agent = Process::start("rsip-client", &mut command, &lab.folder().join("poor.log")).unwrap();
    agent.wait_for_output("rsip-client: up:", Duration::from_secs(20)).unwrap();
    system.gateway_sees_listening(Host::A, &[8080]).unwrap();
    let outside = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    assert_eq!(probe::ask(lab.host(Host::A), SERVER, &[]).unwrap().peer.ip(), &PUBLIC);
    assert_ne!(choice(&system), before);
    agent.kill().unwrap();
    assert_ne!(choice(&system), before, "a killed agent cannot restore anything");
    agent::client(lab, Host::A, &["down"]).unwrap().success().unwrap();
    assert_eq!(choice(&system), before);
    drop(outside);
    system.finish().unwrap();
}

#[test]
fn a_page_is_served_from_a_port_that_was_named() {
    let mut system = System::new(options("", &["--no-hooks", "--listen", "80", "--ports", "10"])).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system.gateway_sees_listening(Host::A, &[80]).unwrap();
    let web = rsip_lab::lab::apache::Apache::shipped(&system.lab, Host::A).unwrap();
    web.start().unwrap();
    let page = server::page(&system.lab.internet, SocketAddrV4::new(PUBLIC, 80)).unwrap();
    assert!(page.contains("Apache2 Debian Default Page"));
    web.stop().unwrap();
    system.finish().unwrap();
}
