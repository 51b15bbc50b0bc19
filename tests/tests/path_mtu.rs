//! Nothing vanishes because it is too big: the daemons find out what fits on the way between them, and say so.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::agent::TUNNEL;
use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::netns::{Inside, Netns};
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{INTERNET, Lab, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, agent, exec, gateway, probe};

const SERVER: SocketAddrV4 = SocketAddrV4::new(INTERNET, 9000);

fn ip(inside: &Inside, command: &str) {
    inside.ip(&command.split(' ').collect::<Vec<_>>()).unwrap();
}

/// Moves host A behind two routers, of which host B is one; between them packets of 1400 octets fit.
///
/// ```text
/// host-a            router           host-b           lan, gateway
///   deep --1500-- near   far --1400-- deep  eth0 --1500--
/// 10.79.0.2   10.79.0.1 10.78.0.2  10.78.0.1 10.77.0.3
/// ```
fn behind_routers(lab: &Lab) -> Netns {
    let router = Netns::new(&format!("{}-deep", lab.host(Host::A).name())).unwrap();
    let (a, b) = (lab.host(Host::A), lab.host(Host::B));
    ip(a, &format!("link add deep type veth peer name near netns {}", router.name()));
    ip(b, &format!("link add deep type veth peer name far netns {}", router.name()));
    ip(b, "link set deep mtu 1400");
    ip(&router, "link set far mtu 1400");
    for (inside, device, address) in [
        (a, "deep", "10.79.0.2/24"),
        (&router as &Inside, "near", "10.79.0.1/24"),
        (&router, "far", "10.78.0.2/24"),
        (b, "deep", "10.78.0.1/24"),
    ] {
        ip(inside, &format!("address add {address} dev {device}"));
        ip(inside, &format!("link set {device} up"));
    }
    for inside in [&router as &Inside, b] {
        inside.sysctl("net/ipv4/ip_forward", "1").unwrap();
    }
    ip(a, "link set eth0 down");
    ip(a, "route add default via 10.79.0.1");
    ip(&router, "route add default via 10.78.0.1");
    ip(b, "route add 10.79.0.0/24 via 10.78.0.2");
    ip(&lab.gateway, "route add 10.78.0.0/15 via 10.77.0.3");
    router
}

fn mtu(lab: &Lab) -> String {
    let link = lab.host(Host::A).ip(&["link", "show", TUNNEL]).unwrap();
    link.split_once("mtu ").unwrap().1.split(' ').next().unwrap().to_owned()
}

fn serve_folder(system: &System, inside: &Inside, folder: &std::path::Path, port: u16) -> Process {
    let mut command = inside.command("/usr/bin/python3");
    command.args(["-u", "-m", "http.server", &port.to_string(), "--directory"]).arg(folder);
    let log = system.lab.folder().join(format!("files-{port}.log"));
    let mut server = Process::start("files", &mut command, &log).unwrap();
    server.wait_for_output("Serving HTTP", exec::SHORT).unwrap();
    server
}

/// Asks until there is an answer: the first datagram may be the one by which somebody learns what fits.
fn answers(inside: &Inside, server: SocketAddrV4, size: usize) {
    wait::until(&format!("an answer to {size} octets"), NOTICE, || {
        Ok(match probe::ask(inside, server, &["--udp", "--size", &size.to_string()]) {
            Ok(_) => Look::Ready(()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
    .unwrap();
}

#[test]
fn a_narrow_private_network_makes_the_tunnel_narrow() {
    let lab = Lab::new().unwrap();
    let router = behind_routers(&lab);
    let mut system = System::in_lab(
        lab,
        Options { agent: vec!["--listen".into(), "8001,5300".into()], ..Options::default() },
    )
    .unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let lab = &system.lab;
    assert_eq!(mtu(lab), "1480");

    let folder = lab.subfolder("files").unwrap();
    let data: Vec<u8> = (0..2_u32 << 20).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.join("data"), &data).unwrap();
    let inside = serve_folder(&system, lab.host(Host::A), &folder, 8001);
    let outside = serve_folder(&system, &lab.internet, &folder, 8002);
    for (from, url) in [
        (&lab.internet as &Inside, "http://198.51.100.1:8001/data"),
        (lab.host(Host::A), "http://198.51.100.2:8002/data"),
    ] {
        let got = folder.join("got");
        let mut curl = from.command("curl");
        curl.args(["-sS", "--max-time", "60", url, "-o"]).arg(&got);
        exec::run(&mut curl, Duration::from_secs(90)).unwrap().success().unwrap();
        assert!(fs::read(&got).unwrap() == data, "{url} arrives changed");
    }
    assert_eq!(mtu(lab), "1380", "what the router takes, without the outer header");
    let said = system.status(Host::A).unwrap();
    assert!(said.contains("rsip mtu 1380 "), "{said}");

    let server = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    let own = probe::serve(lab, lab.host(Host::A), &["--udp", "0.0.0.0:5300"]).unwrap();
    for size in [1, 1352, 1353, 1452, 1453, 1472, 1473, 4000, 20_000] {
        answers(lab.host(Host::A), SERVER, size);
        answers(&lab.internet, SocketAddrV4::new(PUBLIC, 5300), size);
    }
    let dropped = gateway::state(lab).unwrap().counters.datapath("failed");
    assert_eq!(dropped, 0);
    drop((inside, outside, server, own));
    system.finish().unwrap();
    drop(router);
}

#[test]
fn the_gateway_says_what_fits_in_words_that_others_understand() {
    let mut system =
        System::new(Options { agent: vec!["--listen".into(), "5300".into()], ..Options::default() }).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    system.gateway_sees_listening(Host::A, &[5300]).unwrap();
    let lab = &system.lab;
    let own = probe::serve(lab, lab.host(Host::A), &["--udp", "0.0.0.0:5300"]).unwrap();
    let recording = Recording::start(lab, &lab.internet, "eth0").unwrap();
    answers(&lab.internet, SocketAddrV4::new(PUBLIC, 5300), 1472);
    let heard = recording.stop().unwrap();
    let fields = ["icmp.mtu", "icmp.checksum.status", "ip.checksum.status", "udp.dstport"];
    let words = heard.fields("icmp.type == 3 and icmp.code == 4", &fields).unwrap();
    let first = words.first().unwrap_or_else(|| panic!("the peer was told nothing"));
    // 1: good. Of the two IPv4 headers, the message's own and the quoted one.
    assert_eq!(first[..2], ["1480", "1"], "{words:?}");
    assert!(first[2].starts_with('1') && first[3] == "5300", "{words:?}");
    drop(own);
    assert_ne!(gateway::state(lab).unwrap().counters.datapath("too_big_told"), 0);
    let text = agent::client(lab, Host::A, &["status"]).unwrap().success().unwrap();
    assert!(text.contains("mtu 1480"), "{text}");
    system.finish().unwrap();
}
