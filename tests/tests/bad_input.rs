//! What is wrong is said in one line that names it; the exit code tells the kind; the network stays as it was.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rsip_lab::lab::exec::{self, Output};
use rsip_lab::lab::mountns::MountNs;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::{Host, binaries, gateway};

/// No daemon takes longer to say what is wrong.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a command that must fail: this exit code, one line, and these words in it.
fn fails(command: &mut Command, code: i32, words: &[&str]) -> Output {
    let output = exec::run(command, LIMIT).unwrap();
    let program = command.get_program().to_string_lossy().into_owned();
    let said =
        format!("`{}` ended with {}:\n{}{}", output.command, output.code(), output.stdout, output.stderr);
    assert_eq!(output.code(), code, "{said}");
    let complaints: Vec<&str> = output.stderr.lines().filter(|line| is_complaint(line)).collect();
    assert_eq!(complaints.len(), 1, "one line says it: {said}");
    for word in words {
        assert!(complaints[0].contains(word), "{word:?} is not in it: {said}");
    }
    assert!(!output.stderr.contains("panicked"), "{program}: {said}");
    output
}

/// Neither an empty line nor a line of the log.
fn is_complaint(line: &str) -> bool {
    line.starts_with("rsip-client: ") || line.starts_with("rsipd: ") || line.starts_with("error: ")
}

fn up(inside: &Inside, arguments: &[&str]) -> Command {
    let mut command = inside.command(binaries::under_test("rsip-client").unwrap());
    command.arg("up").args(arguments);
    command
}

/// A system in which only the gateway runs.
fn gateway_only() -> System {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    system
}

#[test]
fn a_wrong_gateway_address() {
    let system = System::new(Options::default()).unwrap();
    let host = system.lab.host(Host::A);
    // Nobody there; somebody there who does not listen; behind a router that does not know it.
    for address in ["10.77.0.99", "10.77.0.3", "203.0.113.7"] {
        for transport in ["tcp", "udp"] {
            let start = Instant::now();
            fails(&mut up(host, &["--gateway", address, "--transport", transport]), 3, &[address]);
            assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
            system.expect_as_before().unwrap();
        }
    }
    for nonsense in ["nonsense", "10.77.0.256", "", "10.77.0.1:99999"] {
        let output = exec::run(&mut up(host, &["--gateway", nonsense]), LIMIT).unwrap();
        assert_eq!(output.code(), 2, "{nonsense:?}: {}", output.stderr);
        assert!(output.stderr.contains(nonsense), "{}", output.stderr);
    }
    system.finish().unwrap();
}

