//! Random dialogues of several hosts with everything that can go wrong, watched by the model.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rsip_proto::gateway::{Gateway, GatewayConfig, InstallFailed, Peer};
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::pool::PoolConfig;
use rsip_proto::strategies;
use rsip_proto::wire::{Body, Message, Ports};

use crate::model::Model;
use crate::rig::*;

/// Few ports and few places, so that hosts are in each other's way.
fn scarce() -> GatewayConfig {
    GatewayConfig {
        max_clients: 3,
        max_ports_per_client: 12,
        lease_time: Duration::from_secs(60),
        max_lease_time: Duration::from_secs(100),
        ..GatewayConfig::new(PoolConfig {
            addresses: vec![PUBLIC, SECOND_PUBLIC],
            whole: Vec::new(),
            port_range: 10_000..=10_007,
            listen_range: 80..=83,
            reserved: vec![81, 10_003],
            rest: Duration::from_secs(20),
        })
    }
}

#[derive(Clone, Debug)]
enum Ask {
    Register,
    Leave,
    Assign(u8),
    Listen(Ports),
    Extend(u32, Option<u32>),
    Free(u32),
    Query,
}

#[derive(Clone, Debug)]
enum Step {
    /// A request with the next counter of its peer, and the host's client ID (or, if it has none, its last).
    Ask(Peer, Ask),
    /// The last request of the peer, once more.
    Again(Peer),
    /// Any datagram of the peer that the network may still have, once more.
    Old(Peer, Index),
    /// A request of somebody who makes everything up.
    Stranger(Peer, Message),
    /// Bytes that are nothing, or a request with some bytes changed.
    Bytes(Peer, Vec<u8>),
    Damaged(Peer, Ask, Vec<(Index, u8)>),
    /// One of the operations under way ends.
    Done(Index, bool),
    /// An outcome that nobody waits for.
    DoneByMistake(u64),
    Wait(u64),
    Disconnect(u64),
    ReleaseClient(u8),
    ReleaseBind(u8, u32),
}

