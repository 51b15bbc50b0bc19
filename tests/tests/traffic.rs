//! More than a page and a datagram: what applications do with the network, through the tunnel and the gateway.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, INTERNAL_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, exec, probe};

const MEGABYTES: usize = 64;

/// Serves a folder with Python's web server.
fn serve_folder(system: &System, inside: &Inside, folder: &std::path::Path, port: u16) -> Process {
    let mut command = inside.command("/usr/bin/python3");
    command.args(["-u", "-m", "http.server", &port.to_string(), "--directory"]).arg(folder);
    let log = system.lab.folder().join(format!("files-{port}.log"));
    let mut server = Process::start("files", &mut command, &log).unwrap();
    server.wait_for_output("Serving HTTP", exec::SHORT).unwrap();
    server
}

#[test]
fn big_transfers_arrive_whole_in_both_directions() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let folder = lab.subfolder("files").unwrap();
    // No two blocks alike: what is lost, doubled or exchanged shows.
    let data: Vec<u8> = (0..MEGABYTES * 131_072_u32 as usize).flat_map(|word| word.to_le_bytes()).collect();
    fs::write(folder.join("data"), &data).unwrap();
    let inside = serve_folder(&system, lab.host(Host::A), &folder, 8001);
    let outside = serve_folder(&system, &lab.internet, &folder, 8002);
    for (from, url) in [
        (&lab.internet as &Inside, "http://198.51.100.1:8001/data"),
        (lab.host(Host::B), "http://198.51.100.2:8002/data"),
    ] {
        let got = folder.join("got");
        let mut curl = from.command("curl");
        curl.args(["-sS", "--max-time", "60", url, "-o"]).arg(&got);
        exec::run(&mut curl, Duration::from_secs(90)).unwrap().success().unwrap();
        assert!(fs::read(&got).unwrap() == data, "{url} arrives changed");
    }
    drop((inside, outside));
    system.finish().unwrap();
}

#[test]
fn datagrams_that_do_not_fit_leave_in_fragments() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let server = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    // Around the tunnel's MTU, and far beyond it.
    for size in [1, 1451, 1452, 1453, 1472, 1473, 4000, 20_000] {
        let arguments = ["--udp", "--size", &size.to_string()];
        let answer = probe::ask(lab.host(Host::A), SocketAddrV4::new(INTERNET, 9000), &arguments).unwrap();
        assert_eq!(answer.peer.ip(), &PUBLIC, "{size} bytes");
    }
    drop(server);
    system.finish().unwrap();
}

#[test]
fn echo_requests_and_icmp_errors_find_their_hosts() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    for host in Host::ALL {
        lab.host(host).tool("ping", &["-n", "-c", "3", "-i", "0.2", "-W", "2", "198.51.100.2"]).unwrap();
        let refused =
            probe::ask(lab.host(host), SocketAddrV4::new(INTERNET, 9999), &["--udp", "--connected"])
                .unwrap_err();
        assert!(refused.to_string().contains("Connection refused"), "{refused}");
        let refused = probe::ask(lab.host(host), SocketAddrV4::new(INTERNET, 9999), &[]).unwrap_err();
        assert!(refused.to_string().contains("Connection refused"), "{refused}");
    }
    system.finish().unwrap();
}

#[test]
fn a_port_that_nobody_holds_is_the_gateways_own() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let closed = probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 7777), &[]).unwrap_err();
    assert!(closed.to_string().contains("Connection refused"), "{closed}");
    let server = probe::serve(lab, &lab.gateway, &["0.0.0.0:7777"]).unwrap();
    let answer = probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 7777), &[]).unwrap();
    assert_eq!(answer.peer.ip(), &INTERNET);
    drop(server);
    system.finish().unwrap();
}

#[test]
fn strict_reverse_path_filters_are_no_obstacle() {
    let mut system = System::new(Options::default()).unwrap();
    let lab = &system.lab;
    for inside in [&lab.gateway as &Inside, lab.host(Host::A), lab.host(Host::B)] {
        inside.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
        inside.sysctl("net/ipv4/conf/default/rp_filter", "1").unwrap();
    }
    for interface in [INTERNAL_IF, EXTERNAL_IF] {
        lab.gateway.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "1").unwrap();
    }
    system.start_gateway().unwrap();
    for host in Host::ALL {
        system.start_agent(host).unwrap();
    }
    let lab = &system.lab;
    let inner = probe::serve(lab, lab.host(Host::A), &["0.0.0.0:5250"]).unwrap();
    let outer = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 5250), &[]).unwrap();
    probe::ask(lab.host(Host::B), SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    drop((inner, outer));
    system.stop_all().unwrap();
}

#[test]
fn programs_of_ordinary_users_lease_ports_too() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let user = |port: &str| {
        let mut command = lab.host(Host::A).command("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-u",
            "-m",
        ]);
        command.args(["http.server", port, "--directory", "/usr/share"]);
        Process::start("user", &mut command, &lab.folder().join(format!("user-{port}.log"))).unwrap()
    };
    let mut server = user("8085");
    server.wait_for_output("Serving HTTP", exec::SHORT).unwrap();
    lab.internet
        .tool("curl", &["-sS", "--max-time", "5", "-o", "/dev/null", "http://198.51.100.1:8085/"])
        .unwrap();
    // A port below 1024 stays closed to them, and is not kept.
    let mut refused = user("85");
    assert_ne!(refused.wait(exec::SHORT).unwrap(), 0);
    assert!(refused.output().contains("Permission denied"), "{}", refused.output());
    drop(server);
    system.gateway_sees("port 85 free", Duration::from_secs(20), |state| state.holder(85).is_none()).unwrap();
    system.finish().unwrap();
}
