//! The programs from outside, as far as that needs no privileges: exit codes, and one line for each failure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).env_remove("RSIP_LOG").env_remove("RSIPD_CONFIG").output().unwrap()
}

fn rsipd(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_rsipd"), arguments)
}

fn rsipdctl(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_rsipdctl"), arguments)
}

/// The exit code, and the only line on standard error.
fn failure(output: &Output) -> (i32, String) {
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    (output.status.code().unwrap(), text.trim_end().to_owned())
}

fn write(directory: &Path, text: &str) -> String {
    let path = directory.join("rsipd.conf");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn configuration_errors_end_with_78() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none").to_str().unwrap().to_owned();
    let (code, line) = failure(&rsipd(&["--config", &missing]));
    assert_eq!(code, 78);
    assert!(line.starts_with(&format!("rsipd: {missing}: cannot read the configuration: ")), "{line}");

    let path = write(directory.path(), "INT_IF = \"a\"\nEXT_IF = \"b\"\nBOGUS = 1\nPORT = 0\n");
    for arguments in
        [&["--config", &path][..], &["run", "--config", &path], &["show-config", "--config", &path]]
    {
        let (code, line) = failure(&rsipd(arguments));
        assert_eq!(code, 78);
        assert!(line.starts_with(&format!("rsipd: {path}:3:1: BOGUS: unknown key: ")), "{line}");
        assert!(line.ends_with("(and 1 more: `rsipd check` lists them)"), "{line}");
    }
}

#[test]
fn check_lists_all_problems_with_file_and_system() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "INT_IF = \"rsip-no-such\"\nEXT_IF = \"rsip-nor-this\"\n");
    let output = rsipd(&["check", "--config", &path]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].starts_with(&format!("rsipd: {path}:1:10: INT_IF: there is no interface \"rsip-no-such\"")),
        "{text}"
    );
    assert!(
        lines[1].starts_with(&format!("rsipd: {path}:2:10: EXT_IF: there is no interface \"rsip-nor-this\"")),
        "{text}"
    );
}

#[test]
fn show_config_prints_a_file_that_is_good() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "INT_IF = \"a\"\nEXT_IF = \"b\"\nMTU = 1400\n");
    let first = rsipd(&["show-config", "--config", &path]);
    assert!(first.status.success());
    let path = write(directory.path(), std::str::from_utf8(&first.stdout).unwrap());
    assert_eq!(rsipd(&["show-config", "--config", &path]).stdout, first.stdout);
}

#[test]
fn control_program_without_daemon_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    for command in
        [&["dump"][..], &["clients"], &["binds"], &["pool"], &["status"], &["release", "1"], &["stop"]]
    {
        let (code, line) = failure(&rsipdctl(&[command, &["--run-dir", directory]].concat()));
        assert_eq!(code, 1);
        assert!(line.starts_with("rsipdctl: rsipd not running: "), "{line}");
    }
}

#[test]
fn usage_errors_end_with_2_and_help_has_examples() {
    assert_eq!(rsipd(&["--bogus"]).status.code(), Some(2));
    assert_eq!(rsipdctl(&[]).status.code(), Some(2));
    assert_eq!(rsipdctl(&["release", "everything"]).status.code(), Some(2));
    for output in [rsipd(&["--help"]), rsipdctl(&["--help"])] {
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("Examples:"));
    }
}
