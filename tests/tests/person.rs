//! What a person sees of the host agent: who holds which port, giving leases back, a status that renews itself, a report for
//! whoever is to help, manual pages and completions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, binaries, exec, gateway, probe};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn client(system: &System, arguments: &[&str]) -> exec::Output {
    agent::client(&system.lab, Host::A, arguments).unwrap()
}

fn ports(system: &System, more: &[&str]) -> Vec<Value> {
    let text = client(system, &[&["ports", "--json"], more].concat()).success().unwrap();
    serde_json::from_str(&text).unwrap()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn up() -> System {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system
}

#[test]
fn ports_names_the_program_and_the_process_and_since_when() {
    let system = up();
    let host = system.lab.host(Host::A).clone();
    let begun = now();
    let server = probe::serve(&system.lab, &host, &["0.0.0.0:6700"]).unwrap();
    let pid = u64::try_from(server.process.pid().as_raw()).unwrap();
    let rows = ports(&system, &["6700"]);
    let row = rows.iter().find(|row| row["protocol"] == "tcp").unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(
        (&row["port"], &row["pid"], &row["program"]),
        (&6700.into(), &pid.into(), &"probe".into()),
        "{row}"
    );
    assert_eq!(
        (&row["state"], &row["kind"], &row["since_is"]),
        (&"listening".into(), &"listen".into(), &"asked".into())
    );
    let since = row["since"].as_u64().unwrap();
    assert!((begun..=now()).contains(&since), "{begun} {row}");

    // A connection has a port of the block, and belongs to the program that opened it.
    let internet = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    probe::ask(&host, std::net::SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    let block = gateway::state(&system.lab).unwrap().block(Host::A);
    let rows = ports(&system, &[]);
    let of_block: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "block").collect();
    for row in of_block {
        assert!(block.contains(&u16::try_from(row["port"].as_u64().unwrap()).unwrap()), "{row}");
    }
    // Kept, and used by nobody.
    client(&system, &["listen", "6701"]).success().unwrap();
    let rows = ports(&system, &[]);
    let row = rows.iter().find(|row| row["port"] == 6701).unwrap_or_else(|| panic!("{rows:?}"));
    assert_eq!(
        (&row["state"], &row["kind"], &row["pid"]),
        (&"unused".into(), &"static".into(), &Value::Null)
    );
    let text = client(&system, &["ports"]).success().unwrap();
    assert!(text.starts_with("PORT ") && text.contains(" probe "), "{text}");
    // Not leased, and asked for all the same.
    assert_eq!(ports(&system, &["9"])[0]["kind"], Value::Null);
    drop((server, internet));
    system.finish().unwrap();
}

#[test]
fn free_gives_back_at_once_and_not_what_is_in_use() {
    let system = up();
    let host = system.lab.host(Host::A).clone();
    let (holder, bound) = probe::bind(&system.lab, &host, &["0.0.0.0:6800"]).unwrap();
    bound.expect_ok().unwrap();
    client(&system, &["listen", "6801"]).success().unwrap();
    let refused = client(&system, &["free", "6800", "6801", "6802"]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(
        refused.stdout.contains("6800: in use by ") && refused.stdout.contains("6801: given back"),
        "{refused:?}"
    );
    assert!(
        refused.stdout.contains("6802: is not leased") && refused.stderr.contains("--force"),
        "{refused:?}"
    );
    let state = gateway::state(&system.lab).unwrap();
    assert_eq!((state.holder(6800), state.holder(6801)), (Some(Host::A.address()), None));
    // The agent keeps ports for two seconds after the last use; this is sooner, and with the program still there.
    client(&system, &["free", "--force", "6800"]).success().unwrap();
    assert_eq!(gateway::state(&system.lab).unwrap().holder(6800), None);
    drop(holder);
    let block = gateway::state(&system.lab).unwrap().block(Host::A);
    let of_block = client(&system, &["free", &block[3].to_string()]);
    assert_eq!(of_block.code(), 1);
    let bind = of_block.stdout.split("free ").nth(1).unwrap().trim().to_owned();
    assert!(bind.starts_with("bind:"), "{of_block:?}");
    client(&system, &["free", &bind]).success().unwrap();
    assert!(gateway::state(&system.lab).unwrap().block(Host::A).is_empty());
    assert_eq!(client(&system, &["free", "http"]).code(), 2);
    system.finish().unwrap();
}

#[test]
fn status_watch_repeats_until_it_is_interrupted() {
    let mut system = up();
    let program = binaries::under_test("rsip-client").unwrap();
    let start = |more: &[&str], log: &str| {
        let mut command = system.lab.host(Host::A).command(&program);
        command.args(["status", "--watch", "0.1"]).args(more);
        Process::start("rsip-client", &mut command, &system.lab.folder().join(log)).unwrap()
    };
    let (mut blocks, mut lines) = (start(&[], "watch.log"), start(&["--json"], "watch-json.log"));
    wait::until("three of each", PATIENCE, || {
        let (blocks, lines) = (blocks.output(), lines.output());
        let enough = blocks.matches("GATEWAY ").count() >= 3 && lines.lines().count() >= 4;
        Ok(if enough { Look::Ready(()) } else { Look::NotYet(blocks) })
    })
    .unwrap();
    assert!(!blocks.output().contains('\x1b'), "no terminal, no control characters");
    let text = lines.output();
    for line in text.lines().take(3) {
        let status: Value = serde_json::from_str(line).unwrap();
        assert_eq!(status["registration"]["state"], "registered");
    }
    for watch in [&mut blocks, &mut lines] {
        watch.signal(Signal::SIGINT).unwrap();
        assert_eq!(watch.wait(exec::SHORT).unwrap(), 0);
    }
    // On a terminal each is drawn over the last one.
    let mut command = system.lab.host(Host::A).command("script");
    let line = format!("{} status --watch 0.1", program.display());
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    let mut terminal =
        Process::start("script", &mut command, &system.lab.folder().join("watch-tty.log")).unwrap();
    terminal.wait_for_output("\x1b[H\x1b[J", PATIENCE).unwrap();
    terminal.kill().unwrap();
    // It begins with an agent, and waits for the next one when that ends.
    let mut watch = start(&[], "watch-2.log");
    watch.wait_for_output("GATEWAY ", PATIENCE).unwrap();
    assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
    watch.wait_for_output("not running", PATIENCE).unwrap();
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(exec::SHORT).unwrap(), 0);
    assert_eq!(client(&system, &["status", "--watch"]).code(), 1, "nothing to begin with");
    system.finish().unwrap();
}

#[test]
fn bugreport_holds_what_helps() {
    let system = up();
    let file = system.lab.folder().join("report.tar.gz");
    let said = client(&system, &["bugreport", "--no-doctor", "--output", &file.display().to_string()])
        .success()
        .unwrap();
    assert!(said.contains("report.tar.gz") && said.contains("look through it"), "{said}");
    let list = exec::tool("tar", &["tzf", &file.display().to_string()]).unwrap();
    for part in [
        "README.txt",
        "versions.txt",
        "config.txt",
        "status.txt",
        "status.json",
        "state.json",
        "bpf.txt",
        "sysctls.txt",
        "rules.txt",
        "routes.txt",
        "journal.txt",
    ] {
        assert!(list.contains(&format!("/{part}\n")), "{part}: {list}");
    }
    exec::tool(
        "tar",
        &[
            "xzf",
            &file.display().to_string(),
            "--strip-components=1",
            "-C",
            &system.lab.folder().display().to_string(),
        ],
    )
    .unwrap();
    let text = |name: &str| fs::read_to_string(system.lab.folder().join(name)).unwrap();
    assert!(text("status.txt").contains(&PUBLIC.to_string()) && text("rules.txt").contains("4555:"));
    assert!(text("bpf.txt").contains("bind4: ") && text("bpf.txt").contains("rsip_bind4"));
    assert!(text("sysctls.txt").contains("net.ipv4.ip_local_port_range = "));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = client(&system, &["bugreport", "--no-doctor", "--output", "/no/such/folder/x"]);
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("cannot write /no/such/folder/x"), "{refused:?}");
    system.finish().unwrap();
}

