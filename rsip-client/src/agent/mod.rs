//! The agent: one task that owns the state machine and everything around it.
//!
//! ```text
//!   hooks (ring buffer) ──want, released──┐                      ┌──Publish, Withdraw──> effects (tunnel, maps, sysctls)
//!   gateway (transport) ──messages────────┤                      │
//!   control socket ──────listen, down─────┼──> Host (rsip-proto) ┼──Send, Connect─────> transport
//!   clock ────────────────────────────────┤     state machine    │
//!   netlink, signals ─────────────────────┘                      └──Verdict───────────> maps, waiting callers
//! ```
//!
//! Each turn of the loop takes one input, feeds it to the state machine, and carries out all commands that follow.
//! Inputs in the order in which they are looked at, and why:
//!
//! 1. signals: an operator who says stop is heard first;
//! 2. the gateway: answers end waiting, and they come one at a time;
//! 3. hooks: programs wait there; a budget per turn keeps them from starving the rest;
//! 4. control calls: people have patience;
//! 5. the host's network changed;
//! 6. time: what is due now is not late a moment later.

mod choice;
mod commands;
mod complaints;
pub mod effects;
mod ephemeral;
pub mod failure;
mod holders;
mod life;
mod listeners;
mod network;
mod release;
mod report;
mod room;
mod rules;
mod served;
pub mod start;
mod trouble;
mod user_mode;
mod wants;

use self::failure::failure;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_ebpf_common::host::{
    EVENT_CONTINUE, EVENT_PATH_MTU, EVENT_RELEASED, EVENT_WANT_BLOCK, EVENT_WANT_PORT, EVENT_WANT_ROOM, Event,
};
use rsip_proto::host::{BindingKind, Host, HostTransport, Method};
use rsip_proto::lease::Remote;
use rsip_sys::control::{Call, Reply};
use rsip_sys::netlink::Watch;
use rsip_sys::service::Service;
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use self::complaints::Complaints;
use self::effects::Effects;
use self::ephemeral::Ephemeral;
use self::holders::Holders;
use self::listeners::Listeners;
use self::network::Way;
use self::trouble::Trouble;
use self::wants::Wants;
use crate::clock;
use crate::control::{PortOutcome, Request, Response};
use crate::farewell::Farewell;
use crate::hooks::HooksError;
use crate::transport::{Numbered, Transport, TransportEvent};
use crate::usage::Usage;

/// How often is looked for what no event told.
const TICK: Duration = Duration::from_secs(1);
/// Changes of the host's network come in groups.
const SETTLE: Duration = Duration::from_millis(100);

/// What the agent was told to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateway.
    pub gateway: std::net::SocketAddrV4,
    /// What carries RSIP.
    pub transport: HostTransport,
    /// A whole address, or ports of one.
    pub method: Method,
    /// The only peer that what is leased is used with.
    pub remote: Remote,
    /// What the gateway calls local is reached without the tunnel.
    pub query: bool,
    /// Binds and connects are looked at; if not, what is leased at start is all there is.
    pub hooks: bool,
    /// Ports in a block; 0: none.
    pub block: u8,
    /// So many blocks are leased at start.
    pub first_blocks: u16,
    /// At most so many blocks.
    pub blocks: u16,
    /// Ports that are leased at start and kept.
    pub listen: Vec<u16>,
    /// Where no answer comes in time, the bind passes.
    pub allow_on_timeout: bool,
    /// Longest wait of a bind.
    pub bind_timeout: Duration,
    /// The first registration fails after this; `None`: never.
    pub start_timeout: Option<Duration>,
}

impl Settings {
    /// Whether programs are to connect without a port by number.
    const fn wants_ephemeral(&self) -> bool {
        self.block > 0 || matches!(self.method, Method::RsaIp)
    }
}

/// How far the agent is.
#[derive(Debug)]
enum Stage {
    /// Nothing is leased yet.
    Starting { until: Option<Instant> },
    /// Serving.
    Running,
    /// Leaving the gateway; then the host is restored.
    Stopping { failure: Option<anyhow::Error>, callers: Vec<Reply<Response>> },
}

/// One thing that happened.
enum Input {
    Signal,
    Transport(Numbered),
    Hooks(Result<Vec<Event>, HooksError>),
    Control(Call<Request, Response>),
    Network(bool),
    Parted(Farewell),
    Time,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    host: Host,
    effects: Effects,
    stage: Stage,
    transport: Option<Transport>,
    transports: u64,
    to_agent: mpsc::Sender<Numbered>,
    from_transport: mpsc::Receiver<Numbered>,
    calls: mpsc::Receiver<Call<Request, Response>>,
    signals: [Signal; 2],
    watch: Watch,
    usage: Usage,
    wants: Wants,
    listeners: Listeners,
    trouble: Trouble,
    tick: Instant,
    network_changed: Option<Instant>,
    resumed: bool,
    /// The operator knows that the gateway cannot be reached.
    unreachable_told: bool,
    /// The registration is left as it is, for the next start.
    abandoned: bool,
    complaints: Complaints,
    ephemeral: Ephemeral,
    /// What a router says fits; not yet done.
    path_mtu: Option<u32>,
    holders: Holders,
    service: Service,
    way: Way,
    /// The public address that was leased last.
    public: Option<Ipv4Addr>,
    done: bool,
}

