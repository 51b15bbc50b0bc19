//! What is too big for a part of the path: whoever forbids fragments is told what fits, everything else arrives in fragments.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use rsip_ebpf_common::gateway::Counter;
use rsip_lab::lab::netns::Inside;

use crate::site::{PEER, PORT, PUBLIC, Site};
use crate::{data, read_all};

const PATIENCE: Duration = Duration::from_secs(10);

/// `IP_MTU_DISCOVER`.
#[derive(Clone, Copy)]
enum Discover {
    /// Fragments are welcome.
    Dont = 0,
    /// "Don't fragment", always.
    Do = 2,
}

fn option(socket: &UdpSocket, name: libc::c_int, value: libc::c_int) {
    // SAFETY: the descriptor is open; the option is an int.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, name, (&raw const value).cast(), 4) };
    assert_eq!(set, 0);
}

/// What the kernel takes the path to be of a connected socket.
fn path_mtu(socket: &UdpSocket) -> libc::c_int {
    let (mut value, mut length) = (0, 4);
    // SAFETY: the descriptor is open; the option is an int.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(got, 0);
    value
}

fn socket(inside: &Inside, address: Ipv4Addr, port: u16, discover: Discover) -> UdpSocket {
    let socket = inside.enter(|| UdpSocket::bind((address, port)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    option(&socket, libc::IP_MTU_DISCOVER, discover as libc::c_int);
    socket
}

/// Sends until one datagram of this size arrives, as a program does that has to get something across.
fn arrives(from: &UdpSocket, to: &UdpSocket, destination: SocketAddr, size: usize) {
    let data: Vec<u8> = data().into_iter().take(size).collect();
    let mut buffer = vec![0; 65_536];
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        from.send_to(&data, destination).unwrap();
        if let Ok((length, _)) = to.recv_from(&mut buffer) {
            assert!(buffer[..length] == data[..], "{size} octets: others, or {length}");
            return;
        }
    }
    panic!("{size} octets do not arrive");
}

/// What the kernel tells a sender that forbids fragments, in the end.
fn told(socket: &UdpSocket, size: usize) -> libc::c_int {
    let until = Instant::now() + PATIENCE;
    loop {
        match socket.send(&vec![7; size]) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                // The message itself, beside what the kernel learnt from it.
                socket.take_error().unwrap();
                return path_mtu(socket);
            }
            Err(error) => panic!("{size} octets: {error}"),
            Ok(_) => assert!(Instant::now() < until, "{size} octets: nobody says that they are too big"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn datagrams_of_every_size_arrive_where_fragments_are_allowed() {
    let site = Site::new();
    let inside = socket(&site.host, PUBLIC, PORT, Discover::Dont);
    let outside = socket(&site.peer, PEER, 53, Discover::Dont);
    for size in [
        0, 1, 8, 1400, 1451, 1452, 1453, 1454, 1455, 1456, 1471, 1472, 1473, 2952, 2953, 9000, 40_000, 65_000,
    ] {
        arrives(&inside, &outside, (PEER, 53).into(), size);
        arrives(&outside, &inside, (PUBLIC, PORT).into(), size);
    }
    assert!(site.counted(Counter::Split) > 0, "the test does not test what it should");
    assert_eq!(site.counted(Counter::TooBig), 0);
}

#[test]
fn a_sender_outside_is_told_what_fits_into_the_tunnel() {
    let site = Site::new();
    let _inside = socket(&site.host, PUBLIC, PORT, Discover::Do);
    let outside = socket(&site.peer, PEER, 53, Discover::Do);
    outside.connect((PUBLIC, PORT)).unwrap();
    outside.send(&[7; 1452]).unwrap();
    assert_eq!(path_mtu(&outside), 1500);
    assert_eq!(told(&outside, 1453), 1480);
    assert!(site.counted(Counter::TooBigTold) > 0);
    outside.send(&[7; 1452]).unwrap();
}

#[test]
fn a_narrow_private_network_is_known_to_both_ends() {
    let mut site = Site::routed(1400, 1500);
    // The peer hears it from the gateway, which hears it from the router.
    let inside = socket(&site.host, PUBLIC, PORT, Discover::Dont);
    let outside = socket(&site.peer, PEER, 53, Discover::Do);
    outside.connect((PUBLIC, PORT)).unwrap();
    outside.send(&[7; 1452]).unwrap();
    assert_eq!(told(&outside, 1452), 1380);
    option(&outside, libc::IP_MTU_DISCOVER, Discover::Dont as libc::c_int);
    for size in [1352, 1353, 1452, 1472, 9000] {
        arrives(&outside, &inside, (PUBLIC, PORT).into(), size);
    }
    // The host hears it from the router too.
    inside.send_to(&[7; 1452], (PEER, 53)).unwrap();
    let until = Instant::now() + PATIENCE;
    let heard = loop {
        if let Some(mtu) = site.path_mtu() {
            break mtu;
        }
        assert!(Instant::now() < until, "the host hears nothing");
        inside.send_to(&[7; 1452], (PEER, 53)).unwrap();
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(heard, 1400);
}

#[test]
fn a_narrow_public_network_is_known_to_the_hosts_socket() {
    let site = Site::routed(1500, 1300);
    let inside = socket(&site.host, PUBLIC, PORT, Discover::Do);
    let outside = socket(&site.peer, PEER, 53, Discover::Dont);
    inside.connect((PEER, 53)).unwrap();
    inside.send(&[7; 1452]).unwrap();
    assert_eq!(told(&inside, 1452), 1300);
    option(&inside, libc::IP_MTU_DISCOVER, Discover::Dont as libc::c_int);
    for size in [1272, 1273, 1452, 9000] {
        let data: Vec<u8> = data().into_iter().take(size).collect();
        inside.send(&data).unwrap();
        let mut buffer = vec![0; 65_536];
        let (length, _) = outside.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == data[..], "{size} octets");
    }
}

#[test]
fn tcp_carries_much_over_narrow_networks() {
    for (private, public) in [(1500, 1300), (1400, 1500), (1400, 1300)] {
        let mut site = Site::routed(private, public);
        let data: Vec<u8> = data().into_iter().take(4 << 20).collect();
        let listener = site.host.enter(|| TcpListener::bind((PUBLIC, PORT)).unwrap()).unwrap();
        // The host first: once the peer knows the path, it does not offer to take more than fits.
        for towards_host in [false, true] {
            let near = site.peer.enter(|| TcpStream::connect((PUBLIC, PORT)).unwrap()).unwrap();
            let (far, _) = listener.accept().unwrap();
            let (mut source, sink) = if towards_host { (near, far) } else { (far, near) };
            thread::scope(|scope| {
                scope.spawn(|| {
                    source.write_all(&data).unwrap();
                    source.shutdown(Shutdown::Write).unwrap();
                });
                // What the agent does.
                if private < public && !towards_host {
                    let until = Instant::now() + PATIENCE;
                    while site.path_mtu().is_none() {
                        assert!(Instant::now() < until, "the host hears nothing");
                        thread::sleep(Duration::from_millis(10));
                    }
                    site.host.ip(&["link", "set", "rsip", "mtu", &(private - 20).to_string()]).unwrap();
                }
                let got = read_all(sink);
                assert!(got == data, "{private}/{public}: {} of {} octets, or others", got.len(), data.len());
            });
        }
    }
}
