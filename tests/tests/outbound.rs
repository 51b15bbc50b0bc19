//! Clients on private hosts: what they send leaves with the public address and a port of the lease.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::system::{NOTICE, System};
use rsip_lab::lab::topology::{GATEWAY, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, gateway, probe, server};

const SERVER: SocketAddrV4 = SocketAddrV4::new(INTERNET, 9000);

#[test]
fn curl_fetches_with_the_public_address_and_a_port_of_the_block() {
    let system = System::up().unwrap();
    let web = Apache::on_the_internet(&system.lab).unwrap();
    web.start().unwrap();
    let blocks = gateway::state(&system.lab).unwrap();
    for (host, request) in Host::ALL.into_iter().zip(1..) {
        let page = server::page(system.lab.host(host), SocketAddrV4::new(INTERNET, 80)).unwrap();
        assert!(page.contains("Apache2 Debian Default Page"));
        let client: SocketAddrV4 = web.client_of_request(request).unwrap().parse().unwrap();
        assert_eq!(client.ip(), &PUBLIC);
        let block = blocks.block(host);
        assert!(block.contains(&client.port()), "{client} is not of {block:?}");
    }
    assert!(blocks.block(Host::A).iter().all(|port| !blocks.block(Host::B).contains(port)), "blocks overlap");
    web.stop().unwrap();
    system.finish().unwrap();
}

#[test]
fn every_way_to_get_a_source_port_stays_within_the_lease() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let tcp = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    let udp = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    let block: BTreeSet<u16> = gateway::state(lab).unwrap().block(Host::A).into_iter().collect();
    assert_eq!(block.len(), 255);
    for arguments in [
        &[][..],
        &["--from", "0.0.0.0:0"],
        &["--from", "198.51.100.1:0"],
        &["--udp"],
        &["--udp", "--connected"],
        &["--udp", "--from", "0.0.0.0:0"],
        &["--udp", "--from", "198.51.100.1:0"],
    ] {
        for answer in probe::ask_often(lab.host(Host::A), SERVER, 20, arguments).unwrap() {
            assert_eq!(answer.peer.ip(), &PUBLIC, "{arguments:?}");
            assert!(block.contains(&answer.peer.port()), "{arguments:?}: {}", answer.peer);
        }
    }
    // A port by number is asked for.
    let answer = probe::ask(lab.host(Host::A), SERVER, &["--from", "0.0.0.0:6000"]).unwrap();
    assert_eq!(answer.peer, SocketAddrV4::new(PUBLIC, 6000));
    drop((tcp, udp));
    system.finish().unwrap();
}

#[test]
fn a_bind_to_port_0_gets_a_port_of_the_block_and_is_reachable_there() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let block = gateway::state(lab).unwrap().block(Host::A);
    for arguments in [&["0.0.0.0:0"][..], &["[::]:0"], &["--udp", "0.0.0.0:0"]] {
        let mut server = probe::serve(lab, lab.host(Host::A), arguments).unwrap();
        let port = server.bound(NOTICE).unwrap().port;
        assert!(block.contains(&port), "{arguments:?}: {port}");
        let udp: &[&str] = if arguments.contains(&"--udp") { &["--udp"] } else { &[] };
        let answer = probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, port), udp).unwrap();
        assert_eq!(answer.peer.ip(), &INTERNET);
    }
    assert_eq!(gateway::state(lab).unwrap().listening(Host::A), [0_u16; 0]);
    system.finish().unwrap();
}

#[test]
fn private_traffic_keeps_its_way_and_its_addresses() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let near = probe::serve(lab, lab.host(Host::B), &["10.77.0.3:7100"]).unwrap();
    let answer = probe::ask(lab.host(Host::A), SocketAddrV4::new(Host::B.address(), 7100), &[]).unwrap();
    assert_eq!(answer.peer.ip(), &Host::A.address());
    lab.host(Host::A).tool("ping", &["-c", "1", "-W", "2", &GATEWAY.to_string()]).unwrap();
    drop(near);
    system.finish().unwrap();
}

#[test]
fn a_host_that_sends_with_a_port_it_does_not_hold_is_dropped_and_counted() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let mut listener = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    let before = gateway::state(lab).unwrap();
    let own = before.block(Host::A)[0].to_string();
    let others = before.block(Host::B)[0].to_string();
    let destination = SERVER.to_string();
    let send = |source: &str| {
        let arguments = ["tunnel", &GATEWAY.to_string(), source, &destination, "--count", "5"];
        probe::run(lab.host(Host::A), &arguments).unwrap();
    };
    let capture =
        rsip_lab::lab::capture::Recording::start(lab, &lab.internet, rsip_lab::lab::topology::HOST_IF)
            .unwrap();
    // Its own port passes: what is dropped below is dropped for its source alone.
    send(&format!("{PUBLIC}:{own}"));
    // Nobody's port, another host's port, its private address, a stranger's address.
    for source in [
        format!("{PUBLIC}:7777"),
        format!("{PUBLIC}:{others}"),
        "10.77.0.2:7777".into(),
        "203.0.113.9:80".into(),
    ] {
        send(&source);
    }
    let after = system
        .gateway_sees("20 dropped packets", NOTICE, |state| {
            state.counters.datapath("bad_source") >= before.counters.datapath("bad_source") + 20
        })
        .unwrap();
    assert_eq!(after.counters.datapath("bad_source"), before.counters.datapath("bad_source") + 20);
    let seen = capture.stop().unwrap().fields("udp.dstport == 9000", &["ip.src", "udp.srcport"]).unwrap();
    assert_eq!(seen, vec![vec![PUBLIC.to_string(), own]; 5]);
    listener.process.expect_running().unwrap();
    drop(listener);
    system.finish().unwrap();
}
