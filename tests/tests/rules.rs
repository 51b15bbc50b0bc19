//! The operator's rules: which binds are asked for, which pass privately, which fail; shown, counted and changed while binds go
//! on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::PathBuf;
use std::time::Duration;

use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::{Host, agent, exec};
use serde_json::Value;

/// Who binds: a command name, a user, a cgroup, each where it is given.
#[derive(Clone, Copy, Debug, Default)]
struct Who<'a> {
    name: Option<&'a str>,
    thread: Option<&'a str>,
    uid: Option<u32>,
    cgroup: Option<&'a str>,
}

/// Takes a name, a user and a cgroup, binds, and says how that went.
const BINDER: &str = r#"
import ctypes, errno, os, socket, sys, threading
name, thread, uid, cgroup, kind, address, port = sys.argv[1:]
libc = ctypes.CDLL(None)
if cgroup:
    with open(cgroup + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
if name:
    libc.prctl(15, name.encode(), 0, 0, 0)
if uid:
    os.setuid(int(uid))
said = []
def bind():
    if thread:
        libc.prctl(15, thread.encode(), 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as s:
        try:
            s.bind((address, int(port)))
            said.append("ok")
        except OSError as error:
            said.append(errno.errorcode[error.errno])
worker = threading.Thread(target=bind)
worker.start()
worker.join()
print(said[0])
"#;

fn bind_at(system: &System, who: Who<'_>, kind: &str, address: &str, port: u16) -> String {
    let mut command = system.lab.host(Host::A).command("/usr/bin/python3");
    let uid = who.uid.map_or_else(String::new, |uid| uid.to_string());
    let parts =
        [who.name.unwrap_or_default(), who.thread.unwrap_or_default(), &uid, who.cgroup.unwrap_or_default()];
    command.args(["-c", BINDER]).args(parts).args([kind, address, &port.to_string()]);
    exec::run(&mut command, exec::SHORT).unwrap().success().unwrap().trim().to_owned()
}

fn bind(system: &System, who: Who<'_>, kind: &str, port: u16) -> String {
    bind_at(system, who, kind, "0.0.0.0", port)
}

/// The rules as data, after what was done with them.
fn rules(system: &System, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["rules", "--json"].iter().chain(arguments).copied().collect();
    let output = agent::client(&system.lab, Host::A, &all).unwrap().success().unwrap();
    serde_json::from_str(&output).unwrap()
}

fn hits(system: &System, text: &str) -> u64 {
    let all = rules(system, &[]);
    let rule = all["rules"].as_array().unwrap().iter().find(|rule| rule["text"] == text);
    rule.unwrap_or_else(|| panic!("{text} in {all}"))["hits"].as_u64().unwrap()
}

fn up(arguments: &[&str]) -> System {
    let agent = arguments.iter().map(|word| (*word).to_owned()).collect();
    let mut system = System::new(Options { agent, ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

/// Whether the host has this port now, or is about to give it back.
fn is_leased(system: &System, port: u16) -> bool {
    agent::status(&system.lab, Host::A).unwrap().leases.iter().any(|lease| lease.ports == port.to_string())
}

#[test]
fn each_action_does_what_it_says_and_is_counted() {
    let system = up(&["--rule", "deny 7000-7009", "--rule", "lease 7010", "--rule", "I7010-7019"]);
    let anybody = Who::default();
    assert_eq!(bind(&system, anybody, "tcp", 7000), "EACCES");
    assert_eq!(bind(&system, anybody, "udp", 7009), "EACCES");
    assert_eq!(bind(&system, anybody, "tcp", 7010), "ok");
    assert!(is_leased(&system, 7010), "asked for: the first rule decides");
    assert_eq!(bind(&system, anybody, "tcp", 7011), "ok");
    assert!(!is_leased(&system, 7011), "private");
    assert_eq!(bind(&system, anybody, "tcp", 7020), "ok");
    assert!(is_leased(&system, 7020), "no rule: the policy");
    // What no rule is about.
    assert_eq!(bind_at(&system, anybody, "tcp", "127.0.0.1", 7000), "ok");
    let private = Host::A.address().to_string();
    assert_eq!(bind_at(&system, anybody, "tcp", &private, 7000), "ok");

    assert_eq!(hits(&system, "D7000-7009"), 2);
    assert_eq!(hits(&system, "A7010-7010"), 1, "once, however often the call was restarted to wait");
    assert_eq!(hits(&system, "I7010-7019"), 1);
    assert_eq!(rules(&system, &[])["policy_hits"], 1);
    let status = system.status(Host::A).unwrap();
    for line in ["RULES (policy ACCEPT)", "D7000-7009  hits 2", "I7010-7019  hits 1", "I22-22  hits 0"] {
        assert!(status.lines().any(|shown| shown == line), "{line}: {status}");
    }
    system.finish().unwrap();
}

/// A cgroup of the v2 tree, which goes with the value.
struct OwnCgroup {
    directory: PathBuf,
    path: String,
}

impl OwnCgroup {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let path = format!("/rsip-test-{}-{name}", std::process::id());
        let directory = PathBuf::from(format!("{}{path}", mount.split(' ').nth(1).unwrap()));
        std::fs::create_dir(&directory).unwrap();
        Self { directory, path }
    }

    fn below(&self, name: &str) -> String {
        let directory = self.directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory.display().to_string()
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // One that is gone already is as good.
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                drop(std::fs::remove_dir(entry.path()));
            }
        }
        drop(std::fs::remove_dir(&self.directory));
    }
}

#[test]
fn a_rule_is_for_whom_it_names() {
    let cgroup = OwnCgroup::new("named");
    let system = up(&["--policy", "ignore"]);
    let add = |rule: &str| rules(&system, &["add", rule]);
    add("deny 7100-7199 udp");
    add("deny 7100-7199 program=named-program");
    add("deny 7100-7199 program=quite-a-long-name-of-a-program");
    add("deny 7100-7199 user=65534");
    add(&format!("deny 7100-7199 cgroup={}", cgroup.path));
    let who = Who::default();
    assert_eq!(bind(&system, who, "tcp", 7100), "ok", "no rule fits");
    assert_eq!(bind(&system, who, "udp", 7100), "EACCES");
    assert_eq!(bind(&system, Who { name: Some("named-program"), ..who }, "tcp", 7101), "EACCES");
    assert_eq!(bind(&system, Who { thread: Some("named-program"), ..who }, "tcp", 7101), "EACCES");
    assert_eq!(bind(&system, Who { name: Some("named-progra"), ..who }, "tcp", 7101), "ok");
    assert_eq!(bind(&system, Who { name: Some("named-program2"), ..who }, "tcp", 7101), "ok");
    // The kernel keeps 15 bytes of a name.
    let long = Who { name: Some("quite-a-long-name-of-a-program"), ..who };
    assert_eq!(bind(&system, long, "tcp", 7102), "EACCES");
    assert_eq!(bind(&system, Who { uid: Some(65534), ..who }, "tcp", 7103), "EACCES");
    assert_eq!(bind(&system, Who { uid: Some(65533), ..who }, "tcp", 7103), "ok");
    let inside = cgroup.below("deep");
    assert_eq!(bind(&system, Who { cgroup: Some(&inside), ..who }, "tcp", 7104), "EACCES", "anywhere below");
    let itself = cgroup.directory.display().to_string();
    assert_eq!(bind(&system, Who { cgroup: Some(&itself), ..who }, "tcp", 7104), "EACCES");
    assert_eq!(hits(&system, &format!("D7100-7199 cgroup={}", cgroup.path)), 2);
    assert_eq!(hits(&system, "D7100-7199 udp"), 1);
    assert!(!is_leased(&system, 7100), "the policy ignores");
    system.finish().unwrap();
}

#[test]
fn a_rule_follows_a_cgroup_that_comes_and_is_made_anew() {
    let system = up(&[]);
    let first = OwnCgroup::new("service");
    rules(&system, &["add", &format!("deny 7200 cgroup={}", first.path)]);
    for round in 0..2 {
        let cgroup = if round == 0 { None } else { Some(OwnCgroup::new("service")) };
        let directory = cgroup.as_ref().unwrap_or(&first).directory.display().to_string();
        let who = Who { cgroup: Some(&directory), ..Who::default() };
        let mut said = bind(&system, who, "tcp", 7200);
        // The agent looks once a second.
        let deadline = std::time::Instant::now() + Duration::from_secs(15);
        while said != "EACCES" && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(200));
            said = bind(&system, who, "tcp", 7200);
        }
        assert_eq!(said, "EACCES", "round {round}");
        if round == 0 {
            // The service ends, and its cgroup with it.
            std::fs::remove_dir(&first.directory).unwrap();
        }
    }
    std::mem::forget(first);
    system.finish().unwrap();
}

