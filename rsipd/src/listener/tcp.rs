//! Connections: accepted within bounds, cut into messages, and given up when they only cost.
//!
//! A connection is *proven* once a whole message came over it. What is not proven has little time, and makes room first:
//! a host that opens connections for nothing, or a stranger, takes nothing from the hosts that talk RSIP.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rsip_proto::wire::Framer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Input, Outgoing};
use crate::config::Settings;

/// Answers that may wait for a host that does not read; one that lets more pile up is closed.
const OUTBOX: usize = 64;
/// Most bytes of one request. The longest that a host can need has under 600; some room for vendors' parameters.
const MAX_REQUEST: usize = 4096;
/// A connection whose host has said all stays open so long for the last answer.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub total: usize,
    /// Of these from one host.
    pub per_host: usize,
    /// The first message has to be whole within this time.
    pub first: Duration,
    /// Any later message has to be whole within this time of its first byte.
    pub partial: Duration,
    /// Between messages.
    pub idle: Duration,
    /// An answer has to be taken within this time.
    pub write: Duration,
}

impl Limits {
    /// As the administrator decided. A host whose longest lease has passed in silence is not registered any more, and so
    /// has no need of its connection.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let most = settings.max_connections.unwrap_or(settings.max_clients.saturating_add(64));
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            total: count(most),
            per_host: count(settings.max_connections_per_host),
            first: settings.idle_timeout,
            partial: settings.message_timeout,
            idle: settings.max_lease_time.saturating_add(Duration::from_secs(60)),
            write: settings.message_timeout,
        }
    }

    /// The same, with no more connections than the process may have.
    #[must_use]
    pub fn capped(self, most: usize) -> Self {
        Self { total: self.total.min(most), ..self }
    }
}

/// Accepts until the daemon listens no more.
pub async fn serve(listener: TcpListener, inputs: mpsc::Sender<Input>, limits: Limits) {
    let (tasks, entries) = (JoinSet::new(), BTreeMap::new());
    let mut acceptor = Acceptor { inputs, limits, last_id: 0, tasks, ids: BTreeMap::new(), entries };
    // The daemon listens no more: whatever is left ends with the tasks.
    let Err(Unheard) = acceptor.run(&listener).await;
}

/// A live connection, as the acceptor sees it.
struct Entry {
    host: Ipv4Addr,
    proven: Arc<AtomicBool>,
    abort: AbortHandle,
}

struct Acceptor {
    inputs: mpsc::Sender<Input>,
    limits: Limits,
    last_id: u64,
    tasks: JoinSet<()>,
    ids: BTreeMap<Id, u64>,
    /// By number, so the oldest is the first.
    entries: BTreeMap<u64, Entry>,
}

/// Nobody takes inputs any more.
struct Unheard;

/// How a connection's task ended.
type Ended = Result<(Id, ()), JoinError>;

