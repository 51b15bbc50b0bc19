//! The event loop: one task owns the machine, everything else sends it events over bounded channels.
//!
//! ```text
//!   UDP reader ───────────┐ Input (bounded, shared; each source has a share of it)
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

mod administration;
mod peers;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsip_proto::gateway::{Event, Gateway, GatewayCommand, InstallFailed, Misuse, Peer, Rule, Transport};
use rsip_sys::control::Call;
use rsip_sys::logging::LogHandle;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout_at};

use crate::config::Config;
use crate::control::view::{Answer, Request};
use crate::datapath::{Datapath, DatapathError};
use crate::discovery::Discovery;
use crate::discovery::load::{LoadClock, load_of};
use crate::journal::Journal;
use crate::listener::{Input, Outgoing};
use crate::signals::Signal;
use peers::{Gone, Peers};

/// Rules and connections get so long to end when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(2);

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
    /// How hosts find the gateway; nothing: they have to know it.
    pub discovery: Option<Discovery>,
}

/// Why the daemon ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data path could not be taken back completely.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// A listener has ended, which it never does by itself.
    #[error("the RSIP service has failed, and its hosts were told")]
    Deaf,
}

/// The owner of the machine.
pub struct Daemon<D> {
    gateway: Gateway,
    datapath: D,
    peers: Peers,
    sources: Sources,
    context: Context,
    journal: Journal,
    started: Instant,
    load: LoadClock,
}

/// What woke the loop.
enum Wake {
    Signal(Signal),
    Clock,
    Call(Call<Request, Answer>),
    Input(Input),
    /// A host sends what it may not.
    Misuse(Ipv4Addr, Misuse),
    /// It is time to tell how busy the gateway is.
    Load,
    /// A listener has failed, or nobody is left who could send anything.
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
            peers: Peers::new(udp),
            sources,
            context,
            journal: Journal::new(started),
            started,
            load: LoadClock::new(started),
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
                Wake::Misuse(host, misuse) => self.gateway.handle_misuse(host, misuse, Instant::now()),
                Wake::Load => self.tell_load(),
                Wake::Input(Input::Failed) | Wake::Deaf => {
                    tracing::error!("a listener has failed: please report this");
                    outcome = Err(DaemonError::Deaf);
                    break;
                }
                Wake::Input(input) => self.input(input).await,
            }
        }
        if outcome.is_err() {
            self.gateway.fail(Instant::now());
        } else {
            self.gateway.shutdown(Instant::now());
        }
        self.stop().await?;
        outcome
    }

    async fn next_wake(&mut self) -> Wake {
        let timer = self.gateway.poll_timeout();
        let load = self.load.due();
        let Sources { inputs, calls, signals } = &mut self.sources;
        tokio::select! {
            biased;
            Some(signal) = signals.recv() => Wake::Signal(signal),
            () = sleep_until(timer.unwrap_or_else(Instant::now).into()), if timer.is_some() => Wake::Clock,
            Some(call) = calls.recv() => Wake::Call(call),
            () = sleep_until(load.unwrap_or_else(Instant::now).into()), if load.is_some() => Wake::Load,
            // Rare: the data path sees to it.
            (host, misuse) = self.datapath.misused() => Wake::Misuse(host, misuse),
            input = inputs.recv() => input.map_or(Wake::Deaf, Wake::Input),
        }
    }

    async fn input(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Datagram { from, bytes, place } => {
                self.message(Peer { address: from, transport: Transport::Udp }, &bytes, now);
                self.carry_out().await;
                drop(place);
            }
            Input::Connected { id, from, outbox } => self.peers.connected(id, from, outbox),
            Input::Message { id, bytes, place } => {
                if let Some(peer) = self.peers.connection(id) {
                    self.message(peer, &bytes, now);
                    self.carry_out().await;
                    if self.gateway.is_served(peer) {
                        self.peers.served(id);
                    }
                }
                // Now that its answer is in the outbox.
                drop(place);
            }
            Input::Broken { id, header } => {
                if let Some(peer) = self.peers.connection(id) {
                    self.message(peer, &header, now);
                    // The answer goes into the outbox before the end.
                    self.carry_out().await;
                    self.send_to(id, Outgoing::Close);
                }
            }
            Input::Disconnected { id } => {
                if self.peers.disconnected(id) {
                    self.gateway.handle_disconnect(id, now);
                }
            }
            // The loop ends with it.
            Input::Failed => {}
        }
    }

    fn tell_load(&mut self) {
        let now = Instant::now();
        self.load.computed(now);
        if let Some(discovery) = &self.context.discovery {
            discovery.set_load(load_of(&self.gateway.view(now), self.context.config.settings.max_clients));
        }
    }

    fn message(&mut self, peer: Peer, bytes: &[u8], now: Instant) {
        tracing::trace!(host = %peer.address, bytes = bytes.len(), "message");
        self.journal.counters.received += 1;
        self.gateway.handle_input(peer, bytes, now);
    }

    /// Carries out what the machine wants, until it wants nothing more.
    async fn carry_out(&mut self) {
        loop {
            let mut outcomes = Vec::new();
            while let Some(command) = self.gateway.next_command() {
                match command {
                    GatewayCommand::Send { to, message } => {
                        self.journal.counters.sent += 1;
                        if self.peers.send(to, &message).await.is_err() {
                            self.lost(to);
                        }
                    }
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
                    GatewayCommand::Event(event) => {
                        if let Event::Unregistered { host, .. } = event {
                            self.peers.unregistered(host);
                        }
                        let now = Instant::now();
                        self.load.changed(now);
                        self.journal.record(&event, now);
                    }
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

    /// Into a connection's outbox.
    fn send_to(&mut self, id: u64, outgoing: Outgoing) {
        if let Some(peer) = self.peers.connection(id)
            && let Err(Gone) = self.peers.put(id, outgoing)
        {
            self.lost(peer);
        }
    }

    /// A connection that does not take what it is sent has been given up.
    fn lost(&mut self, peer: Peer) {
        if let Transport::Tcp(id) = peer.transport {
            self.gateway.handle_disconnect(id, Instant::now());
        }
    }

    /// Lets the last messages out, and takes the data path back.
    async fn stop(mut self) -> Result<(), DatapathError> {
        tracing::info!("stopping");
        let deadline = Instant::now() + FAREWELL;
        // Beside the rest: nobody should come who is turned away.
        let discovery = self.context.discovery.take().map(|discovery| tokio::spawn(discovery.stop()));
        self.carry_out().await;
        // A rule that the data path did not forget at once is asked for again when the machine says so.
        while !self.gateway.is_drained() {
            let Some(timer) = self.gateway.poll_timeout().filter(|timer| *timer < deadline) else { break };
            sleep_until(timer.into()).await;
            self.gateway.handle_timeout(Instant::now());
            self.carry_out().await;
        }
        for id in self.peers.connections() {
            self.send_to(id, Outgoing::Close);
        }
        while self.peers.count() > 0 {
            match timeout_at(deadline.into(), self.sources.inputs.recv()).await {
                Ok(Some(Input::Disconnected { id })) => drop(self.peers.disconnected(id)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let closed = self.datapath.close().await;
        if let Some(discovery) = discovery {
            drop(discovery.await);
        }
        closed?;
        tracing::info!("stopped");
        Ok(())
    }
}