#[test]
fn a_port_that_answers_but_is_not_rsip() {
    let system = System::new(Options::default()).unwrap();
    let host = system.lab.host(Host::A);
    let python = |name: &str, script: &str| {
        let mut command = system.lab.gateway.command("/usr/bin/python3");
        let log = system.lab.folder().join(format!("{name}.log"));
        let mut process = Process::start(name, command.args(["-u", "-c", script]), &log).unwrap();
        process.wait_for_output("ready", exec::SHORT).unwrap();
        process
    };
    // Each takes what comes, and does the same with all of it.
    let tcp = |then: &str| {
        format!(
            r"
import socket
service = socket.create_server(('10.77.0.1', 4555))
print('ready')
kept = []
while True:
    c, _ = service.accept()
    kept.append(c)
    {then}
"
        )
    };
    let udp = |then: &str| {
        format!(
            r"
import socket
service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
service.bind(('10.77.0.1', 4555))
print('ready')
while True:
    d, a = service.recvfrom(2048)
    {then}
"
        )
    };
    for (name, transport, script) in [
        ("silent", "tcp", tcp("pass")),
        ("web", "tcp", tcp(r"c.sendall(b'HTTP/1.1 400 Bad Request\r\n\r\n' * 20)")),
        ("closing", "tcp", tcp("c.close()")),
        ("chatty", "tcp", tcp("c.sendall(bytes([1, 3, 255, 255]) + bytes(100))")),
        ("silent-udp", "udp", udp("pass")),
        ("echo", "udp", udp("service.sendto(d, a)")),
        ("noise", "udp", udp("service.sendto(bytes(range(200)), a)")),
    ] {
        let server = python(name, &script);
        fails(&mut up(host, &["--gateway", "10.77.0.1", "--transport", transport]), 3, &["10.77.0.1"]);
        drop(server);
        system.expect_as_before().unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn a_second_agent_and_a_second_gateway() {
    let system = System::up().unwrap();
    fails(&mut up(system.lab.host(Host::A), &["--gateway", "10.77.0.1"]), 6, &["already running"]);
    let config = system.lab.folder().join("rsipd.conf");
    let mut rsipd = system.lab.gateway.command(binaries::under_test("rsipd").unwrap());
    fails(rsipd.arg("--config").arg(config), 6, &["already running"]);
    // The first ones have not noticed.
    let state = gateway::state(&system.lab).unwrap();
    assert!(Host::ALL.iter().all(|host| state.block(*host).len() == 255));
    system.finish().unwrap();
}

#[test]
fn a_missing_capability() {
    let system = gateway_only();
    for (capability, name) in [("-net_admin", "CAP_NET_ADMIN"), ("-all", "CAP_")] {
        let mut command = system.lab.host(Host::A).command("setpriv");
        command.args(["--bounding-set", capability, "--inh-caps", capability]);
        command.arg(binaries::under_test("rsip-client").unwrap()).args(["up", "--gateway", "10.77.0.1"]);
        fails_as(&mut command, "rsip-client", 5, &[name]);
    }
    let conf = gateway::write_configuration(&system.lab, &gateway::configuration("")).unwrap();
    let mut command = system.lab.internet.command("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]);
    command.arg(binaries::under_test("rsipd").unwrap()).arg("--config").arg(conf);
    fails_as(&mut command, "rsipd", 5, &["CAP_"]);
    system.finish().unwrap();
}

/// As [`fails`], through another program that starts it.
fn fails_as(command: &mut Command, program: &str, code: i32, words: &[&str]) {
    let output = fails(command, code, words);
    assert!(output.stderr.contains(&format!("{program}: ")), "{}", output.stderr);
}

#[test]
fn an_interface_and_a_cgroup_that_do_not_exist() {
    let system = gateway_only();
    let host = system.lab.host(Host::A);
    // Exit code 2 or 1: what matters is that the line names it.
    for (option, value) in [("--interface", "nope0"), ("--cgroup", "/sys/fs/cgroup/nope")] {
        let output = exec::run(&mut up(host, &["--gateway", "10.77.0.1", option, value]), LIMIT).unwrap();
        assert_ne!(output.code(), 0);
        assert!(
            output.stderr.lines().any(|line| is_complaint(line) && line.contains(value)),
            "{}",
            output.stderr
        );
        system.gateway_sees("no host", LIMIT, |state| state.clients.is_empty()).unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn a_kernel_without_tunnel_devices() {
    let system = gateway_only();
    let empty = system.lab.subfolder("empty").unwrap();
    let without = MountNs::new(&[(empty, "/dev/net".into())]).unwrap();
    let mut command =
        system.lab.host(Host::A).command_in(binaries::under_test("rsip-client").unwrap(), Some(&without));
    fails(command.args(["up", "--gateway", "10.77.0.1"]), 5, &["/dev/net/tun"]);
    assert!(
        gateway::state(&system.lab).unwrap().clients.is_empty(),
        "the gateway was told nothing, or told again"
    );
    system.finish().unwrap();
}

#[test]
fn a_configuration_that_cannot_be() {
    let system = System::new(Options::default()).unwrap();
    let folder = system.lab.folder();
    let good = gateway::configuration("");
    let rsipd = |name: &str, text: &str, words: &[&str]| {
        let path = folder.join(format!("{name}.conf"));
        fs::write(&path, text).unwrap();
        let mut command = system.lab.gateway.command(binaries::under_test("rsipd").unwrap());
        fails(command.arg("--config").arg(&path), 78, words);
        system.expect_as_before().unwrap();
    };
    rsipd(
        "unknown-key",
        &format!("{good}MAX_CLIENT = 3\n"),
        &["unknown-key.conf:", "MAX_CLIENT", "MAX_CLIENTS"],
    );
    rsipd("backwards", &format!("{good}PORT_RANGE = \"300-200\"\n"), &["PORT_RANGE", "300-200"]);
    rsipd("too-high", &format!("{good}LISTEN_RANGE = \"1-70000\"\n"), &["LISTEN_RANGE", "1-70000"]);
    rsipd("words", &format!("{good}MAX_CLIENTS = \"many\"\n"), &["MAX_CLIENTS"]);
    rsipd("no-toml", "INT_IF = \n", &["no-toml.conf:1"]);
    rsipd("empty", "", &["INT_IF"]);
    rsipd("no-interface", &good.replace("int0", "int7"), &["INT_IF", "int7"]);
    rsipd("no-external", &good.replace("ext0", "ext7"), &["EXT_IF", "ext7"]);
    rsipd(
        "six-policies",
        &format!("{good}FLOW_POLICY = \"macro\"\n"),
        &["FLOW_POLICY", "\"macro\"", "LOCAL/REMOTE"],
    );
    rsipd(
        "unenforced",
        &format!("{good}REMOTE_DENY = [\"192.0.2.0/24\"]\n"),
        &["REMOTE_DENY", "192.0.2.0/24", "FLOW_POLICY"],
    );
    rsipd(
        "no-network",
        &format!("{good}FLOW_POLICY = \"macro/macro\"\nREMOTE_DENY = [\"192.0.2.1/24\"]\n"),
        &["REMOTE_DENY", "192.0.2.0/24 is meant?"],
    );
    rsipd("its-own", &format!("{good}RSA_POOL = [\"10.77.0.1\"]\n"), &["RSA_POOL", "10.77.0.1"]);
    rsipd("no-time", &format!("{good}IDLE_TIMEOUT = 0\n"), &["IDLE_TIMEOUT", "1 to 31536000"]);
    let mut missing = system.lab.gateway.command(binaries::under_test("rsipd").unwrap());
    fails(missing.args(["--config", "/nonexistent/rsipd.conf"]), 78, &["/nonexistent/rsipd.conf"]);
    system.finish().unwrap();
}

#[test]
fn settings_that_cost_something_are_warned_about() {
    let system = System::new(Options::default()).unwrap();
    for (name, more, words) in [
        ("masked", "RSA_POOL = [\"198.51.100.1\"]", &["RSA_POOL", "198.51.100.1", "gateway's own"][..]),
        ("unrouted", "RSA_POOL = [\"198.51.100.9\"]", &["RSA_POOL", "198.51.100.9", "ip addr add"]),
        ("useless", "FLOW_POLICY = \"macro/micro\"", &["LISTEN", "10.6"]),
    ] {
        let path = system.lab.folder().join(format!("{name}.conf"));
        fs::write(&path, gateway::configuration(more)).unwrap();
        let mut command = system.lab.gateway.command(binaries::under_test("rsipd").unwrap());
        let output = exec::run(command.args(["check", "--config"]).arg(&path), LIMIT).unwrap();
        assert_eq!(output.code(), 0, "{name}: {}", output.stderr);
        assert!(output.stdout.ends_with(": good\n"), "{name}: {}", output.stdout);
        let warned = output
            .stderr
            .lines()
            .any(|line| line.starts_with("rsipd: warning: ") && words.iter().all(|word| line.contains(word)));
        assert!(warned, "{name}: {}", output.stderr);
        system.expect_as_before().unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn questions_to_daemons_that_do_not_run() {
    let system = System::new(Options::default()).unwrap();
    let client = || system.lab.host(Host::A).command(binaries::under_test("rsip-client").unwrap());
    for arguments in [&["status"][..], &["status", "--json"], &["listen", "80"]] {
        fails(client().args(arguments), 1, &["not running"]);
    }
    let mut ctl = system.lab.gateway.command(binaries::under_test("rsipdctl").unwrap());
    let output = exec::run(ctl.arg("dump"), LIMIT).unwrap();
    assert_eq!(output.code(), 1);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
    system.finish().unwrap();
}
