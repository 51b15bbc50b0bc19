//! Who is heard by the RSIP service, and from where its answers come: real interfaces, real kernels' rules.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{GATEWAY, INTERNAL_IF, PUBLIC};
use rsip_lab::lab::{Host, gateway};
use serde_json::Value;

/// REGISTER_REQUEST with counter 1.
const REGISTER: [u8; 11] = [1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1];
/// The type of REGISTER_RESPONSE.
const REGISTERED: u8 = 3;
/// An answer takes a millisecond here.
const PATIENCE: Duration = Duration::from_millis(700);
const LIMIT: Duration = Duration::from_secs(10);

const fn service(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, 4555)
}

/// What comes back to a registration by datagram, and from where.
fn by_udp(inside: &Inside, from: Ipv4Addr, to: Ipv4Addr) -> Option<(Vec<u8>, SocketAddr)> {
    let ask = || {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // What cannot be sent is not answered either.
        socket.send_to(&REGISTER, service(to)).ok()?;
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        Some((buffer[..length].to_vec(), from))
    };
    inside.enter(ask).unwrap()
}

/// What comes back to a registration over a connection; nothing where there is none.
fn by_tcp(inside: &Inside, from: Ipv4Addr, to: Ipv4Addr) -> Option<Vec<u8>> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, send, socket};
    use std::os::fd::AsRawFd as _;
    let ask = || {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        connect(stream.as_raw_fd(), &SockaddrIn::from(service(to))).ok()?;
        send(stream.as_raw_fd(), &REGISTER, nix::sys::socket::MsgFlags::MSG_NOSIGNAL).ok()?;
        let mut buffer = [0; 2048];
        let length = stream.read(&mut buffer).ok()?;
        (length > 0).then(|| buffer[..length].to_vec())
    };
    inside.enter(ask).unwrap()
}

/// Messages that the gateway has heard.
fn heard(system: &System) -> u64 {
    let text = gateway::ctl(&system.lab, &["dump", "--json"]).unwrap().success().unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    state["counters"]["events"]["received"].as_u64().unwrap()
}

fn gateway_only() -> System {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    system
}

/// That the service answers those whom it is for, and so would have answered others.
fn expect_served(system: &System) {
    let before = heard(system);
    let (answer, from) = by_udp(system.lab.host(Host::A), Host::A.address(), GATEWAY).unwrap();
    assert_eq!((answer[1], from), (REGISTERED, service(GATEWAY).into()), "{answer:?}");
    let answer = by_tcp(system.lab.host(Host::B), Host::B.address(), GATEWAY).unwrap();
    assert_eq!(answer[1], REGISTERED, "{answer:?}");
    assert_eq!(heard(system), before + 2);
}

#[test]
fn what_comes_in_at_the_external_interface_is_not_answered() {
    let system = gateway_only();
    let internet = &system.lab.internet;
    let own = rsip_lab::lab::topology::INTERNET;
    // It knows the way to the private network, and its packets come in at the external interface.
    internet.ip(&["route", "add", "10.77.0.0/24", "via", &PUBLIC.to_string()]).unwrap();
    // And it may pretend to be a private host.
    let pretended = Ipv4Addr::new(10, 77, 0, 99);
    internet.ip(&["addr", "add", &format!("{pretended}/32"), "dev", "lo"]).unwrap();
    // Whatever the gateway's kernel would filter: the service itself does not hear them.
    for interface in ["all", "default", "ext0"] {
        system.lab.gateway.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0").unwrap();
    }
    for from in [own, pretended] {
        for to in [GATEWAY, PUBLIC] {
            assert_eq!(by_udp(internet, from, to), None, "datagram from {from} to {to}");
            assert_eq!(by_tcp(internet, from, to), None, "connection from {from} to {to}");
        }
    }
    assert_eq!(heard(&system), 0);
    expect_served(&system);
    let clients = gateway::state(&system.lab).unwrap().clients;
    assert!(clients.iter().all(|client| Host::ALL.map(Host::address).contains(&client.host)), "{clients:?}");
}

#[test]
fn the_gateway_is_not_its_own_host() {
    let system = gateway_only();
    let inside = &system.lab.gateway;
    for from in [GATEWAY, PUBLIC, Ipv4Addr::LOCALHOST] {
        assert_eq!(by_udp(inside, from, GATEWAY), None, "datagram from {from}");
        assert_eq!(by_tcp(inside, from, GATEWAY), None, "connection from {from}");
    }
    assert_eq!(heard(&system), 0);
    expect_served(&system);
}

#[test]
fn answers_come_from_the_address_that_was_asked_and_only_one_is() {
    let system = System::new(Options::default()).unwrap();
    // A second address, which comes before the first one where the kernel chooses for a network of its own.
    let second = Ipv4Addr::new(10, 77, 0, 200);
    system.lab.gateway.ip(&["addr", "add", &format!("{second}/24"), "dev", INTERNAL_IF]).unwrap();
    let mut system = system;
    system.start_gateway().unwrap();
    let host = system.lab.host(Host::A);
    for to in [second, PUBLIC, Ipv4Addr::new(10, 77, 0, 255), Ipv4Addr::BROADCAST] {
        assert_eq!(by_udp(host, Host::A.address(), to), None, "{to} is not where the service is");
    }
    for to in [second, PUBLIC] {
        assert_eq!(by_tcp(host, Host::A.address(), to), None, "{to} is not where the service is");
    }
    assert_eq!(heard(&system), 0);
    expect_served(&system);
}

#[test]
fn a_registration_outlives_its_connection_and_the_wire() {
    let system = gateway_only();
    let host = system.lab.host(Host::A);
    let answer = by_tcp(host, Host::A.address(), GATEWAY).unwrap();
    let client_id = u32::from_be_bytes([answer[7], answer[8], answer[9], answer[10]]);
    // `by_tcp` has closed its connection.
    system.gateway_sees("no host goes with its connection", LIMIT, |state| state.clients.len() == 1).unwrap();
    host.ip(&["link", "set", "eth0", "down"]).unwrap();
    host.ip(&["link", "set", "eth0", "up"]).unwrap();
    let again = || by_tcp(host, Host::A.address(), GATEWAY);
    // ALREADY_REGISTERED, with the same client ID, as soon as the wire is there again.
    let told = rsip_lab::lab::wait::until("an answer", LIMIT, || {
        Ok(again().map_or(
            rsip_lab::lab::wait::Look::NotYet("silence".to_owned()),
            rsip_lab::lab::wait::Look::Ready,
        ))
    })
    .unwrap();
    let expected = [&[1, 1, 0, 23, 8, 0, 2][..], &302_u16.to_be_bytes(), &[11, 0, 4, 0, 0, 0, 1, 4, 0, 4]];
    assert_eq!(told, [expected.concat(), client_id.to_be_bytes().to_vec()].concat());
}