impl Agent {
    /// Serves until it is told to stop, or fails at start; restores the host in any case.
    ///
    /// # Errors
    ///
    /// Why it could not start, or what could not be restored.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.host.start(clock::now());
        self.carry_out().await;
        while !self.done {
            let input = self.next_input().await;
            self.handle(input, clock::now()).await;
            self.carry_out().await;
            self.check_start();
            self.carry_out().await;
            self.tell_service_manager();
        }
        self.finish().await
    }

    async fn next_input(&mut self) -> Input {
        let deadline = tokio::time::Instant::from_std(clock::timer(self.deadline()));
        let [terminate, interrupt] = &mut self.signals;
        tokio::select! {
            biased;
            _ = terminate.recv() => Input::Signal,
            _ = interrupt.recv() => Input::Signal,
            Some(event) = self.from_transport.recv() => Input::Transport(event),
            events = self.effects.hooks.events() => Input::Hooks(events),
            Some(call) = self.calls.recv() => Input::Control(call),
            outcome = network::parted(&mut self.way) => Input::Parted(outcome),
            changed = self.watch.changed(), if self.network_changed.is_none() => Input::Network(changed),
            () = tokio::time::sleep_until(deadline) => Input::Time,
        }
    }

    fn deadline(&self) -> Instant {
        let start = match self.stage {
            Stage::Starting { until } => until,
            Stage::Running | Stage::Stopping { .. } => None,
        };
        let rest = [
            self.host.poll_timeout(),
            self.usage.poll_timeout(),
            self.network_changed,
            start,
            self.service.poll_timeout(),
        ];
        rest.into_iter().flatten().fold(self.tick, Instant::min)
    }

    async fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Signal => self.stop(now, None),
            Input::Transport((number, event)) => {
                if self.transport.as_ref().is_some_and(|transport| transport.number() == number) {
                    self.handle_transport(event, now);
                }
            }
            Input::Hooks(Ok(events)) => {
                for event in events {
                    self.handle_event(&event, now);
                }
                self.make_room(now).await;
            }
            Input::Hooks(Err(error)) => {
                tracing::error!(%error, "events are lost");
                tokio::time::sleep(SETTLE).await;
            }
            Input::Control(call) => self.handle_call(call, now),
            Input::Parted(outcome) => self.has_parted(&outcome, now),
            Input::Network(true) => self.network_changed = Some(now + SETTLE),
            Input::Network(false) => {
                tracing::warn!("the kernel does not tell changes of the network any more");
                self.network_changed = Some(now + Duration::from_secs(5));
            }
            Input::Time => {}
        }
        self.handle_time(now).await;
    }

    async fn handle_time(&mut self, now: Instant) {
        if self.host.poll_timeout().is_some_and(|at| at <= now) {
            self.host.handle_timeout(now);
        }
        if self.network_changed.is_some_and(|at| at <= now) {
            self.network_changed = None;
            self.follow_network(now).await;
        }
        self.follow_path_mtu(now).await;
        if self.usage.poll_timeout().is_some_and(|at| at <= now) {
            self.look_at_usage(now);
        }
        if self.tick <= now {
            self.tick = now + TICK;
            self.show_life();
            self.look_at_the_clock();
            self.look_for_the_untold(now);
            self.forget_askers();
            self.look_at_ephemeral(now).await;
            self.effects.follow_cgroups();
            self.effects.follow_managed_cgroups();
        }
    }

    async fn follow_path_mtu(&mut self, now: Instant) {
        let outcome = match self.path_mtu.take() {
            Some(mtu) => self.effects.narrow(mtu, now).await,
            None if self.tick <= now => self.effects.widen(now).await,
            None => Ok(()),
        };
        if let Err(error) = outcome {
            tracing::warn!(error = %describe(&error), "cannot change the tunnel's MTU");
        }
    }

    fn handle_transport(&mut self, event: TransportEvent, now: Instant) {
        match event {
            TransportEvent::Up => {
                tracing::debug!(gateway = %self.settings.gateway, "transport is up");
                self.host.handle_transport_up(now);
            }
            TransportEvent::Down(error) => {
                tracing::debug!(gateway = %self.settings.gateway, %error, "transport is down");
                self.trouble.transport(&error);
                self.transport = None;
                self.host.handle_transport_down(now);
            }
            TransportEvent::Message(message) => {
                tracing::trace!(?message, "from the gateway");
                self.trouble.heard(&message.body);
                self.complaints.heard(&message, now);
                self.host.handle_message(message, now);
            }
            TransportEvent::Garbage(error) => {
                tracing::debug!(%error, "dropped what is no message");
                self.trouble.garbage(&error);
            }
            TransportEvent::Unreachable(error) => {
                tracing::debug!(%error, "the network says");
                self.trouble.unreachable(&error);
            }
        }
    }

    fn handle_event(&mut self, event: &Event, now: Instant) {
        let Ok(port) = u16::try_from(event.port) else { return };
        match event.kind {
            EVENT_WANT_PORT => {
                tracing::info!(port, command = %command(event), pid = event.tgid, uid = event.uid, "wants");
                self.holders.asked(port, event);
                self.want(port, now);
            }
            EVENT_RELEASED => self.usage.released(port, now),
            EVENT_WANT_BLOCK => {
                // Without a block the state machine asks for one by itself, with pauses; a second one would not help
                // somebody who cannot have the first.
                tracing::info!(command = %command(event), pid = event.tgid, "refused: no ephemeral port is leased");
                if self.settings.wants_ephemeral() && !self.has_or_awaits_block(now) {
                    self.host.want_block(now);
                }
            }
            EVENT_WANT_ROOM => self.room_is_wanted(event),
            EVENT_CONTINUE => continue_process(event.tgid),
            EVENT_PATH_MTU => self.path_mtu = Some(event.port),
            other => tracing::error!(kind = other, "an event of an unknown kind"),
        }
    }

    fn has_or_awaits_block(&self, now: Instant) -> bool {
        let view = self.host.view(now);
        view.bindings.iter().any(|view| is_ephemeral(view.binding.kind))
            || view.pending.iter().any(|view| is_ephemeral(view.kind))
    }

    fn handle_call(&mut self, call: Call<Request, Response>, now: Instant) {
        let (request, reply) = call.split();
        match (request, &mut self.stage) {
            (Request::Status, _) => reply.answer(Ok(Response::Status(Box::new(self.report(now))))),
            (Request::Holders, _) => reply.answer(Ok(Response::Holders(self.holders()))),
            (Request::Down, Stage::Stopping { callers, .. }) => callers.push(reply),
            (Request::Down, _) => {
                self.stop(now, None);
                if let Stage::Stopping { callers, .. } = &mut self.stage {
                    callers.push(reply);
                }
            }
            (_, Stage::Stopping { .. }) => reply.answer(Err("the agent is stopping".to_owned())),
            (Request::Rules(change), Stage::Starting { .. } | Stage::Running) => {
                reply.answer(self.change_rules(&change));
            }
            (Request::Run(path), Stage::Running) => {
                let begun = self.effects.begin_run(&path);
                reply.answer(begun.map(|()| Response::Done).map_err(|error| describe(&error)));
            }
            (_, Stage::Starting { .. }) => reply.answer(Err("the host is not registered yet".to_owned())),
            (Request::Listen(ports), Stage::Running) => {
                for port in self.listeners.ask(ports, reply) {
                    self.host.listen(port, now);
                }
            }
            (Request::Free { targets, force }, Stage::Running) => {
                reply.answer(Ok(Response::Freed(self.free(targets, force, now))));
            }
            (Request::Unlisten(ports), Stage::Running) => reply.answer(Ok(self.unlisten(ports, now))),
        }
    }

    fn unlisten(&mut self, ports: Vec<u16>, now: Instant) -> Response {
        let answers = ports.into_iter().map(|port| {
            let outcome = if self.listeners.drop_port(port) {
                self.host.unlisten(port, now);
                // A program may use it: then it is leased until the program is done.
                if self.effects.book.holder(port).is_some() {
                    self.usage.track(port, now);
                }
                PortOutcome::Released
            } else {
                PortOutcome::Unknown
            };
            crate::control::PortAnswer { port, outcome }
        });
        Response::Ports(answers.collect())
    }
}

/// What programs connect with when they name no port.
const fn is_ephemeral(kind: BindingKind) -> bool {
    matches!(kind, BindingKind::Block | BindingKind::Address)
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', "; ")
}

fn command(event: &Event) -> String {
    let name: Vec<u8> = event.command.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// A stopped thread that the programs could not continue; SIGCONT continues all threads of a process.
fn continue_process(tgid: u32) {
    let Ok(pid) = i32::try_from(tgid) else { return };
    if pid <= 1 {
        return;
    }
    let pid = nix::unistd::Pid::from_raw(pid);
    if let Err(errno) = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT) {
        tracing::warn!(%pid, %errno, "cannot continue a waiting program");
    }
}
