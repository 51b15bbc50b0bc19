//! RSA-IP: a whole public address for one host, with real programs on both sides of the gateway.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::bpf::packet::{Ip, MF, UDP, icmp_error, udp};
use rsip_lab::lab::manual::ManualHost;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, GATEWAY, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, Lab, exec, gateway, probe};
use rsip_proto::lease::Remote;
use rsip_proto::wire::{ErrorCode, RsipMethod};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The address that is leased whole. It stands at the external interface, as one does that a provider gave in addition.
const WHOLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Left to experiments (RFC 3692): no kernel knows it.
const EXPERIMENT: u8 = 253;

fn system() -> System {
    let lab = Lab::new().unwrap();
    lab.gateway.ip(&["address", "add", &format!("{WHOLE}/32"), "dev", EXTERNAL_IF]).unwrap();
    let options = Options { gateway: format!("RSA_POOL = [\"{WHOLE}\"]"), ..Options::default() };
    let mut system = System::in_lab(lab, options).unwrap();
    system.start_gateway().unwrap();
    system
}

/// A host that leases the address and uses it.
fn holder(system: &System, host: Host) -> ManualHost {
    let mut manual = ManualHost::new(&system.lab, host).unwrap();
    assert!(manual.register().unwrap().contains(&RsipMethod::RsaIp));
    let lease = manual.assign_address(Remote::Any, None).unwrap();
    assert_eq!(lease.address, WHOLE);
    manual.attach(WHOLE).unwrap();
    manual
}

fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(WHOLE, port)
}

/// The hops between the internet host and who answers its ping: the gateway is the next neighbour, hosts are behind it.
fn hops_to(inside: &Inside, address: Ipv4Addr) -> u8 {
    let output = inside.tool("ping", &["-n", "-c", "1", "-W", "2", &address.to_string()]).unwrap();
    let ttl: u8 = output.split("ttl=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    64 - ttl
}

/// A raw socket of a protocol without ports, in a namespace.
fn raw_socket(inside: &Inside, address: Ipv4Addr) -> Socket {
    inside
        .enter(|| {
            let socket =
                Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(EXPERIMENT)))).unwrap();
            socket.bind(&SocketAddrV4::new(address, 0).into()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        })
        .unwrap()
}

/// The sender and the payload of the next packet.
fn receive(socket: &Socket) -> (Ipv4Addr, Vec<u8>) {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 256];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    // SAFETY: the kernel has written so many octets.
    let bytes: Vec<u8> = buffer[..length].iter().map(|octet| unsafe { octet.assume_init() }).collect();
    (*from.as_socket_ipv4().unwrap().ip(), bytes[20..].to_vec())
}

#[test]
fn programs_of_the_host_have_the_address_for_themselves() {
    let system = system();
    let lab = &system.lab;
    assert_eq!(hops_to(&lab.internet, WHOLE), 0, "nobody has leased it: the gateway answers");
    let host = holder(&system, Host::A);
    let inside = lab.host(Host::A);

    assert_eq!(hops_to(&lab.internet, WHOLE), 1, "the host answers pings");
    inside
        .tool("ping", &["-n", "-c", "2", "-i", "0.2", "-W", "2", "-I", &WHOLE.to_string(), "198.51.100.2"])
        .unwrap();

    // Any port, also those that the gateway itself uses or reserves.
    for port in [1, 22, 80, 4555, 40_000, 65_535] {
        let tcp = probe::serve(lab, inside, &[&at(port).to_string()]).unwrap();
        let datagrams = probe::serve(lab, inside, &["--udp", &at(port).to_string()]).unwrap();
        assert_eq!(probe::ask(&lab.internet, at(port), &[]).unwrap().peer.ip(), &INTERNET, "TCP {port}");
        assert_eq!(
            probe::ask(&lab.internet, at(port), &["--udp"]).unwrap().peer.ip(),
            &INTERNET,
            "UDP {port}"
        );
        drop((tcp, datagrams));
    }
    // No port is leased for it, and every port is free to be sent from.
    let server = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    for port in [0, 30, 61_000] {
        let from = at(port).to_string();
        let answer = probe::ask(inside, SocketAddrV4::new(INTERNET, 9000), &["--from", &from]).unwrap();
        assert_eq!(answer.peer.ip(), &WHOLE);
        assert!(port == 0 || answer.peer.port() == port, "{answer:?}");
    }
    drop(server);
    let refused = probe::ask(&lab.internet, at(7777), &[]).unwrap_err();
    assert!(refused.to_string().contains("Connection refused"), "the host's kernel answers: {refused}");

    // A protocol without ports, begun by either side.
    let (outside, own) = (raw_socket(&lab.internet, INTERNET), raw_socket(inside, WHOLE));
    own.send_to(b"from inside", &SockAddr::from(SocketAddrV4::new(INTERNET, 0))).unwrap();
    assert_eq!(receive(&outside), (WHOLE, b"from inside".to_vec()));
    outside.send_to(b"from outside", &SockAddr::from(at(0))).unwrap();
    assert_eq!(receive(&own), (INTERNET, b"from outside".to_vec()));

    drop(host);
    system.finish().unwrap();
}

