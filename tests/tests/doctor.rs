//! `rsip-client doctor` on hosts with the troubles that people have had with RSIP since 2002, each of them provoked; and what
//! `rsip-client up` says to the same trouble.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::PathBuf;
use std::time::Duration;

use rsip_lab::lab::agent::Agent;
use rsip_lab::lab::mountns::MountNs;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{GATEWAY, HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, binaries, exec, gateway, probe};
use serde::Deserialize;

/// All checks, a search by SLP included, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `rsip-client doctor --json` says.
#[derive(Debug, Deserialize)]
struct Report {
    failures: usize,
    findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
struct Finding {
    check: String,
    verdict: String,
    trouble: Option<String>,
    saw: String,
    means: Option<String>,
    todo: Option<String>,
}

impl Report {
    fn of(&self, check: &str) -> &Finding {
        let found = self.findings.iter().find(|finding| finding.check == check);
        found.unwrap_or_else(|| panic!("no check {check:?} in {self:#?}"))
    }

    /// The finding of a check, which must be of this verdict and known by this name, and say what to do.
    fn is(&self, check: &str, verdict: &str, trouble: &str) -> &Finding {
        let finding = self.of(check);
        assert_eq!(
            (finding.verdict.as_str(), finding.trouble.as_deref()),
            (verdict, Some(trouble)),
            "{self:#?}"
        );
        assert!(finding.means.is_some() && finding.todo.is_some(), "{finding:#?}");
        finding
    }

