//! Connections: accepted within bounds, cut into messages, and given up when they only cost.
//!
//! Where there is no room for a new one, an old one makes it: of the lowest [`Standing`], of the host that has most, the
//! oldest. The last connection over which a registered host was served is never taken from it by others: a host that
//! opens connections for nothing, or a stranger, takes nothing from the hosts that talk RSIP. A host that has as many
//! connections as it may have loses its own oldest: registrations outlive connections, and the newest is in use.

mod connection;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::sleep;

use super::{Audience, Input, Outbox, Standing};
use crate::config::Settings;
use connection::Connection;

/// What may wait for a host that does not read. Answers are few, since the next request is taken when the earlier ones
/// have left; this is for what the gateway says unasked, as when thousands of leases end together.
const OUTBOX: usize = 4096;

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub total: usize,
    /// Of these from one host.
    pub per_host: usize,
    /// For one message to get through: a request from its first byte on, an answer into the connection.
    pub message: Duration,
    /// Between messages, where no registered host is served. Where one is, its registration ends sooner or later, and
    /// keep-alive finds it dead before that.
    pub idle: Duration,
}

impl Limits {
    /// As the administrator decided.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let most = settings.max_connections.unwrap_or(settings.max_clients.saturating_add(64));
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            total: count(most),
            per_host: count(settings.max_connections_per_host),
            message: settings.message_timeout,
            idle: settings.idle_timeout,
        }
    }

    /// The same, with no more connections than the process may have.
    #[must_use]
    pub fn capped(self, most: usize) -> Self {
        Self { total: self.total.min(most), ..self }
    }
}

/// Accepts until the daemon listens no more.
pub async fn serve(listener: TcpListener, inputs: mpsc::Sender<Input>, limits: Limits, audience: Audience) {
    let mut acceptor = Acceptor {
        inputs,
        limits,
        audience,
        last_id: 0,
        tasks: JoinSet::new(),
        ids: BTreeMap::new(),
        entries: BTreeMap::new(),
        of_host: BTreeMap::new(),
    };
    // The daemon listens no more: whatever is left ends with the tasks.
    let Err(Unheard) = acceptor.run(&listener).await;
}

/// A live connection, as the acceptor sees it.
struct Entry {
    host: Ipv4Addr,
    standing: watch::Sender<Standing>,
    abort: AbortHandle,
}

struct Acceptor {
    inputs: mpsc::Sender<Input>,
    limits: Limits,
    audience: Audience,
    last_id: u64,
    tasks: JoinSet<()>,
    ids: BTreeMap<Id, u64>,
    /// By number, so the oldest is the first.
    entries: BTreeMap<u64, Entry>,
    /// How many each host has.
    of_host: BTreeMap<Ipv4Addr, usize>,
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
        // Closed by the drop. The other end learns it at once, which waiting in the backlog would not tell.
        if !self.audience.hears(*from.ip()) {
            tracing::debug!(%from, "connection refused: not from a host");
            return Ok(());
        }
        if !self.make_room(*from.ip()).await? {
            tracing::debug!(%from, "connection refused: too many");
            return Ok(());
        }
        self.last_id += 1;
        let id = self.last_id;
        let (messages, sendings) = mpsc::channel(OUTBOX);
        let (standing, _) = watch::channel(Standing::Silent);
        let outbox = Outbox { messages, standing: standing.clone() };
        self.tell(Input::Connected { id, from, outbox }).await?;
        let (inputs, limits) = (self.inputs.clone(), self.limits);
        let connection = Connection { id, from, standing: standing.clone(), inputs, limits };
        let abort = self.tasks.spawn(connection.run(stream, sendings));
        self.ids.insert(abort.id(), id);
        self.entries.insert(id, Entry { host: *from.ip(), standing, abort });
        *self.of_host.entry(*from.ip()).or_default() += 1;
        Ok(())
    }

    /// Whether a connection from `host` fits, after another one was ended for it if need be.
    async fn make_room(&mut self, host: Ipv4Addr) -> Result<bool, Unheard> {
        let victim = if self.count(host) >= self.limits.per_host {
            self.least(|_, entry| entry.host == host)
        } else if self.entries.len() >= self.limits.total {
            self.least(|standing, entry| standing < Standing::Host || self.count(entry.host) > 1)
        } else {
            return Ok(true);
        };
        let Some(id) = victim else { return Ok(false) };
        if let Some(entry) = self.entries.get(&id) {
            entry.abort.abort();
        }
        while self.entries.contains_key(&id)
            && let Some(ended) = self.tasks.join_next_with_id().await
        {
            self.forget(ended).await?;
        }
        Ok(true)
    }

    fn count(&self, host: Ipv4Addr) -> usize {
        self.of_host.get(&host).copied().unwrap_or_default()
    }

    /// The connection that is missed least, of those that may go.
    fn least(&self, may_go: impl Fn(Standing, &Entry) -> bool) -> Option<u64> {
        let judged = self.entries.iter().map(|(id, entry)| (*id, *entry.standing.borrow(), entry));
        let candidates = judged.filter(|(_, standing, entry)| may_go(*standing, entry));
        let key = |(id, standing, entry): &(u64, Standing, &Entry)| {
            (*standing, Reverse(self.count(entry.host)), *id)
        };
        candidates.min_by_key(key).map(|(id, ..)| id)
    }

    async fn forget(&mut self, ended: Ended) -> Result<(), Unheard> {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => error.id(),
        };
        let Some(id) = self.ids.remove(&task) else { return Ok(()) };
        if let Some(entry) = self.entries.remove(&id)
            && let Some(count) = self.of_host.get_mut(&entry.host)
        {
            *count -= 1;
            if *count == 0 {
                self.of_host.remove(&entry.host);
            }
        }
        self.tell(Input::Disconnected { id }).await
    }

    async fn tell(&self, input: Input) -> Result<(), Unheard> {
        self.inputs.send(input).await.map_err(|_| Unheard)
    }
}
