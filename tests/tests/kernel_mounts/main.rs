//! File systems over the network, whose sockets are the kernel's own: they are mounted, read and connected again at once while
//! the gateway is silent and programs wait, and where a rule denies every bind; and nothing of theirs is asked for or counted.
//!
//! Debian's kernels have these file systems, and `tests/vm.toml` says so by the variable; a kernel without them is asked whether
//! it has none indeed.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod nfs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::probe::Probe;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, exec};

/// Names the file systems that the kernel must have: `nfs4`.
const WANTED: &str = "RSIP_KERNEL_MOUNTS";
const SOON: Duration = Duration::from_secs(20);

/// A server on host-b whose files host-a mounts.
trait Server {
    /// The port it listens on.
    const PORT: u16;
    /// Puts a file where it serves it.
    fn offer(&self, name: &str, text: &str);
    /// The command that mounts it at a folder.
    fn mount(&self, host: &Inside, at: &Path) -> Command;
}

/// What host-a has mounted, until this is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(server: &impl Server, system: &System) -> Self {
        let at = system.lab.folder().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let mut command = server.mount(system.lab.host(Host::A), &at);
        exec::run(&mut command, SOON).unwrap().success().unwrap();
        Self(at)
    }

    fn read(&self, name: &str) -> String {
        // In a program of its own: one that waits for a server that does not answer cannot be ended from within.
        let mut command = Command::new("cat");
        exec::run(command.arg(self.0.join(name)), SOON).unwrap().success().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.0.display());
        }
    }
}

/// Whether the kernel has the file system, with its module loaded.
fn kernel_has(kind: &str, module: &str) -> bool {
    // A kernel without modules has no such program, or fails.
    let _absent = exec::run(Command::new("modprobe").arg(module), exec::SHORT);
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    let there = known.lines().any(|line| line.ends_with(&format!("\t{kind}")));
    let wanted = std::env::var(WANTED).unwrap_or_default();
    assert!(there || !wanted.contains(kind), "{WANTED} is {wanted}, and the kernel has no {kind}");
    there
}

/// A kernel that has no such file system says so when it is asked for one.
fn is_refused(kind: &str) {
    let at = tempfile::tempdir().unwrap();
    let nothing = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    let refused = nix::mount::mount(Some("10.77.0.3:/"), at.path(), Some(kind), flags, nothing);
    assert_eq!(refused.unwrap_err(), nix::errno::Errno::ENODEV);
}

/// The local ends of host-a's connections to the server.
fn connections<S: Server>(system: &System) -> Vec<u16> {
    let server = format!("{}:{}", Host::B.address(), S::PORT);
    let all = system.lab.host(Host::A).tool("ss", &["-Htn", "state", "established", "dst", &server]).unwrap();
    let local = |line: &str| line.split_whitespace().nth(2)?.rsplit(':').next()?.parse().ok();
    all.lines().filter_map(local).collect()
}

/// Ends them under the file system's hands, and waits for what it does about that.
fn connect_again<S: Server>(system: &System, mounted: &Mounted, name: &str, text: &str) {
    let before = inodes::<S>(system);
    assert!(!before.is_empty(), "there is no connection");
    let server = format!("{}:{}", Host::B.address(), S::PORT);
    system.lab.host(Host::A).tool("ss", &["-K", "dst", &server]).unwrap();
    assert_eq!(mounted.read(name), text);
    let after = inodes::<S>(system);
    assert!(!after.is_empty() && after.iter().all(|inode| !before.contains(inode)), "{before:?} {after:?}");
}

/// What tells one connection from the next, by the kernel's cookies.
fn inodes<S: Server>(system: &System) -> Vec<String> {
    let server = format!("{}:{}", Host::B.address(), S::PORT);
    let all =
        system.lab.host(Host::A).tool("ss", &["-Htne", "state", "established", "dst", &server]).unwrap();
    let cookie = |line: &str| line.split_whitespace().find(|word| word.starts_with("sk:")).map(str::to_owned);
    all.lines().filter_map(cookie).collect()
}

/// Everything that is counted about binds and connects, but for restarts.
fn counters(system: &System) -> BTreeMap<String, u64> {
    let counters = agent::status(&system.lab, Host::A).unwrap().counters;
    let of_sockets = |name: &str| {
        ["bind_", "connect_", "room_", "remote_", "held"].iter().any(|start| name.starts_with(start))
    };
    counters.into_iter().filter(|c| of_sockets(&c.name)).map(|c| (c.name, c.value)).collect()
}

