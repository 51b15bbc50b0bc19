//! The gateway's ears: UDP and TCP on the internal interface, and nowhere else.
//!
//! Both sockets are bound to one address and to one device, so that an answer leaves from the address that was asked,
//! and a request that comes in at the external interface is never heard. Nothing here knows what a message says: bytes
//! become [`Input`]s on one bounded channel, which is the back-pressure: a full channel stops the reading.

pub mod tcp;
pub mod udp;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddrV4, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt,
};
use rsip_sys::exit::{ExitCode, Failure};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

/// What came in.
#[derive(Debug)]
pub enum Input {
    /// A datagram, which should be one message.
    Datagram {
        /// Who sent it.
        from: SocketAddrV4,
        /// Its payload.
        bytes: Vec<u8>,
    },
    /// A connection was opened. Exactly one `Disconnected` follows.
    Connected {
        /// Its number; never used again.
        id: u64,
        /// The other end.
        from: SocketAddrV4,
        /// Takes what is to be sent; dropping it closes the connection after that.
        outbox: mpsc::Sender<Outgoing>,
    },
    /// A whole message by its length; what is in it may be anything.
    Message {
        /// The connection.
        id: u64,
        /// Header and parameters.
        bytes: Vec<u8>,
    },
    /// The stream cannot be cut into messages any more: answer the header, then close.
    Broken {
        /// The connection.
        id: u64,
        /// The header that makes no sense.
        header: [u8; 4],
    },
    /// The connection is gone.
    Disconnected {
        /// Which.
        id: u64,
    },
}

/// What a connection is to do.
#[derive(Debug)]
pub enum Outgoing {
    /// Send this.
    Message(Vec<u8>),
    /// Close, once what came before is out.
    Close,
}

/// Why the gateway cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {protocol} {address}{}", on(.device.as_deref()))]
pub struct ListenError {
    protocol: &'static str,
    address: SocketAddrV4,
    device: Option<String>,
    source: io::Error,
}

fn on(device: Option<&str>) -> String {
    device.map(|device| format!(" of {device}")).unwrap_or_default()
}

impl ListenError {
    /// The same for the end of `main`.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let port = self.address.port();
        let (code, hint) = match self.source.kind() {
            io::ErrorKind::AddrInUse => (
                ExitCode::Failure,
                format!(
                    "`ss -lntup 'sport = :{port}'` names the program that has it; stop that, or set another PORT"
                ),
            ),
            io::ErrorKind::AddrNotAvailable => {
                (ExitCode::Failure, format!("give the address {} to INT_IF", self.address.ip()))
            }
            io::ErrorKind::PermissionDenied => {
                (ExitCode::Missing, "run as root, or with CAP_NET_RAW and CAP_NET_BIND_SERVICE".to_owned())
            }
            _ => (ExitCode::Failure, "see `rsipd check`".to_owned()),
        };
        Failure::new(code, self.to_string()).why(self.source.to_string()).hint(hint)
    }
}

/// Both sockets, bound.
#[derive(Debug)]
pub struct Sockets {
    /// Datagrams.
    pub udp: UdpSocket,
    /// Connections.
    pub tcp: TcpListener,
}

impl Sockets {
    /// Binds both to `address` on `device`. Port 0 lets the system choose one, the same for both.
    ///
    /// # Errors
    /// Says which of them cannot be bound, and why.
    pub fn bind(address: SocketAddrV4, device: Option<&str>) -> Result<Self, ListenError> {
        let failed = |protocol, address| {
            move |source: io::Error| ListenError {
                protocol,
                address,
                device: device.map(str::to_owned),
                source,
            }
        };
        let tcp = bound(SockType::Stream, address, device).map_err(failed("TCP", address))?;
        listen(&tcp, Backlog::MAXCONN).map_err(|errno| failed("TCP", address)(errno.into()))?;
        let tcp = TcpListener::from_std(StdTcpListener::from(tcp)).map_err(failed("TCP", address))?;
        let port = tcp.local_addr().map_err(failed("TCP", address))?.port();
        let address = SocketAddrV4::new(*address.ip(), port);
        let udp = bound(SockType::Datagram, address, device)
            .and_then(|socket| UdpSocket::from_std(StdUdpSocket::from(socket)))
            .map_err(failed("UDP", address))?;
        Ok(Self { udp, tcp })
    }
}

fn bound(kind: SockType, address: SocketAddrV4, device: Option<&str>) -> io::Result<OwnedFd> {
    let protocol = if kind == SockType::Stream { SockProtocol::Tcp } else { SockProtocol::Udp };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, kind, flags, protocol)?;
    if kind == SockType::Stream {
        // Connections of a daemon that just ended are in TIME_WAIT and must not keep the next one from starting.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if let Some(device) = device {
        // Before the bind: from the first packet on, only this device counts.
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device))?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(address))
        .map_err(Errno::into)
        .map(|()| socket)
}
