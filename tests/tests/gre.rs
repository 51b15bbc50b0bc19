//! GRE at both ends, beside IP-IP at the same gateway: what programs do with it.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::agent::{self, Agent, TUNNEL};
use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{INTERNET, PUBLIC};
use rsip_lab::lab::{Host, exec, probe, server};

fn with_tunnels(tunnels: &str) -> System {
    let gateway = format!("TUNNEL = {tunnels}");
    let mut system = System::new(Options { gateway, ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system
}

fn words(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|word| (*word).to_owned()).collect()
}

fn fetches(from: &Inside, url: &str, folder: &std::path::Path, expected: &[u8]) {
    let got = folder.join("got");
    let mut curl = from.command("curl");
    curl.args(["-sS", "--max-time", "60", url, "-o"]).arg(&got);
    exec::run(&mut curl, Duration::from_secs(90)).unwrap().success().unwrap();
    assert!(fs::read(&got).unwrap() == expected, "{url} arrives changed");
}

#[test]
fn hosts_with_different_tunnels_share_a_gateway() {
    let system = with_tunnels("[\"IP-IP\", \"GRE\"]");
    let lab = &system.lab;
    let mut a = Agent::start(lab, Host::A, &words(&["--tunnel", "gre"])).unwrap();
    let mut b = Agent::start(lab, Host::B, &[]).unwrap();
    let recording = Recording::start(lab, &lab.gateway, "int0").unwrap();

    // Both as everybody sees them.
    let dump = system.dump().unwrap();
    let row = |host: Host| {
        let address = format!("{} ", host.address());
        dump.lines().find(|line| line.starts_with(&address)).unwrap_or_else(|| panic!("{dump}")).to_owned()
    };
    assert!(row(Host::A).contains(" GRE ") && row(Host::B).contains(" IP-IP "), "{dump}");
    for (host, mtu, kind) in [(Host::A, "1476", "GRE"), (Host::B, "1480", "IP-IP")] {
        let link = lab.host(host).ip(&["link", "show", TUNNEL]).unwrap();
        assert!(link.contains(&format!("mtu {mtu} ")), "{link}");
        let status = system.status(host).unwrap();
        assert!(status.contains(&format!("rsip mtu {mtu} ")) && status.contains(kind), "{status}");
    }

    // Apache on A, curl on both.
    let web = Apache::shipped(lab, Host::A).unwrap();
    web.start().unwrap();
    let own = Apache::on_the_internet(lab).unwrap();
    own.start().unwrap();
    for (from, to) in
        [(&lab.internet as &Inside, PUBLIC), (lab.host(Host::B), INTERNET), (lab.host(Host::A), INTERNET)]
    {
        let page = server::page(from, SocketAddrV4::new(to, 80)).unwrap();
        assert!(page.contains("Apache2 Debian Default Page"), "{} to {to}", from.name());
    }
    web.stop().unwrap();
    own.stop().unwrap();

    // Much of it, both ways, and through both tunnels.
    let folder = lab.subfolder("files").unwrap();
    let data: Vec<u8> = (0..4_u32 << 20).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.join("data"), &data).unwrap();
    let serve = |inside: &Inside, port: u16| {
        let mut command = inside.command("/usr/bin/python3");
        command.args(["-u", "-m", "http.server", &port.to_string(), "--directory"]).arg(&folder);
        let log = lab.folder().join(format!("files-{port}.log"));
        let mut server = Process::start("files", &mut command, &log).unwrap();
        server.wait_for_output("Serving HTTP", exec::SHORT).unwrap();
        server
    };
    let servers =
        [serve(lab.host(Host::A), 8001), serve(&lab.internet, 8002), serve(lab.host(Host::B), 8003)];
    fetches(&lab.internet, "http://198.51.100.1:8001/data", &folder, &data);
    fetches(lab.host(Host::A), "http://198.51.100.2:8002/data", &folder, &data);
    fetches(&lab.internet, "http://198.51.100.1:8003/data", &folder, &data);
    drop(servers);

    let sink = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    for size in [1, 1448, 1449, 1472, 9000] {
        let arguments = ["--udp", "--size", &size.to_string()];
        let answer = probe::ask(lab.host(Host::A), SocketAddrV4::new(INTERNET, 9000), &arguments).unwrap();
        assert_eq!(answer.peer.ip(), &PUBLIC, "{size} octets");
    }
    lab.host(Host::A).tool("ping", &["-n", "-c", "2", "-i", "0.2", "-W", "2", "198.51.100.2"]).unwrap();
    drop(sink);

    // On the wire, to other eyes: plain GRE, nothing optional, and nothing wrong.
    let capture = recording.stop().unwrap();
    let gre = capture.fields("gre", &["gre.flags_and_version", "gre.proto", "ip.checksum.status"]).unwrap();
    assert!(gre.len() > 100, "{} packets of GRE", gre.len());
    assert!(
        gre.iter().all(|row| row[0] == "0x0000" && row[1] == "0x0800" && !row[2].contains('0')),
        "{:?}",
        gre[0]
    );
    let wrong = capture.fields("gre and ip.addr == 10.77.0.3", &["ip.src"]).unwrap();
    assert_eq!(wrong.len(), 0, "GRE with B");

    for agent in [&mut a, &mut b] {
        assert_eq!(agent.process.stop().unwrap(), 0);
    }
    system.finish().unwrap();
}

#[test]
fn the_gateways_favourite_is_taken_and_what_it_has_not_is_said() {
    let mut system = with_tunnels("\"GRE\"");
    system.start_agent(Host::A).unwrap();
    let status = system.status(Host::A).unwrap();
    assert!(status.contains("mtu 1476") && status.contains("GRE"), "{status}");
    let mut refused = Agent::launch(&system.lab, Host::B, &words(&["--tunnel", "ip-ip"])).unwrap();
    assert_eq!(refused.process.wait(Duration::from_secs(20)).unwrap(), 4);
    let said = refused.process.output();
    assert!(said.contains("tunnel type") && said.contains("--tunnel"), "{said}");
    let sink = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    probe::ask(system.lab.host(Host::A), SocketAddrV4::new(INTERNET, 9000), &[]).unwrap();
    // Who comes back with another type has another registration.
    system.agent(Host::A).unwrap().process.kill().unwrap();
    agent::client(&system.lab, Host::A, &["down"]).unwrap().success().unwrap();
    drop(sink);
    system.finish().unwrap();
}