impl Acceptor {
    async fn run(&mut self, listener: &TcpListener) -> Result<Infallible, Unheard> {
        loop {
            tokio::select! {
                biased;
                // Ended ones first, so that there is as much room as can be.
                Some(ended) = self.tasks.join_next_with_id() => self.forget(ended).await?,
                () = self.inputs.closed() => return Err(Unheard),
                accepted = listener.accept() => match accepted {
                    Ok((stream, SocketAddr::V4(from))) => self.admit(stream, from).await?,
                    Ok((_, SocketAddr::V6(_))) => {}
                    Err(error) => {
                        // Out of descriptors, most likely: they come back as connections end.
                        tracing::warn!(%error, "cannot accept connections");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }

    async fn admit(&mut self, stream: TcpStream, from: SocketAddrV4) -> Result<(), Unheard> {
        if !self.make_room(*from.ip()).await? {
            // Closed by the drop. The host learns it at once, which waiting in the backlog would not tell.
            tracing::debug!(%from, "connection refused: too many");
            return Ok(());
        }
        self.last_id += 1;
        let id = self.last_id;
        let (outbox, sendings) = mpsc::channel(OUTBOX);
        self.tell(Input::Connected { id, from, outbox }).await?;
        let proven = Arc::new(AtomicBool::new(false));
        let (inputs, limits) = (self.inputs.clone(), self.limits);
        let connection = Connection { id, from, proven: Arc::clone(&proven), inputs, limits };
        let abort = self.tasks.spawn(connection.run(stream, sendings));
        self.ids.insert(abort.id(), id);
        self.entries.insert(id, Entry { host: *from.ip(), proven, abort });
        Ok(())
    }

    /// Whether a connection from `host` fits, after the oldest unproven one was ended for it if need be.
    async fn make_room(&mut self, host: Ipv4Addr) -> Result<bool, Unheard> {
        let of_host = || self.entries.iter().filter(|(_, entry)| entry.host == host);
        let unproven = |(_, entry): &(&u64, &Entry)| !entry.proven.load(Ordering::Relaxed);
        let victim = if of_host().count() >= self.limits.per_host {
            of_host().find(unproven)
        } else if self.entries.len() >= self.limits.total {
            self.entries.iter().find(unproven)
        } else {
            return Ok(true);
        };
        let Some((id, entry)) = victim else { return Ok(false) };
        let id = *id;
        entry.abort.abort();
        while self.entries.contains_key(&id)
            && let Some(ended) = self.tasks.join_next_with_id().await
        {
            self.forget(ended).await?;
        }
        Ok(true)
    }

    async fn forget(&mut self, ended: Ended) -> Result<(), Unheard> {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => error.id(),
        };
        let Some(id) = self.ids.remove(&task) else { return Ok(()) };
        self.entries.remove(&id);
        self.tell(Input::Disconnected { id }).await
    }

    async fn tell(&self, input: Input) -> Result<(), Unheard> {
        self.inputs.send(input).await.map_err(|_| Unheard)
    }
}

struct Connection {
    id: u64,
    from: SocketAddrV4,
    proven: Arc<AtomicBool>,
    inputs: mpsc::Sender<Input>,
    limits: Limits,
}

impl Connection {
    async fn run(self, mut stream: TcpStream, mut sendings: mpsc::Receiver<Outgoing>) {
        if let Err(error) = keep_alive(&stream) {
            tracing::debug!(from = %self.from, %error, "no keep-alive");
        }
        let mut framer = Framer::with_max_message_len(MAX_REQUEST);
        let mut buffer = [0_u8; 2048];
        let mut reading = true;
        let mut deadline = Instant::now() + self.limits.first;
        loop {
            // What is to be sent goes out before more is taken in.
            match sendings.try_recv() {
                Ok(outgoing) => {
                    if self.send(&mut stream, outgoing).await.is_break() {
                        return;
                    }
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            match if reading { framer.next_message() } else { None } {
                Some(Ok(bytes)) => {
                    self.proven.store(true, Ordering::Relaxed);
                    let wait = if framer.pending() == 0 { self.limits.idle } else { self.limits.partial };
                    deadline = Instant::now() + wait;
                    if self.inputs.send(Input::Message { id: self.id, bytes }).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Err(error)) => {
                    tracing::debug!(from = %self.from, %error, "connection is out of step");
                    reading = false;
                    // The answer, then `Close`, come by the outbox.
                    deadline = Instant::now() + self.limits.write;
                    let broken = Input::Broken { id: self.id, header: error.header() };
                    if self.inputs.send(broken).await.is_err() {
                        return;
                    }
                    continue;
                }
                None => {}
            }
            tokio::select! {
                biased;
                outgoing = sendings.recv() => {
                    if self.send(&mut stream, outgoing.unwrap_or(Outgoing::Close)).await.is_break() {
                        return;
                    }
                }
                read = stream.read(&mut buffer), if reading => match read {
                    Ok(0) => {
                        // A host that has said all may still wait for its answer: as long as an answer can take.
                        reading = false;
                        deadline = Instant::now() + LAST_ANSWER;
                        self.proven.store(false, Ordering::Relaxed);
                    }
                    Ok(length) => {
                        // From the first byte of a message: more bytes of it buy no more time.
                        if framer.pending() == 0 && self.proven.load(Ordering::Relaxed) {
                            deadline = Instant::now() + self.limits.partial;
                        }
                        framer.push(buffer.get(..length).unwrap_or_default());
                    }
                    Err(_) => return,
                },
                () = sleep_until(deadline) => {
                    if reading {
                        tracing::debug!(from = %self.from, "no whole message in time: closed");
                    }
                    return;
                }
            }
        }
    }

    /// Sends or closes; `Break`: the connection is done.
    async fn send(&self, stream: &mut TcpStream, outgoing: Outgoing) -> ControlFlow<()> {
        let Outgoing::Message(bytes) = outgoing else {
            // The other end may be gone already.
            drop(stream.shutdown().await);
            return ControlFlow::Break(());
        };
        match timeout(self.limits.write, stream.write_all(&bytes)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break(()),
            Err(_) => {
                tracing::debug!(from = %self.from, "does not take answers: closed");
                ControlFlow::Break(())
            }
        }
    }
}

/// So that the connection of a host that lost power ends some day.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &60)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &6)?;
    Ok(())
}
