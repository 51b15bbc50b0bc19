//! The kernel's socket tables (sock_diag(7)): every TCP and UDP socket of the network namespace, TIME_WAIT included.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE, TCP_LISTEN, TCP_TIME_WAIT,
};
use netlink_packet_sock_diag::inet::nlas::Nla as InetNla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::{Socket as NetlinkSocket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind, getsockname, socket,
};

pub(super) const IPPROTO_UDP: u8 = 17;
/// TCP sockets that are bound and neither listening nor connected; told since Linux 6.8, asked for in vain before.
const TCP_BOUND_INACTIVE: u32 = 13;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// TCP, else UDP.
    pub tcp: bool,
    /// Its own address; IPv4-mapped ones are given as IPv4.
    pub address: IpAddr,
    /// Its own port.
    pub port: u16,
    /// The interface that it is tied to (SO_BINDTODEVICE); 0: none.
    pub interface: u32,
    /// What the kernel knows it by.
    pub cookie: u64,
    /// It takes IPv6 only.
    pub v6_only: bool,
    /// It waits for peers: a listening TCP socket or an unconnected UDP socket.
    pub is_server: bool,
    /// TCP has closed it, and remembers it for a while.
    pub time_wait: bool,
    /// Its number in `/proc/PID/fd`; 0: no program has it any more.
    pub inode: u32,
    /// Its owner's user ID.
    pub uid: u32,
}

impl Socket {
    /// Whether packets to `public` reach it: it is bound to that address, or to all.
    pub fn serves(&self, public: Ipv4Addr) -> bool {
        match self.address {
            IpAddr::V4(address) => address == public || address.is_unspecified(),
            IpAddr::V6(address) => address.is_unspecified() && !self.v6_only,
        }
    }
}

/// All sockets with a port, as they were at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    sockets: Vec<Socket>,
}

impl Snapshot {
    /// Asks the kernel. Blocks shortly.
    ///
    /// # Errors
    ///
    /// The kernel has no sock_diag (CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG), or does not answer.
    pub fn take() -> io::Result<Self> {
        let socket = open()?;
        let mut sockets = Vec::new();
        for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
            for family in [AF_INET, AF_INET6] {
                dump(&socket, family, protocol, |response| sockets.extend(read(response, protocol)))?;
            }
        }
        Ok(Self { sockets })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter()
    }

    /// Ports that any of them has.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.sockets.iter().map(|socket| socket.port)
    }

    /// Without sockets that are tied to an interface other than the tunnel: they use no lease, whatever their address.
    #[must_use]
    pub fn through(mut self, tunnel: Option<u32>) -> Self {
        self.sockets.retain(|socket| socket.interface == 0 || Some(socket.interface) == tunnel);
        self
    }

    /// Sockets of programs that serve `public` or all addresses on a port.
    pub fn servers_of(&self, public: Ipv4Addr, port: u16) -> impl Iterator<Item = &Socket> + '_ {
        self.sockets.iter().filter(move |s| s.port == port && s.is_server && s.serves(public))
    }

    /// Sockets that packets to `public` do not reach now, as they are connected to somebody else's side.
    pub fn others(&self, public: Ipv4Addr) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().filter(move |socket| !socket.serves(public))
    }

    /// Sockets that packets to `public` reach, per port.
    pub fn uses(&self, public: Ipv4Addr) -> BTreeMap<u16, usize> {
        let mut uses = BTreeMap::new();
        for socket in self.sockets.iter().filter(|socket| socket.serves(public)) {
            *uses.entry(socket.port).or_default() += 1;
        }
        uses
    }

    /// Ports on which some program serves `public` or all addresses.
    pub fn servers(&self, public: Ipv4Addr) -> impl Iterator<Item = u16> + '_ {
        self.sockets.iter().filter(move |socket| socket.is_server && socket.serves(public)).map(|s| s.port)
    }
}

