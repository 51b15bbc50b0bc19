//! A gateway and a shell that do whatever they like: late, duplicated, lost and wrong answers, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use proptest::prelude::*;

use super::*;
use crate::host::{InstallFailed, Method, WithdrawReason};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Want(u16),
    Release(u16),
    Listen(u16),
    Unlisten(u16),
    WantBlock,
    ReleaseBlock,
    Up,
    Down,
    Done(bool),
    Pass(u64),
    Answer(Reply),
    /// An answer to a request of long ago, or of the future.
    Stray(u32, Reply),
    WithoutCounter(Reply),
    Asynchronous(Reply),
    Crash,
}

#[derive(Clone, Debug)]
enum Reply {
    Registered(u32),
    /// What was asked, granted, under this name and for this long.
    Granted(u32, u32),
    /// Something else.
    Wrong(u32, u16),
    Extended(u32, u32),
    /// What was asked, extended or freed.
    Agreed(u32),
    Freed(u32),
    Left(u32),
    Told,
    Error(ErrorCode),
}

fn ports() -> impl Strategy<Value = u16> {
    80..84_u16
}

/// Few names, so that they meet again.
fn names() -> impl Strategy<Value = u32> {
    1..6_u32
}

fn leases() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0_u32), Just(1), Just(3), Just(60), Just(600), Just(u32::MAX)]
}

fn replies() -> impl Strategy<Value = Reply> {
    let errors = prop::sample::select(ErrorCode::ALL);
    prop_oneof![
        2 => (1..3_u32).prop_map(Reply::Registered),
        8 => (names(), leases()).prop_map(|(name, lease)| Reply::Granted(name, lease)),
        1 => (names(), ports()).prop_map(|(name, port)| Reply::Wrong(name, port)),
        1 => (names(), leases()).prop_map(|(name, lease)| Reply::Extended(name, lease)),
        6 => leases().prop_map(Reply::Agreed),
        1 => names().prop_map(Reply::Freed),
        1 => (1..3_u32).prop_map(Reply::Left),
        2 => Just(Reply::Told),
        4 => errors.prop_map(Reply::Error),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => ports().prop_map(Step::Want),
        3 => ports().prop_map(Step::Release),
        1 => ports().prop_map(Step::Listen),
        1 => ports().prop_map(Step::Unlisten),
        1 => Just(Step::WantBlock),
        1 => Just(Step::ReleaseBlock),
        3 => Just(Step::Up),
        1 => Just(Step::Down),
        8 => prop::bool::weighted(0.8).prop_map(Step::Done),
        6 => prop_oneof![1..20_u64, 1..5000_u64, 1..700_000_u64].prop_map(Step::Pass),
        20 => replies().prop_map(Step::Answer),
        1 => (0..4_u32, replies()).prop_map(|(counter, reply)| Step::Stray(counter, reply)),
        1 => replies().prop_map(Step::WithoutCounter),
        2 => replies().prop_map(Step::Asynchronous),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..120)
}

/// The shell, and what it knows must never happen.
struct Rig {
    host: Host,
    config: HostConfig,
    policy: FlowPolicy,
    now: Instant,
    asked: Option<Message>,
    /// The outstanding request may be followed by another one.
    over: bool,
    connecting: bool,
    installing: BTreeMap<OpId, HostBinding>,
    published: BTreeMap<(ClientId, BindId), HostBinding>,
    waiting: BTreeMap<u16, Instant>,
    used_ops: BTreeSet<OpId>,
    stopped: bool,
}

impl Rig {
    fn new(config: HostConfig, policy: FlowPolicy) -> Self {
        let now = Instant::now();
        let mut rig = Self {
            host: Host::new(config.clone(), now),
            config,
            policy,
            now,
            asked: None,
            over: true,
            connecting: false,
            installing: BTreeMap::new(),
            published: BTreeMap::new(),
            waiting: BTreeMap::new(),
            used_ops: BTreeSet::new(),
            stopped: false,
        };
        rig.host.start(now);
        rig.drain();
        rig
    }

    fn drain(&mut self) {
        while let Some(command) = self.host.next_command() {
            assert!(!self.stopped, "{command:?} after the end");
            self.carry_out(command);
        }
        let names: BTreeSet<_> = self
            .host
            .view(self.now)
            .bindings
            .into_iter()
            .map(|view| (view.binding.client_id, view.binding.bind_id))
            .collect();
        for name in self.published.keys() {
            assert!(names.contains(name), "{name:?} is in use, and forgotten");
        }
        let pending = !self.waiting.is_empty() || self.asked.is_some() && !self.over;
        assert!(!pending || self.host.poll_timeout().is_some(), "nothing would ever end this");
    }

