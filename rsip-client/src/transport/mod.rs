//! The way to the gateway: a task that owns the socket and gives whole messages.
//!
//! Each connection attempt is a value of its own with a number; what an earlier one still says is not heard. Dropping
//! a [`Transport`] closes it.

mod tcp;
mod udp;

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::wire::{FrameError, Message, ParseError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A connection that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages on their way to the socket. The state machine waits for each answer, so a few are plenty.
const QUEUE: usize = 16;

/// Why there is no way to the gateway.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The socket says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nobody answers to the attempt to connect.
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    /// The gateway closed the connection.
    #[error("closed by the gateway")]
    Closed,
    /// The stream is not RSIP.
    #[error("what answers there is not RSIP: {0}")]
    NotRsip(FrameError),
}

/// What happens on the way to the gateway.
#[derive(Debug)]
pub enum TransportEvent {
    /// It is open.
    Up,
    /// It could not be opened, or was lost.
    Down(TransportError),
    /// A message from the gateway.
    Message(Message),
    /// Something that is no message; over UDP it may come from anybody.
    Garbage(ParseError),
    /// The gateway's machine answers that nobody listens (UDP); it may pass.
    Unreachable(io::Error),
}

/// An event, and the number of the attempt that it belongs to.
pub type Numbered = (u64, TransportEvent);

/// An open way, or the attempt to open it.
#[derive(Debug)]
pub struct Transport {
    number: u64,
    outgoing: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Transport {
    /// Begins to open the way; what happens arrives on `events` with `number`.
    pub fn open(
        kind: HostTransport,
        gateway: SocketAddrV4,
        number: u64,
        events: mpsc::Sender<Numbered>,
    ) -> Self {
        let (outgoing, messages) = mpsc::channel(QUEUE);
        let events = Events { number, events };
        let task = match kind {
            HostTransport::Tcp => tokio::spawn(tcp::run(gateway, messages, events)),
            HostTransport::Udp => tokio::spawn(udp::run(gateway, messages, events)),
        };
        Self { number, outgoing, task }
    }

    /// The number given to [`Transport::open`].
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Sends a message. One that cannot go out is lost, as on any network: the state machine has its timers.
    pub fn send(&self, message: &Message) {
        match message.encode() {
            Ok(bytes) => {
                if self.outgoing.try_send(bytes).is_err() {
                    tracing::debug!("a message to the gateway was dropped: the way is closed or clogged");
                }
            }
            Err(error) => tracing::error!(%error, ?message, "a message of ours cannot be written"),
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        // What was sent just before is written first: the task ends when its queue is closed and empty. A task that
        // hangs in a connect or a write is bounded by its own timeouts.
        let (closed, _) = mpsc::channel(1);
        self.outgoing = closed;
        if !self.task.is_finished() {
            tracing::trace!(number = self.number, "transport closes");
        }
    }
}

/// Where a task tells what happens.
#[derive(Debug)]
struct Events {
    number: u64,
    events: mpsc::Sender<Numbered>,
}

impl Events {
    /// `false`: nobody listens any more.
    async fn tell(&self, event: TransportEvent) -> bool {
        self.events.send((self.number, event)).await.is_ok()
    }

    async fn message(&self, bytes: &[u8]) -> bool {
        match Message::parse(bytes) {
            Ok(message) => self.tell(TransportEvent::Message(message)).await,
            Err(error) => self.tell(TransportEvent::Garbage(error)).await,
        }
    }
}

#[cfg(test)]
mod tests;
