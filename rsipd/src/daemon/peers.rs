//! The way to the hosts. Nothing here waits for a host: a connection that does not take its answers is given up.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use rsip_proto::gateway::{Peer, Transport};
use rsip_proto::wire::{Body, Message};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::listener::{Outbox, Outgoing};

/// An answer that the kernel does not take as a datagram within this is lost, as datagrams may be.
const UDP_SEND: Duration = Duration::from_millis(50);

/// All who can be told something.
pub(super) struct Peers {
    udp: Arc<UdpSocket>,
    connections: BTreeMap<u64, Connection>,
}

struct Connection {
    from: SocketAddrV4,
    outbox: Outbox,
}

/// The connection has just been given up.
pub(super) struct Gone;

impl Peers {
    pub(super) const fn new(udp: Arc<UdpSocket>) -> Self {
        Self { udp, connections: BTreeMap::new() }
    }

    pub(super) fn connected(&mut self, id: u64, from: SocketAddrV4, outbox: Outbox) {
        self.connections.insert(id, Connection { from, outbox });
    }

    /// Whether it was known until now.
    pub(super) fn disconnected(&mut self, id: u64) -> bool {
        self.connections.remove(&id).is_some()
    }

    pub(super) fn connection(&self, id: u64) -> Option<Peer> {
        let connection = self.connections.get(&id)?;
        Some(Peer { address: connection.from, transport: Transport::Tcp(id) })
    }

    pub(super) fn connections(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.connections.len()
    }

    /// A registered host is served over this connection.
    pub(super) fn served(&self, id: u64) {
        if let Some(connection) = self.connections.get(&id) {
            connection.outbox.promote();
        }
    }

    /// The host's connections serve nobody any more.
    pub(super) fn unregistered(&self, host: Ipv4Addr) {
        for connection in self.connections.values().filter(|connection| *connection.from.ip() == host) {
            connection.outbox.demote();
        }
    }

    /// Sends a message, or loses it: a peer that is gone is not an error.
    pub(super) async fn send(&mut self, to: Peer, message: &Message) -> Result<(), Gone> {
        let bytes = match message.encode() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(host = %to.address, %error, "an answer cannot be written: please report this");
                return Ok(());
            }
        };
        match to.transport {
            Transport::Tcp(id) => self.put(id, Outgoing::Message(bytes)),
            Transport::Udp => {
                let is_error = matches!(message.body, Body::ErrorResponse { .. });
                self.send_datagram(to.address, &bytes, is_error).await;
                Ok(())
            }
        }
    }

    /// Into a connection's outbox; a full one means a host that does not read.
    pub(super) fn put(&mut self, id: u64, outgoing: Outgoing) -> Result<(), Gone> {
        let Some(connection) = self.connections.get(&id) else { return Ok(()) };
        if connection.outbox.put(outgoing).is_ok() {
            return Ok(());
        }
        tracing::debug!(host = %connection.from, "does not take answers: closed");
        // Without an outbox the connection ends by itself.
        self.connections.remove(&id);
        Err(Gone)
    }

    /// Errors are not waited for: whoever sends nonsense in another's name could make us wait for a host that is not
    /// there. Everybody else asks again, too, but is served better.
    async fn send_datagram(&self, to: SocketAddrV4, bytes: &[u8], is_error: bool) {
        let sent = if is_error {
            self.udp.try_send_to(bytes, to.into())
        } else {
            match timeout(UDP_SEND, self.udp.send_to(bytes, to)).await {
                Ok(sent) => sent,
                Err(_) => return tracing::debug!(host = %to, "cannot answer in time"),
            }
        };
        // Port 0, no route back, a full queue.
        if let Err(error) = sent {
            tracing::debug!(host = %to, %error, "cannot answer");
        }
    }
}
