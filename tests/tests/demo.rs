//! The demonstration itself, as `cargo xtask demo` runs it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::snapshot::Snapshot;
use rsip_lab::lab::{exec, netns};

const LIMIT: Duration = Duration::from_secs(300);

fn demo(arguments: &[&str]) -> exec::Output {
    exec::run(Command::new(env!("CARGO_BIN_EXE_demo")).args(arguments), LIMIT).unwrap()
}

#[test]
fn all_seven_steps_hold_and_nothing_is_left() {
    let before = Snapshot::take(&[]).unwrap();
    let said = demo(&[]).success().unwrap();
    for step in 1..=7 {
        assert!(said.contains(&format!("[{step}/7]")), "{said}");
    }
    assert!(said.contains("All steps held"), "{said}");
    before.expect_again(&[]).unwrap();
}

#[test]
fn a_kept_lab_works_and_is_removed_on_request() {
    let before = Snapshot::take(&[]).unwrap();
    let said = demo(&["--keep"]).success().unwrap();
    assert!(said.contains("ip netns exec rsip-demo-host-a bash"), "{said}");
    // What it tells people to try.
    let page = exec::tool(
        "ip",
        &["netns", "exec", "rsip-demo-internet", "curl", "-sS", "--max-time", "5", "http://198.51.100.1/"],
    );
    assert!(page.unwrap().contains("Apache2 Debian Default Page"));
    let page = exec::tool(
        "ip",
        &["netns", "exec", "rsip-demo-host-a", "curl", "-sS", "--max-time", "5", "http://198.51.100.2/"],
    );
    assert!(page.unwrap().contains("Apache2 Debian Default Page"));
    assert!(demo(&["--clean"]).success().unwrap().contains("is gone"));
    assert_eq!(netns::names("rsip-demo-").unwrap(), Vec::<String>::new());
    before.expect_again(&[]).unwrap();
    assert!(demo(&["--clean"]).success().unwrap().contains("no lab"));
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let before = Snapshot::take(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("demo.log");
    let mut demo = Process::start("demo", &mut Command::new(env!("CARGO_BIN_EXE_demo")), &log).unwrap();
    demo.wait_for_output("[2/7]", LIMIT).unwrap();
    demo.signal(Signal::SIGINT).unwrap();
    assert_eq!(demo.wait(Duration::from_secs(60)).unwrap(), 128 + 2);
    before.expect_again(&[]).unwrap();
}
