//! What must be true, from what goes in and comes out alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use rsip_proto::gateway::{BindingState, GatewayCommand, GatewayConfig, GatewayView, Peer, Rule, Transport};
use rsip_proto::ids::{BindId, ClientId, MessageCounter, OpId};
use rsip_proto::lease::Leased;
use rsip_proto::wire::{Address, Body, Message, Ports, RemotePolicy};

use super::NOBODY;
use crate::input::Input;

type Key = (ClientId, BindId);

pub(super) struct Model {
    max_clients: usize,
    max_ports: u32,
    max_addresses: usize,
    remote_policy: RemotePolicy,
    /// What the data path holds or was told to hold, until it says that it is gone.
    rules: BTreeMap<Key, Rule>,
    /// Of these: what it said that it holds.
    held: BTreeSet<Key>,
    /// What it was told and has not answered: whether to hold (true) or to forget.
    ops: BTreeMap<OpId, (bool, Key)>,
    used_ops: BTreeSet<OpId>,
    clients: BTreeMap<Ipv4Addr, ClientId>,
    /// By host: counters that it used, the newest last.
    counters: BTreeMap<Ipv4Addr, Vec<MessageCounter>>,
    /// By host: answers that it got. A duplicate request brings the same bytes again.
    answers: BTreeSet<(Ipv4Addr, Vec<u8>)>,
}

impl Model {
    pub(super) fn new(config: &GatewayConfig) -> Self {
        Self {
            max_clients: config.max_clients as usize,
            max_ports: config.max_ports_per_client,
            max_addresses: config.max_addresses_per_client as usize,
            remote_policy: config.flow_policy.remote,
            rules: BTreeMap::new(),
            held: BTreeSet::new(),
            ops: BTreeMap::new(),
            used_ops: BTreeSet::new(),
            clients: BTreeMap::new(),
            counters: BTreeMap::new(),
            answers: BTreeSet::new(),
        }
    }

    /// A host said this.
    pub(super) fn heard(&mut self, peer: Peer, bytes: &[u8]) {
        let counter = match Message::parse(bytes) {
            Ok(message) => message.counter,
            Err(error) => error.counter(),
        };
        if let Some(counter) = counter {
            self.counters.entry(*peer.address.ip()).or_default().push(counter);
        }
    }

    /// Any name that is in use, or nobody's.
    pub(super) fn names(&self, input: &mut Input<'_>) -> Key {
        let known: Vec<Key> = self.rules.keys().copied().collect();
        let clients: Vec<ClientId> = self.clients.values().copied().collect();
        let choice = usize::from(input.byte());
        if known.is_empty() {
            return clients.get(choice % clients.len().max(1)).map_or(NOBODY, |client| (*client, BindId(1)));
        }
        known.get(choice % known.len()).copied().unwrap_or(NOBODY)
    }

    /// A name of this host, as far as it has one.
    pub(super) fn own_names(&self, input: &mut Input<'_>, host: Ipv4Addr) -> Key {
        let Some(client) = self.client_of(host) else { return self.names(input) };
        let own: Vec<Key> = self.rules.keys().filter(|key| key.0 == client).copied().collect();
        let choice = usize::from(input.byte());
        own.get(choice % own.len().max(1)).copied().unwrap_or((client, BindId(0)))
    }

    pub(super) fn client_of(&self, host: Ipv4Addr) -> Option<ClientId> {
        self.clients.get(&host).copied()
    }

    pub(super) fn last_counter(&self, host: Ipv4Addr) -> MessageCounter {
        let last = self.counters.get(&host).and_then(|counters| counters.last());
        last.copied().unwrap_or(MessageCounter::ASYNCHRONOUS)
    }

    pub(super) fn ports_of(&self, client: ClientId) -> u32 {
        let own = self.rules.values().filter(|rule| rule.client_id == client);
        own.map(|rule| u32::try_from(rule.leased.iter().count()).unwrap_or(u32::MAX)).sum()
    }

    pub(super) fn first_op(&self) -> Option<OpId> {
        self.ops.keys().next().copied()
    }

    /// One of the things that the data path has not answered.
    pub(super) fn pick_op(&self, input: &mut Input<'_>) -> Option<OpId> {
        let choice = input.below(self.ops.len().max(1));
        self.ops.keys().nth(choice).copied()
    }

    /// The data path answers.
    pub(super) fn done(&mut self, op: OpId, works: bool) {
        let Some((install, key)) = self.ops.remove(&op) else { return };
        match (install, works) {
            (true, true) => {
                self.held.insert(key);
            }
            // What it cannot take it does not have; what it cannot forget it keeps.
            (true, false) | (false, true) => {
                self.held.remove(&key);
                self.rules.remove(&key);
            }
            (false, false) => {}
        }
    }

    pub(super) fn command(&mut self, command: &GatewayCommand) {
        match command {
            GatewayCommand::Send { to, message } => self.sent(*to, message),
            GatewayCommand::Install { op, rule } => self.install(*op, rule),
            GatewayCommand::Remove { op, rule } => {
                let key = (rule.client_id, rule.bind_id);
                assert_eq!(self.rules.get(&key), Some(rule), "forgets what it never asked for");
                self.begin(*op, false, key);
            }
            GatewayCommand::Close { .. } | GatewayCommand::Event(_) => {}
        }
    }

    fn begin(&mut self, op: OpId, install: bool, key: Key) {
        assert!(self.used_ops.insert(op), "{op:?} is used twice");
        assert!(!self.ops.values().any(|(_, other)| *other == key), "{key:?}: two operations at once");
        self.ops.insert(op, (install, key));
    }

