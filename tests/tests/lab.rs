//! The lab itself: what the other tests stand on.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::snapshot::Snapshot;
use rsip_lab::lab::topology::{GATEWAY, INTERNAL_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, Lab, exec, netns};

/// What curl on a host says about a URL.
fn curl(lab: &Lab, host: Host, url: &str) -> exec::Output {
    let mut command = lab.host(host).command("curl");
    exec::run(command.args(["--silent", "--show-error", "--max-time", "2", url]), exec::SHORT).unwrap()
}

#[test]
fn neighbours_reach_each_other_and_a_private_source_gets_no_answer_from_the_internet() {
    let lab = Lab::new().unwrap();
    let ping = |from: &netns::Inside, to: &str| {
        let mut command = from.command("ping");
        exec::run(command.args(["-n", "-c", "1", "-W", "1", to]), exec::SHORT).unwrap().status.success()
    };
    assert!(ping(lab.host(Host::A), &GATEWAY.to_string()));
    assert!(ping(lab.host(Host::A), &Host::B.address().to_string()));
    assert!(ping(lab.host(Host::A), &PUBLIC.to_string()), "the gateway answers at its public address");
    assert!(ping(&lab.internet, &PUBLIC.to_string()));
    assert!(!ping(lab.host(Host::A), &INTERNET.to_string()));
    assert!(!ping(&lab.internet, &Host::A.address().to_string()));
}

#[test]
fn leaves_nothing_behind_when_a_test_panics_while_programs_run() {
    let before = Snapshot::take(&[]).unwrap();
    let panicked = std::thread::spawn(|| {
        let lab = Lab::new().unwrap();
        let log = lab.folder().join("sleeper.log");
        let mut sleeper =
            Process::start("sleeper", lab.host(Host::A).command("sleep").arg("600"), &log).unwrap();
        // One that nobody holds, and that does not listen.
        let mut stubborn = lab.host(Host::B).command("sh");
        stubborn.args(["-c", "trap '' TERM; sleep 600 & echo started"]);
        exec::run(&mut stubborn, exec::SHORT).unwrap();
        sleeper.expect_running().unwrap();
        assert_eq!(lab.host(Host::B).processes().unwrap().len(), 1);
        panic!("as a failed test does");
    })
    .join();
    assert!(panicked.is_err());
    assert_eq!(netns::names(&format!("rsip-{}x", std::process::id())).unwrap(), Vec::<String>::new());
    before.expect_again(&[]).unwrap();
}

#[test]
fn two_apaches_run_as_shipped_side_by_side() {
    let lab = Lab::new().unwrap();
    let [a, b] = Host::ALL.map(|host| Apache::shipped(&lab, host).unwrap());
    a.start().unwrap();
    b.start().unwrap();
    assert_ne!(a.pid(), b.pid());
    let page = curl(&lab, Host::B, &format!("http://{}/", Host::A.address())).success().unwrap();
    assert!(page.contains("Apache2 Debian Default Page"), "{page}");
    assert_eq!(a.client_of_request(1).unwrap(), Host::B.address().to_string());
    assert_eq!(b.access_log(), "");
    // A second one on the same host is refused by the kernel, and says so.
    let second = Apache::on_port(&lab, Host::B, 8080).unwrap();
    second.start().unwrap();
    a.stop().unwrap();
    assert_ne!(curl(&lab, Host::B, &format!("http://{}/", Host::A.address())).code(), 0);
    curl(&lab, Host::A, &format!("http://{}:8080/", Host::B.address())).success().unwrap();
    assert!(
        !std::path::Path::new("/run/apache2/apache2.pid").exists(),
        "the machine's own folders are untouched"
    );
}

#[test]
fn a_snapshot_sees_addresses_routes_rules_sysctls_firewall_and_folders() {
    let lab = Lab::new().unwrap();
    let host = lab.host(Host::A);
    let take = || Snapshot::take(&[host]).unwrap();
    let before = take();
    assert_eq!(before.differences(&take()), "");

    let run = |command: &mut Command| exec::run(command, exec::SHORT).unwrap().success().unwrap();
    host.ip(&["address", "add", "198.51.100.1/32", "dev", "eth0"]).unwrap();
    host.ip(&["route", "add", "default", "dev", "eth0", "table", "4555"]).unwrap();
    host.ip(&["rule", "add", "pref", "4554", "lookup", "4555"]).unwrap();
    host.sysctl("net/ipv4/ip_local_port_range", "40000 40254").unwrap();
    run(host.command("nft").args(["add", "table", "ip", "left"]));
    run(host.command("tc").args(["qdisc", "add", "dev", "eth0", "clsact"]));
    let differences = before.differences(&take());
    for expected in [
        "addr: + inet 198.51.100.1/32 scope global eth0",
        "route: + default dev eth0 table 4555",
        "rule: + 4554: from all lookup 4555",
        "sysctl: - /proc/sys/net/ipv4/ip_local_port_range = 32768\t60999",
        "sysctl: + /proc/sys/net/ipv4/ip_local_port_range = 40000\t40254",
        "nft: + table ip left {",
        "qdisc: + qdisc clsact",
    ] {
        assert!(differences.contains(expected), "{expected} is not in:\n{differences}");
    }

    host.ip(&["rule", "del", "pref", "4554"]).unwrap();
    host.ip(&["route", "del", "default", "dev", "eth0", "table", "4555"]).unwrap();
    host.ip(&["address", "del", "198.51.100.1/32", "dev", "eth0"]).unwrap();
    host.sysctl("net/ipv4/ip_local_port_range", "32768 60999").unwrap();
    run(host.command("nft").args(["delete", "table", "ip", "left"]));
    run(host.command("tc").args(["qdisc", "del", "dev", "eth0", "clsact"]));
    before.expect_again(&[host]).unwrap();
}

#[test]
fn a_recording_finds_rsip_in_tcp_however_it_is_cut() {
    let lab = Lab::new().unwrap();
    let recording = Recording::start(&lab, &lab.gateway, INTERNAL_IF).unwrap();
    // REGISTER_REQUEST with message counter 1, twice, in three segments.
    let message = [1_u8, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1];
    let listener = lab.gateway.enter(|| TcpListener::bind((GATEWAY, 4555))).unwrap().unwrap();
    let mut client = lab.host(Host::A).enter(|| TcpStream::connect((GATEWAY, 4555))).unwrap().unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let both = [message, message].concat();
    let mut received = vec![0; both.len()];
    for piece in [&both[..5], &both[5..13], &both[13..]] {
        client.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    server.read_exact(&mut received).unwrap();
    drop((client, server, listener));
    let capture = recording.stop().unwrap();
    let messages: Vec<_> = capture.rsip().unwrap().into_iter().map(|spoken| spoken.message).collect();
    assert_eq!(messages, [message, message]);
    assert_eq!(capture.rsip_is_clean().unwrap().distinct, 1);
}
