//! The agent as a service: what its manager is told, what the journal gets, and the unit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rsip_lab::lab::mountns::MountNs;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::{Host, binaries, exec};

const PATIENCE: Duration = Duration::from_secs(60);

/// What arrives at a datagram socket until `enough` says so.
fn hear(socket: &UnixDatagram, heard: &mut Vec<String>, enough: impl Fn(&[String]) -> bool) {
    let end = Instant::now() + PATIENCE;
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while !enough(heard) {
        assert!(Instant::now() < end, "{heard:#?}");
        let mut buffer = [0; 65_536];
        if let Ok(length) = socket.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
}

#[test]
fn the_manager_hears_ready_alive_and_stopping() {
    let mut system = System::new(Options::default()).unwrap();
    let path = system.lab.folder().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = system.lab.host(Host::A).command(binaries::under_test("rsip-client").unwrap());
    command.args(["up", "--gateway", "10.77.0.1", "--persist"]).env("NOTIFY_SOCKET", &path);
    command.env("WATCHDOG_USEC", "1000000").env_remove("WATCHDOG_PID");
    let log = system.lab.folder().join("rsip-client.log");
    let mut agent = Process::start("rsip-client", &mut command, &log).unwrap();
    let mut heard = Vec::new();
    let says = |heard: &[String], what: &str| heard.iter().any(|word| word.contains(what));
    // The gateway is not there: that is told, and not that it is ready.
    hear(&socket, &mut heard, |heard| says(heard, "STATUS=10.77.0.1:4555 is out of reach"));
    assert!(!says(&heard, "READY=1"), "{heard:?}");
    system.start_gateway().unwrap();
    hear(&socket, &mut heard, |heard| {
        says(heard, "READY=1") && says(heard, "STATUS=registered at 10.77.0.1:4555, 1 leases")
    });
    let alive = |heard: &[String]| heard.iter().filter(|word| word.contains("WATCHDOG=1")).count();
    let before = alive(&heard);
    hear(&socket, &mut heard, |heard| alive(heard) >= before + 3);
    // A loop that hangs is not alive.
    agent.signal(nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut rest = Vec::new();
    std::thread::sleep(Duration::from_millis(200));
    socket.set_nonblocking(true).unwrap();
    while socket.recv(&mut [0; 4096]).is_ok() {}
    std::thread::sleep(Duration::from_secs(2));
    assert!(socket.recv(&mut [0; 4096]).is_err(), "silence while it hangs");
    socket.set_nonblocking(false).unwrap();
    agent.signal(nix::sys::signal::Signal::SIGCONT).unwrap();
    hear(&socket, &mut rest, |heard| alive(heard) >= 1);
    assert_eq!(agent.stop().unwrap(), 0);
    hear(&socket, &mut rest, |heard| says(heard, "STOPPING=1"));
    assert_eq!(heard.iter().filter(|word| word.contains("READY=1")).count(), 1);
    system.finish().unwrap();
}

/// A field of an entry in the journal's own form: "NAME=value", or "NAME", a length of eight octets, and the value.
fn field(entry: &str, name: &str) -> Option<String> {
    let entry = format!("\n{entry}");
    if let Some((_, rest)) = entry.split_once(&format!("\n{name}=")) {
        return rest.lines().next().map(str::to_owned);
    }
    let bytes = entry.split_once(&format!("\n{name}\n"))?.1.as_bytes();
    let length = usize::from(u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]));
    Some(String::from_utf8_lossy(bytes.get(8..8 + length)?).into_owned())
}

#[test]
fn the_journal_gets_fields() {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    // A folder of the test's own over /run: the journal's socket is where programs look for it.
    let run = system.lab.subfolder("run").unwrap();
    fs::create_dir_all(run.join("systemd/journal")).unwrap();
    let socket = UnixDatagram::bind(run.join("systemd/journal/socket")).unwrap();
    let mounts = MountNs::new(&[(run, PathBuf::from("/run"))]).unwrap();
    let log = system.lab.folder().join("rsip-client.log");
    let file = File::create(&log).unwrap().metadata().unwrap();
    let mut command =
        system.lab.host(Host::A).command_in(binaries::under_test("rsip-client").unwrap(), Some(&mounts));
    command.args(["up", "--gateway", "10.77.0.1", "--listen", "6900"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()));
    let mut agent = Process::start("rsip-client", &mut command, &log).unwrap();
    let mut heard = Vec::new();
    let says = |entry: &String, what: &str| field(entry, "MESSAGE").as_deref() == Some(what);
    let kept = "kept, as --listen says";
    hear(&socket, &mut heard, |heard| heard.iter().any(|entry| says(entry, kept)));
    let entry = heard.iter().find(|entry| says(entry, kept)).unwrap();
    for (name, value) in [("PORT", "6900"), ("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "rsip-client")] {
        assert_eq!(field(entry, name).as_deref(), Some(value), "{name}: {entry:?}");
    }
    let leased = heard.iter().find(|entry| says(entry, "leased")).unwrap();
    assert!(field(leased, "BIND_ID").is_some() && field(leased, "ADDRESS").is_some(), "{leased:?}");
    assert!(!agent.output().contains("kept"), "once is enough: {}", agent.output());
    assert_eq!(agent.stop().unwrap(), 0);
    system.finish().unwrap();
}

/// With the programs where the units look for them.
#[test]
fn systemd_understands_the_unit() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root.join("rsip-client/rsip-client.service")).unwrap();
    let program = binaries::under_test("rsip-client").unwrap().display().to_string();
    let unit = folder.path().join("rsip-client.service");
    fs::write(&unit, text.replace("/usr/bin/rsip-client", &program)).unwrap();
    let analyze = |arguments: &[&str]| {
        exec::run(Command::new("systemd-analyze").args(arguments).arg(&unit), exec::SHORT).unwrap()
    };
    let verified = analyze(&["verify", "--man=no"]);
    assert_eq!(verified.code(), 0, "{verified:?}");
    assert!(!verified.stderr.contains("rsip-client.service"), "{verified:?}");
    // 10 is a service that may do everything. An agent with eBPF cannot be among the best.
    let rated = analyze(&["security", "--offline=true", "--threshold=60"]);
    assert_eq!(rated.code(), 0, "{rated:?}");
    // Each code that starting again does not mend is one of ours.
    let codes = text.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
    assert_eq!(codes, "2 5 6 78");
}