fn peer() -> impl Strategy<Value = Peer> {
    // The same few peers again and again: two UDP ports and two connections for each of four hosts.
    (1..=4u8, 0..6u8).prop_map(|(host, way)| match way {
        0..=2 => udp(host),
        3 => udp_from(host, 6000),
        4 => tcp(host, u64::from(host)),
        _ => tcp(host, 10 + u64::from(host)),
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let port = || prop_oneof![80..=84u16, 9_999..=10_008u16];
    prop_oneof![
        4 => Just(Ask::Register),
        1 => Just(Ask::Leave),
        4 => (1..=8u8).prop_map(Ask::Assign),
        4 => port().prop_map(|port| Ask::Listen(Ports::single(port))),
        1 => (port(), 2..=4u8).prop_map(|(first, count)| Ask::Listen(Ports::Range { first, count })),
        1 => proptest::collection::btree_set(port(), 2..4)
            .prop_map(|ports| Ask::Listen(Ports::List(ports.into_iter().collect()))),
        2 => (1..5u32, proptest::option::of(select(vec![0, 1, 30, 1000]))).prop_map(|(b, l)| Ask::Extend(b, l)),
        4 => (1..6u32).prop_map(Ask::Free),
        1 => Just(Ask::Query),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (peer(), ask()).prop_map(|(peer, ask)| Step::Ask(peer, ask)),
        3 => peer().prop_map(Step::Again),
        2 => (1..=4u8, any::<Index>()).prop_map(|(host, index)| Step::Old(udp(host), index)),
        1 => (peer(), strategies::request()).prop_map(|(peer, message)| Step::Stranger(peer, message)),
        1 => (peer(), vec(any::<u8>(), 0..64)).prop_map(|(peer, bytes)| Step::Bytes(peer, bytes)),
        1 => (peer(), ask(), vec((any::<Index>(), any::<u8>()), 1..4))
            .prop_map(|(peer, ask, changes)| Step::Damaged(peer, ask, changes)),
        14 => (any::<Index>(), prop::bool::weighted(0.85)).prop_map(|(index, good)| Step::Done(index, good)),
        1 => any::<u64>().prop_map(Step::DoneByMistake),
        3 => (0..40u64).prop_map(Step::Wait),
        1 => prop_oneof![1..=4u64, 11..=14u64].prop_map(Step::Disconnect),
        1 => (1..=4u8).prop_map(Step::ReleaseClient),
        1 => (1..=4u8, 1..4u32).prop_map(|(host, bind)| Step::ReleaseBind(host, bind)),
    ]
}

/// The gateway, the model that watches it, and what the hosts remember.
struct World {
    rig: Rig,
    model: Model,
    counters: BTreeMap<Peer, u32>,
    names: BTreeMap<u8, ClientId>,
    /// What was sent, and when.
    sent: BTreeMap<Peer, Vec<(Instant, Vec<u8>)>>,
}

impl World {
    fn new() -> Self {
        Self {
            rig: Rig::new(scarce()),
            model: Model::default(),
            counters: BTreeMap::new(),
            names: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// The host's client ID as it knows it: the present one, else the one it had, else a guess.
    fn name_of(&mut self, host: u8) -> ClientId {
        let view = self.rig.gateway.view(self.rig.now);
        let present = view.clients.iter().find(|client| client.host.octets()[3] == host);
        if let Some(client) = present {
            self.names.insert(host, client.client_id);
        }
        self.names.get(&host).copied().unwrap_or(ClientId(u32::from(host)))
    }

    fn encode(&mut self, from: Peer, ask: &Ask) -> Vec<u8> {
        let id = self.name_of(from.address.ip().octets()[3]);
        let body = match ask.clone() {
            Ask::Register => Body::RegisterRequest,
            Ask::Leave => leave(id),
            Ask::Assign(count) => assign(id, count),
            Ask::Listen(ports) => listen_ports(id, ports),
            Ask::Extend(bind_id, lease) => extend(id, bind_id, lease),
            Ask::Free(bind_id) => free(id, bind_id),
            Ask::Query => query(id),
        };
        let counter = self.counters.entry(from).or_insert(0);
        *counter += 1;
        Message::new(MessageCounter(*counter), body).encode().expect("can be written")
    }

    fn input(&mut self, from: Peer, bytes: &[u8]) {
        self.rig.gateway.handle_input(from, bytes, self.rig.now);
        self.model.drain(&mut self.rig.gateway);
    }

    /// A datagram that was sent before: whatever is answered, nothing new begins.
    fn repeat(&mut self, from: Peer, bytes: &[u8]) {
        let before = self.model.installs;
        self.input(from, bytes);
        assert_eq!(self.model.installs, before, "a duplicate began something");
    }

    fn finish(&mut self, index: usize, succeeds: bool) {
        let op = self.model.pending[index];
        self.model.finish(op, succeeds);
        let result = if succeeds { Ok(()) } else { Err(InstallFailed) };
        self.rig.gateway.handle_done(op, result, self.rig.now);
        self.model.drain(&mut self.rig.gateway);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(from, ask) => {
                let bytes = self.encode(from, &ask);
                let now = self.rig.now;
                self.sent.entry(from).or_default().push((now, bytes.clone()));
                self.input(from, &bytes);
            }
            Step::Again(from) => {
                if let Some((_, bytes)) = self.sent.get(&from).and_then(|sent| sent.last()).cloned() {
                    self.repeat(from, &bytes);
                }
            }
            Step::Old(from, index) => {
                let sent = self.sent.get(&from).map(Vec::as_slice).unwrap_or_default();
                let limit = Duration::from_secs(30);
                let young: Vec<_> =
                    sent.iter().filter(|(at, _)| self.rig.now.duration_since(*at) < limit).collect();
                if !young.is_empty() {
                    let bytes = index.get(&young).1.clone();
                    self.repeat(from, &bytes);
                }
            }
            Step::Stranger(from, message) => {
                if let Ok(bytes) = message.encode() {
                    self.input(from, &bytes);
                }
            }
            Step::Bytes(from, bytes) => self.input(from, &bytes),
            Step::Damaged(from, ask, changes) => {
                let mut bytes = self.encode(from, &ask);
                for (index, byte) in changes {
                    *index.get_mut(&mut bytes) = byte;
                }
                self.input(from, &bytes);
            }
            Step::Done(index, succeeds) => {
                if !self.model.pending.is_empty() {
                    self.finish(index.index(self.model.pending.len()), succeeds);
                }
            }
            Step::DoneByMistake(op) => {
                if !self.model.pending.iter().any(|pending| pending.0 == op) {
                    let op = rsip_proto::ids::OpId(op);
                    self.rig.gateway.handle_done(op, Ok(()), self.rig.now);
                    self.model.drain(&mut self.rig.gateway);
                }
            }
            Step::Wait(seconds) => self.wait(seconds),
            Step::Disconnect(connection) => {
                let host = u8::try_from(connection % 10).expect("a host's number");
                self.model.cut_off.insert(*udp(host).address.ip());
                self.rig.gateway.handle_disconnect(connection, self.rig.now);
                // The number is not used again, so what was sent on it can come no more.
                self.sent.retain(|peer, _| *peer != tcp(peer.address.ip().octets()[3], connection));
            }
            Step::ReleaseClient(host) => {
                let id = self.name_of(host);
                self.rig.gateway.release_client(id, self.rig.now);
            }
            Step::ReleaseBind(host, bind) => {
                let id = self.name_of(host);
                self.rig.gateway.release_bind(id, BindId(bind), self.rig.now);
            }
        }
        self.model.drain(&mut self.rig.gateway);
        self.rig.gateway.handle_timeout(self.rig.now);
        self.model.drain(&mut self.rig.gateway);
        self.model.check(&self.rig.gateway, self.rig.now);
    }

    fn wait(&mut self, seconds: u64) {
        self.rig.now += Duration::from_secs(seconds);
        self.rig.gateway.handle_timeout(self.rig.now);
        self.model.drain(&mut self.rig.gateway);
    }

    /// Lets the data path do all it is asked, for as long as something ends by itself.
    fn settle(&mut self) {
        for _ in 0..1000 {
            while !self.model.pending.is_empty() {
                self.finish(0, true);
            }
            let Some(next) = self.rig.gateway.poll_timeout() else { return };
            self.rig.now = self.rig.now.max(next);
            self.wait(0);
            self.model.check(&self.rig.gateway, self.rig.now);
        }
        panic!("it never ends");
    }

    fn assert_whole(&mut self) {
        self.model.check(&self.rig.gateway, self.rig.now);
        assert!(self.rig.gateway.is_drained());
        self.rig.now += Duration::from_secs(21);
        for pool in self.rig.gateway.view(self.rig.now).pool {
            // 8 and 4 ports without the two reserved ones.
            assert_eq!((pool.free, pool.leased, pool.resting), (10, 0, 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happens, what must hold holds; and left alone, everything ends and the pool is whole, which is to say
    /// that every port can be leased again.
    #[test]
    fn nothing_is_held_twice_and_nothing_is_lost(steps in vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.assert_whole();
        let host = udp_from(9, 7000);
        let id = world.rig.register(host);
        for counter in 2..4 {
            // All that the gateway chooses from, at one address and then at the other.
            world.rig.ask(host, counter, assign(id, 7));
        }
        let leased: Vec<_> = world.rig.gateway.view(world.rig.now).pool.iter().map(|pool| pool.leased).collect();
        prop_assert_eq!(leased, [7, 0], "twice 7 are more than one host may have");
    }

    /// Shutting down at any moment ends everything.
    #[test]
    fn shutting_down_leaves_nothing(steps in vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.rig.gateway.shutdown(world.rig.now);
        world.model.drain(&mut world.rig.gateway);
        world.settle();
        prop_assert!(world.rig.gateway.view(world.rig.now).clients.is_empty());
        world.assert_whole();
        prop_assert_eq!(world.rig.gateway.poll_timeout(), None);
    }

    /// Nothing that comes in makes the machine panic, register anybody or hold anything, but a registration itself.
    #[test]
    fn survives_any_bytes(inputs in vec((peer(), vec(any::<u8>(), 0..200)), 1..50)) {
        let mut rig = Rig::new(config());
        for (from, bytes) in inputs {
            rig.input(from, &bytes);
        }
        prop_assert_eq!(rig.pool()[0], 0);
    }
}

/// A gateway for many hosts is not slowed down by them: leases of thousands, all ended at their time.
#[test]
fn serves_thousands() {
    let pool = PoolConfig { port_range: 1024..=65_535, ..config().pool };
    let mut gateway =
        Gateway::new(GatewayConfig { max_clients: 10_000, pool, ..config() }, 1).expect("a good pool");
    let mut model = Model::default();
    let now = std::time::Instant::now();
    for host in 0..10_000u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host);
        let peer = Peer { address: std::net::SocketAddrV4::new(address, 5000), ..udp(1) };
        let register = Message::new(MessageCounter(1), Body::RegisterRequest);
        gateway.handle_input(peer, &register.encode().expect("can be written"), now);
        let mut id = None;
        while let Some(command) = gateway.next_command() {
            if let rsip_proto::gateway::GatewayCommand::Send { message, .. } = &command
                && let Body::RegisterResponse { client_id, .. } = message.body
            {
                id = Some(client_id);
            }
        }
        let request = Message::new(MessageCounter(2), assign(id.expect("registered"), 4));
        gateway.handle_input(peer, &request.encode().expect("can be written"), now);
        let Some(rsip_proto::gateway::GatewayCommand::Install { op, .. }) = gateway.next_command() else {
            panic!("no Install for host {host}");
        };
        gateway.handle_done(op, Ok(()), now);
        while gateway.next_command().is_some() {}
    }
    assert_eq!(gateway.view(now).pool[0].leased, 40_000);
    let end = gateway.poll_timeout().expect("leases end");
    gateway.handle_timeout(end);
    assert!(gateway.view(end).clients.is_empty());
    let mut removed = 0;
    while let Some(command) = gateway.next_command() {
        if let rsip_proto::gateway::GatewayCommand::Remove { op, .. } = command {
            gateway.handle_done(op, Ok(()), end);
            removed += 1;
        }
    }
    assert_eq!(removed, 10_000);
    assert!(gateway.is_drained());
    model.drain(&mut gateway);
    model.check(&gateway, end);
}
