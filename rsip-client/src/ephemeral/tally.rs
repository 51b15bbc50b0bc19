//! What is in use of the ports for the kernel's own choice, by sock_diag(7).
//!
//! There may be a hundred thousand sockets, and the agent has other things to do: fields are read where they stand in the
//! kernel's answer, and where one destination is in question the kernel leaves out all others.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// Whom a connection is to; IPv4 in its mapped form, as sockets of both families reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The address.
    pub address: Ipv6Addr,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for Destination {
    fn from(peer: SocketAddr) -> Self {
        let address = match peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        Self { address, port: peer.port() }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        SocketAddr::new(self.address.to_canonical(), self.port).fmt(f)
    }
}

/// How a port is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    tcp: bool,
    udp: bool,
    /// By a TCP socket that is bound and has no peer: connections do not share its port.
    alone: bool,
}

/// All that is in use, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    ports: BTreeMap<u16, Use>,
    connections: HashMap<Destination, Vec<u16>>,
}

impl Tally {
    /// Asks the kernel for all sockets. Blocks: some milliseconds for ten thousand of them.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn take() -> io::Result<Self> {
        let mut tally = Self::default();
        let mut kernel = Kernel::open()?;
        for protocol in [TCP, UDP] {
            for family in [AF_INET, AF_INET6] {
                kernel.dump(family, protocol, None, |entry| tally.add(&entry))?;
            }
        }
        Ok(tally)
    }

    /// The same for UDP sockets alone.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn udp() -> io::Result<Self> {
        Self::of(UDP)
    }

    /// The same for TCP sockets alone.
    ///
    /// # Errors
    ///
    /// The kernel does not answer.
    pub fn tcp() -> io::Result<Self> {
        Self::of(TCP)
    }

    fn of(protocol: u8) -> io::Result<Self> {
        let mut tally = Self::default();
        let mut kernel = Kernel::open()?;
        for family in [AF_INET, AF_INET6] {
            kernel.dump(family, protocol, None, |entry| tally.add(&entry))?;
        }
        Ok(tally)
    }

    /// So many of these ports are in use.
    pub fn count(&self, is_open: impl Fn(u16) -> bool) -> usize {
        self.ports.keys().filter(|port| is_open(**port)).count()
    }

    /// Ports that TCP sockets without a peer have.
    pub fn listening(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.iter().filter(|(_, usage)| usage.alone).map(|(port, _)| *port)
    }

    fn add(&mut self, entry: &Entry) {
        let port = self.ports.entry(entry.port).or_default();
        if entry.protocol == UDP {
            port.udp = true;
            return;
        }
        port.tcp = true;
        if entry.peer.port == 0 {
            port.alone = true;
        } else {
            self.connections.entry(entry.peer).or_default().push(entry.port);
        }
    }

    /// Whether some socket has this port, whatever its address.
    pub fn is_used(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// So many of the ports that `is_open` are taken, as far as this kind of socket is concerned.
    pub fn need(&self, is_open: impl Fn(u16) -> bool, is_bound: impl Fn(u16) -> bool) -> Need {
        let open = || self.ports.iter().filter(|(port, _)| is_open(**port));
        let alone = |port: u16, usage: &Use| usage.alone || is_bound(port);
        let bound = open().filter(|(port, usage)| usage.tcp && alone(**port, usage)).count();
        let shared =
            |port: u16| is_open(port) && self.ports.get(&port).is_some_and(|usage| !alone(port, usage));
        let per_destination = self.connections.iter().map(|(destination, ports)| {
            (*destination, bound + ports.iter().filter(|port| shared(**port)).count())
        });
        Need {
            used: open().count(),
            udp: open().filter(|(_, usage)| usage.udp).count(),
            tcp: open().filter(|(_, usage)| usage.tcp).count(),
            bound,
            destinations: per_destination.collect(),
        }
    }
}

/// Ports that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// By anything.
    pub used: usize,
    /// For a further UDP socket.
    pub udp: usize,
    /// For a further bind(0) of a TCP socket.
    pub tcp: usize,
    /// For any connection, by sockets that were bound.
    pub bound: usize,
    /// For a further connection to this destination.
    pub destinations: HashMap<Destination, usize>,
}

