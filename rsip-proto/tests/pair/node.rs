//! A host's side: the machine, its shell, and the programs on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use rsip_proto::host::{
    BindingKind, BindingState, DenyReason, Host, HostBinding, HostCommand, HostConfig, Method,
    RegistrationChange, SavedState, WithdrawReason,
};
use rsip_proto::ids::{BindId, ClientId, OpId};
use rsip_proto::lease::Remote;
use rsip_proto::wire::{Body, Message};

use crate::plan::{PATIENCE, Plan, Sabotage};

/// What the world has to do for a host's shell.
#[derive(Debug)]
pub(crate) enum Work {
    Connect,
    Disconnect,
    Transmit(Message),
    Install(OpId),
    Allowed(u16),
    Denied(u16),
}

/// What happened, so that a run in which nothing happens is not taken for a good one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// One host.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) address: Ipv4Addr,
    /// Which start of the agent this is.
    pub(crate) run: u64,
    /// The present socket or connection.
    pub(crate) channel: u64,
    pub(crate) connected: bool,
    config: HostConfig,
    sabotage: Sabotage,
    /// What the gateway said is local.
    pub(crate) local: Vec<(Ipv4Addr, u8)>,
    pub(crate) installing: BTreeMap<OpId, HostBinding>,
    pub(crate) published: BTreeMap<(ClientId, BindId), HostBinding>,
    /// Who waits for a verdict, and until when.
    pub(crate) waiting: BTreeMap<u16, Instant>,
    /// Ports that programs have bound.
    pub(crate) programs: BTreeSet<u16>,
    pub(crate) stopped: bool,
    pub(crate) tally: Tally,
    last_sent: Option<(u64, Message)>,
    answered: bool,
}

impl Node {
    pub(crate) fn new(index: usize, plan: &Plan, now: Instant) -> Self {
        let config = plan.host(index);
        let last = u8::try_from(index + 1).expect("a few hosts");
        Self {
            host: Host::new(config.clone(), now),
            address: Ipv4Addr::new(10, 0, 0, last),
            run: 0,
            channel: 0,
            connected: false,
            config,
            sabotage: plan.sabotage,
            local: Vec::new(),
            installing: BTreeMap::new(),
            published: BTreeMap::new(),
            waiting: BTreeMap::new(),
            programs: BTreeSet::new(),
            stopped: false,
            tally: Tally::default(),
            last_sent: None,
            answered: false,
        }
    }

    /// Killed and started again: programs live on, hooks and tunnel died with the agent. Its state file is what it wrote
    /// after the last command, unless it is gone, too.
    pub(crate) fn crash(&mut self, with_state: bool, now: Instant) {
        self.tally.count(if with_state { "agent killed" } else { "agent killed, and its state lost" });
        self.count_complaints();
        let saved = if with_state { self.host.saved() } else { SavedState::default() };
        self.host = Host::resume(self.config.clone(), saved, now);
        self.run += 1;
        self.connected = false;
        self.installing.clear();
        self.published.clear();
        self.local.clear();
        // The waiting binds ended with the hooks.
        self.waiting.clear();
        self.last_sent = None;
        self.host.start(now);
    }

    /// What the host was told of its packets.
    pub(crate) fn count_complaints(&mut self) {
        let told: u64 = self.host.view(Instant::now()).complaints.values().sum();
        *self.tally.0.entry("complaint").or_default() += told;
    }

    /// A message reached the host.
    pub(crate) fn receive(&mut self, message: Message, now: Instant) {
        if let Some((_, sent)) = &self.last_sent
            && sent.counter == message.counter
        {
            self.answered = true;
        }
        self.host.handle_message(message, now);
    }

    pub(crate) fn want(&mut self, port: u16, now: Instant) {
        self.waiting.entry(port).or_insert(now + PATIENCE);
        self.host.want_port(port, now);
    }

    pub(crate) fn listen(&mut self, port: u16, now: Instant) {
        self.waiting.entry(port).or_insert(now + PATIENCE);
        self.host.listen(port, now);
    }

    /// Whether the shell would give the port back: no program has it, none waits for it.
    pub(crate) fn is_idle(&self, port: u16) -> bool {
        !self.programs.contains(&port) && !self.waiting.contains_key(&port)
    }

    /// Carries out what the machine says, as far as that is the node's own affair.
    pub(crate) fn work(&mut self) -> Vec<Work> {
        let commands: Vec<HostCommand> = std::iter::from_fn(|| self.host.next_command()).collect();
        commands.into_iter().filter_map(|command| self.carry_out(command)).collect()
    }