#[test]
fn rules_are_changed_while_the_agent_runs() {
    let mut system = up(&[]);
    let who = Who::default();
    assert_eq!(bind(&system, who, "tcp", 7300), "ok");
    assert!(is_leased(&system, 7300));
    rules(&system, &["insert", "1", "deny", "7300"]);
    assert_eq!(bind(&system, who, "tcp", 7300), "EACCES", "although it is leased still");
    rules(&system, &["delete", "1"]);
    assert_eq!(bind(&system, who, "tcp", 7300), "ok");
    rules(&system, &["policy", "deny"]);
    assert_eq!(bind(&system, who, "tcp", 7301), "EACCES");
    assert!(system.status(Host::A).unwrap().contains("RULES (policy DENY)"));
    rules(&system, &["flush"]);
    rules(&system, &["policy", "lease"]);
    assert_eq!(rules(&system, &[])["rules"], serde_json::json!([]));
    assert_eq!(bind(&system, who, "tcp", 137), "ok");
    assert!(is_leased(&system, 137), "nothing keeps it private now");

    let file = system.lab.folder().join("rules.txt");
    std::fs::write(&file, "# private\nI7310-7319\ndeny 7320 tcp   # nobody\n").unwrap();
    rules(&system, &["replace", &file.display().to_string()]);
    assert_eq!(bind(&system, who, "tcp", 7310), "ok");
    assert!(!is_leased(&system, 7310));
    assert_eq!(bind(&system, who, "tcp", 7320), "EACCES");

    // What is wrong changes nothing, and says what is wrong.
    for (arguments, part) in [
        (vec!["add", "allow", "80"], "begins with ignore, lease or deny"),
        (vec!["add", "deny 90-80"], "90-80 ends before it begins"),
        (vec!["add", "deny user=nobody-of-that-name"], "no user"),
        (vec!["delete", "7"], "there is no rule 7; there are 2"),
        (vec!["replace", "/nonexistent"], "cannot read /nonexistent"),
    ] {
        let all: Vec<&str> = ["rules"].into_iter().chain(arguments).collect();
        let output = agent::client(&system.lab, Host::A, &all).unwrap();
        assert!(!output.status.success() && output.stderr.contains(part), "{all:?}: {output:?}");
    }
    assert_eq!(rules(&system, &[])["rules"].as_array().unwrap().len(), 2);

    // They outlive a crash of the agent.
    system.agent(Host::A).unwrap().process.kill().unwrap();
    system.start_agent(Host::A).unwrap();
    assert_eq!(bind(&system, who, "tcp", 7320), "EACCES");
    system.finish().unwrap();
}
