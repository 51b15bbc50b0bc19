//! Who on the private network has an address (RFC 826).

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_sys::netlink::Link;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// An Ethernet address.
pub(super) type Mac = [u8; 6];

const TYPE: [u8; 2] = [0x08, 0x06];
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks for `target` by broadcast, several times within `wait`, and gives everybody who has said to have it. `enough` ends it
/// with the first answer. `None`: the interface has no ARP.
///
/// # Errors
///
/// No packet socket (CAP_NET_RAW).
pub(super) fn who_has(
    interface: &Link,
    sender: Ipv4Addr,
    target: Ipv4Addr,
    wait: Duration,
    enough: bool,
) -> io::Result<Option<BTreeSet<Mac>>> {
    let Some(mac) = interface.mac else { return Ok(None) };
    let socket = open(interface)?;
    socket.set_read_timeout(Some(PAUSE))?;
    let request = request(mac, sender, target);
    let mut answered = BTreeSet::new();
    let end = Instant::now() + wait;
    let mut next = Instant::now();
    while (answered.is_empty() || !enough) && Instant::now() < end {
        if Instant::now() >= next {
            socket.send(&request)?;
            next = Instant::now() + PAUSE;
        }
        if let Some(frame) = receive(&socket)? {
            answered.extend(reply(&frame, target).filter(|answerer| *answerer != mac));
        }
    }
    Ok(Some(answered))
}

/// Tells everybody on the network, and `neighbour` above all, that `address` is behind this interface: Linux answers ARP for any
/// of its addresses on any interface, so that they may know another one. An interface without ARP needs nothing.
///
/// # Errors
///
/// No packet socket (CAP_NET_RAW).
pub(crate) fn announce(interface: &Link, address: Ipv4Addr, neighbour: Ipv4Addr) -> io::Result<()> {
    let Some(mac) = interface.mac else { return Ok(()) };
    let socket = open(interface)?;
    for target in [address, neighbour] {
        socket.send(&request(mac, address, target))?;
    }
    Ok(())
}

fn open(interface: &Link) -> io::Result<Socket> {
    let protocol = u16::from_be_bytes(TYPE).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    socket.bind(&link_address(interface.index, protocol)?)?;
    Ok(socket)
}

/// For people: `02:00:00:00:00:01`.
pub(super) fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn request(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend(TYPE);
    // Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn receive(socket: &Socket) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 256];
    let mut reader: &Socket = socket;
    match reader.read(&mut buffer) {
        Ok(length) => Ok(buffer.get(..length).map(<[u8]>::to_vec)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Who says in this frame to have `target`.
fn reply(frame: &[u8], target: Ipv4Addr) -> Option<Mac> {
    let arp = frame.get(14..42)?;
    let is_reply = arp.get(6..8)? == [0, 2] && arp.get(14..18)? == target.octets();
    let mac = arp.get(8..14)?.try_into().ok()?;
    is_reply.then_some(mac)
}

fn link_address(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage has room for any address, all zeros are a valid one, and what is written is one of this kind.
    unsafe {
        let address = storage.view_as::<libc::sockaddr_ll>();
        address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
        address.sll_protocol = protocol;
        address.sll_ifindex = index;
    }
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage holds an address of this length.
    Ok(unsafe { SockAddr::new(storage, length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_replies_about_the_target_only() {
        let target = Ipv4Addr::new(10, 0, 0, 2);
        let mut frame = request([2, 0, 0, 0, 0, 9], Ipv4Addr::new(10, 0, 0, 3), target);
        assert_eq!(reply(&frame, target), None, "a request");
        frame[21] = 2;
        frame.splice(22..32, [2, 0, 0, 0, 0, 1, 10, 0, 0, 2]);
        assert_eq!(reply(&frame, target).map(text).as_deref(), Some("02:00:00:00:00:01"));
        assert_eq!(reply(&frame, Ipv4Addr::new(10, 0, 0, 3)), None, "about another address");
        assert_eq!(reply(&frame[..41], target), None, "cut short");
    }
}
