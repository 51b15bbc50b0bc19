//! The event loop: one task owns the machine, everything else sends it events over bounded channels.
//!
//! ```text
//!   UDP reader ───────────┐ Input (bounded, shared: a full channel stops the reading)
//!   TCP acceptor ─────────┤
//!   TCP connection … ─────┴───────────►┌────────┐ Install, Remove ┌──────────┐
//!   control server ──── Call ─────────►│ Daemon │───────────────► │ Datapath │
//!   signals ─────────── Signal ───────►│        │◄─── outcome ─── │          │
//!   clock ──────────── poll_timeout ──►│        │◄─── misuse ──── └──────────┘
//!                                      └────────┘
//!                                        │    └── UDP socket
//!                                        └─ Outgoing (bounded, one a connection) ─► TCP connection …
//! ```
//!
//! Priorities, and why in this order:
//! 1. commands of the machine: it wants all of them carried out before the next input;
//! 2. signals: few, and the way out must always be open;
//! 3. the clock: a flood of messages must not keep a lease from ending;
//! 4. control: few, and the administrator wants to see the flood;
//! 5. reports of misuse: the data path bounds them, and a flood of messages must not hide them;
//! 6. hosts, one message at a time, in the order in which their senders got into the channel, which is fair among them.
//!
//! The loop never waits for a host: a connection that does not take its answers is closed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsip_proto::gateway::{Gateway, GatewayCommand, InstallFailed, Misuse, Peer, Rule, Transport};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::wire::Message;
use rsip_sys::control::Call;
use rsip_sys::logging::LogHandle;
use rsip_sys::rundir;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout_at};

use crate::config::Config;
use crate::control::table;
use crate::control::view::{self, Answer, Request, State};
use crate::datapath::{Datapath, DatapathError};
use crate::journal::Journal;
use crate::listener::{Input, Outgoing};
use crate::signals::Signal;

/// Rules and connections get so long to end when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// A datagram that the kernel does not take within this is lost, as datagrams may be.
const UDP_SEND: Duration = Duration::from_millis(50);

/// Where events come from.
#[derive(Debug)]
pub struct Sources {
    /// From the listeners.
    pub inputs: mpsc::Receiver<Input>,
    /// From the control socket.
    pub calls: mpsc::Receiver<Call<Request, Answer>>,
    /// From the system.
    pub signals: mpsc::Receiver<Signal>,
}

/// What the daemon knows of itself, beside the machine.
#[derive(Debug)]
pub struct Context {
    /// As it was read at the start, or last applied.
    pub config: Config,
    /// Changes the log level at a reload; nothing where the command line fixed it.
    pub log: Option<LogHandle>,
    /// Where the status file goes unless the configuration says otherwise.
    pub default_status_file: PathBuf,
    /// Where hosts find the service.
    pub listening: SocketAddrV4,
}

/// Why the daemon ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data path could not be taken back completely.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The listeners have ended, which they never do by themselves.
    #[error("no listener is left")]
    Deaf,
}

struct Connection {
    from: SocketAddrV4,
    outbox: mpsc::Sender<Outgoing>,
}

/// The owner of the machine.
pub struct Daemon<D> {
    gateway: Gateway,
    datapath: D,
    udp: Arc<UdpSocket>,
    sources: Sources,
    context: Context,
    connections: BTreeMap<u64, Connection>,
    journal: Journal,
    started: Instant,
}

/// What woke the loop.
enum Wake {
    Signal(Signal),
    Clock,
    Call(Call<Request, Answer>),
    Input(Input),
    /// A host sends what it may not.
    Misuse(Ipv4Addr, Misuse),
    /// Nobody is left who could send anything.
    Deaf,
}

impl<D: Datapath> Daemon<D> {
    /// A daemon that has not begun.
    pub fn new(
        gateway: Gateway,
        datapath: D,
        udp: Arc<UdpSocket>,
        sources: Sources,
        context: Context,
    ) -> Self {
        let started = Instant::now();
        Self {
            gateway,
            datapath,
            udp,
            sources,
            context,
            connections: BTreeMap::new(),
            journal: Journal::new(started),
            started,
        }
    }

    /// Serves until told to stop, then takes everything back.
    ///
    /// # Errors
    /// When it ended without being told to, or could not take everything back.
    pub async fn run(mut self) -> Result<(), DaemonError> {
        let mut outcome = Ok(());
        loop {
            self.carry_out().await;
            match self.next_wake().await {
                Wake::Signal(Signal::Stop) => break,
                Wake::Signal(Signal::Reload) => self.reload(),
                Wake::Signal(Signal::WriteStatus) => self.write_status(),
                Wake::Clock => self.gateway.handle_timeout(Instant::now()),
                Wake::Call(call) => {
                    if self.call(call).await {
                        break;
                    }
                }
                Wake::Input(input) => self.input(input).await,
                Wake::Misuse(host, misuse) => self.gateway.handle_misuse(host, misuse, Instant::now()),
                Wake::Deaf => {
                    outcome = Err(DaemonError::Deaf);
                    break;
                }
            }
        }
        self.stop().await?;
        outcome
    }