/// Whether the kernel lists TCP sockets that are bound and do nothing yet (since Linux 6.8): then no socket with a port is
/// missing. `false` where that cannot be tried.
#[must_use]
pub fn lists_idle_sockets() -> bool {
    let idle = || {
        let socket =
            socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)))?;
        let port = getsockname::<SockaddrIn>(socket.as_raw_fd())?.port();
        Ok::<_, nix::Error>((socket, port))
    };
    // The socket has to be open while the list is taken.
    let Ok((_idle, port)) = idle() else { return false };
    Snapshot::take().is_ok_and(|all| all.sockets.iter().any(|socket| socket.tcp && socket.port == port))
}

pub(super) fn open() -> io::Result<NetlinkSocket> {
    let mut socket = NetlinkSocket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

pub(super) fn dump(
    socket: &NetlinkSocket,
    family: u8,
    protocol: u8,
    mut each: impl FnMut(&InetResponse),
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::from_bits_retain(StateFlags::all().bits() | 1 << TCP_BOUND_INACTIVE),
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length =
                usize::try_from(message.header.length).map_err(io::Error::other)?.next_multiple_of(4);
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => each(&response),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn read(response: &InetResponse, protocol: u8) -> Option<Socket> {
    let id = &response.header.socket_id;
    let v6_only = response.nlas.iter().any(|nla| matches!(nla, InetNla::SkV6Only(true)));
    let server_state = if protocol == IPPROTO_TCP { TCP_LISTEN } else { TCP_CLOSE };
    let address = match id.source_address {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    (id.source_port != 0).then_some(Socket {
        tcp: protocol == IPPROTO_TCP,
        address,
        port: id.source_port,
        interface: id.interface_id,
        cookie: u64::from_ne_bytes(id.cookie),
        v6_only,
        is_server: response.header.state == server_state,
        time_wait: protocol == IPPROTO_TCP && response.header.state == TCP_TIME_WAIT,
        inode: response.header.inode,
        uid: response.header.uid,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};

    use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};

    use super::*;

    const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

    #[test]
    fn sees_servers_and_what_is_left_of_connections() {
        let private = TcpListener::bind("127.0.0.1:0").expect("free");
        let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("free");
        let udp = UdpSocket::bind("0.0.0.0:0").expect("free");
        let ports = [
            private.local_addr().expect("bound").port(),
            dual.local_addr().expect("bound").port(),
            udp.local_addr().expect("bound").port(),
        ];
        let servers: Vec<u16> = Snapshot::take().expect("sock_diag is there").servers(PUBLIC).collect();
        assert_eq!(ports.map(|port| servers.contains(&port)), [false, true, true]);

        let near = TcpStream::connect(("127.0.0.1", ports[1])).expect("it listens");
        let (far, _) = dual.accept().expect("a connection");
        drop((far, dual));
        let uses = Snapshot::take().expect("sock_diag is there").uses(Ipv4Addr::LOCALHOST);
        assert!(uses.contains_key(&ports[1]), "the connection outlives its listener");
        drop(near);
        let uses = Snapshot::take().expect("sock_diag is there").uses(Ipv4Addr::LOCALHOST);
        assert!(uses.contains_key(&ports[1]), "closed here first: TIME_WAIT");
        assert!(!Snapshot::take().expect("sock_diag is there").uses(PUBLIC).contains_key(&ports[1]));
    }

    #[test]
    fn a_socket_for_ipv6_alone_does_not_serve_the_public_address() {
        use nix::sys::socket::{
            AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, socket,
        };
        let socket =
            socket(AddressFamily::Inet6, SockType::Stream, SockFlag::empty(), None).expect("a socket");
        setsockopt(&socket, Ipv6V6Only, &true).expect("allowed");
        let any = SockaddrIn6::from(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &any).expect("free");
        listen(&socket, Backlog::new(1).expect("small")).expect("bound");
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().expect("bound").port();
        let snapshot = Snapshot::take().expect("sock_diag is there");
        assert!(!snapshot.servers(PUBLIC).any(|p| p == port));
    }
}