    fn expect_no_failure(&self) {
        assert_eq!(self.failures, 0, "{self:#?}");
    }
}

fn command(system: &System, host: Host, mounts: Option<&MountNs>, arguments: &[&str]) -> exec::Output {
    let program = binaries::under_test("rsip-client").unwrap();
    let mut command = system.lab.host(host).command_in(program, mounts);
    command.args(arguments).env_remove("RSIP_GATEWAY");
    exec::run(&mut command, PATIENCE).unwrap()
}

fn doctor_in(system: &System, host: Host, mounts: Option<&MountNs>, more: &[&str]) -> Report {
    let output = command(system, host, mounts, &[&["doctor", "--json"], more].concat());
    let report: Report =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(output.code(), i32::from(report.failures > 0), "{output:?}");
    report
}

fn doctor(system: &System, more: &[&str]) -> Report {
    doctor_in(system, Host::A, None, more)
}

/// `rsip-client up`, which must end by itself: its exit code and its last line.
fn up(system: &System, mounts: Option<&MountNs>, more: &[&str]) -> (i32, String) {
    let output = command(system, Host::A, mounts, &[&["up", "--log-level", "error"], more].concat());
    let line = output.stderr.lines().last().unwrap_or_default().to_owned();
    (output.code(), line)
}

/// A cgroup that nobody is in.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(point)
        });
        let path = PathBuf::from(root.unwrap()).join(format!("rsip-doctor-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

const AT_GATEWAY: [&str; 2] = ["--gateway", "10.77.0.1"];

#[test]
fn nothing_fails_on_a_host_that_is_well_and_nothing_is_left() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    // Before an agent runs: would it be served?
    let report = doctor(&system, &AT_GATEWAY);
    report.expect_no_failure();
    for check in ["trial registration", "trial lease", "RSIP over TCP", "RSIP over UDP", "tunnel device"] {
        assert_eq!(report.of(check).verdict, "ok", "{report:#?}");
    }
    assert_eq!(report.of("agent").verdict, "warn");
    assert!(gateway::state(&system.lab).unwrap().clients.is_empty(), "the trial is over");

    for host in Host::ALL {
        system.start_agent(host).unwrap();
    }
    let before = gateway::state(&system.lab).unwrap();
    let report = doctor(&system, &["--peer", &INTERNET.to_string()]);
    report.expect_no_failure();
    for check in [
        "kernel",
        "bpf programs",
        "bpf helpers",
        "bpf maps",
        "waiting",
        "sock_diag",
        "tun",
        "kernel tunnels",
        "capabilities",
        "cgroup",
        "clock",
        "agent",
        "registration",
        "leases",
        "way to the gateway",
        "gateway's machine",
        "RSIP over TCP",
        "RSIP over UDP",
        "MTU to the gateway",
        "hooks",
        "cgroup attachment",
        "loopback",
        "hook test",
        "tunnel device",
        "tunnel programs",
        "routes and rules",
        "way of connections",
        "private networks",
        "dropped packets",
        "port range",
        "local ports",
        "leased address",
        "through the tunnel",
    ] {
        assert_eq!(report.of(check).verdict, "ok", "{check}: {report:#?}");
    }
    let after = gateway::state(&system.lab).unwrap();
    assert_eq!(after.block(Host::A), before.block(Host::A));
    assert_eq!(after.listening(Host::A), before.listening(Host::A));
    // For people: a line for each, and nothing else but the two that go with a finding that is not well.
    let text = command(&system, Host::A, None, &["doctor"]).success().unwrap();
    assert!(text.lines().any(|line| line.starts_with("ok    hook test: a bind of port ")), "{text}");
    assert!(
        text.lines().all(|line| ["ok ", "warn", "   "].iter().any(|begin| line.starts_with(begin))),
        "{text}"
    );
    system.finish().unwrap();
}

#[test]
fn connection_refused() {
    let system = System::new(Options::default()).unwrap();
    let report = doctor(&system, &AT_GATEWAY);
    let finding = report.is("RSIP over TCP", "fail", "connection refused");
    assert!(finding.saw.contains("10.77.0.1:4555"), "{finding:?}");
    report.is("RSIP over UDP", "fail", "connection refused");
    let (code, line) = up(&system, None, &[&AT_GATEWAY[..], &["--timeout", "1"]].concat());
    assert_eq!(code, 3, "{line}");
    assert!(
        line.contains("gateway 10.77.0.1:4555") && line.contains("refused") && line.contains("rsipd"),
        "{line}"
    );
    // Nobody has the address at all.
    let report = doctor(&system, &["--gateway", "10.77.0.250"]);
    let finding = report.of("gateway's machine");
    assert_eq!(finding.verdict, "fail", "{report:#?}");
    assert!(finding.saw.contains("nobody on eth0 answers ARP for 10.77.0.250"), "{finding:?}");
    system.finish().unwrap();
}

#[test]
fn unable_to_register() {
    let mut system =
        System::new(Options { gateway: "MAX_CLIENTS = 1".into(), ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::B).unwrap();
    let finding = doctor(&system, &AT_GATEWAY).is("trial registration", "fail", "unable to register").clone();
    assert!(finding.saw.contains("304 REGISTRATION_DENIED"), "{finding:?}");
    let (code, line) = up(&system, None, &AT_GATEWAY);
    assert_eq!(code, 4, "{line}");
    assert!(
        line.contains("unable to register") && line.contains("304") && line.contains("MAX_CLIENTS"),
        "{line}"
    );
    // The same of an agent that keeps trying.
    let mut agent = Agent::launch(&system.lab, Host::A, &["--persist".into()]).unwrap();
    agent.process.wait_for_output("304", PATIENCE).unwrap();
    doctor(&system, &[]).is("registration", "fail", "unable to register");
    assert_eq!(agent.process.stop().unwrap(), 0);
    system.finish().unwrap();
}

#[test]
fn unable_to_create_tunnel() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let host = system.lab.host(Host::A).clone();
    host.ip(&["link", "add", "rsip", "type", "bridge"]).unwrap();
    let finding = doctor(&system, &AT_GATEWAY).is("tunnel device", "fail", "unable to create tunnel").clone();
    assert!(finding.saw.contains("interface rsip exists already and is not ours"), "{finding:?}");
    let (code, line) = up(&system, None, &AT_GATEWAY);
    assert_eq!(code, 1, "{line}");
    assert!(line.contains("interface rsip exists already") && line.contains("rename or remove"), "{line}");
    host.ip(&["link", "del", "rsip"]).unwrap();

    let overlay: [(PathBuf, PathBuf); 1] = [("/dev/null".into(), "/dev/net/tun".into())];
    let mounts = MountNs::new(&overlay).unwrap();
    let finding = doctor_in(&system, Host::A, Some(&mounts), &AT_GATEWAY)
        .is("tun", "fail", "unable to create tunnel")
        .clone();
    assert!(finding.todo.unwrap().contains("modprobe tun"));
    let (code, line) = up(&system, Some(&mounts), &AT_GATEWAY);
    assert_eq!(code, 5, "{line}");
    assert!(line.contains("unable to create tunnel") && line.contains("/dev/net/tun"), "{line}");
    system.finish().unwrap();
}

#[test]
fn unable_to_get_port_assignments() {
    let options = Options { gateway: "PORT_RANGE = \"10000-10009\"".into(), ..Options::default() };
    let mut system = System::new(options).unwrap();
    system.start_gateway().unwrap();
    let mut other = Agent::start(&system.lab, Host::B, &["--block".into(), "10".into()]).unwrap();
    let finding =
        doctor(&system, &AT_GATEWAY).is("trial lease", "fail", "unable to get port assignments").clone();
    assert!(finding.todo.unwrap().contains("PORT_RANGE"));
    assert!(gateway::state(&system.lab).unwrap().client(Host::A).is_none(), "the trial is over");
    let (code, line) = up(&system, None, &AT_GATEWAY);
    assert_eq!(code, 4, "{line}");
    assert!(line.contains("unable to get port assignments") && line.contains("PORT_RANGE"), "{line}");
    // The same of an agent that keeps trying.
    let mut agent = Agent::launch(&system.lab, Host::A, &["--persist".into()]).unwrap();
    wait::until("the refusal", PATIENCE, || {
        let report = doctor(&system, &[]);
        let leases = report.findings.iter().find(|finding| finding.check == "leases");
        Ok(match leases {
            Some(leases) if leases.saw.contains("309") => Look::Ready(()),
            _ => Look::NotYet(format!("{report:?}")),
        })
    })
    .unwrap();
    doctor(&system, &[]).is("leases", "fail", "unable to get port assignments");
    assert_eq!(agent.process.stop().unwrap(), 0);
    assert_eq!(other.process.stop().unwrap(), 0);
    system.finish().unwrap();
}

#[test]
fn unable_to_set_default_route() {
    let mut system = System::up().unwrap();
    let host = system.lab.host(Host::A).clone();
    host.ip(&["rule", "add", "pref", "100", "lookup", "main"]).unwrap();
    let finding =
        doctor(&system, &[]).is("way of connections", "fail", "unable to set default route").clone();
    assert!(
        finding.saw.contains(HOST_IF) && finding.todo.as_ref().unwrap().contains("100 (lookup 254)"),
        "{finding:?}"
    );
    host.ip(&["rule", "del", "pref", "100"]).unwrap();
    doctor(&system, &[]).expect_no_failure();
    // Somebody else uses the agent's table.
    assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
    host.ip(&["route", "add", "default", "via", "10.77.0.1", "table", "4555"]).unwrap();
    let (code, line) = up(&system, None, &AT_GATEWAY);
    assert_eq!(code, 1, "{line}");
    assert!(line.contains("unable to set default route: ") && line.contains("flush table 4555"), "{line}");
    host.ip(&["route", "flush", "table", "4555"]).unwrap();
    system.finish().unwrap();
}

#[test]
fn mtu_problem() {
    let system = System::up().unwrap();
    // A switch that drops what is too big for it, and tells nobody.
    system.lab.lan.ip(&["link", "set", "dev", "gw", "mtu", "1400"]).unwrap();
    let finding = doctor(&system, &[]).is("MTU to the gateway", "fail", "MTU problem").clone();
    assert!(finding.saw.starts_with("1400 bytes come through unfragmented, of 1500"), "{finding:?}");
    assert!(finding.means.unwrap().contains("some packets seem to vanish"));
    let way_out = finding.todo.unwrap();
    assert!(way_out.contains("ip link set dev eth0 mtu 1400"), "{way_out}");
    // The way out is one.
    let host = system.lab.host(Host::A).clone();
    host.ip(&["link", "set", "dev", "eth0", "mtu", "1400"]).unwrap();
    wait::until("the tunnel to follow", PATIENCE, || {
        let report = doctor(&system, &[]);
        let ok = report.of("MTU to the gateway").verdict == "ok";
        Ok(if ok { Look::Ready(()) } else { Look::NotYet(format!("{report:?}")) })
    })
    .unwrap();
    host.ip(&["link", "set", "dev", "eth0", "mtu", "1500"]).unwrap();
    system.lab.lan.ip(&["link", "set", "dev", "gw", "mtu", "1500"]).unwrap();
    system.finish().unwrap();
}

#[test]
fn packets_that_vanish() {
    let mut system = System::up().unwrap();
    let peer = INTERNET.to_string();
    system.lab.internet.ip(&["link", "set", "dev", "eth0", "down"]).unwrap();
    let finding =
        doctor(&system, &["--peer", &peer]).is("through the tunnel", "fail", "packets that vanish").clone();
    assert!(finding.todo.unwrap().contains("rsipdctl"));
    system.lab.internet.ip(&["link", "set", "dev", "eth0", "up"]).unwrap();
    // Large ones alone vanish, and nobody says so: only a host that is not asked in vain shows it.
    system.lab.internet.ip(&["link", "set", "dev", "eth0", "mtu", "1300"]).unwrap();
    let report = doctor(&system, &["--peer", &peer]);
    let finding = report.is("through the tunnel", "fail", "MTU problem");
    assert!(finding.saw.contains("more than 130"), "{finding:?}");
    system.lab.internet.ip(&["link", "set", "dev", "eth0", "mtu", "1500"]).unwrap();
    system.stop_all().unwrap();
}

#[test]
fn no_service_rsip() {
    let mut system = System::new(Options { gateway: "SLP = false".into(), ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    let finding = doctor(&system, &[]).is("discovery", "fail", "no service:rsip").clone();
    assert!(finding.saw.contains("No service:rsip defined!"), "{finding:?}");
    assert!(finding.todo.unwrap().contains("--gateway"));
    system.finish().unwrap();
}

#[test]
fn a_gateway_is_found_by_slp() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let report = doctor(&system, &[]);
    report.expect_no_failure();
    assert!(report.of("discovery").saw.contains("service:rsip://10.77.0.1:4555"), "{report:#?}");
    system.finish().unwrap();
}

#[test]
fn conflict_with_local_ports() {
    let system = System::up().unwrap();
    let host = system.lab.host(Host::A).clone();
    let port = gateway::state(&system.lab).unwrap().block(Host::A)[7];
    let private = format!("{}:{port}", Host::A.address());
    let (holder, bound) = probe::bind(&system.lab, &host, &[&private]).unwrap();
    bound.expect_ok().unwrap();
    let finding = doctor(&system, &[]).is("local ports", "warn", "conflict with local ports").clone();
    assert!(finding.saw.contains(&private), "{finding:?}");
    drop(holder);
    // Somebody puts the kernel's port range back to what it was.
    let range = host.setting("net/ipv4/ip_local_port_range").unwrap();
    host.sysctl("net/ipv4/ip_local_port_range", "32768 60999").unwrap();
    let finding = doctor(&system, &[]).is("port range", "fail", "conflict with local ports").clone();
    assert!(finding.saw.contains("32768"), "{finding:?}");
    host.sysctl("net/ipv4/ip_local_port_range", &range).unwrap();
    system.finish().unwrap();
}

#[test]
fn unknown_interface() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let wrong = [&AT_GATEWAY[..], &["--interface", "eth9"]].concat();
    let finding = doctor(&system, &wrong).is("way to the gateway", "fail", "unknown interface").clone();
    assert!(finding.saw.contains("eth9") && finding.todo.unwrap().contains("ip link"));
    doctor(&system, &["--interface", "eth9"]).is("discovery", "fail", "unknown interface");
    let (code, line) = up(&system, None, &wrong);
    assert_eq!(code, 78, "{line}");
    assert!(line.contains("interface eth9 does not exist") && line.contains("ip link"), "{line}");
    system.finish().unwrap();
}

#[test]
fn an_address_that_somebody_else_answers_for_and_an_agent_that_was_killed() {
    let mut system = System::up().unwrap();
    let b = system.lab.host(Host::B).clone();
    system.agent(Host::B).unwrap().process.stop().unwrap();
    b.ip(&["address", "add", &format!("{PUBLIC}/32"), "dev", "lo"]).unwrap();
    let finding = doctor(&system, &[]).is("leased address", "warn", "packets that vanish").clone();
    assert!(finding.saw.contains(&PUBLIC.to_string()), "{finding:?}");
    b.ip(&["address", "del", &format!("{PUBLIC}/32"), "dev", "lo"]).unwrap();
    system.agent(Host::A).unwrap().process.kill().unwrap();
    let report = doctor(&system, &[]);
    let agent = report.of("agent");
    assert_eq!(agent.verdict, "fail", "{report:#?}");
    assert!(
        agent.saw.contains(&GATEWAY.to_string()) && agent.todo.as_ref().unwrap().contains("rsip-client down")
    );
    assert!(report.findings.iter().all(|finding| finding.check != "trial registration"), "{report:#?}");
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    system.finish().unwrap();
}

#[test]
fn programs_outside_of_the_served_cgroup_are_named() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let group = Group::new();
    let path = group.0.display().to_string();
    let mut agent = Agent::start(&system.lab, Host::A, &["--cgroup".into(), path]).unwrap();
    let report = doctor(&system, &[]);
    let finding = report.of("cgroup attachment");
    // No program of this host lives in that cgroup.
    assert_eq!(finding.verdict, "fail", "{report:#?}");
    assert!(finding.saw.contains("rsip-client"), "{finding:?}");
    assert_eq!(report.of("hook test").verdict, "warn", "{report:#?}");
    assert_eq!(agent.process.stop().unwrap(), 0);
    system.finish().unwrap();
}