    fn carry_out(&mut self, command: HostCommand) {
        match command {
            HostCommand::Connect => self.connecting = true,
            HostCommand::Farewell(_) => unreachable!("nobody moves"),
            HostCommand::Disconnect => {
                self.connecting = false;
                self.over = true;
            }
            HostCommand::Send(message) => {
                said(self.host.config.transport, &message);
                let before = self.asked.replace(message.clone());
                if let Some(before) = before.filter(|_| !self.over) {
                    assert_eq!(before, message, "two requests at the same time");
                }
                self.over = false;
            }
            HostCommand::Publish { op, binding } => {
                assert!(self.used_ops.insert(op), "an op is used once");
                let name = (binding.client_id, binding.bind_id);
                let twice = self.published.contains_key(&name)
                    || self.installing.values().any(|it| (it.client_id, it.bind_id) == name);
                assert!(!twice, "{name:?} twice");
                assert_eq!(binding.tunnel, TunnelType::IpIp);
                self.installing.insert(op, binding);
            }
            HostCommand::Renamed { old, binding } => {
                let before = self.published.remove(&old).expect("in use");
                assert_eq!((before.address, &before.leased), (binding.address, &binding.leased));
                let name = (binding.client_id, binding.bind_id);
                assert!(self.published.insert(name, binding).is_none(), "{name:?} twice");
            }
            HostCommand::Withdraw { binding, reason } => {
                let name = (binding.client_id, binding.bind_id);
                let abandoned = reason == WithdrawReason::Shutdown
                    && self.installing.values().any(|it| (it.client_id, it.bind_id) == name);
                let published = self.published.remove(&name).is_some();
                assert!(published || abandoned, "{name:?} is not in use");
            }
            HostCommand::Verdict { port, outcome } => {
                assert!(self.waiting.remove(&port).is_some(), "nobody waits for {port}");
                if outcome.is_ok() {
                    let held = self.published.values().any(|it| it.leased.covers(port));
                    assert!(held, "{port} is not in use");
                }
            }
            HostCommand::Local(_) | HostCommand::Registration(_) => {}
            HostCommand::Stopped => self.stopped = true,
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Want(port) => {
                self.waiting.entry(port).or_insert(now + self.config.request_timeout);
                self.host.want_port(port, now);
            }
            Step::Listen(port) => {
                self.waiting.entry(port).or_insert(now + self.config.request_timeout);
                self.host.listen(port, now);
            }
            Step::Release(port) => self.host.release_port(port, now),
            Step::Unlisten(port) => self.host.unlisten(port, now),
            Step::WantBlock => self.host.want_block(now),
            Step::ReleaseBlock => {
                if let Some(block) = self.host.view(now).bindings.first() {
                    self.host.release_block(block.binding.bind_id, now);
                }
            }
            Step::Up => {
                if std::mem::take(&mut self.connecting) {
                    self.over = true;
                    self.host.handle_transport_up(now);
                }
            }
            Step::Down => {
                self.connecting = false;
                self.over = true;
                self.host.handle_transport_down(now);
            }
            Step::Done(works) => {
                if let Some((op, binding)) = self.installing.pop_first() {
                    let result = if works { Ok(()) } else { Err(InstallFailed) };
                    if works {
                        self.published.insert((binding.client_id, binding.bind_id), binding);
                    }
                    self.host.handle_done(op, result, now);
                }
            }
            Step::Pass(milliseconds) => self.pass(ms(milliseconds)),
            Step::Answer(reply) => {
                let counter = self.asked.as_ref().and_then(|asked| asked.counter);
                self.say(counter, &reply);
            }
            Step::Stray(counter, reply) => self.say(Some(MessageCounter(counter + 1)), &reply),
            Step::WithoutCounter(reply) => self.say(None, &reply),
            Step::Asynchronous(reply) => self.say(Some(MessageCounter::ASYNCHRONOUS), &reply),
            Step::Crash => {
                self.host = Host::resume(self.config.clone(), self.host.saved(), now);
                self.asked = None;
                self.over = true;
                self.installing.clear();
                self.published.clear();
                self.waiting.clear();
                self.used_ops.clear();
                self.host.start(now);
            }
        }
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.host.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.host.handle_timeout(self.now);
            assert!(self.host.poll_timeout().is_none_or(|next| next > self.now), "it spins");
            self.drain();
            for (port, deadline) in &self.waiting {
                assert!(self.now < *deadline, "{port} is waited for after {deadline:?}");
            }
        }
        self.now = until;
    }

    fn say(&mut self, counter: Option<MessageCounter>, reply: &Reply) {
        let Some(body) = self.body(reply) else { return };
        let asked = self.asked.as_ref().and_then(|asked| asked.counter);
        if counter.is_none() || counter == asked {
            self.over = true;
        }
        self.host.handle_message(Message { counter, body }, self.now);
    }

    fn body(&self, reply: &Reply) -> Option<Body> {
        let asked = self.asked.as_ref().map(|asked| asked.body.clone());
        let client_id = match &asked {
            Some(
                Body::ExtendRequest { client_id, .. }
                | Body::FreeRequest { client_id, .. }
                | Body::DeRegisterRequest { client_id }
                | Body::QueryRequest { client_id, .. },
            ) => *client_id,
            Some(Body::ListenRequest(request)) => request.client_id,
            Some(Body::AssignRequestRsapIp(request)) => request.client_id,
            Some(Body::AssignRequestRsaIp(request)) => request.client_id,
            _ => ClientId(1),
        };
        Some(match *reply {
            Reply::Registered(name) => self.registered(ClientId(name)),
            Reply::Granted(name, lease_time) => {
                let some = |ports: &Ports| match ports {
                    Ports::DontCare { count } => Ports::Range { first: 10_000, count: *count },
                    named => named.clone(),
                };
                match asked? {
                    Body::ListenRequest(request) => {
                        let mut grant = port_binding(client_id, name, some(&request.local_ports));
                        grant.lease_time = lease_time;
                        grant.remote_address = request.remote_address;
                        grant.remote_ports = request.remote_ports;
                        Body::ListenResponse(grant)
                    }
                    Body::AssignRequestRsapIp(request) => {
                        let mut grant = port_binding(client_id, name, some(&request.local_ports));
                        grant.lease_time = lease_time;
                        grant.remote_address = request.remote_address;
                        grant.remote_ports = request.remote_ports;
                        Body::AssignResponseRsapIp(grant)
                    }
                    Body::AssignRequestRsaIp(request) => Body::AssignResponseRsaIp(AssignResponseRsaIp {
                        client_id,
                        bind_id: BindId(name),
                        local_address: Address::Ipv4(PUBLIC),
                        remote_address: request.remote_address,
                        remote_ports: request.remote_ports,
                        lease_time,
                        tunnel_type: TunnelType::IpIp,
                        tunnel_endpoint: None,
                    }),
                    Body::RegisterRequest => self.registered(ClientId(1)),
                    _ => return None,
                }
            }
            Reply::Wrong(name, port) => listen_response(client_id, name, port),
            Reply::Extended(name, lease_time) => {
                Body::ExtendResponse { client_id, bind_id: BindId(name), lease_time }
            }
            Reply::Agreed(lease_time) => match asked? {
                Body::ExtendRequest { bind_id, .. } => {
                    Body::ExtendResponse { client_id, bind_id, lease_time }
                }
                Body::FreeRequest { bind_id, .. } => Body::FreeResponse { client_id, bind_id },
                Body::DeRegisterRequest { client_id } => Body::DeRegisterResponse { client_id },
                Body::QueryRequest { .. } => Body::QueryResponse { client_id, tuples: Vec::new() },
                Body::RegisterRequest => self.registered(ClientId(1)),
                _ => return None,
            },
            Reply::Freed(name) => Body::FreeResponse { client_id, bind_id: BindId(name) },
            Reply::Left(name) => Body::DeRegisterResponse { client_id: ClientId(name) },
            Reply::Told => Body::QueryResponse { client_id, tuples: Vec::new() },
            Reply::Error(error) => Body::ErrorResponse { error, client_id: Some(client_id), bind_id: None },
        })
    }

    fn registered(&self, client_id: ClientId) -> Body {
        Body::RegisterResponse {
            client_id,
            lease_time: LEASE,
            flow_policy: self.policy,
            methods: vec![RsipMethod::RsapIp, RsipMethod::RsaIp],
            tunnel_types: Vec::new(),
        }
    }

    /// Nothing more is said, nothing more is done; the end comes all the same, and in time.
    fn end(&mut self) {
        let began = self.now;
        self.host.shutdown(self.now);
        self.drain();
        self.pass(secs(2));
        assert!(self.stopped, "not stopped after {:?}", self.now - began);
        assert!(self.waiting.is_empty(), "{:?} are still waited for", self.waiting);
        assert!(self.published.is_empty(), "{:?} are still in use", self.published);
        assert_eq!(self.host.poll_timeout(), None);
        assert_eq!(self.host.saved(), SavedState::default());
        // Nothing that comes later wakes it.
        self.host.handle_transport_up(self.now);
        self.host.handle_message(
            Message::new(MessageCounter::ASYNCHRONOUS, Body::DeRegisterResponse { client_id: ClientId(1) }),
            self.now,
        );
        self.host.handle_timeout(self.now + secs(1000));
        self.drain();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_gateway_does(
        steps in steps(),
        udp in any::<bool>(),
        block_size in prop::sample::select(vec![0_u8, 4]),
        whole in any::<bool>(),
        local in prop::sample::select(LocalPolicy::ALL),
        remote in prop::sample::select(RemotePolicy::ALL),
    ) {
        let transport = if udp { HostTransport::Udp } else { HostTransport::Tcp };
        let method = if whole { Method::RsaIp } else { Method::RsapIp };
        let peer = Remote::Port(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 443));
        let config = HostConfig { transport, method, remote: peer, block_size, ..HostConfig::default() };
        let mut rig = Rig::new(config, FlowPolicy { local, remote });
        rig.step(Step::Up);
        rig.step(Step::Answer(Reply::Registered(1)));
        for step in steps {
            rig.step(step);
        }
        rig.end();
    }
}
