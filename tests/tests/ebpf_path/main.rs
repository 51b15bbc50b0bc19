//! Real traffic along the whole path, through the programs of both ends: super-packets of TCP and UDP must arrive whole,
//! whoever cuts them; and what is too big for a part of the path finds its way all the same.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod mtu;
mod site;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use nix::libc;
use nix::net::if_::if_nametoindex;
use rsip_lab::bpf::packet::{Ip, UDP, udp};
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::site::{AMOUNT, PEER, PORT, PUBLIC, Site};

/// Octets that do not repeat with any packet size.
fn data() -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(AMOUNT)
    .collect()
}

fn read_all(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

#[test]
fn tcp_carries_much_in_both_directions() {
    let site = Site::new();
    let data = data();
    let listener = site.host.enter(|| TcpListener::bind((PUBLIC, PORT)).unwrap()).unwrap();
    for towards_host in [true, false] {
        let near = site.peer.enter(|| TcpStream::connect((PUBLIC, PORT)).unwrap()).unwrap();
        let (far, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), PEER, "the address is the peer's own");
        let (mut source, sink) = if towards_host { (near, far) } else { (far, near) };
        thread::scope(|scope| {
            scope.spawn(|| {
                source.write_all(&data).unwrap();
                source.shutdown(Shutdown::Write).unwrap();
            });
            let got = read_all(sink);
            assert!(got == data, "{} of {} octets, or others", got.len(), data.len());
        });
    }
    assert_eq!(site.dropped(), vec![0; site.dropped().len()], "nothing was dropped");
    let [inward, outward] = site.packets();
    let smallest = u64::try_from(AMOUNT / 65_536).unwrap();
    assert!(inward >= smallest && outward >= smallest, "{inward} packets in, {outward} out");
}

#[test]
fn udp_segments_of_one_send_arrive_one_by_one() {
    const UDP_SEGMENT: libc::c_int = 103;
    const SIZE: usize = 1200;
    let site = Site::new();
    let receiver = site.peer.enter(|| UdpSocket::bind((PEER, 53)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sender = site.host.enter(|| UdpSocket::bind((PUBLIC, PORT)).unwrap()).unwrap();
    let size: libc::c_int = SIZE.try_into().unwrap();
    // SAFETY: the descriptor is open; the option is an int.
    let set = unsafe {
        libc::setsockopt(sender.as_raw_fd(), libc::SOL_UDP, UDP_SEGMENT, (&raw const size).cast(), 4)
    };
    assert_eq!(set, 0);
    let data: Vec<u8> = data().into_iter().take(10 * SIZE + 100).collect();
    sender.send_to(&data, (PEER, 53)).unwrap();
    let mut buffer = [0; 2 * SIZE];
    for (number, expected) in data.chunks(SIZE).enumerate() {
        let (length, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), PUBLIC);
        assert!(buffer[..length] == *expected, "segment {number}: {length} octets");
    }
    assert_eq!(site.dropped(), vec![0; site.dropped().len()], "nothing was dropped");
}

#[test]
fn datagrams_too_big_for_the_tunnel_arrive_in_fragments() {
    let site = Site::new();
    let receiver = site.peer.enter(|| UdpSocket::bind((PEER, 53)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let sender = site.host.enter(|| UdpSocket::bind((PUBLIC, PORT)).unwrap()).unwrap();
    sender.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let data: Vec<u8> = data().into_iter().take(5000).collect();
    let mut buffer = [0; 8192];
    sender.send_to(&data, (PEER, 53)).unwrap();
    let (length, from) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..length], data);
    // The way back begins with fragments of the same size: as big as the tunnel takes.
    site.peer.ip(&["link", "set", "eth0", "mtu", "1480"]).unwrap();
    receiver.send_to(&data, from).unwrap();
    let (length, _) = sender.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..length], data);
    assert_eq!(site.dropped(), vec![0; site.dropped().len()], "nothing was dropped");
}

#[test]
fn a_packet_of_a_vlan_is_not_of_the_interface_that_it_comes_through() {
    const ETH_P_ALL: u16 = 3;
    let site = Site::new();
    let links = site.gateway.ip(&["-json", "link", "show", "dev", "ext0"]).unwrap();
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    let mac: Vec<u8> = links[0]["address"]
        .as_str()
        .unwrap()
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    let packet = Ip::new(PEER, PUBLIC, UDP, udp(53, PORT, b"hello")).bytes();
    let frame = |ethertype: &[u8]| [&mac[..], &[2, 0, 0, 0, 0, 1], ethertype, &packet[..]].concat();
    let send = |frame: Vec<u8>| {
        let sent = site.peer.enter(|| {
            let mut address = SockAddrStorage::zeroed();
            // SAFETY: the storage is larger than `sockaddr_ll` and zero is valid for it.
            let link = unsafe { address.view_as::<libc::sockaddr_ll>() };
            link.sll_family = libc::AF_PACKET as u16;
            link.sll_protocol = ETH_P_ALL.to_be();
            link.sll_ifindex = if_nametoindex("eth0").unwrap().cast_signed();
            // SAFETY: the storage holds a `sockaddr_ll`.
            let address = unsafe { SockAddr::new(address, size_of::<libc::sockaddr_ll>() as u32) };
            let socket = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
            socket.send_to(&frame, &address).unwrap()
        });
        assert_eq!(sent.unwrap(), frame.len());
        thread::sleep(Duration::from_millis(100));
    };
    send(frame(&[0x08, 0x00]));
    assert_eq!(site.packets(), [1, 1], "to the host, and its \"port unreachable\" back");
    // VLAN 5, IPv4 inside.
    send(frame(&[0x81, 0x00, 0x00, 0x05, 0x08, 0x00]));
    assert_eq!(site.packets()[0], 1);
}
