//! The clock, the network, and what happens next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rsip_capture::Spoken;
use rsip_proto::gateway::{GatewayCommand, InstallFailed, Peer, Transport};
use rsip_proto::host::HostTransport;
use rsip_proto::ids::OpId;
use rsip_proto::wire::Message;

use crate::gate::{Change, Gate};
use crate::net::{carrier, record};
use crate::node::{Node, Tally, Work};
use crate::plan::{Chance, LEASE, Plan};

pub(crate) const HOSTS: usize = 3;

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);
/// A port that nobody has bound is given back after this.
const LINGER: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub(crate) enum Event {
    ToGateway { run: u64, peer: Peer, bytes: Vec<u8> },
    ToHost { node: usize, channel: u64, bytes: Vec<u8> },
    Connected { node: usize, channel: u64 },
    Broken { node: usize, channel: u64 },
    GatewayLost { run: u64, connection: u64 },
    PathChanged { run: u64, change: Change },
    Installed { node: usize, run: u64, op: OpId, works: bool },
    ProgramEnds { node: usize, port: u16 },
    Linger { node: usize, run: u64, port: u16 },
    GatewayStarts { run: u64 },
    OutageEnds,
    Something,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Instant,
    pub(crate) gate: Gate,
    pub(crate) nodes: Vec<Node>,
    pub(crate) tally: Tally,
    /// Hosts about which something may have changed since the last check.
    pub(crate) touched: [bool; HOSTS],
    pub(crate) chance: Chance,
    pub(crate) events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    next_channel: u64,
    /// Connections deliver in order.
    pub(crate) last_delivery: BTreeMap<(u64, bool), Instant>,
    pub(crate) outage: bool,
    pub(crate) calm: bool,
    start: Instant,
    trace: bool,
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let now = Instant::now();
        let mut chance = Chance::new(seed);
        let nodes = (0..HOSTS).map(|index| Node::new(index, &plan, now)).collect();
        let mut world = Self {
            plan,
            now,
            gate: Gate::new(chance.bits(), plan),
            tally: Tally::default(),
            touched: [true; HOSTS],
            nodes,
            chance,
            events: BTreeMap::new(),
            next_event: 0,
            next_channel: 1,
            last_delivery: BTreeMap::new(),
            outage: false,
            calm: false,
            start: now,
            trace: std::env::var_os("RSIP_PAIR_TRACE").is_some(),
        };
        for index in 0..HOSTS {
            world.nodes[index].host.start(now);
            world.serve_node(index);
        }
        world.at(Duration::ZERO, Event::Something);
        world
    }

    /// Programs come and go, and things go wrong.
    pub(crate) fn trouble(&mut self) {
        self.run_for(TROUBLE);
    }

    /// Nothing goes wrong any more, programs end, and everything that was lost has had time to be noticed.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        self.nodes.iter_mut().for_each(Node::count_complaints);
        self.run_for(LEASE * 2 / 3);
    }

    /// All hosts leave.
    pub(crate) fn leave(&mut self) {
        for index in 0..HOSTS {
            self.nodes[index].host.shutdown(self.now);
            self.serve_node(index);
        }
        self.run_for(Duration::from_secs(3));
        for node in &mut self.nodes {
            self.tally.add(&node.tally);
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {
            self.check();
            self.touched = [false; HOSTS];
        }
        self.now = until;
    }

    /// Whatever comes first. Hosts are woken before the gateway, and both before anything arrives.
    fn step(&mut self, until: Instant) -> bool {
        let host = (0..HOSTS).filter_map(|index| Some((self.nodes[index].host.poll_timeout()?, index))).min();
        let gateway = self.gate.is_up().then(|| self.gate.machine.poll_timeout()).flatten();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = host.map(|(at, _)| at).into_iter().chain(gateway).chain(event).min() else {
            return false;
        };
        if next > until {
            return false;
        }
        self.now = self.now.max(next);
        let now = self.now;
        if let Some((at, index)) = host
            && at == next
        {
            let machine = &mut self.nodes[index].host;
            machine.handle_timeout(now);
            assert!(machine.poll_timeout().is_none_or(|again| again > now), "host {index} spins");
            self.serve_node(index);
        } else if gateway == Some(next) {
            self.gate.machine.handle_timeout(now);
            assert!(self.gate.machine.poll_timeout().is_none_or(|again| again > now), "the gateway spins");
            self.serve_gate();
        } else if let Some((_, event)) = self.events.pop_first() {
            self.happen(event);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        self.tell(|| format!("{event:?}"));
        match event {
            Event::ToGateway { run, peer, bytes } => {
                if self.gate.is_up() && (run == self.gate.run || peer.transport == Transport::Udp) {
                    self.gate.machine.handle_input(peer, &bytes, now);
                    self.serve_gate();
                }
            }
            Event::ToHost { node, channel, bytes } => {
                if self.nodes[node].channel == channel && self.nodes[node].connected {
                    let message = Message::parse(&bytes).expect("what the gateway says can be read");
                    self.nodes[node].receive(message, now);
                    self.serve_node(node);
                }
            }
            Event::Connected { node, channel } => {
                if self.nodes[node].channel == channel {
                    let works = self.plan.transport == HostTransport::Udp || self.is_reachable();
                    self.nodes[node].connected = works;
                    if works {
                        self.nodes[node].host.handle_transport_up(now);
                    } else {
                        self.nodes[node].host.handle_transport_down(now);
                    }
                    self.serve_node(node);
                }
            }
            Event::Broken { node, channel } => {
                if self.nodes[node].channel == channel && self.nodes[node].connected {
                    self.nodes[node].connected = false;
                    self.nodes[node].host.handle_transport_down(now);
                    self.serve_node(node);
                }
            }
            Event::GatewayLost { run, connection } => {
                if self.gate.is_up() && run == self.gate.run {
                    self.gate.machine.handle_disconnect(connection, now);
                    self.serve_gate();
                }
            }
            Event::PathChanged { run, change } => {
                if run == self.gate.run {
                    self.touched = [true; HOSTS];
                    let done = self.gate.apply(&change);
                    if !done {
                        self.tally.count("data path failed");
                    }
                    let result = if done { Ok(()) } else { Err(path_failed()) };
                    self.gate.machine.handle_done(change.op, result, now);
                    self.serve_gate();
                }
            }
            Event::Installed { node, run, op, works } => self.installed(node, run, op, works),
            Event::ProgramEnds { node, port } => {
                self.nodes[node].programs.remove(&port);
                let run = self.nodes[node].run;
                self.at(LINGER, Event::Linger { node, run, port });
            }
            Event::Linger { node, run, port } => {
                if self.nodes[node].run == run && self.nodes[node].is_idle(port) {
                    self.nodes[node].host.release_port(port, now);
                    self.serve_node(node);
                }
            }
            Event::GatewayStarts { run } => {
                if run == self.gate.run {
                    let seed = self.chance.bits();
                    self.gate.start_again(seed);
                }
            }
            Event::OutageEnds => self.outage = false,
            Event::Something => self.something(),
        }
    }

    fn installed(&mut self, node: usize, run: u64, op: OpId, works: bool) {
        let it = &mut self.nodes[node];
        if it.run != run {
            return;
        }
        let Some(binding) = it.installing.remove(&op) else { return };
        if works && !it.stopped {
            for port in binding.leased.iter() {
                let run = it.run;
                self.events
                    .insert((self.now + LINGER * 2, self.next_event), Event::Linger { node, run, port });
                self.next_event += 1;
            }
            let before = it.published.insert((binding.client_id, binding.bind_id), binding);
            assert!(before.is_none(), "published twice");
        }
        let result = if works { Ok(()) } else { Err(rsip_proto::host::InstallFailed) };
        it.host.handle_done(op, result, self.now);
        self.serve_node(node);
    }

    fn is_reachable(&self) -> bool {
        self.gate.is_up() && !self.outage
    }

    pub(crate) fn serve_node(&mut self, node: usize) {
        self.touched[node] = true;
        for work in self.nodes[node].work() {
            self.tell(|| format!("host {node}: {work:?}"));
            match work {
                Work::Connect => {
                    let channel = self.next_channel;
                    self.next_channel += 1;
                    self.nodes[node].channel = channel;
                    self.nodes[node].connected = false;
                    self.at(Duration::from_millis(1), Event::Connected { node, channel });
                }
                Work::Disconnect => {
                    if self.nodes[node].connected {
                        let run = self.gate.run;
                        let connection = self.nodes[node].channel;
                        // A close comes after what was sent before it, however long that takes.
                        let last = self.last_delivery.get(&(connection, true)).copied();
                        let wait = last.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.now));
                        let wait = wait + Duration::from_millis(1);
                        self.at(wait, Event::GatewayLost { run, connection });
                    }
                    self.nodes[node].connected = false;
                }
                Work::Transmit(message) => {
                    let peer = self.peer(node);
                    let bytes = message.encode().expect("what a host says can be written");
                    record(&Spoken::by_host(peer.address, carrier(peer), bytes.clone()));
                    let run = self.gate.run;
                    self.transmit(true, self.nodes[node].channel, Event::ToGateway { run, peer, bytes });
                }
                Work::Install(op) => {
                    let works = self.calm || !self.chance.in_thousand(30);
                    let wait = self.chance.between(Duration::ZERO, Duration::from_millis(20));
                    let run = self.nodes[node].run;
                    self.at(wait, Event::Installed { node, run, op, works });
                }
                Work::Denied(port) => {
                    // It may be held all the same: asked for again after it was lost, or wanted by two.
                    let run = self.nodes[node].run;
                    self.at(LINGER, Event::Linger { node, run, port });
                }
                Work::Allowed(port) => {
                    let life = self.chance.between(Duration::ZERO, Duration::from_secs(12));
                    self.at(life, Event::ProgramEnds { node, port });
                }
            }
        }
    }

    pub(crate) fn serve_gate(&mut self) {
        while let Some(command) = self.gate.machine.next_command() {
            let run = self.gate.run;
            self.tell(|| format!("gateway: {command:?}"));
            match command {
                GatewayCommand::Send { to, message } => {
                    let bytes = message.encode().expect("what the gateway says can be written");
                    record(&Spoken::by_gateway(to.address, carrier(to), bytes.clone()));
                    if let Some((node, channel)) = self.node_of(to) {
                        self.transmit(false, channel, Event::ToHost { node, channel, bytes });
                    }
                }
                GatewayCommand::Install { op, rule } => self.change_path(run, op, rule, true),
                GatewayCommand::Remove { op, rule } => self.change_path(run, op, rule, false),
                GatewayCommand::Close { .. } | GatewayCommand::Event(_) => {}
            }
        }
    }

    fn change_path(&mut self, run: u64, op: OpId, rule: rsip_proto::gateway::Rule, install: bool) {
        let works = self.calm || !self.chance.in_thousand(30);
        let wait = self.chance.between(Duration::ZERO, Duration::from_millis(10));
        self.at(wait, Event::PathChanged { run, change: Change { op, rule, install, works } });
    }

    /// The course of a run, with `RSIP_PAIR_TRACE=1`.
    fn tell(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:.6} {}", (self.now - self.start).as_secs_f64(), what());
        }
    }

    pub(crate) fn at(&mut self, wait: Duration, event: Event) {
        self.events.insert((self.now + wait, self.next_event), event);
        self.next_event += 1;
    }
}

const fn path_failed() -> InstallFailed {
    InstallFailed
}
