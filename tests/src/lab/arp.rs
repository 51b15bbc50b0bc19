//! Who on a link answers an ARP request (RFC 826).

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use super::error::{IoContext, Result};
use super::netns::Inside;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Asks for `target` by broadcast on an interface of a namespace, several times within `wait`, in the name of `sender`, and
/// gives everybody who has said to have it.
///
/// # Errors
/// Where the interface is not there, or no packet socket can be had.
pub fn who_has(
    inside: &Inside,
    interface: &str,
    sender: Ipv4Addr,
    target: Ipv4Addr,
    wait: Duration,
) -> Result<BTreeSet<Mac>> {
    inside.enter(|| ask(interface, sender, target, wait))?.cannot(|| format!("ask by ARP for {target}"))
}

/// Whose answers are looked for: an address that nobody has.
const ASKER: [u8; 6] = [2, 0, 0, 0, 0xaa, 0x99];
const TYPE: [u8; 2] = [0x08, 0x06];

fn ask(interface: &str, sender: Ipv4Addr, target: Ipv4Addr, wait: Duration) -> io::Result<BTreeSet<Mac>> {
    let protocol = u16::from_be_bytes(TYPE).to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    let index = nix::net::if_::if_nametoindex(interface)?;
    socket.bind(&link_address(index, protocol)?)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut request = vec![0xff; 6];
    request.extend(ASKER);
    request.extend(TYPE);
    request.extend([0, 1, 0x08, 0, 6, 4, 0, 1]);
    request.extend(ASKER);
    request.extend(sender.octets());
    request.extend([0; 6]);
    request.extend(target.octets());
    let mut answered = BTreeSet::new();
    let end = Instant::now() + wait;
    while Instant::now() < end {
        socket.send(&request)?;
        while let Some(frame) = receive(&socket)? {
            answered.extend(reply(&frame, target));
        }
    }
    Ok(answered)
}

/// The next frame within the socket's patience.
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
    is_reply.then_some(Mac(mac))
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
        let mut frame = vec![0; 12];
        frame.extend(TYPE);
        frame.extend([0, 1, 0x08, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0; 10]);
        assert_eq!(reply(&frame, target), Some(Mac([2, 0, 0, 0, 0, 1])));
        assert_eq!(reply(&frame, Ipv4Addr::new(10, 0, 0, 3)), None, "about another address");
        assert_eq!(reply(&frame[..41], target), None, "cut short");
        frame[21] = 1;
        assert_eq!(reply(&frame, target), None, "a request");
    }
}
