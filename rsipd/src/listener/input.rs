//! What passes between listeners and the machine's owner.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

/// What came in.
#[derive(Debug)]
pub enum Input {
    /// A datagram, which should be one message.
    Datagram {
        /// Who sent it.
        from: SocketAddrV4,
        /// Its payload.
        bytes: Vec<u8>,
        /// To be dropped when it was carried out.
        place: Place,
    },
    /// A connection was opened. Exactly one `Disconnected` follows.
    Connected {
        /// Its number; never used again.
        id: u64,
        /// The other end.
        from: SocketAddrV4,
        /// The way back.
        outbox: Outbox,
    },
    /// A whole message by its length; what is in it may be anything.
    Message {
        /// The connection.
        id: u64,
        /// Header and parameters.
        bytes: Vec<u8>,
        /// To be dropped when it was carried out, and its answer, if there is one, is in the outbox.
        place: Place,
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
    /// A listener has ended by a fault of its own; from now on some hosts are not heard.
    Failed,
}

/// A place among what waits for the machine and is carried out. How many a source may have at the same time is bounded:
/// that is what keeps one host from filling the channel, and its unread answers from filling the memory.
#[derive(Debug)]
pub struct Place {
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Connection { _permit: OwnedSemaphorePermit },
    Source { _counted: Arc<()> },
}

impl Place {
    /// One of a connection's.
    pub(super) const fn of_connection(permit: OwnedSemaphorePermit) -> Self {
        Self { _held: Held::Connection { _permit: permit } }
    }

    /// One of a source of datagrams, counted by the references to its mark.
    pub(super) fn of_source(mark: &Arc<()>) -> Self {
        Self { _held: Held::Source { _counted: Arc::clone(mark) } }
    }
}

/// What a connection is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Send this.
    Message(Vec<u8>),
    /// Close, once what came before is out.
    Close,
}

/// What a connection is good for. What stands low has little time, and makes room first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// No whole message has come.
    Silent,
    /// Messages came, but none from a registered host.
    Stranger,
    /// A registered host was served over it.
    Host,
}

/// The way to a connection. Dropping it closes the connection, after what was put in before.
#[derive(Debug)]
pub struct Outbox {
    pub(super) messages: mpsc::Sender<Outgoing>,
    pub(super) standing: watch::Sender<Standing>,
}

/// The host does not take what it is sent.
#[derive(Debug)]
pub struct Full;

impl Outbox {
    /// Puts something in, without waiting.
    ///
    /// # Errors
    /// When too much waits in it, or the connection is gone.
    pub fn put(&self, outgoing: Outgoing) -> Result<(), Full> {
        self.messages.try_send(outgoing).map_err(|_| Full)
    }

    /// Tells the connection that a registered host is served over it.
    pub fn promote(&self) {
        self.standing.send_if_modified(|known| std::mem::replace(known, Standing::Host) != Standing::Host);
    }

    /// Tells the connection that its host is not registered any more.
    pub fn demote(&self) {
        self.standing.send_if_modified(|known| {
            let served = *known == Standing::Host;
            if served {
                *known = Standing::Stranger;
            }
            served
        });
    }
}

/// Whose requests are heard.
#[derive(Clone, Debug)]
pub enum Audience {
    /// Everybody's who reaches the sockets.
    All,
    /// Those of hosts: the gateway itself is none, by whichever of its addresses.
    Hosts {
        /// The gateway's own addresses, and those that it leases: a host is known by its private one.
        not: Arc<[Ipv4Addr]>,
    },
}

impl Audience {
    /// Whether this one is heard.
    #[must_use]
    pub fn hears(&self, source: Ipv4Addr) -> bool {
        match self {
            Self::All => true,
            Self::Hosts { not } => !source.is_loopback() && !not.contains(&source),
        }
    }
}
