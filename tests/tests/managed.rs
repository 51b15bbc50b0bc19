//! Whose programs are served: the whole tree, some cgroups, or one command.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, binaries, exec};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Binds a port of all addresses and holds it for a moment; an error if it cannot.
const BINDER: &str = r"
import os, socket, sys, time
cgroup, port, seconds = sys.argv[1:]
if cgroup:
    with open(cgroup + '/cgroup.procs', 'w') as procs:
        procs.write(str(os.getpid()))
s = socket.socket()
s.bind(('0.0.0.0', int(port)))
time.sleep(float(seconds))
";

fn up(arguments: &[&str]) -> System {
    let agent = arguments.iter().map(|word| (*word).to_owned()).collect();
    let mut system = System::new(Options { agent, ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

fn bind(system: &System, cgroup: &str, port: u16) {
    let mut command = system.lab.host(Host::A).command("/usr/bin/python3");
    command.args(["-c", BINDER, cgroup, &port.to_string(), "0"]);
    exec::run(&mut command, exec::SHORT).unwrap().success().unwrap();
}

fn is_leased(system: &System, port: u16) -> bool {
    agent::status(&system.lab, Host::A).unwrap().leases.iter().any(|lease| lease.ports == port.to_string())
}

fn data(system: &System) -> Value {
    let output = agent::client(&system.lab, Host::A, &["status", "--json"]).unwrap().success().unwrap();
    serde_json::from_str(&output).unwrap()
}

/// A folder of the cgroup v2 tree, which goes with the value.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let folder = format!("{}/rsip-test-{}-{name}", mount.split(' ').nth(1).unwrap(), std::process::id());
        fs::create_dir(&folder).unwrap();
        Self(PathBuf::from(folder))
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                drop(fs::remove_dir(entry.path()));
            }
        }
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn listed_cgroups_are_served_and_nobody_else_is() {
    let (first, second) = (OwnCgroup::new("first"), OwnCgroup::new("second"));
    let inner = first.0.join("inner");
    fs::create_dir(&inner).unwrap();
    let inner = inner.display().to_string();
    let system = up(&["--cgroup", &first.path(), "--cgroup", &second.path(), "--cgroup", &inner]);
    bind(&system, "", 7400);
    assert!(!is_leased(&system, 7400), "the program is in neither of them");
    bind(&system, &first.path(), 7401);
    bind(&system, &second.path(), 7402);
    bind(&system, &inner, 7403);
    for port in [7401, 7402, 7403] {
        assert!(is_leased(&system, port), "{port}");
    }
    let hits = data(&system)["policy_hits"].as_u64().unwrap();
    assert_eq!(hits, 3, "one for each bind, also where one cgroup is inside of another");
    let cgroups = data(&system)["hooks"]["cgroups"].clone();
    assert_eq!(cgroups[2]["inside"], true, "{cgroups}");
    assert!(cgroups[0]["programs"].as_u64().unwrap() > 0 && cgroups[1]["programs"].as_u64().unwrap() > 0);

    // One of them goes, which is told, and comes again.
    let gone = second.0.clone();
    fs::remove_dir(&gone).unwrap();
    let served = |wanted: bool| {
        wait::until("the second cgroup", SOON, || {
            let programs = data(&system)["hooks"]["cgroups"][1]["programs"].as_u64().unwrap();
            Ok(if (programs > 0) == wanted { Look::Ready(()) } else { Look::NotYet(programs.to_string()) })
        })
        .unwrap();
    };
    served(false);
    assert!(system.status(Host::A).unwrap().contains(&format!("NOT served: {}", gone.display())));
    fs::create_dir(&gone).unwrap();
    served(true);
    bind(&system, &second.path(), 7404);
    assert!(is_leased(&system, 7404));
    system.finish().unwrap();
}

fn run(system: &System, name: &str, command: &[&str]) -> Process {
    let mut line = system.lab.host(Host::A).command(binaries::under_test("rsip-client").unwrap());
    line.args(["run", "--"]).args(command);
    Process::start(name, &mut line, &system.lab.folder().join(format!("{name}.log"))).unwrap()
}

fn no_run_is_left(system: &System) {
    wait::until("no cgroup of a command is left", SOON, || {
        let cgroups = data(system)["hooks"]["cgroups"].clone();
        Ok(if cgroups == serde_json::json!([]) { Look::Ready(()) } else { Look::NotYet(cgroups.to_string()) })
    })
    .unwrap();
}

#[test]
fn one_command_is_served_with_all_that_it_starts() {
    let mut system = up(&["--cgroup", "none"]);
    bind(&system, "", 7500);
    assert!(!is_leased(&system, 7500));
    let python = |port: &str, seconds: &str| {
        ["/usr/bin/python3", "-c", BINDER, "", port, seconds].map(ToOwned::to_owned)
    };
    // A shell that starts another program.
    let words = python("7501", "60").map(|word| format!("'{}'", word.replace('\'', "'\\''"))).join(" ");
    let mut first = run(&system, "first", &["/bin/sh", "-c", &format!("{words}; exit 3")]);
    let leased = |port: u16| {
        wait::until("the port is leased", SOON, || {
            Ok(if is_leased(&system, port) { Look::Ready(()) } else { Look::NotYet(String::new()) })
        })
        .unwrap();
    };
    leased(7501);
    bind(&system, "", 7502);
    assert!(!is_leased(&system, 7502), "everybody else is left alone");

    // An agent that is killed finds it again.
    system.agent(Host::A).unwrap().process.kill().unwrap();
    system.start_agent(Host::A).unwrap();
    let cgroups = data(&system)["hooks"]["cgroups"].clone();
    assert_eq!(cgroups.as_array().unwrap().len(), 1, "{cgroups}");
    first.signal(Signal::SIGTERM).unwrap();
    // The shell dies of it, its program goes on and keeps the cgroup.
    assert_eq!(first.wait(SOON).unwrap(), 128 + 15);
    for pid in system.lab.host(Host::A).processes().unwrap() {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.contains("7501") {
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        }
    }
    no_run_is_left(&system);

    let mut second = run(&system, "second", &["/bin/sh", "-c", "exit 42"]);
    assert_eq!(second.wait(SOON).unwrap(), 42, "the command's own code");
    let mut third = run(&system, "third", &["/no/such/command"]);
    assert_eq!(third.wait(SOON).unwrap(), 127);
    no_run_is_left(&system);
    system.finish().unwrap();
}

/// Says which signals it gets, one on each line; ends with SIGTERM.
const HEARER: &str = r"
import signal, sys
def hear(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(7)
for number in (1, 2, 3, 10, 12, 14, 15, 18, 20, 28):
    signal.signal(number, hear)
print('ready', flush=True)
while True:
    signal.pause()
";

#[test]
fn signals_that_are_sent_to_run_reach_its_command() {
    let system = up(&["--cgroup", "none"]);
    let mut run = run(&system, "hearer", &["/usr/bin/python3", "-c", HEARER]);
    run.wait_for_output("ready", SOON).unwrap();
    for signal in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGWINCH,
    ] {
        run.signal(signal).unwrap();
        run.wait_for_output(&format!("{signal}\n"), SOON).unwrap();
    }
    // It stops with its command told, as a job of a shell, and goes on.
    run.signal(Signal::SIGTSTP).unwrap();
    run.wait_for_output("SIGTSTP\n", SOON).unwrap();
    let status = format!("/proc/{}/stat", run.pid());
    wait::until("run to be stopped", SOON, || {
        let stat = fs::read_to_string(&status).unwrap();
        Ok(if stat.contains(") T ") { Look::Ready(()) } else { Look::NotYet(stat) })
    })
    .unwrap();
    run.signal(Signal::SIGCONT).unwrap();
    run.wait_for_output("SIGCONT\n", SOON).unwrap();
    run.signal(Signal::SIGTERM).unwrap();
    assert_eq!(run.wait(SOON).unwrap(), 7, "{}", run.output());
    let heard = run.output();
    assert_eq!(heard.lines().count(), 11, "each once: {heard}");
    no_run_is_left(&system);
    system.finish().unwrap();
}
