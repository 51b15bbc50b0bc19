//! One life of the agent: with a daemon, or alone. The loop owns the agent; readers send it what came over a bounded
//! channel.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rsip_slp::agent::{Command, Source, Via};
use rsip_slp::service::{ConfigError, Event, ServiceAgent, ServiceConfig};
use rsip_slp::template::Load;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::probe::{Memory, Way};
use super::sockets::{Sockets, TO_GROUP};
use super::status::Status;
use super::{FAREWELL, Setup, Task, probe, streams};

/// Messages that wait for the agent, at most.
const WAITING: usize = 64;
/// A datagram that the kernel does not take within this is lost, as datagrams may be.
const SEND: Duration = Duration::from_millis(50);

/// What came.
#[derive(Debug)]
pub(super) enum Input {
    /// A datagram; `group`: to the group or by broadcast.
    Datagram { from: SocketAddrV4, group: bool, bytes: Vec<u8> },
    /// A connection was accepted.
    Opened { id: u64, outbox: mpsc::Sender<Vec<u8>> },
    /// A message came over it.
    Request { id: u64, from: SocketAddrV4, bytes: Vec<u8> },
    /// It has ended.
    Closed { id: u64 },
    /// An answer over a connection that was opened here.
    Reply { from: SocketAddrV4, bytes: Vec<u8> },
    /// Such a connection gave no answer.
    Failed { to: SocketAddrV4 },
}

/// Why a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The gateway stops.
    Stop,
    /// The daemon does not answer any more.
    DaemonGone,
    /// The daemon has forgotten the registration: it was started anew.
    DaemonForgot,
    /// There is a daemon now.
    DaemonCame,
}

/// The SLP daemon of this host.
#[derive(Clone, Copy, Debug)]
enum Daemon {
    /// There may be one some day.
    Awaited(SocketAddrV4),
    /// It has the registration.
    Used(SocketAddrV4, Way),
}

pub(super) struct Session {
    agent: ServiceAgent,
    url: String,
    daemon: Daemon,
    /// Something was registered: it can be looked for.
    registered: bool,
    socket: Arc<UdpSocket>,
    device: Option<String>,
    inputs: mpsc::Receiver<Input>,
    to_self: mpsc::Sender<Input>,
    readers: JoinSet<()>,
    connections: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
}

/// What happened with directory agents, or with the daemon.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    registered: bool,
    silent: bool,
}

/// What woke the loop.
enum Wake {
    Stop,
    Load(Load),
    Clock,
    Probe,
    Input(Input),
}

impl Session {
    pub(super) fn new(
        config: ServiceConfig,
        seed: u64,
        setup: &Setup,
        daemon: Option<Way>,
        sockets: Sockets,
    ) -> Result<Self, ConfigError> {
        let daemon = match daemon {
            Some(way) => Daemon::Used(setup.daemon, way),
            None => Daemon::Awaited(setup.daemon),
        };
        let url = config.url.to_string();
        let agent = ServiceAgent::new(config, seed, Instant::now())?;
        let (to_self, inputs) = mpsc::channel(WAITING);
        let device = sockets.device.clone();
        let (socket, readers) = sockets.serve(&to_self);
        let connections = BTreeMap::new();
        Ok(Self {
            agent,
            url,
            daemon,
            registered: false,
            socket,
            device,
            inputs,
            to_self,
            readers,
            connections,
        })
    }

    /// Lives until something ends it; registrations have been taken back then, as far as that was possible.
    pub(super) async fn run(mut self, task: &mut Task) -> End {
        self.agent.handle_timeout(Instant::now());
        let mut probe_at = Instant::now() + task.setup.probe_interval;
        let uses_daemon = matches!(self.daemon, Daemon::Used(..));
        let end = loop {
            let heard = self.carry_out().await;
            self.registered |= heard.registered;
            if heard.registered && uses_daemon {
                task.works("the SLP daemon of this host answers");
            }
            let gone = heard.silent && uses_daemon;
            let load = task.loads.borrow().percent();
            task.statuses.send_replace(Status::of(&self.agent, &self.url, load, Instant::now()));
            if gone {
                break End::DaemonGone;
            }
            match self.next_wake(task, probe_at).await {
                Wake::Stop => break End::Stop,
                Wake::Load(load) => match task.setup.attributes(load) {
                    Ok(attributes) => self.agent.set_attributes(attributes, Instant::now()),
                    Err(error) => tracing::error!(%error, "the load cannot be told: please report this"),
                },
                Wake::Clock => self.agent.handle_timeout(Instant::now()),
                Wake::Probe => {
                    if let Some(end) = self.probe(task).await {
                        break end;
                    }
                    probe_at = Instant::now() + task.setup.probe_interval;
                }
                Wake::Input(input) => self.input(input),
            }
        };
        if matches!(end, End::Stop | End::DaemonCame) {
            // A daemon that came registers the same: it must not be taken back after that.
            drop(timeout(FAREWELL, self.leave()).await);
        }
        self.readers.shutdown().await;
        end
    }