impl Need {
    /// So many ports are needed at least. What bind(0) finds taken by connections counts where it is asked for.
    pub fn ports(&self) -> usize {
        let most = self.destinations.values().copied().max().unwrap_or_default();
        most.max(self.udp).max(self.bound)
    }
}

/// Local ports of the TCP connections to one destination.
///
/// # Errors
///
/// The kernel does not answer.
pub fn connections(to: Destination) -> io::Result<Vec<u16>> {
    let mut ports = Vec::new();
    let mut kernel = Kernel::open()?;
    let families: &[u8] =
        if to.address.to_ipv4_mapped().is_some() { &[AF_INET, AF_INET6] } else { &[AF_INET6] };
    for &family in families {
        kernel.dump(family, TCP, Some(to), |entry| {
            if entry.peer == to {
                ports.push(entry.port);
            }
        })?;
    }
    Ok(ports)
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// One socket, as the kernel tells it.
struct Entry {
    protocol: u8,
    port: u16,
    peer: Destination,
}

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Every state, also the bound and inactive one that the kernel tells since 6.8.
const ALL_STATES: u32 = u32::MAX;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_BC_D_COND: u8 = 8;

struct Kernel {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Kernel {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, buffer: Vec::with_capacity(64 * 1024) })
    }

    fn dump(
        &mut self,
        family: u8,
        protocol: u8,
        to: Option<Destination>,
        mut each: impl FnMut(Entry),
    ) -> io::Result<()> {
        self.socket.send(&request(family, protocol, to), 0)?;
        loop {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            let mut rest = self.buffer.as_slice();
            while let Some(length) = length(rest) {
                let message = rest.get(..length).unwrap_or_default();
                match half(message, 4).map(u16::from_ne_bytes) {
                    Some(NLMSG_DONE) => return Ok(()),
                    Some(NLMSG_ERROR) => return Err(error(message)),
                    Some(SOCK_DIAG_BY_FAMILY) => {
                        if let Some(entry) = read(message.get(HEADER..).unwrap_or_default(), protocol) {
                            each(entry);
                        }
                    }
                    _ => {}
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Length of the first message; `None`: there is none.
fn length(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
    (length >= HEADER && length <= bytes.len()).then_some(length)
}

fn error(message: &[u8]) -> io::Error {
    let code = array(message, HEADER).map_or(0, i32::from_ne_bytes);
    io::Error::from_raw_os_error(code.saturating_neg())
}

/// Reads `struct inet_diag_msg`: family, state (1 byte each), and from byte 4 on the ports in network byte order and the
/// addresses of 16 bytes. `None`: a socket without a port.
fn read(message: &[u8], protocol: u8) -> Option<Entry> {
    let family = *message.first()?;
    let port = u16::from_be_bytes(half(message, 4)?);
    let peer_port = u16::from_be_bytes(half(message, 6)?);
    let address = Ipv6Addr::from(array::<16>(message, 24)?);
    let address = if family == AF_INET {
        let [a, b, c, d] = array(message, 24)?;
        std::net::Ipv4Addr::new(a, b, c, d).to_ipv6_mapped()
    } else {
        address
    };
    (port != 0).then_some(Entry { protocol, port, peer: Destination { address, port: peer_port } })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    array(bytes, at)
}

/// A dump request, with a filter that the kernel itself applies (`struct inet_diag_bc_op`).
fn request(family: u8, protocol: u8, to: Option<Destination>) -> Vec<u8> {
    let filter = to.map(filter).unwrap_or_default();
    let mut request = Vec::with_capacity(HEADER + REQUEST + filter.len());
    let length = u32::try_from(HEADER + REQUEST + filter.len()).unwrap_or(u32::MAX);
    request.extend(length.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, protocol, 0, 0]);
    request.extend(ALL_STATES.to_ne_bytes());
    // No particular socket: `struct inet_diag_sockid`.
    request.extend([0; 48]);
    request.extend(filter);
    request
}

fn filter(to: Destination) -> Vec<u8> {
    let v4 = to.address.to_ipv4_mapped().map(|address| address.octets());
    let v6 = to.address.octets();
    let (family, address): (u8, &[u8]) = match &v4 {
        Some(address) => (AF_INET, address),
        None => (AF_INET6, &v6),
    };
    // struct inet_diag_bc_op: code, jumps in bytes if it is so (to the end: accept) and if it is not (beyond it: reject);
    // struct inet_diag_hostcond: family, length of the prefix, port, address.
    let length = u8::try_from(4 + 8 + address.len()).unwrap_or(u8::MAX);
    let mut code = vec![INET_DIAG_BC_D_COND, length];
    code.extend((u16::from(length) + 4).to_ne_bytes());
    code.extend([family, u8::try_from(address.len() * 8).unwrap_or(u8::MAX), 0, 0]);
    code.extend(i32::from(to.port).to_ne_bytes());
    code.extend(address);
    let mut attribute = Vec::new();
    attribute.extend(u16::try_from(4 + code.len()).unwrap_or(u16::MAX).to_ne_bytes());
    attribute.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    attribute.extend(code);
    attribute
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn port(address: io::Result<SocketAddr>) -> u16 {
        address.expect("bound").port()
    }

    #[test]
    fn counts_connections_by_destination_and_others_by_port() {
        let one = TcpListener::bind("127.0.0.1:0").expect("free");
        let two = TcpListener::bind("[::1]:0").expect("free");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("free");
        let (one, two) = (&one, &two);
        let connect =
            |to: &TcpListener| TcpStream::connect(to.local_addr().expect("bound")).expect("it listens");
        let first: Vec<TcpStream> = (0..3).map(|_| connect(one)).collect();
        let second = connect(two);
        let own: Vec<u16> = first.iter().chain([&second]).map(|stream| port(stream.local_addr())).collect();
        let is_open = |asked: u16| {
            own.contains(&asked) || [port(one.local_addr()), port(udp.local_addr())].contains(&asked)
        };

        let tally = Tally::take().expect("sock_diag is there");
        let need = tally.need(is_open, |_| false);
        let to_one = Destination::from(one.local_addr().expect("bound"));
        let to_two = Destination::from(two.local_addr().expect("bound"));
        assert_eq!(
            need.destinations.get(&to_one),
            Some(&4),
            "three connections, and the port that is listened at"
        );
        assert_eq!(need.destinations.get(&to_two), Some(&2));
        assert_eq!((need.udp, need.bound, need.ports()), (1, 1, 4));
        assert_eq!(need.used, own.len() + 2);
        let bound = tally.need(is_open, |asked| asked == port(first[0].local_addr()));
        assert_eq!(bound.destinations.get(&to_one), Some(&4), "a bound port counts once");
        assert_eq!(bound.destinations.get(&to_two), Some(&3), "and for every destination");

        let mut ports = connections(to_one).expect("sock_diag is there");
        ports.sort_unstable();
        let mut expected = own[..3].to_vec();
        expected.sort_unstable();
        assert_eq!(ports, expected);
        assert_eq!(connections(to_two).expect("sock_diag is there"), own[3..]);
    }

    #[test]
    fn time_wait_is_in_use() {
        let server = TcpListener::bind("127.0.0.1:0").expect("free");
        let to = server.local_addr().expect("bound");
        let near = TcpStream::connect(to).expect("it listens");
        let own = port(near.local_addr());
        let (far, _) = server.accept().expect("a connection");
        drop(near);
        drop(far);
        assert_eq!(connections(to.into()).expect("sock_diag is there"), [own]);
        assert!(Tally::take().expect("sock_diag is there").is_used(own));
    }

    #[test]
    fn a_dual_stack_socket_is_counted_with_its_ipv4_destination() {
        let server = TcpListener::bind("127.0.0.1:0").expect("free");
        let to = server.local_addr().expect("bound");
        let mapped = SocketAddr::new(IpAddr::V6(Destination::from(to).address), to.port());
        let socket = TcpStream::connect(mapped).expect("it listens");
        assert_eq!(connections(to.into()).expect("sock_diag is there"), [port(socket.local_addr())]);
    }

    #[test]
    fn nothing_is_read_from_what_is_cut_short() {
        assert!(read(&[AF_INET; 39], TCP).is_none());
        assert!(read(&[AF_INET; 40], TCP).is_some());
        assert_eq!(length(&[0; 15]), None);
        assert_eq!(
            length(&[200, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            None,
            "longer than what is there"
        );
    }
}