/// Every program has a page for itself and each of its commands, and completions that its shell takes.
#[test]
fn manual_pages_and_completions() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().display().to_string();
    for program in ["rsip-client", "rsipd", "rsipdctl"] {
        let path = binaries::under_test(program).unwrap();
        let run = |arguments: &[&str]| {
            exec::run(Command::new(&path).args(arguments), exec::SHORT).unwrap().success().unwrap()
        };
        run(&["man", "--output", &output]);
        let script = run(&["completions", "bash"]);
        let file = folder.path().join("completion");
        fs::write(&file, script).unwrap();
        exec::tool("bash", &["-n", &file.display().to_string()]).unwrap();
        if program != "rsipdctl" {
            let page = fs::read_to_string(folder.path().join(format!("{program}.conf.5"))).unwrap();
            assert!(page.contains("/etc/rsip/") && page.lines().count() > 30, "{page}");
        }
        assert!(run(&["completions", "zsh"]).contains("#compdef"));
        let help = run(&["--help"]);
        let commands =
            help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // Descriptions that are too long for a line go on deeper in the next one.
        let names: Vec<&str> = commands
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert!(names.len() > 4, "{help}");
        for name in names.into_iter().filter(|name| *name != "help") {
            let page = folder.path().join(format!("{program}-{name}.8"));
            let text =
                fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            assert!(text.contains(".TH "), "{text}");
        }
        assert!(
            fs::read_to_string(folder.path().join(format!("{program}.8"))).unwrap().contains("Exit codes")
                || program == "rsipdctl"
        );
    }
}
