//! The gateway's ears: UDP and TCP on the internal interface, and nowhere else.
//!
//! Both sockets are bound to one address and to one device, so that an answer leaves from the address that was asked,
//! and a request that comes in at the external interface is never heard. Nothing here knows what a message says: bytes
//! become [`Input`]s on one bounded channel, which is the back-pressure: a full channel stops the reading.

mod input;
pub mod tcp;
pub mod udp;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddrV4, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt,
};
use rsip_sys::exit::{ExitCode, Failure};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use input::{Audience, Full, Input, Outbox, Outgoing, Place, Standing};

/// Inputs that wait for the machine, at most: the size of the channel.
pub const WAITING: usize = 512;
/// Datagrams that wait in the kernel, in bytes: a burst from many hosts is not lost. (The kernel counts an empty one as
/// some 800 bytes.)
const DATAGRAMS: usize = 4 << 20;
/// What waits in the kernel for one connection, in bytes: requests that nobody took yet, and answers that the host did
/// not read. A host has few of either.
const REQUESTS: usize = 64 << 10;
const ANSWERS: usize = 256 << 10;

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

impl Sockets {
    /// Listens on both from now on; answers the socket for datagrams to hosts. [`Input::Failed`] comes when one of the
    /// two ends; what is connected then can still be told.
    #[must_use]
    pub fn serve(
        self,
        inputs: mpsc::Sender<Input>,
        limits: tcp::Limits,
        audience: Audience,
    ) -> Arc<UdpSocket> {
        let udp = Arc::new(self.udp);
        let mut tasks = JoinSet::new();
        tasks.spawn(udp::serve(Arc::clone(&udp), inputs.clone(), audience.clone()));
        tasks.spawn(tcp::serve(self.tcp, inputs.clone(), limits, audience));
        tokio::spawn(async move {
            // Only a fault of ours ends one while the daemon listens.
            tasks.join_next().await;
            if inputs.send(Input::Failed).await.is_ok() {
                inputs.closed().await;
            }
        });
        udp
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
    if let Err(errno) = set_buffers(&socket, kind) {
        // As far as the system's limits let us: less is no fault.
        tracing::debug!(%errno, "socket buffers stay as they are");
    }
    if let Some(device) = device {
        // Before the bind: from the first packet on, only this device counts.
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device))?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(address))
        .map_err(Errno::into)
        .map(|()| socket)
}

fn set_buffers(socket: &OwnedFd, kind: SockType) -> Result<(), Errno> {
    if kind == SockType::Stream {
        // Inherited by every connection.
        setsockopt(socket, sockopt::RcvBuf, &REQUESTS)?;
        setsockopt(socket, sockopt::SndBuf, &ANSWERS)
    } else {
        setsockopt(socket, sockopt::RcvBufForce, &DATAGRAMS)
            .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &DATAGRAMS))
    }
}