#[test]
fn the_gateways_own_address_stays_its_own() {
    let mut system = system();
    system.has_strangers();
    let lab = &system.lab;
    let host = holder(&system, Host::A);
    let server = probe::serve(lab, &lab.gateway, &["0.0.0.0:7777"]).unwrap();
    assert_eq!(probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 7777), &[]).unwrap().peer.ip(), &INTERNET);
    assert_eq!(hops_to(&lab.internet, PUBLIC), 0);
    lab.gateway.tool("ping", &["-n", "-c", "1", "-W", "2", "198.51.100.2"]).unwrap();
    // The service answers as before, and nobody outside sees it at the leased address either.
    let mut nc = lab.internet.command("nc");
    nc.args(["-z", "-w", "1", &WHOLE.to_string(), "4555"]);
    assert_ne!(exec::run(&mut nc, exec::SHORT).unwrap().code(), 0);
    probe::run(lab.host(Host::B), &["garbage", &format!("{GATEWAY}:4555"), "--count", "1"]).unwrap();
    drop((server, host));
    system.finish().unwrap();
}

#[test]
fn fragments_arrive_in_any_order() {
    let system = system();
    let lab = &system.lab;
    let host = holder(&system, Host::A);
    let server = probe::serve(lab, lab.host(Host::A), &["--udp", &at(5000).to_string()]).unwrap();
    for size in [1452, 1453, 4000, 20_000] {
        let arguments = ["--udp", "--size", &size.to_string()];
        // What the internet host sends fits into the tunnel: its own fragments are smaller.
        lab.internet.ip(&["link", "set", "eth0", "mtu", "1480"]).unwrap();
        assert_eq!(probe::ask(&lab.internet, at(5000), &arguments).unwrap().peer.ip(), &INTERNET, "{size}");
        lab.internet.ip(&["link", "set", "eth0", "mtu", "1500"]).unwrap();
    }
    // The last one first: the gateway needs no port to know whose it is.
    let listener = lab.internet.enter(|| std::net::UdpSocket::bind((INTERNET, 6000)).unwrap()).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let whole = udp(6000, 5000, &[b'?'; 64]);
    let (first, last) = whole.split_at(40);
    let fragment = |bits, payload: &[u8]| Ip::new(INTERNET, WHOLE, UDP, payload.to_vec()).fragment(bits);
    let packets = [fragment(5, last), fragment(MF, first)];
    lab.internet
        .enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
            for packet in &packets {
                socket.send_to(&packet.bytes(), &SockAddr::from(at(0))).unwrap();
            }
        })
        .unwrap();
    let mut buffer = [0; 256];
    let (length, from) = listener.recv_from(&mut buffer).unwrap();
    assert_eq!(from, at(5000).into());
    assert!(buffer[..length].starts_with(b"198.51.100.2:6000 "), "the server got the question");
    drop((server, host));
    system.finish().unwrap();
}

