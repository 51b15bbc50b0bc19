//! The command line from outside: what can be said without a gateway and without touching the network.

use std::path::Path;
use std::process::{Command, Output};

fn client(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rsip-client"))
        .args(arguments)
        .env_remove("RSIP_GATEWAY")
        .env_remove("RSIP_CLIENT_RUN_DIR")
        .output()
        .expect("the binary is built")
}

fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("rsip-client: "), "{text}");
    text
}

#[test]
fn asking_where_no_agent_runs_is_said_in_one_line() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().to_str().expect("text");
    for arguments in [&["status"][..], &["status", "--json"], &["listen", "80"], &["unlisten", "80"]] {
        let output = client(&[arguments, &["--run-dir", path]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(complaint(&output).contains("not running"), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_wrong_command_line_names_what_is_wrong() {
    for (arguments, word) in [
        (&["up", "--gateway", "gw.example"][..], "gw.example"),
        (&["up", "--scope", "A,,B"], "A,,B"),
        (&["discover", "--da", "da.example"], "da.example"),
        (&["discover", "--timeout", "0"], "seconds"),
        (&["up", "--gateway", "10.0.0.1", "--block", "256"], "256"),
        (&["up", "--gateway", "10.0.0.1", "--linger", "-1"], "-1"),
        (&["up", "--gateway", "10.0.0.1", "--ignore", "90-80"], "90-80"),
        (&["up", "--gateway", "10.0.0.1", "--private-net", "10.0.0.1/8"], "10.0.0.0/8"),
        (&["up", "--gateway", "10.0.0.1", "--wait", "forever"], "forever"),
        (&["listen"], "PORT"),
        (&["listen", "0"], "0"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let output = client(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.contains(word), "{arguments:?}: {text}");
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("{} --help | head -n 1", Path::new(env!("CARGO_BIN_EXE_rsip-client")).display()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    assert!(child.wait().expect("ends").success());
    let output = child.wait_with_output().expect("text");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn down_without_an_agent_leaves_no_file() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("run");
    // In a namespace of its own: where there is none, it makes sure that nothing of a dead agent is left.
    let output = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_rsip-client"), "down", "--run-dir"])
        .arg(&path)
        .output()
        .expect("util-linux is installed");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no agent was running"));
    assert!(!path.exists());
}

#[test]
fn down_restores_what_a_dead_agent_changed_and_nothing_of_another_namespace() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("run");
    std::fs::create_dir(&path).expect("a folder");
    let state = r#"{"version": 1, "netns_cookie": COOKIE, "gateway": "127.0.0.1:9", "transport": "tcp",
        "registration": {"client_id": null, "in_doubt": false, "bindings": []},
        "sysctls": {"range": "40000 50000", "reserved": "40001"},
        "private_interface": "gone0", "served_before": []}"#;
    // The cookie of a namespace is known only inside: python asks for it (SO_NETNS_COOKIE is 71).
    let script = format!(
        "import socket, subprocess, sys\n\
         cookie = int.from_bytes(socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8), sys.byteorder)\n\
         open('{path}/state.json', 'w').write('''{state}'''.replace('COOKIE', str(cookie + int(sys.argv[1]))))\n\
         subprocess.run(['{client}', 'down', '--run-dir', '{path}'], check=True)\n\
         print(open('/proc/sys/net/ipv4/ip_local_port_range').read().split())\n\
         print(open('/proc/sys/net/ipv4/ip_local_reserved_ports').read().split())\n",
        path = path.display(),
        client = env!("CARGO_BIN_EXE_rsip-client"),
    );
    let run = |difference: &str| {
        let output = Command::new("unshare")
            .args(["--net", "python3", "-c", &script, difference])
            .output()
            .expect("python is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let restored = run("0");
    assert!(restored.contains("what it left is undone"), "{restored}");
    assert!(restored.contains("['40000', '50000']\n['40001']"), "{restored}");
    assert!(!path.exists(), "nothing is left");
    std::fs::create_dir(&path).expect("a folder");
    let untouched = run("1");
    assert!(untouched.contains("no agent was running"), "{untouched}");
    assert!(untouched.contains("['32768', '60999']\n[]"), "{untouched}");
    assert!(!path.exists(), "nothing is left");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("rsip-client.conf");
    let file = path.to_str().expect("text");
    std::fs::write(&path, "gateway = \"10.0.0.1\"\nlinger = \"soon\"\nblok = 3\n").expect("written");
    let output = client(&["up", "--config", file]);
    assert_eq!(output.status.code(), Some(78));
    let line = complaint(&output);
    assert!(line.contains(&format!("{file}:2:10: linger: ")) && line.contains("rsip-client check"), "{line}");
    let output = client(&["check", "--config", file]);
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains(&format!("{file}:3:1: blok: unknown key: did you mean block?")), "{told}");
    std::fs::write(&path, "gateway = \"10.0.0.1\"\n").expect("written");
    assert!(client(&["check", "--config", file]).status.success());
    let missing = client(&["up", "--config", "/nonexistent.conf"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(complaint(&missing).contains("no such file"));
}
