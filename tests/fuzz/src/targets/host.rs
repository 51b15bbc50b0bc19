//! The host as a whole: a gateway that says anything at any time, programs that come and go, a transport that breaks, a
//! shell that fails, time.

mod reply;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rsip_proto::host::{
    Host, HostBinding, HostCommand, HostConfig, HostTransport, InstallFailed, Method, WithdrawReason,
};
use rsip_proto::ids::{BindId, ClientId, MessageCounter, OpId};
use rsip_proto::lease::Remote;
use rsip_proto::wire::{Body, Message};

use crate::input::Input;

/// Longer scripts show nothing new, and make one input slow.
const MAX_STEPS: usize = 400;
/// More commands, or more timers, for one input than could be right.
const MAX_COMMANDS: usize = 20_000;
/// The leased address, as a gateway would say it.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.leave();
}

type Key = (ClientId, BindId);

struct World {
    config: HostConfig,
    host: Host,
    now: Instant,
    /// It waits for the transport.
    connecting: bool,
    /// The last message sent; a retransmission is the same again.
    last: Option<Message>,
    /// Bindings that the shell was told to take into use.
    ops: BTreeMap<OpId, HostBinding>,
    used_ops: BTreeSet<OpId>,
    in_use: BTreeMap<Key, HostBinding>,
    /// Ports for which a program waits, and until when an answer must come.
    waiting: BTreeMap<u16, Instant>,
    stopped: bool,
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let choice = input.byte();
        let config = HostConfig {
            transport: if choice & 1 == 0 { HostTransport::Udp } else { HostTransport::Tcp },
            method: if choice & 2 == 0 { Method::RsapIp } else { Method::RsaIp },
            remote: match choice >> 2 & 3 {
                0 | 1 => Remote::Any,
                2 => Remote::Address(reply::PEER),
                _ => Remote::Port(SocketAddrV4::new(reply::PEER, 443)),
            },
            block_size: choice >> 4,
            ..HostConfig::default()
        };
        let now = Instant::now();
        let mut host = Host::new(config.clone(), now);
        host.start(now);
        let mut world = Self {
            config,
            host,
            now,
            connecting: false,
            last: None,
            ops: BTreeMap::new(),
            used_ops: BTreeSet::new(),
            in_use: BTreeMap::new(),
            waiting: BTreeMap::new(),
            stopped: false,
        };
        world.drain();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 => {
                if std::mem::take(&mut self.connecting) {
                    self.host.handle_transport_up(self.now);
                }
            }
            1 => {
                if input.byte().is_multiple_of(4) {
                    self.connecting = false;
                    self.host.handle_transport_down(self.now);
                }
            }
            2 => {
                let length = usize::from(input.word() % 300);
                if let Ok(message) = Message::parse(input.bytes(length)) {
                    self.host.handle_message(message, self.now);
                }
            }
            3..=7 => {
                let known = self.in_use.keys().next_back().copied();
                let message = reply::message(input, self.last.as_ref(), known);
                self.host.handle_message(message, self.now);
            }
            8 | 9 => self.answer(input),
            10 => {
                let port = reply::port(input);
                self.host.want_port(port, self.now);
                self.waiting.entry(port).or_insert(self.now + self.config.request_timeout);
            }
            11 => self.host.release_port(reply::port(input), self.now),
            12 => {
                let port = reply::port(input);
                if input.flag() {
                    self.host.listen(port, self.now);
                } else {
                    self.host.unlisten(port, self.now);
                }
            }
            13 => self.host.want_block(self.now),
            14 => {
                let bind_id = self.in_use.keys().next().map_or(BindId(1), |key| key.1);
                self.host.release_block(bind_id, self.now);
            }
            _ => {
                let unit = if input.flag() { Duration::from_millis(5) } else { Duration::from_secs(1) };
                self.pass(unit * u32::from(input.byte()));
            }
        }
        self.drain();
    }

    /// The shell has taken a binding into use, or could not.
    fn answer(&mut self, input: &mut Input<'_>) {
        let Some((op, binding)) = self.ops.pop_first() else { return };
        let works = !input.byte().is_multiple_of(8);
        if works {
            self.in_use.insert((binding.client_id, binding.bind_id), binding);
        }
        self.host.handle_done(op, if works { Ok(()) } else { Err(InstallFailed) }, self.now);
    }

    /// Time passes; the host is woken whenever it wants to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut rounds = 0;
        while let Some(at) = self.host.poll_timeout().filter(|at| *at <= end) {
            rounds += 1;
            assert!(rounds < MAX_COMMANDS, "timers without end");
            self.now = self.now.max(at);
            self.host.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        let mut count = 0;
        while let Some(command) = self.host.next_command() {
            count += 1;
            assert!(count < MAX_COMMANDS, "does not come to an end");
            assert!(!self.stopped, "{command:?} after the end");
            self.carry_out(command);
        }
        for (port, until) in &self.waiting {
            // One timer's worth of grace: the host is woken at the deadline, not before.
            assert!(
                self.now <= *until || self.host.poll_timeout().is_some_and(|at| at <= self.now),
                "{port} waits too long"
            );
        }
        assert!(!self.host.view(self.now).bindings.iter().any(|view| view.binding.address.is_unspecified()));
    }

    fn carry_out(&mut self, command: HostCommand) {
        match command {
            HostCommand::Send(message) => self.sent(message),
            HostCommand::Publish { op, binding } => {
                assert!(self.used_ops.insert(op), "{op:?} is used twice");
                let key = (binding.client_id, binding.bind_id);
                let installing = self.ops.values().any(|other| (other.client_id, other.bind_id) == key);
                assert!(!installing && !self.in_use.contains_key(&key), "{binding:?} is in use already");
                self.ops.insert(op, binding);
            }
            HostCommand::Renamed { old, binding } => {
                let before = self.in_use.remove(&old);
                let same = before.is_some_and(|before| {
                    (before.address, &before.leased) == (binding.address, &binding.leased)
                });
                assert!(same, "{binding:?} has another name now, and was not in use");
                self.in_use.insert((binding.client_id, binding.bind_id), binding);
            }
            HostCommand::Withdraw { binding, reason } => {
                // At the end the host does not wait for what the shell has not taken into use.
                let before = self.ops.len();
                let key = (binding.client_id, binding.bind_id);
                if reason == WithdrawReason::Shutdown {
                    self.ops.retain(|_, other| (other.client_id, other.bind_id) != key);
                }
                let known = self.in_use.remove(&key).is_some() || self.ops.len() < before;
                assert!(known, "{binding:?} goes out of use, and was not in it");
            }
            HostCommand::Verdict { port, outcome } => {
                self.waiting.remove(&port);
                let covered = self.in_use.values().any(|binding| binding.leased.covers(port));
                assert!(outcome.is_err() || covered, "{port} is let through without a lease");
            }
            HostCommand::Stopped => self.stopped = true,
            HostCommand::Connect => self.connecting = true,
            HostCommand::Disconnect => self.connecting = false,
            HostCommand::Local(_) | HostCommand::Registration(_) | HostCommand::Farewell(_) => {}
        }
    }

    fn sent(&mut self, message: Message) {
        let bytes = match message.encode() {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("{message:?} cannot be written: {error}"),
        };
        assert_eq!(Message::parse(&bytes).as_ref(), Ok(&message), "is not what it says");
        let request = matches!(
            message.body,
            Body::RegisterRequest
                | Body::DeRegisterRequest { .. }
                | Body::AssignRequestRsaIp(_)
                | Body::AssignRequestRsapIp(_)
                | Body::ExtendRequest { .. }
                | Body::FreeRequest { .. }
                | Body::QueryRequest { .. }
                | Body::ListenRequest(_)
        );
        assert!(request, "a host only asks: {message:?}");
        let Some(counter) = message.counter else { unreachable!("a request without a counter") };
        assert_ne!(counter, MessageCounter::ASYNCHRONOUS, "no host counts from 0");
        if let Some(last) = self.last.as_ref().and_then(|last| last.counter) {
            let again = self.last.as_ref() == Some(&message);
            assert!(
                again || counter == last.next() || counter == MessageCounter(1),
                "{counter:?} after {last:?}"
            );
        }
        self.last = Some(message);
    }

    /// The end comes in bounded time, whoever is silent.
    fn leave(&mut self) {
        self.host.shutdown(self.now);
        self.drain();
        self.pass(Duration::from_secs(600));
        self.drain();
        assert!(self.stopped, "does not stop");
        assert!(self.in_use.is_empty(), "left in use: {:?}", self.in_use);
    }
}