    async fn next_wake(&mut self) -> Wake {
        let timer = self.gateway.poll_timeout();
        let Sources { inputs, calls, signals } = &mut self.sources;
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => Wake::Signal(signal),
            () = sleep_until(timer.unwrap_or_else(Instant::now).into()), if timer.is_some() => Wake::Clock,
            Some(call) = calls.recv() => Wake::Call(call),
            // Rare: the data path sees to it.
            (host, misuse) = self.datapath.misused() => Wake::Misuse(host, misuse),
            input = inputs.recv() => input.map_or(Wake::Deaf, Wake::Input),
        }
    }

    async fn input(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Datagram { from, bytes } => {
                self.message(Peer { address: from, transport: Transport::Udp }, &bytes, now);
            }
            Input::Connected { id, from, outbox } => {
                self.connections.insert(id, Connection { from, outbox });
            }
            Input::Message { id, bytes } => {
                if let Some(peer) = self.peer(id) {
                    self.message(peer, &bytes, now);
                }
            }
            Input::Broken { id, header } => {
                if let Some(peer) = self.peer(id) {
                    self.message(peer, &header, now);
                    // The answer goes into the outbox before the end.
                    self.carry_out().await;
                    self.send_to(id, Outgoing::Close);
                }
            }
            Input::Disconnected { id } => {
                if self.connections.remove(&id).is_some() {
                    self.gateway.handle_disconnect(id, now);
                }
            }
        }
    }

    fn message(&mut self, peer: Peer, bytes: &[u8], now: Instant) {
        tracing::trace!(host = %peer.address, bytes = bytes.len(), "message");
        self.journal.counters.received += 1;
        self.gateway.handle_input(peer, bytes, now);
    }

    fn peer(&self, id: u64) -> Option<Peer> {
        let connection = self.connections.get(&id)?;
        Some(Peer { address: connection.from, transport: Transport::Tcp(id) })
    }

    /// Carries out what the machine wants, until it wants nothing more.
    async fn carry_out(&mut self) {
        loop {
            let mut outcomes = Vec::new();
            while let Some(command) = self.gateway.next_command() {
                match command {
                    GatewayCommand::Send { to, message } => self.send(to, &message).await,
                    GatewayCommand::Install { op, rule } => {
                        let outcome = self.datapath.install(&rule);
                        outcomes.push((op, self.outcome("install", &rule, outcome)));
                    }
                    GatewayCommand::Remove { op, rule } => {
                        let outcome = self.datapath.remove(&rule);
                        outcomes.push((op, self.outcome("remove", &rule, outcome)));
                    }
                    GatewayCommand::Close { peer } => {
                        if let Transport::Tcp(id) = peer.transport {
                            self.send_to(id, Outgoing::Close);
                        }
                    }
                    GatewayCommand::Event(event) => self.journal.record(&event, Instant::now()),
                }
            }
            if outcomes.is_empty() {
                return;
            }
            let now = Instant::now();
            for (op, outcome) in outcomes {
                self.gateway.handle_done(op, outcome, now);
            }
        }
    }

    fn outcome(
        &mut self,
        action: &str,
        rule: &Rule,
        outcome: Result<(), DatapathError>,
    ) -> Result<(), InstallFailed> {
        outcome.map_err(|error| {
            self.journal.counters.datapath_failures += 1;
            let Rule { client_id, bind_id, address, leased, .. } = rule;
            tracing::error!(%client_id, %bind_id, %address, %leased, %error, "data path cannot {action} a rule");
            InstallFailed
        })
    }

    async fn send(&mut self, to: Peer, message: &Message) {
        let bytes = match message.encode() {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(host = %to.address, %error, "an answer cannot be written: please report this");
                return;
            }
        };
        self.journal.counters.sent += 1;
        match to.transport {
            Transport::Tcp(id) => self.send_to(id, Outgoing::Message(bytes)),
            Transport::Udp => {
                match tokio::time::timeout(UDP_SEND, self.udp.send_to(&bytes, to.address)).await {
                    Ok(Ok(_)) => {}
                    // Port 0, no route back, a full queue: the host asks again.
                    Ok(Err(error)) => tracing::debug!(host = %to.address, %error, "cannot answer"),
                    Err(_) => tracing::debug!(host = %to.address, "cannot answer in time"),
                }
            }
        }
    }

    /// Into a connection's outbox; a full one means a host that does not read, and is closed.
    fn send_to(&mut self, id: u64, outgoing: Outgoing) {
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.outbox.try_send(outgoing).is_err() {
            tracing::debug!(host = %connection.from, "does not take answers: closed");
            // Without an outbox the connection ends by itself.
            self.connections.remove(&id);
            self.gateway.handle_disconnect(id, Instant::now());
        }
    }

    /// Answers a call; true: the daemon is to stop.
    async fn call(&mut self, call: Call<Request, Answer>) -> bool {
        let (request, reply) = call.split();
        let now = Instant::now();
        let answer = match request {
            Request::Dump => Ok(Answer::State(Box::new(self.state(now)))),
            Request::Release { client, bind } => {
                let client_id = ClientId(client);
                let found = match bind {
                    None => self.gateway.release_client(client_id, now),
                    Some(bind) => self.gateway.release_bind(client_id, BindId(bind), now),
                };
                // Answer after effect, here too.
                self.carry_out().await;
                let what =
                    || bind.map_or(format!("client {client}"), |bind| format!("binding {client}/{bind}"));
                if found { Ok(Answer::Done) } else { Err(format!("there is no {}", what())) }
            }
            Request::Stop => {
                tracing::info!("told to stop by rsipdctl");
                reply.answer(Ok(Answer::Done));
                return true;
            }
        };
        reply.answer(answer);
        false
    }

    fn state(&self, now: Instant) -> State {
        let gateway = self.gateway.view(now);
        let settings = &self.context.config.settings;
        let installed = |rule: &Rule| self.datapath.holds(rule).ok();
        State {
            daemon: view::Daemon {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime: now.saturating_duration_since(self.started).as_secs(),
                internal_interface: settings.int_if.clone(),
                external_interface: settings.ext_if.clone(),
                listening: self.context.listening.to_string(),
                datapath: self.datapath.name().to_owned(),
                connections: self.connections.len(),
            },
            clients: gateway.clients.iter().map(|client| view::Client::new(client, installed)).collect(),
            pool: gateway.pool.iter().map(view::Pool::from).collect(),
            counters: view::Counters {
                events: self.journal.counters.clone(),
                datapath: self.datapath.stats().ok(),
            },
        }
    }

    fn write_status(&self) {
        let path =
            self.context.config.settings.status_file.as_ref().unwrap_or(&self.context.default_status_file);
        let table = table::dump(&self.state(Instant::now()));
        match rundir::write_atomically(path, table.as_bytes()) {
            Ok(()) => tracing::info!(path = %path.display(), "status file written"),
            Err(error) => tracing::error!(%error, "status file not written"),
        }
    }

    /// Applies what can change without touching a lease; says what cannot.
    fn reload(&mut self) {
        let new = match Config::read(&self.context.config.file) {
            Ok(config) => config.settings,
            Err(error) => {
                for line in error.lines() {
                    tracing::error!("reload: {line}");
                }
                tracing::error!("reload: nothing was changed");
                return;
            }
        };
        let settings = &mut self.context.config.settings;
        if new.log_level != settings.log_level {
            let changed = self.context.log.as_ref().map(|log| log.set_level(&new.log_level));
            match changed {
                Some(Ok(true)) => {}
                Some(Err(error)) => tracing::error!(%error, "reload"),
                Some(Ok(false)) | None => {
                    tracing::warn!("reload: LOG_LEVEL stays as the command line or the environment says");
                }
            }
            settings.log_level.clone_from(&new.log_level);
        }
        settings.status_file.clone_from(&new.status_file);
        let rest = settings.differences(&new);
        if rest.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(keys = rest.join(", "), "configuration reloaded; these keys wait for a restart");
        }
    }

    /// De-registers every host, lets the answers out, and takes the data path back.
    async fn stop(mut self) -> Result<(), DatapathError> {
        tracing::info!("stopping");
        let deadline = Instant::now() + FAREWELL;
        self.gateway.shutdown(Instant::now());
        self.carry_out().await;
        // A rule that the data path did not forget at once is asked for again when the machine says so.
        while !self.gateway.is_drained() {
            let Some(timer) = self.gateway.poll_timeout().filter(|timer| *timer < deadline) else { break };
            sleep_until(timer.into()).await;
            self.gateway.handle_timeout(Instant::now());
            self.carry_out().await;
        }
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.send_to(id, Outgoing::Close);
        }
        while !self.connections.is_empty() {
            match timeout_at(deadline.into(), self.sources.inputs.recv()).await {
                Ok(Some(Input::Disconnected { id })) => drop(self.connections.remove(&id)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.datapath.close().await?;
        tracing::info!("stopped");
        Ok(())
    }
}