fn system(arguments: &[&str]) -> System {
    let agent = arguments.iter().map(|word| (*word).to_owned()).collect();
    let mut system = System::new(Options { agent, ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

/// Mounts, reads and connects again; `holds` is asked after each.
fn use_it<S: Server>(server: &S, system: &System, holds: &dyn Fn(&str)) {
    for name in ["one", "two", "three"] {
        server.offer(name, &format!("{name}\n"));
    }
    let mounted = Mounted::new(server, system);
    holds("mounted");
    assert_eq!(mounted.read("one"), "one\n");
    holds("read");
    connect_again::<S>(system, &mounted, "two", "two\n");
    holds("connected again");
    connect_again::<S>(system, &mounted, "three", "three\n");
    holds("connected once more");
    println!("connections from ports {:?}", connections::<S>(system));
}

/// The gateway says nothing, and a program waits for it. Later its agent knows that it is out of reach.
fn while_the_gateway_is_silent<S: Server>(start: impl FnOnce(&System) -> S) {
    let mut system = system(&[]);
    let server = start(&system);
    let before = counters(&system);
    system.gateway().unwrap().process.signal(Signal::SIGSTOP).unwrap();
    let lab = &system.lab;
    let mut program = Probe::start(lab, lab.host(Host::A), &["bind", "--close", "0.0.0.0:5900"]).unwrap();
    let asked = || agent::status(lab, Host::A).unwrap().waiting.ports;
    wait::until("the program to wait", SOON, || {
        let asked = asked();
        Ok(if asked == [5900] { Look::Ready(()) } else { Look::NotYet(format!("{asked:?}")) })
    })
    .unwrap();
    use_it(&server, &system, &|what| {
        assert!(asked().iter().all(|port| *port == 5900), "{what}: {:?} are waited for", asked());
        expect_one_bind(&before, &counters(&system), what);
    });
    program.bound(exec::SHORT).unwrap().expect("EADDRINUSE").unwrap();
    expect_one_bind(&before, &counters(&system), "all done");
    system.gateway().unwrap().process.signal(Signal::SIGCONT).unwrap();
    drop(server);
    system.finish().unwrap();
}

/// Nothing was counted but what became of the program's bind.
fn expect_one_bind(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, what: &str) {
    let more: BTreeMap<&str, u64> = after
        .iter()
        .map(|(name, value)| (name.as_str(), value - before[name]))
        .filter(|more| more.1 > 0)
        .collect();
    let of_program = |name: &&str| ["bind_denied", "bind_timeout"].contains(name);
    assert!(more.values().sum::<u64>() <= 1 && more.keys().all(of_program), "{what}: {more:?}");
}

/// No program may bind anything.
fn while_rules_deny_everything<S: Server>(start: impl FnOnce(&System) -> S) {
    let system = system(&["--policy", "deny"]);
    let server = start(&system);
    let lab = &system.lab;
    let mut program = Probe::start(lab, lab.host(Host::A), &["bind", "--close", "0.0.0.0:700"]).unwrap();
    let bound = program.bound(exec::SHORT).unwrap();
    assert_ne!(bound.result, "ok", "a program is denied it");
    let (before, rules) = (counters(&system), agent::client(lab, Host::A, &["rules"]).unwrap().stdout);
    use_it(&server, &system, &|what| {
        assert_eq!(counters(&system), before, "{what}");
        assert_eq!(agent::client(lab, Host::A, &["rules"]).unwrap().stdout, rules, "{what}: hits");
    });
    drop(server);
    system.finish().unwrap();
}

#[test]
fn nfs_does_not_wait_for_a_silent_gateway() {
    if !kernel_has("nfs4", "nfsv4") {
        return is_refused("nfs4");
    }
    while_the_gateway_is_silent(|system| nfs::Nfs::start(system, "4.2"));
}

#[test]
fn nfs_is_not_denied_by_rules() {
    if !kernel_has("nfs4", "nfsv4") {
        return is_refused("nfs4");
    }
    while_rules_deny_everything(|system| nfs::Nfs::start(system, "4.2"));
}