    fn carry_out(&mut self, command: HostCommand) -> Option<Work> {
        assert!(!self.stopped, "{command:?} after Stopped");
        match command {
            HostCommand::Connect => Some(Work::Connect),
            HostCommand::Disconnect => Some(Work::Disconnect),
            HostCommand::Farewell(_) => unreachable!("nobody moves"),
            HostCommand::Send(message) => {
                let ports_by_number = matches!(message.body, Body::ListenRequest(_));
                assert!(
                    self.config.method == Method::RsapIp || !ports_by_number,
                    "LISTEN with a whole address"
                );
                self.check_stop_and_wait(&message);
                Some(Work::Transmit(message))
            }
            HostCommand::Publish { op, binding } => {
                self.count_kind(&binding);
                assert!(self.installing.insert(op, binding).is_none(), "an op is used once");
                Some(Work::Install(op))
            }
            HostCommand::Renamed { old, binding } => {
                self.tally.count("renamed");
                let before = self.published.remove(&old).expect("renamed: published before");
                assert_eq!((before.address, &before.leased), (binding.address, &binding.leased));
                self.published.insert((binding.client_id, binding.bind_id), binding);
                None
            }
            HostCommand::Withdraw { binding, reason } => {
                self.tally.count(match reason {
                    WithdrawReason::Freed => "withdrawn: freed",
                    WithdrawReason::Expired => "withdrawn: expired",
                    WithdrawReason::Revoked => "withdrawn: revoked",
                    WithdrawReason::Deregistered => "withdrawn: deregistered",
                    WithdrawReason::Lost => "withdrawn: lost",
                    WithdrawReason::Refused(_) => "withdrawn: refused",
                    WithdrawReason::OtherAddress(_) => "withdrawn: other address",
                    WithdrawReason::Shutdown => "withdrawn: shutdown",
                });
                let name = (binding.client_id, binding.bind_id);
                if self.sabotage == Sabotage::DeafShell {
                    return None;
                }
                let published = self.published.remove(&name).is_some();
                // At its end the host waits for the shell no longer than two seconds.
                let abandoned = reason == WithdrawReason::Shutdown
                    && self.installing.values().any(|it| (it.client_id, it.bind_id) == name);
                assert!(published || abandoned, "withdrawn: {binding:?}, which is not published");
                None
            }
            HostCommand::Verdict { port, outcome } => {
                assert!(self.waiting.remove(&port).is_some(), "a verdict on {port}, for which nobody waits");
                self.tally.count(match outcome {
                    Ok(()) => "granted",
                    Err(DenyReason::Gateway(_)) => "denied: gateway",
                    Err(DenyReason::Mismatch(_)) => "denied: mismatch",
                    Err(DenyReason::Unreachable) => "denied: unreachable",
                    Err(DenyReason::Timeout) => "denied: timeout",
                    Err(DenyReason::InstallFailed) => "denied: install failed",
                });
                if outcome.is_err() {
                    return Some(Work::Denied(port));
                }
                let held = self.published.values().any(|binding| binding.leased.covers(port));
                assert!(held, "port {port} is allowed, and not in use here");
                self.programs.insert(port);
                Some(Work::Allowed(port))
            }
            HostCommand::Local(networks) => {
                self.tally.count("local networks told");
                self.local = networks;
                None
            }
            HostCommand::Registration(change) => {
                self.tally.count(match change {
                    RegistrationChange::Registered(_) => "registered",
                    RegistrationChange::Refused(_) => "registration refused",
                    RegistrationChange::Unsuitable(_) => "unsuitable",
                    RegistrationChange::Unreachable => "unreachable",
                    RegistrationChange::Lost => "registration lost",
                    RegistrationChange::Moved => "moved",
                });
                None
            }
            HostCommand::Stopped => {
                assert!(self.waiting.is_empty(), "stopped, and {:?} wait", self.waiting);
                assert!(self.published.is_empty(), "stopped, and in use: {:?}", self.published);
                self.stopped = true;
                None
            }
        }
    }

    fn count_kind(&mut self, binding: &HostBinding) {
        self.tally.count(match binding.kind {
            BindingKind::Address => "published: address",
            BindingKind::Block => "published: block",
            BindingKind::Listen => "published: listen",
            BindingKind::StaticListen => "published: static",
        });
        match binding.remote {
            Remote::Any => {}
            Remote::Address(_) => self.tally.count("published: for an address"),
            Remote::Port(_) => self.tally.count("published: for an address and port"),
        }
    }

    fn check_stop_and_wait(&mut self, message: &Message) {
        if let Some((channel, sent)) = &self.last_sent
            && *channel == self.channel
        {
            if sent.counter == message.counter {
                assert_eq!(sent, message, "a retransmission is the same message");
                return;
            }
            assert!(self.answered, "{message:?} before {sent:?} was answered");
            assert_eq!(message.counter, sent.counter.map(rsip_proto::ids::MessageCounter::next));
        }
        self.last_sent = Some((self.channel, message.clone()));
        self.answered = false;
    }

    /// What the host believes to hold, by its own status.
    pub(crate) fn held(&self, now: Instant) -> BTreeMap<(ClientId, BindId), HostBinding> {
        let bindings = self.host.view(now).bindings.into_iter();
        bindings
            .filter(|view| matches!(view.state, BindingState::InUse | BindingState::Releasing))
            .map(|view| ((view.binding.client_id, view.binding.bind_id), view.binding))
            .filter(|(name, _)| self.published.contains_key(name))
            .collect()
    }
}
