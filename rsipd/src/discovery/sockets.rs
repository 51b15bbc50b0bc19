//! The sockets of SLP: one address, the group and broadcasts of the internal interface, and nothing else.
//!
//! A socket each, so that port 427 of every other address stays free: leased addresses are never bound.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use rsip_slp::wire::{GROUP, MULTICAST_TTL, PORT};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use super::Setup;
use super::session::Input;
use super::streams;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// Why port 427 cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {what}: {source}{}", hint(.source))]
pub(super) struct SocketError {
    what: String,
    source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": `ss -lntup 'sport = :427'` names the program that has the port; set SLP = false to do without"
        }
        io::ErrorKind::PermissionDenied => {
            ": run as root, or with CAP_NET_BIND_SERVICE; set SLP = false to do without"
        }
        _ => "",
    }
}

/// What an agent speaks through.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Everything that is sent goes through this one.
    pub(super) unicast: Arc<UdpSocket>,
    /// Datagrams to the group and to broadcast addresses.
    pub(super) groups: Vec<UdpSocket>,
    pub(super) tcp: Option<TcpListener>,
    /// The interface of connections that are opened; nothing: wherever they lead.
    pub(super) device: Option<String>,
}

impl Sockets {
    /// What is needed to speak with a daemon of this host.
    pub(super) fn to_daemon() -> Result<Self, SocketError> {
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let unicast = datagrams(local, None, false)
            .map_err(|source| SocketError { what: format!("UDP {local}"), source })?;
        Ok(Self { unicast: Arc::new(unicast), groups: Vec::new(), tcp: None, device: None })
    }

    /// What is needed to be found without one.
    pub(super) fn bind(setup: &Setup) -> Result<Self, SocketError> {
        let device = setup.device.as_deref();
        let address = SocketAddrV4::new(setup.address, setup.port);
        let failed = |what: String| move |source| SocketError { what, source };
        let unicast = datagrams(address, device, false).map_err(failed(format!("UDP {address}")))?;
        // Port 0 lets the system choose one, the same for all.
        let port = unicast.local_addr().map_err(failed(format!("UDP {address}")))?.port();
        let to_group = |socket: &UdpSocket| {
            let socket = socket2::SockRef::from(socket);
            socket.set_multicast_if_v4(&setup.address)?;
            socket.set_multicast_ttl_v4(MULTICAST_TTL)?;
            // A host agent on this very machine has nothing to lease from its own gateway.
            socket.set_multicast_loop_v4(false)
        };
        to_group(&unicast).map_err(failed(format!("UDP {address}")))?;
        let tcp = SocketAddrV4::new(setup.address, port);
        let tcp = stream_listener(tcp, device).map_err(failed(format!("TCP {tcp}")))?;
        let group = SocketAddrV4::new(GROUP, port);
        let joined = datagrams(group, device, true).and_then(|socket| {
            let index = InterfaceIndexOrAddress::Address(setup.address);
            socket2::SockRef::from(&socket).join_multicast_v4_n(&GROUP, &index)?;
            Ok(socket)
        });
        let mut groups = vec![joined.map_err(failed(format!("UDP {group}")))?];
        for broadcast in [Some(Ipv4Addr::BROADCAST), setup.broadcast].into_iter().flatten() {
            let address = SocketAddrV4::new(broadcast, port);
            match datagrams(address, device, true) {
                Ok(socket) => groups.push(socket),
                // Only hosts that cannot multicast miss it.
                Err(error) => tracing::debug!(%address, %error, "no SLP by broadcast"),
            }
        }
        Ok(Self { unicast: Arc::new(unicast), groups, tcp: Some(tcp), device: setup.device.clone() })
    }

    /// Reads from now on; what comes goes to `inputs`. The tasks end when nobody takes it any more.
    pub(super) fn serve(self, inputs: &mpsc::Sender<Input>) -> (Arc<UdpSocket>, tokio::task::JoinSet<()>) {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(read(Arc::clone(&self.unicast), false, inputs.clone()));
        for group in self.groups {
            tasks.spawn(read(Arc::new(group), true, inputs.clone()));
        }
        if let Some(tcp) = self.tcp {
            tasks.spawn(streams::accept(tcp, inputs.clone()));
        }
        (self.unicast, tasks)
    }
}

/// Where to send what is for the group.
pub(super) const TO_GROUP: SocketAddrV4 = SocketAddrV4::new(GROUP, PORT);

fn bound(kind: Type, address: SocketAddrV4, device: Option<&str>, reuse: bool) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(reuse)?;
    if let Some(device) = device {
        // Before the bind: from the first packet on, only this device counts.
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&SocketAddr::V4(address).into())?;
    Ok(socket)
}

/// `shared`: others may have the same address and port; a group and broadcasts are for everybody.
fn datagrams(address: SocketAddrV4, device: Option<&str>, shared: bool) -> io::Result<UdpSocket> {
    UdpSocket::from_std(bound(Type::DGRAM, address, device, shared)?.into())
}

fn stream_listener(address: SocketAddrV4, device: Option<&str>) -> io::Result<TcpListener> {
    // Connections of a daemon that just ended are in TIME_WAIT and must not keep the next one from starting.
    let socket = bound(Type::STREAM, address, device, true)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn read(socket: Arc<UdpSocket>, group: bool, inputs: mpsc::Sender<Input>) {
    // The largest datagram there is: one that is cut off would look like a message with a wrong length.
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, SocketAddr::V4(from))) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                // A full channel drops, as the kernel would: whoever asks sends again.
                if let Err(mpsc::error::TrySendError::Closed(_)) =
                    inputs.try_send(Input::Datagram { from, group, bytes })
                {
                    return;
                }
            }
            Ok((_, SocketAddr::V6(_))) => {}
            // What ICMP says of an earlier datagram; the lack of an answer says the same.
            Err(error) => {
                tracing::debug!(%error, "cannot receive SLP datagrams");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