    /// Looks whether there still is a daemon where one has the registration, or is one now where none was.
    async fn probe(&self, task: &Task) -> Option<End> {
        match self.daemon {
            Daemon::Awaited(at) => probe::find(at).await.map(|_| End::DaemonCame),
            // While the registration is under way, its own time limits tell.
            Daemon::Used(..) if !self.registered => None,
            Daemon::Used(at, way) => {
                match probe::remembers(at, way, &self.url, &task.setup.scopes.to_string()).await {
                    Memory::Kept => None,
                    Memory::Lost => Some(End::DaemonForgot),
                    Memory::Gone => Some(End::DaemonGone),
                }
            }
        }
    }

    async fn next_wake(&mut self, task: &mut Task, probe_at: Instant) -> Wake {
        let timer = self.agent.poll_timeout();
        tokio::select! {
            biased;
            // Whoever could stop it or tell its load has gone: it ends, too.
            _ = task.stops.wait_for(|stop| *stop) => Wake::Stop,
            changed = task.loads.changed() => match changed {
                Ok(()) => Wake::Load(*task.loads.borrow_and_update()),
                Err(_) => Wake::Stop,
            },
            () = sleep_until(timer.unwrap_or_else(Instant::now).into()), if timer.is_some() => Wake::Clock,
            () = sleep_until(probe_at.into()) => Wake::Probe,
            Some(input) = self.inputs.recv() => Wake::Input(input),
        }
    }

    fn input(&mut self, input: Input) {
        let now = Instant::now();
        match input {
            Input::Datagram { from, group, bytes } => {
                let via = if group { Via::Group } else { Via::Datagram };
                self.agent.handle_message(Source { address: from, via }, &bytes, now);
            }
            Input::Opened { id, outbox } => drop(self.connections.insert(id, outbox)),
            Input::Request { id, from, bytes } => {
                let via = Via::Accepted(id);
                self.agent.handle_message(Source { address: from, via }, &bytes, now);
            }
            Input::Closed { id } => drop(self.connections.remove(&id)),
            Input::Reply { from, bytes } => {
                self.agent.handle_message(Source { address: from, via: Via::Opened }, &bytes, now);
                // What was no answer to the request is none at all: the connection is closed.
                self.agent.handle_failure(from, now);
            }
            Input::Failed { to } => self.agent.handle_failure(to, now),
        }
    }

    /// Carries out what the agent wants, and tells what happened.
    async fn carry_out(&mut self) -> Heard {
        while let Some(command) = self.agent.next_command() {
            match command {
                Command::Multicast { bytes } => self.send(TO_GROUP, &bytes).await,
                Command::Datagram { to, bytes } => self.send(to, &bytes).await,
                Command::Connect { to, bytes } => {
                    // The daemon is on this host, and nowhere near the internal interface.
                    let device = self.device.clone().filter(|_| !to.ip().is_loopback());
                    self.readers.spawn(streams::ask(to, bytes, device, self.to_self.clone()));
                }
                Command::Answer { connection, bytes } => {
                    let outbox = self.connections.get(&connection);
                    if outbox.is_some_and(|outbox| outbox.try_send(bytes).is_err()) {
                        // Without an outbox the connection ends by itself.
                        self.connections.remove(&connection);
                    }
                }
            }
        }
        // Tasks that have ended leave a place.
        while self.readers.try_join_next().is_some() {}
        let mut heard = Heard::default();
        while let Some(event) = self.agent.next_event() {
            log(&event);
            heard.silent |= matches!(event, Event::Silent { .. });
            heard.registered |= matches!(event, Event::Registered { .. });
        }
        heard
    }

    async fn send(&self, to: SocketAddrV4, bytes: &[u8]) {
        match timeout(SEND, self.socket.send_to(bytes, to)).await {
            Ok(Ok(_)) => {}
            // No route, no permission, a full queue: SLP sends again.
            Ok(Err(error)) => tracing::debug!(%to, %error, "cannot send by SLP"),
            Err(_) => tracing::debug!(%to, "cannot send by SLP in time"),
        }
    }

    async fn leave(&mut self) {
        self.agent.shutdown(Instant::now());
        loop {
            self.carry_out().await;
            if self.agent.is_drained() {
                return;
            }
            let timer = self.agent.poll_timeout().unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(timer.into()) => self.agent.handle_timeout(Instant::now()),
                Some(input) = self.inputs.recv() => self.input(input),
            }
        }
    }
}

/// What an outsider can cause at will is not told above DEBUG.
fn log(event: &Event) {
    match event {
        Event::Registered { directory, scopes } => {
            tracing::info!(%directory, %scopes, "registered with SLP");
        }
        Event::Refused { directory, error } => {
            tracing::warn!(%directory, %error, "SLP registration refused");
        }
        Event::Deregistered { directory } => tracing::info!(%directory, "SLP registration taken back"),
        Event::Found { directory, scopes } => tracing::debug!(%directory, %scopes, "SLP directory agent"),
        Event::Refreshed { directory } => tracing::debug!(%directory, "SLP registration refreshed"),
        Event::Silent { directory } => tracing::debug!(%directory, "no answer by SLP"),
        Event::GoingDown { directory } => tracing::debug!(%directory, "SLP directory agent is going down"),
        Event::Rebooted { directory } => tracing::debug!(%directory, "SLP directory agent was restarted"),
    }
}
