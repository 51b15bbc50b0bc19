//! The sockets of a search: datagrams to the group on several interfaces and to single machines, and connections for
//! what does not fit into a datagram.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rsip_slp::wire::Framer;
use rsip_sys::netlink::{Netlink, NetlinkError};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use crate::tunnel::device;

/// SLP's port (RFC 2608 section 6.1).
pub const PORT: u16 = 427;
/// SLP's group.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 253);
/// RFC 2608 section 6.1: the default. The group is administratively scoped, so its routers end it where the site ends.
const TTL: u32 = 255;
/// Longest datagram that can come.
pub const LARGEST: usize = 65_535;
/// Longest answer that is taken over a connection, in bytes: many times what any number of gateways takes.
const LONGEST_ANSWER: usize = 256 * 1024;

/// An interface on which is looked for gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its first IPv4 address.
    pub address: Ipv4Addr,
}

/// The interfaces to look on: the named one, else all that are up, have an IPv4 address, and are neither loopback nor
/// our own tunnel, which leads into the public realm.
///
/// # Errors
///
/// The named one is not there, or the kernel does not tell.
pub async fn interfaces(netlink: &Netlink, named: Option<&str>) -> Result<Vec<Interface>, NetlinkError> {
    let links = match named {
        Some(name) => vec![netlink.link(name).await?],
        None => netlink.links().await?,
    };
    let addresses = netlink.addresses().await?;
    let usable = links.into_iter().filter(|link| link.up && !link.loopback && link.name != device::NAME);
    Ok(usable
        .filter_map(|link| {
            let address = addresses.iter().find(|address| address.index == link.index)?.address;
            Some(Interface { name: link.name, address })
        })
        .collect())
}

/// The socket that everything but TCP goes through.
#[derive(Debug)]
pub struct Wires {
    socket: UdpSocket,
    interfaces: Vec<Interface>,
}

impl Wires {
    /// Opens it, on an ephemeral port (RFC 2608 section 6.1 allows it: answers come to where the request came from).
    ///
    /// # Errors
    ///
    /// The kernel gives no socket.
    pub async fn open(interfaces: Vec<Interface>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.set_multicast_ttl_v4(TTL)?;
        // A gateway on this very machine is nothing to lease from.
        socket.set_multicast_loop_v4(false)?;
        Ok(Self { socket, interfaces })
    }

    /// Sends to the group on every interface. One that cannot send is passed over, as one without answers is.
    pub async fn multicast(&self, bytes: &[u8]) {
        for interface in &self.interfaces {
            let sent = async {
                SockRef::from(&self.socket).set_multicast_if_v4(&interface.address)?;
                self.socket.send_to(bytes, (GROUP, PORT)).await
            };
            if let Err(error) = sent.await {
                tracing::debug!(interface = %interface.name, %error, "cannot multicast");
            }
        }
    }

    /// Sends to one machine.
    ///
    /// # Errors
    ///
    /// There is no way to it.
    pub async fn send(&self, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, to).await.map(drop)
    }

    /// The next datagram, into `buffer` ([`LARGEST`]); from whom, and how long it is. Cancel safe.
    pub async fn receive(&self, buffer: &mut [u8]) -> (SocketAddrV4, usize) {
        loop {
            match self.socket.recv_from(buffer).await {
                Ok((length, SocketAddr::V4(from))) => return (from, length),
                Ok((_, SocketAddr::V6(_))) => {}
                // What ICMP says about an earlier datagram; the lack of an answer says the same.
                Err(error) => {
                    tracing::debug!(%error, "receiving");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Asks over a connection, where an answer did not fit into a datagram (RFC 2608 section 6.2).
///
/// # Errors
///
/// The other side cannot be reached, or ends without a whole message.
pub async fn ask_by_tcp(to: SocketAddrV4, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(request).await?;
    let mut framer = Framer::new(LONGEST_ANSWER);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        framer.push(buffer.get(..length).unwrap_or_default());
        let message =
            framer.next_message().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(message) = message {
            return Ok(message);
        }
    }
}
