//! Servers on private hosts: a bind is a request to the gateway.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddrV4;

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::{INTERNET, PUBLIC};
use rsip_lab::lab::{Host, exec, gateway, probe, server};

const fn public(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(PUBLIC, port)
}

#[test]
fn apache_as_shipped_gets_port_80_and_sees_its_real_clients() {
    let system = System::up().unwrap();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    assert_eq!(gateway::state(&system.lab).unwrap().holder(80), Some(Host::A.address()));
    let page = server::page(&system.lab.internet, public(80)).unwrap();
    assert!(page.contains("Apache2 Debian Default Page"), "{page}");
    assert_eq!(apache.client_of_request(1).unwrap(), INTERNET.to_string());

    apache.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    assert_ne!(server::curl(&system.lab.internet, "http://198.51.100.1/").unwrap().code(), 0);
    system.finish().unwrap();
}

#[test]
fn a_second_host_gets_address_in_use_and_then_the_port_when_the_first_has_left() {
    let system = System::up().unwrap();
    let [a, b] = Host::ALL.map(|host| Apache::shipped(&system.lab, host).unwrap());
    a.start().unwrap();

    let refused = b.try_start().unwrap();
    assert_ne!(refused.code(), 0);
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains("(98)Address already in use"), "{said}");
    let elsewhere = Apache::on_port(&system.lab, Host::B, 8080).unwrap();
    elsewhere.start().unwrap();
    server::page(&system.lab.internet, public(8080)).unwrap();
    assert_eq!(elsewhere.client_of_request(1).unwrap(), INTERNET.to_string());
    elsewhere.stop().unwrap();

    a.stop().unwrap();
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    b.start().unwrap();
    system.gateway_sees_listening(Host::B, &[80]).unwrap();
    server::page(&system.lab.internet, public(80)).unwrap();
    assert_eq!(b.client_of_request(1).unwrap(), INTERNET.to_string());
    b.stop().unwrap();
    system.finish().unwrap();
}

#[test]
fn every_way_to_bind_a_port_of_all_addresses_is_seen() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let host = lab.host(Host::A);
    for (port, arguments) in [
        (5000, &["0.0.0.0:5000"][..]),
        (5001, &["[::]:5001"][..]),
        (5002, &["--udp", "0.0.0.0:5002"][..]),
        (5003, &["--udp", "[::]:5003"][..]),
        (5004, &["198.51.100.1:5004"][..]),
        (5005, &["--udp", "198.51.100.1:5005"][..]),
        (5006, &["[::ffff:198.51.100.1]:5006"][..]),
    ] {
        let udp: &[&str] = if arguments.contains(&"--udp") { &["--udp"] } else { &[] };
        let served = probe::serve(lab, host, arguments).unwrap();
        assert_eq!(gateway::state(lab).unwrap().holder(port), Some(Host::A.address()), "{arguments:?}");
        let answer = probe::ask(&lab.internet, public(port), udp).unwrap();
        assert_eq!(answer.peer.ip(), &INTERNET, "{arguments:?}: the client's own address");
        // B cannot have it, whichever way it asks.
        let (_, refused) = probe::bind(lab, lab.host(Host::B), arguments).unwrap();
        refused.expect("EADDRINUSE").unwrap();
        drop(served);
    }
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn private_and_loopback_binds_are_nobodys_business() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    for host in Host::ALL {
        for address in ["127.0.0.1:7000", "[::1]:7000", &format!("{}:7000", host.address())] {
            let (probe, bound) = probe::bind(lab, lab.host(host), &[address]).unwrap();
            bound.expect_ok().unwrap();
            assert_eq!(gateway::state(lab).unwrap().holder(7000), None, "{address}");
            drop(probe);
        }
    }
    // A server at its private address is reached as if there were no RSIP.
    let server = probe::serve(lab, lab.host(Host::A), &["10.77.0.2:7001"]).unwrap();
    let to = SocketAddrV4::new(Host::A.address(), 7001);
    let answer = probe::ask(lab.host(Host::B), to, &[]).unwrap();
    assert_eq!((answer.peer.ip(), answer.local), (&Host::B.address(), to.into()));
    drop(server);
    system.finish().unwrap();
}

#[test]
fn a_program_may_bind_and_close_and_bind_again_and_share_with_itself() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let host = lab.host(Host::A);
    for _ in 0..3 {
        let (probe, bound) = probe::bind(lab, host, &["0.0.0.0:5100"]).unwrap();
        bound.expect_ok().unwrap();
        drop(probe);
    }
    // TCP and UDP on one port, and two that share it: one lease.
    let tcp = probe::serve(lab, host, &["--reuse-port", "0.0.0.0:5100"]).unwrap();
    let udp = probe::serve(lab, host, &["--udp", "0.0.0.0:5100"]).unwrap();
    let again = probe::serve(lab, host, &["--reuse-port", "0.0.0.0:5100"]).unwrap();
    let state = system.gateway_sees_listening(Host::A, &[5100]).unwrap();
    assert_eq!(state.client(Host::A).unwrap().bindings.iter().filter(|binding| binding.listen).count(), 1);
    // The last one keeps it.
    drop((tcp, udp));
    std::thread::sleep(2 * rsip_lab::lab::agent::LINGER);
    assert_eq!(gateway::state(lab).unwrap().listening(Host::A), [5100]);
    probe::ask(&lab.internet, public(5100), &[]).unwrap();
    // A local conflict stays a local conflict: the port is leased, and taken.
    let (_, taken) = probe::bind(lab, host, &["0.0.0.0:5100"]).unwrap();
    taken.expect("EADDRINUSE").unwrap();
    drop(again);
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