    fn install(&mut self, op: OpId, rule: &Rule) {
        let key = (rule.client_id, rule.bind_id);
        for (other, taken) in self.rules.iter().filter(|(_, taken)| taken.address == rule.address) {
            let overlap = match (&taken.leased, &rule.leased) {
                (Leased::Address, _) | (_, Leased::Address) => true,
                (Leased::Ports(_), Leased::Ports(ports)) => {
                    ports.iter().any(|port| taken.leased.covers(port))
                }
            };
            assert!(!overlap, "two holders: {key:?} {rule:?} and {other:?} {taken:?}");
        }
        assert!(rule.leased.ports().is_none_or(|ports| ports.iter().next().is_some()), "nothing is leased");
        assert_eq!(rule.remote.address().is_some(), self.remote_policy != RemotePolicy::None);
        assert_eq!(rule.remote.port().is_some(), self.remote_policy == RemotePolicy::Micro);
        assert!(self.rules.insert(key, rule.clone()).is_none(), "{key:?} is given twice");
        self.begin(op, true, key);
    }

    fn sent(&mut self, to: Peer, message: &Message) {
        let host = *to.address.ip();
        let bytes = match message.encode() {
            Ok(bytes) => bytes,
            Err(error) => unreachable!("{message:?} cannot be written: {error}"),
        };
        assert_eq!(Message::parse(&bytes).as_ref(), Ok(message), "is not what it says");
        match message.counter {
            Some(MessageCounter::ASYNCHRONOUS) => assert!(
                matches!(
                    message.body,
                    Body::ErrorResponse { .. } | Body::FreeResponse { .. } | Body::DeRegisterResponse { .. }
                ),
                "{message:?} must not come unasked"
            ),
            Some(counter) => {
                let used = self.counters.get(&host).is_some_and(|counters| counters.contains(&counter));
                assert!(used, "answers {counter:?}, which {host} never said");
            }
            None => {
                assert!(matches!(to.transport, Transport::Tcp(_)), "{message:?} over UDP without a counter")
            }
        }
        let again = !self.answers.insert((host, bytes)) && message.counter.is_some();
        // What comes unasked tells the host first, and the data path then.
        let unasked = message.counter == Some(MessageCounter::ASYNCHRONOUS);
        self.learn(host, &message.body, again || unasked);
    }

    /// What an answer says must be so. `again`: it need not be so any more, or not yet.
    fn learn(&mut self, host: Ipv4Addr, body: &Body, again: bool) {
        let right = |key: &Key, address: &Address, ports: Option<&Ports>| {
            let rule = self.rules.get(key).filter(|_| self.held.contains(key));
            rule.is_some_and(|rule| {
                rule.host == host
                    && Address::Ipv4(rule.address) == *address
                    && rule.leased.ports().map(|ports| ports.iter().collect::<Vec<_>>())
                        == ports.map(|ports| ports.iter().collect())
            })
        };
        match body {
            Body::RegisterResponse { client_id, .. } if !again => {
                assert!(!self.clients.values().any(|other| other == client_id), "{client_id:?} is in use");
                self.clients.insert(host, *client_id);
            }
            Body::AssignResponseRsapIp(it) | Body::ListenResponse(it) => {
                let key = (it.client_id, it.bind_id);
                assert!(
                    again || right(&key, &it.local_address, Some(&it.local_ports)),
                    "{it:?} does not hold"
                );
            }
            Body::AssignResponseRsaIp(it) => {
                let key = (it.client_id, it.bind_id);
                assert!(again || right(&key, &it.local_address, None), "{it:?} does not hold");
            }
            Body::ExtendResponse { client_id, bind_id, lease_time } => {
                let own = self.rules.get(&(*client_id, *bind_id)).is_some_and(|rule| rule.host == host);
                assert!(again || (own && *lease_time > 0), "extends what {host} does not have");
            }
            Body::FreeResponse { client_id, bind_id } => {
                let gone = !self.rules.contains_key(&(*client_id, *bind_id));
                assert!(again || gone, "says {bind_id:?} is gone while it is forwarded");
            }
            _ => {}
        }
    }

    /// The gateway's own view against what went in and out.
    pub(super) fn compare(&mut self, view: &GatewayView) {
        assert!(view.clients.len() <= self.max_clients, "MAX_CLIENTS");
        self.clients = view.clients.iter().map(|client| (client.host, client.client_id)).collect();
        assert_eq!(self.clients.len(), view.clients.len(), "a host is registered twice");
        let mut shown: BTreeSet<Key> = BTreeSet::new();
        for client in &view.clients {
            let mut ports = 0;
            let mut addresses = 0;
            for binding in &client.bindings {
                let key = (client.client_id, binding.bind_id);
                let rule = self.rules.get(&key);
                let same = rule.is_some_and(|rule| {
                    (rule.host, rule.address, &rule.leased, rule.remote)
                        == (client.host, binding.address, &binding.leased, binding.remote)
                });
                assert!(same, "shows {binding:?}, asked for {rule:?}");
                assert!(
                    binding.state != BindingState::Active || self.held.contains(&key),
                    "active, but not held"
                );
                assert!(binding.lease_left <= client.lease_left, "a binding outlives its registration");
                ports += binding.leased.iter().count();
                addresses += usize::from(binding.leased == Leased::Address);
                shown.insert(key);
            }
            assert!(ports <= self.max_ports as usize, "MAX_PORTS_PER_CLIENT");
            assert!(addresses <= self.max_addresses, "MAX_ADDRESSES_PER_CLIENT");
        }
        shown.extend(view.departing.iter().map(|rule| (rule.client_id, rule.bind_id)));
        assert!(shown.iter().eq(self.rules.keys()), "shows {shown:?}, the data path has {:?}", self.rules);
    }

    pub(super) fn expect_nothing(&self) {
        assert!(self.rules.is_empty() && self.ops.is_empty(), "left: {:?} {:?}", self.rules, self.ops);
    }
}