#[test]
fn hosts_reach_the_address_of_another_through_the_gateway() {
    let system = system();
    let lab = &system.lab;
    let a = holder(&system, Host::A);
    let mut b = ManualHost::new(lab, Host::B).unwrap();
    b.register().unwrap();
    let block = b.assign_ports(4, Remote::Any, None).unwrap();
    assert_eq!(block.address, PUBLIC);
    b.attach(PUBLIC).unwrap();
    let from = |port| SocketAddrV4::new(PUBLIC, port).to_string();
    let [one, two, ..] = block.ports[..] else { unreachable!("{block:?}") };

    let server = probe::serve(lab, lab.host(Host::A), &[&at(80).to_string()]).unwrap();
    let answer = probe::ask(lab.host(Host::B), at(80), &["--from", &from(one)]).unwrap();
    assert_eq!(answer.peer, SocketAddrV4::new(PUBLIC, one), "seen with its public address");
    let back = probe::serve(lab, lab.host(Host::B), &["--udp", &from(two)]).unwrap();
    let answer = probe::ask(
        lab.host(Host::A),
        SocketAddrV4::new(PUBLIC, two),
        &["--udp", "--from", &at(0).to_string()],
    );
    assert_eq!(answer.unwrap().peer.ip(), &WHOLE);
    lab.host(Host::B)
        .tool("ping", &["-n", "-c", "1", "-W", "2", "-I", &PUBLIC.to_string(), &WHOLE.to_string()])
        .unwrap();
    drop((server, back, a, b));
    system.finish().unwrap();
}

#[test]
fn another_host_gets_nothing_of_it_and_is_told() {
    let system = system();
    let lab = &system.lab;
    let a = holder(&system, Host::A);
    let mut b = ManualHost::new(lab, Host::B).unwrap();
    b.register().unwrap();
    assert!(b.assign_address(Remote::Any, None).is_err(), "one address, one holder");
    assert_eq!(b.errors(Duration::from_millis(100)).unwrap(), []);

    let listener = lab.internet.enter(|| std::net::UdpSocket::bind((INTERNET, 6000)).unwrap()).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let stolen = Ip::new(WHOLE, INTERNET, UDP, udp(5000, 6000, b"stolen"));
    let stolen_error =
        Ip::new(WHOLE, INTERNET, 1, icmp_error(3, 3, &Ip::new(INTERNET, WHOLE, UDP, udp(6000, 5000, b""))));
    b.send(&stolen).unwrap();
    b.send(&stolen_error).unwrap();
    assert_eq!(b.errors(Duration::from_secs(1)).unwrap(), [ErrorCode::LocalAddrUnallowed]);
    assert!(listener.recv(&mut [0; 64]).is_err(), "dropped");
    assert_eq!(gateway::state(lab).unwrap().counters.datapath("bad_source"), 2);
    a.send(&stolen).unwrap();
    assert_eq!(listener.recv(&mut [0; 64]).unwrap(), 6, "the holder may");
    drop((a, b));
    system.finish().unwrap();
}

#[test]
fn an_address_that_is_given_back_or_runs_out_is_the_gateways_again() {
    let system = system();
    let lab = &system.lab;
    let mut host = ManualHost::new(lab, Host::A).unwrap();
    host.register().unwrap();
    let lease = host.assign_address(Remote::Any, None).unwrap();
    host.attach(WHOLE).unwrap();
    assert_eq!(hops_to(&lab.internet, WHOLE), 1);
    host.free(&lease).unwrap();
    assert_eq!(hops_to(&lab.internet, WHOLE), 0, "given back");

    host.assign_address(Remote::Any, Some(2)).unwrap();
    assert_eq!(hops_to(&lab.internet, WHOLE), 1, "leased again");
    let outcome = wait::until("the lease to run out", Duration::from_secs(10), || {
        Ok(match hops_to(&lab.internet, WHOLE) {
            0 => Look::Ready(()),
            hops => Look::NotYet(format!("{hops} hops")),
        })
    });
    outcome.unwrap();
    host.send(&Ip::new(WHOLE, INTERNET, UDP, udp(5000, 6000, b"late"))).unwrap();
    wait::until("the late datagram to be dropped", Duration::from_secs(5), || {
        Ok(match gateway::state(lab)?.counters.datapath("bad_source") {
            0 => Look::NotYet("nothing was dropped".into()),
            _ => Look::Ready(()),
        })
    })
    .unwrap();
    drop(host);
    system.finish().unwrap();
}