#[test]
fn a_port_stays_leased_while_a_connection_of_it_may_still_get_packets() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    // The server ends the connection first, so TIME_WAIT is here.
    let server = probe::serve(lab, lab.host(Host::A), &["--close-first", "0.0.0.0:5150"]).unwrap();
    probe::ask(&lab.internet, public(5150), &["--to-end"]).unwrap();
    drop(server);
    std::thread::sleep(2 * rsip_lab::lab::agent::LINGER);
    assert_eq!(gateway::state(lab).unwrap().holder(5150), Some(Host::A.address()));
    let (_, refused) = probe::bind(lab, lab.host(Host::B), &["0.0.0.0:5150"]).unwrap();
    refused.expect("EADDRINUSE").unwrap();
    system.finish().unwrap();
}

#[test]
fn a_reserved_port_and_one_outside_the_range_are_refused() {
    // A port that the gateway's administrator reserved; one beyond LISTEN_RANGE; and the gateway's own ssh, by default,
    // where the host's administrator wants to lease that too.
    let gateway = "RESERVED_PORTS = [22, 5000]\n".to_owned();
    let system =
        System::up_with(Options { gateway, agent: vec!["--no-default-ignores".to_owned()] }).unwrap();
    let lab = &system.lab;
    for port in [22, 5000, 40_000] {
        let (_, bound) = probe::bind(lab, lab.host(Host::A), &[&format!("0.0.0.0:{port}")]).unwrap();
        bound.expect("EADDRINUSE").unwrap();
    }
    system.finish().unwrap();
}

#[test]
fn the_ssh_of_every_host_stays_its_own() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let mut servers = Vec::new();
    for host in [Host::A, Host::B] {
        let (server, bound) = probe::bind(lab, lab.host(host), &["0.0.0.0:22"]).unwrap();
        bound.expect_ok().unwrap();
        servers.push(server);
    }
    assert_eq!(gateway::state(lab).unwrap().holder(22), None);
    assert!(system.status(Host::A).unwrap().contains("I22-22"));
    drop(servers);
    system.finish().unwrap();
}

#[test]
fn other_servers_work_as_well() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    // Most of them end connections first, so their ports stay leased for a while: each has its own.
    let held = |port: u16, server: &mut Process| {
        let holds = |state: &gateway::State| state.holder(port) == Some(Host::A.address());
        system.gateway_sees(&format!("port {port}"), NOTICE, holds).unwrap();
        server.expect_running().unwrap();
    };

    let mut nginx = server::nginx(lab, Host::A).unwrap();
    held(80, &mut nginx);
    let head =
        lab.internet.tool("curl", &["-sS", "--head", "--max-time", "5", "http://198.51.100.1/"]).unwrap();
    assert!(head.contains("Server: nginx"), "{head}");

    let mut python = server::python(lab, Host::A, 8000).unwrap();
    held(8000, &mut python);
    assert_eq!(server::page(&lab.internet, public(8000)).unwrap(), "This is host-a\n");
    python.wait_for_output(&INTERNET.to_string(), exec::SHORT).unwrap();

    let mut sshd = server::sshd(lab, Host::A, 2222).unwrap();
    held(2222, &mut sshd);
    let keys = lab.internet.tool("ssh-keyscan", &["-T", "5", "-p", "2222", "198.51.100.1"]).unwrap();
    assert!(keys.contains("ssh-ed25519"), "{keys}");

    let mut socat = server::socat(lab, Host::A, 9000).unwrap();
    held(9000, &mut socat);
    let said = lab.internet.tool("socat", &["-T3", "-u", "TCP:198.51.100.1:9000", "-"]).unwrap();
    assert_eq!(said, "This is host-a\n");

    let mut netcat = server::netcat(lab, Host::A, 9001).unwrap();
    held(9001, &mut netcat);
    let mut talk = lab.internet.command("sh");
    talk.args(["-c", "echo good day | nc -n -N -w 3 198.51.100.1 9001"]);
    exec::run(&mut talk, exec::SHORT).unwrap().success().unwrap();
    netcat.wait_for_output("good day", exec::SHORT).unwrap();
    assert!(netcat.output().contains(&INTERNET.to_string()), "{}", netcat.output());
    drop((nginx, python, sshd, socat, netcat));
    system.finish().unwrap();
}

#[test]
fn a_server_with_a_leased_port_is_still_reached_directly_by_its_neighbours() {
    let system = System::up().unwrap();
    let lab = &system.lab;
    let tcp = probe::serve(lab, lab.host(Host::A), &["0.0.0.0:5200"]).unwrap();
    let udp = probe::serve(lab, lab.host(Host::A), &["--udp", "0.0.0.0:5200"]).unwrap();
    for arguments in [&[][..], &["--udp"][..]] {
        let to = SocketAddrV4::new(Host::A.address(), 5200);
        let answer = probe::ask(lab.host(Host::B), to, arguments).unwrap();
        assert_eq!(answer.peer.ip(), &Host::B.address(), "{arguments:?}");
    }
    drop((tcp, udp));
    system.finish().unwrap();
}
