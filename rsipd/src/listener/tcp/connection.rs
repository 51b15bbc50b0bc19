//! One connection: bytes to messages, answers to bytes.
//!
//! A host may send many requests before it reads an answer. At most [`WINDOW`] of them are under way at a time; the next
//! one is taken when an earlier one was carried out and what there is to send has left. So a host that does not read
//! stops being read, at a cost that does not grow with what it sends, and answers come in the order of the requests.

use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rsip_proto::wire::{FrameError, Framer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::{Input, Outgoing, Place, Standing};
use super::Limits;

/// Requests of one connection that are under way at the same time.
const WINDOW: u32 = 16;
/// Answers that leave together, in bytes.
const BATCH: usize = 16 * 1024;
/// How long, and for how many bytes, a closed connection listens on: an end with bytes unread would be a reset, which
/// can take from the host what it has not read yet.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELL_BYTES: usize = 1 << 20;

pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) from: SocketAddrV4,
    pub(super) standing: watch::Sender<Standing>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) limits: Limits,
}

impl Connection {
    /// Until either end closes, or time is up.
    pub(super) async fn run(self, mut stream: TcpStream, mut sendings: mpsc::Receiver<Outgoing>) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(from = %self.from, %error, "no keep-alive");
        }
        let mut standing = self.standing.subscribe();
        let places = Arc::new(Semaphore::new(WINDOW as usize));
        let mut incoming = Incoming::new();
        let mut buffer = [0; 4096];
        loop {
            incoming.cut();
            let deadline = incoming.deadline(&self.limits, *standing.borrow_and_update());
            tokio::select! {
                biased;
                outgoing = sendings.recv() => {
                    if self.send(&mut stream, outgoing, &mut sendings).await.is_break() {
                        return;
                    }
                }
                _ = places.acquire_many(WINDOW), if incoming.is_over() => {
                    // All is carried out, so all answers are in the outbox, of which the branch above left nothing.
                    return farewell(&mut stream).await;
                }
                permit = Arc::clone(&places).acquire_owned(), if incoming.next.is_some() => {
                    let (Ok(permit), Some(next)) = (permit, incoming.next.take()) else { return };
                    if self.forward(next, Place::of_connection(permit)).await.is_err() {
                        return;
                    }
                    incoming.taken();
                }
                Ok(()) = standing.changed() => incoming.judged(),
                read = stream.read(&mut buffer), if incoming.wants_more() => match read {
                    Ok(0) => incoming.ended = true,
                    Ok(length) => incoming.push(buffer.get(..length).unwrap_or_default()),
                    Err(_) => return,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    tracing::debug!(from = %self.from, "no whole message in time: closed");
                    return;
                }
            }
        }
    }

    async fn forward(
        &self,
        next: Result<Vec<u8>, FrameError>,
        place: Place,
    ) -> Result<(), mpsc::error::SendError<Input>> {
        let input = match next {
            Ok(bytes) => {
                self.standing.send_if_modified(|standing| {
                    let is_first = *standing == Standing::Silent;
                    *standing = Standing::Stranger.max(*standing);
                    is_first
                });
                Input::Message { id: self.id, bytes, place }
            }
            Err(error) => {
                tracing::debug!(from = %self.from, %error, "connection is out of step");
                Input::Broken { id: self.id, header: error.header() }
            }
        };
        self.inputs.send(input).await
    }

    /// Sends this and what follows it, or closes; `Break`: the connection is done.
    async fn send(
        &self,
        stream: &mut TcpStream,
        first: Option<Outgoing>,
        rest: &mut mpsc::Receiver<Outgoing>,
    ) -> ControlFlow<()> {
        let mut batch = Vec::new();
        let mut next = Some(first.unwrap_or(Outgoing::Close));
        while let Some(Outgoing::Message(bytes)) = &next {
            batch.extend_from_slice(bytes);
            next = if batch.len() < BATCH { rest.try_recv().ok() } else { None };
        }
        match timeout(self.limits.message, stream.write_all(&batch)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return ControlFlow::Break(()),
            Err(_) => {
                tracing::debug!(from = %self.from, "does not take answers: closed");
                return ControlFlow::Break(());
            }
        }
        if next == Some(Outgoing::Close) {
            farewell(stream).await;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// What has come over a stream and is not carried out yet.
struct Incoming {
    framer: Framer,
    /// Cut off and waiting for a place.
    next: Option<Result<Vec<u8>, FrameError>>,
    /// The other end has said all.
    ended: bool,
    /// Where the next message begins cannot be known.
    broken: bool,
    /// When the last message was taken, or the first byte of the next one came.
    since: Instant,
}

impl Incoming {
    fn new() -> Self {
        Self { framer: Framer::new(), next: None, ended: false, broken: false, since: Instant::now() }
    }

    /// Cuts off the next message, if it is whole.
    fn cut(&mut self) {
        if self.next.is_none() && !self.broken {
            self.next = self.framer.next_message();
            self.broken = matches!(self.next, Some(Err(_)));
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        // From the first byte of a message: more bytes of it buy no more time.
        if self.framer.pending() == 0 {
            self.since = Instant::now();
        }
        self.framer.push(bytes);
    }

    fn taken(&mut self) {
        self.since = Instant::now();
    }

    /// The time between messages begins anew with what the connection is good for; that of a message does not.
    fn judged(&mut self) {
        if self.framer.pending() == 0 {
            self.taken();
        }
    }

    const fn wants_more(&self) -> bool {
        self.next.is_none() && !self.ended && !self.broken
    }

    /// Whether nothing more comes, and all that came was taken.
    const fn is_over(&self) -> bool {
        self.ended && self.next.is_none() && !self.broken
    }

    /// Until when something has to come.
    fn deadline(&self, limits: &Limits, standing: Standing) -> Option<Instant> {
        if !self.wants_more() {
            // It is our turn.
            None
        } else if self.framer.pending() > 0 {
            Some(self.since + limits.message)
        } else if standing == Standing::Host {
            None
        } else {
            Some(self.since + limits.idle)
        }
    }
}

async fn farewell(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let unread = async {
        let mut buffer = [0; 4096];
        let mut left = FAREWELL_BYTES;
        while left > 0 {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => left = left.saturating_sub(length),
            }
        }
    };
    drop(timeout(FAREWELL, unread).await);
}

/// Answers leave at once, and the connection of a host that lost power ends some day.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &60)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &6)?;
    // The same two minutes where something is under way, for which keep-alive is silent.
    setsockopt(stream, sockopt::TcpUserTimeout, &120_000)?;
    Ok(())
}
