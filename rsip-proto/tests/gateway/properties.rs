//! Random dialogues of several hosts with everything that can go wrong, watched by the model.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use rsip_proto::gateway::{Gateway, GatewayConfig, InstallFailed, Peer};
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::lease::Remote;
use rsip_proto::pool::{PoolConfig, WholeUse};
use rsip_proto::wire::{Address, Body, Message, RemotePolicy};

use crate::model::Model;
use crate::rig::*;
use crate::steps::*;

/// The gateway, the model that watches it, and what the hosts remember.
struct World {
    rig: Rig,
    model: Model,
    counters: BTreeMap<Peer, u32>,
    names: BTreeMap<u8, ClientId>,
    /// What was sent, and when.
    sent: BTreeMap<Peer, Vec<(Instant, Vec<u8>)>>,
    /// Hosts whose counters began anew: somebody spoke in their name with counters of his own, or they asked to be registered
    /// while they were, as after a crash, and were told so. What they said before may then count as new: nobody can tell.
    disturbed: BTreeSet<Ipv4Addr>,
}

impl World {
    fn new(remote: RemotePolicy) -> Self {
        Self {
            rig: Rig::new(scarce(remote)),
            model: Model::default(),
            counters: BTreeMap::new(),
            names: BTreeMap::new(),
            sent: BTreeMap::new(),
            disturbed: BTreeSet::new(),
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
            Ask::Whole(address, remote) => {
                let address = address.map_or(Address::ANY, Address::Ipv4);
                with_remote(assign_whole_at(id, address), remote)
            }
            Ask::Assign(count, remote) => with_remote(assign(id, count), remote),
            Ask::Listen(ports, remote) => with_remote(listen_ports(id, ports), remote),
            Ask::Extend(bind_id, lease) => extend(id, bind_id, lease),
            Ask::Free(bind_id) => free(id, bind_id),
            Ask::Query => query(id),
        };
        let counter = self.counters.entry(from).or_insert(0);
        *counter += 1;
        Message::new(MessageCounter(*counter), body).encode().expect("can be written")
    }

    fn is_registered(&self, host: Ipv4Addr) -> bool {
        self.rig.gateway.view(self.rig.now).clients.iter().any(|client| client.host == host)
    }

    fn input(&mut self, from: Peer, bytes: &[u8]) {
        self.rig.gateway.handle_input(from, bytes, self.rig.now);
        self.model.drain(&mut self.rig.gateway);
    }

    /// A datagram that was sent before: whatever is answered, nothing new begins.
    fn repeat(&mut self, from: Peer, bytes: &[u8]) {
        let before = self.model.installs;
        self.input(from, bytes);
        let alone = !self.disturbed.contains(from.address.ip());
        assert!(!alone || self.model.installs == before, "a duplicate began something");
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
                if matches!(ask, Ask::Register) && self.is_registered(*from.address.ip()) {
                    self.disturbed.insert(*from.address.ip());
                }
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
                    self.disturbed.insert(*from.address.ip());
                    self.input(from, &bytes);
                }
            }
            Step::Bytes(from, bytes) => {
                self.disturbed.insert(*from.address.ip());
                self.input(from, &bytes);
            }
            Step::Damaged(from, ask, changes) => {
                let mut bytes = self.encode(from, &ask);
                for (index, byte) in changes {
                    *index.get_mut(&mut bytes) = byte;
                }
                self.disturbed.insert(*from.address.ip());
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
            Step::Misuse(host, misuse) => {
                self.rig.gateway.handle_misuse(*udp(host).address.ip(), misuse, self.rig.now);
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
            let leasable = if pool.address == WHOLE { 0 } else { 10 };
            assert_eq!((pool.free, pool.leased, pool.resting), (leasable, 0, 0));
            let whole = if pool.address == PUBLIC { WholeUse::Never } else { WholeUse::Free };
            assert_eq!(pool.whole, whole);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happens, what must hold holds; and left alone, everything ends and the pool is whole, which is to say
    /// that every port can be leased again.
    #[test]
    fn nothing_is_held_twice_and_nothing_is_lost(remote in remote_policy(), steps in vec(step(), 1..150)) {
        let mut world = World::new(remote);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.assert_whole();
        let host = udp_from(9, 7000);
        let id = world.rig.register(host);
        for counter in 2..4 {
            // All that the gateway chooses from, at one address and then at the other.
            let body = with_remote(assign(id, 7), Remote::Port(SocketAddrV4::new(PEER, 80)));
            world.rig.ask(host, counter, body);
        }
        let leased: Vec<_> = world.rig.gateway.view(world.rig.now).pool.iter().map(|pool| pool.leased).collect();
        prop_assert_eq!(leased, [7, 0, 0], "twice 7 are more than one host may have");
    }

    /// Shutting down at any moment ends everything.
    #[test]
    fn shutting_down_leaves_nothing(
        remote in remote_policy(),
        steps in vec(step(), 1..60),
        fault in any::<bool>(),
    ) {
        let mut world = World::new(remote);
        for step in steps {
            world.step(step);
        }
        if fault {
            world.rig.gateway.fail(world.rig.now);
        } else {
            world.rig.gateway.shutdown(world.rig.now);
        }
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
        let address = Ipv4Addr::from_bits(0x0a00_0000 + host);
        let peer = Peer { address: std::net::SocketAddrV4::new(address, 5000), ..udp(1) };
        let register = Message::new(MessageCounter(1), Body::RegisterRequest);
        gateway.handle_input(peer, &register.encode().expect("can be written"), now);
        let mut id = None;
        while let Some(command) = next_command(&mut gateway) {
            if let rsip_proto::gateway::GatewayCommand::Send { message, .. } = &command
                && let Body::RegisterResponse { client_id, .. } = message.body
            {
                id = Some(client_id);
            }
        }
        let request = Message::new(MessageCounter(2), assign(id.expect("registered"), 4));
        gateway.handle_input(peer, &request.encode().expect("can be written"), now);
        let Some(rsip_proto::gateway::GatewayCommand::Install { op, .. }) = next_command(&mut gateway) else {
            panic!("no Install for host {host}");
        };
        gateway.handle_done(op, Ok(()), now);
        while next_command(&mut gateway).is_some() {}
    }
    assert_eq!(gateway.view(now).pool[0].leased, 40_000);
    let end = gateway.poll_timeout().expect("leases end");
    gateway.handle_timeout(end);
    assert!(gateway.view(end).clients.is_empty());
    let mut removed = 0;
    while let Some(command) = next_command(&mut gateway) {
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
