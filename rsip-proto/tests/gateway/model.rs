//! What must hold whatever happens: a model that only watches commands, the way hosts and the data path see them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Instant;

use rsip_proto::gateway::{Event, Gateway, GatewayCommand, GatewayView, Rule};
use rsip_proto::ids::{BindId, ClientId, MessageCounter, OpId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::pool::WholeUse;
use rsip_proto::wire::{Address, Body, Message, Ports};

use crate::rig::next_command;

type Key = (ClientId, BindId);

/// Where a rule stands in the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Installing,
    Holds,
    Removing,
}

/// What a response grants, of whatever kind it is.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    key: Key,
    address: Address,
    leased: Leased,
    remote: (Address, Ports),
    lease_time: u32,
}

impl Answer {
    fn of(body: &Body) -> Option<Self> {
        Some(match body.clone() {
            Body::AssignResponseRsapIp(binding) | Body::ListenResponse(binding) => Self {
                key: (binding.client_id, binding.bind_id),
                address: binding.local_address,
                leased: binding.local_ports.into(),
                remote: (binding.remote_address, binding.remote_ports),
                lease_time: binding.lease_time,
            },
            Body::AssignResponseRsaIp(granted) => Self {
                key: (granted.client_id, granted.bind_id),
                address: granted.local_address,
                leased: Leased::Address,
                remote: (granted.remote_address, granted.remote_ports),
                lease_time: granted.lease_time,
            },
            _ => return None,
        })
    }
}

/// As RFC 3103 sections 9.7.3, 9.9.3 and 9.17.3 want it stated.
fn stated(remote: Remote) -> (Address, Ports) {
    let address = remote.address().map_or(Address::ANY, Address::Ipv4);
    (address, remote.port().map_or(Ports::ANY, Ports::single))
}

/// The data path and the hosts, as they see it.
#[derive(Default)]
pub(crate) struct Model {
    /// Every rule that the data path was asked to hold and did not yet say it had forgotten.
    rules: BTreeMap<Key, (Rule, Held)>,
    /// Every port that the data path may hold, and for whom.
    ports: BTreeMap<(Ipv4Addr, u16), Key>,
    /// Every address that the data path may hold whole, and for whom.
    wholes: BTreeMap<Ipv4Addr, Key>,
    /// Operations whose outcome the data path has not told, in the order given.
    pub(crate) pending: Vec<OpId>,
    ops: BTreeMap<OpId, Key>,
    /// The last grant that was sent. Duplicates get it once more, also when it has ended: it counts when it is new.
    answered: Option<Answer>,
    /// What the hosts were told they have, and not that it ended.
    granted: BTreeMap<Key, Rule>,
    /// Hosts that lost a connection, and so may not hear what they did not ask for.
    pub(crate) cut_off: BTreeSet<Ipv4Addr>,
    /// Names that were given to hosts: none twice at the same time.
    registered: BTreeMap<ClientId, Ipv4Addr>,
    /// How many Install commands there were.
    pub(crate) installs: usize,
}

impl Model {
    /// Watches every command that the gateway gives.
    pub(crate) fn drain(&mut self, gateway: &mut Gateway) {
        while let Some(command) = next_command(gateway) {
            self.watch(command);
        }
    }

    fn watch(&mut self, command: GatewayCommand) {
        match command {
            GatewayCommand::Install { op, rule } => self.install(op, rule),
            GatewayCommand::Remove { op, rule } => {
                let key = (rule.client_id, rule.bind_id);
                assert!(self.ops.values().all(|busy| *busy != key), "two operations at a time on {rule:?}");
                let held = self.rules.get_mut(&key).expect("only what is held is removed");
                assert_eq!(*held, (rule, Held::Holds));
                held.1 = Held::Removing;
                self.start(op, key);
            }
            GatewayCommand::Send { message, .. } => {
                message.encode().expect("what the gateway says can be written");
                self.check_asynchronous(&message);
                if let Some(answer) = Answer::of(&message.body) {
                    self.answered = Some(answer);
                }
                match message.body {
                    Body::FreeResponse { client_id, bind_id } => {
                        self.granted.remove(&(client_id, bind_id));
                    }
                    Body::DeRegisterResponse { client_id } => {
                        self.granted.retain(|(client, _), _| *client != client_id);
                    }
                    _ => {}
                }
            }
            GatewayCommand::Event(Event::Registered { client_id, host }) => {
                assert!(self.registered.values().all(|known| *known != host), "{host} is registered twice");
                assert_eq!(self.registered.insert(client_id, host), None, "{client_id} is given twice");
            }
            GatewayCommand::Event(Event::Unregistered { client_id, host, .. }) => {
                assert_eq!(self.registered.remove(&client_id), Some(host));
                self.granted.retain(|(client, _), _| *client != client_id);
            }
            GatewayCommand::Event(Event::Bound { rule, .. }) => {
                let key = (rule.client_id, rule.bind_id);
                assert_eq!(self.rules.get(&key), Some(&(rule.clone(), Held::Holds)), "bound before it holds");
                let answer = self.answered.take().expect("the host is told first");
                assert_eq!((answer.key, answer.address), (key, Address::Ipv4(rule.address)));
                assert_eq!((&answer.leased, answer.remote), (&rule.leased, stated(rule.remote)));
                assert!(answer.lease_time > 0);
                self.granted.insert(key, rule);
            }
            GatewayCommand::Event(Event::Unbound { rule, .. }) => {
                let unknown_to_host = self.granted.remove(&(rule.client_id, rule.bind_id)).is_some();
                let reachable = !self.cut_off.contains(&rule.host);
                assert!(!(unknown_to_host && reachable), "{} was not told that {rule:?} ended", rule.host);
            }
            GatewayCommand::Event(Event::Misused { client_id, host, .. }) => {
                assert_eq!(self.registered.get(&client_id), Some(&host), "only who is registered is told");
            }
            GatewayCommand::Event(Event::Fault { detail }) => panic!("{detail}"),
            GatewayCommand::Event(_) | GatewayCommand::Close { .. } => {}
        }
    }

    /// Nobody asked for it: only three kinds of message may come so (RFC 3103 section 10.1).
    fn check_asynchronous(&self, message: &Message) {
        if message.counter == Some(MessageCounter::ASYNCHRONOUS) {
            let may = matches!(
                message.body,
                Body::ErrorResponse { .. } | Body::FreeResponse { .. } | Body::DeRegisterResponse { .. }
            );
            assert!(may, "{message:?}");
        }
    }

    /// The invariant above all: no (address, port) is asked for while the data path may hold it for somebody else, by port
    /// or with the whole address.
    fn install(&mut self, op: OpId, rule: Rule) {
        let key = (rule.client_id, rule.bind_id);
        let other = self.wholes.get(&rule.address);
        assert_eq!(other, None, "{} is given to {key:?} too", rule.address);
        if rule.leased == Leased::Address {
            let mut others = self.ports.iter().filter(|((address, _), _)| *address == rule.address);
            assert_eq!(others.next(), None, "{} is given to {key:?} whole", rule.address);
            self.wholes.insert(rule.address, key);
        } else {
            assert!(rule.leased.iter().count() > 0);
        }
        for port in rule.leased.iter() {
            let other = self.ports.insert((rule.address, port), key);
            assert_eq!(other, None, "{} port {port} is given to {key:?} too", rule.address);
        }
        assert_eq!(self.registered.get(&rule.client_id), Some(&rule.host));
        assert_eq!(self.rules.insert(key, (rule, Held::Installing)), None);
        self.start(op, key);
        self.installs += 1;
    }

    fn start(&mut self, op: OpId, key: Key) {
        assert_eq!(self.ops.insert(op, key), None, "{op:?} is given twice");
        self.pending.push(op);
    }

    /// The data path has done something, or could not. To be called before the gateway is told.
    pub(crate) fn finish(&mut self, op: OpId, succeeds: bool) {
        self.pending.retain(|pending| *pending != op);
        let key = self.ops.remove(&op).expect("under way");
        let (_, held) = self.rules.get_mut(&key).expect("known");
        match (*held, succeeds) {
            (Held::Installing, true) | (Held::Removing, false) => *held = Held::Holds,
            (Held::Installing, false) | (Held::Removing, true) => {
                let (rule, _) = self.rules.remove(&key).expect("known");
                if rule.leased == Leased::Address {
                    assert_eq!(self.wholes.remove(&rule.address), Some(key));
                }
                for port in rule.leased.iter() {
                    assert_eq!(self.ports.remove(&(rule.address, port)), Some(key));
                }
            }
            (Held::Holds, _) => panic!("nothing is under way for {key:?}"),
        }
    }

    /// What must hold between any two inputs.
    pub(crate) fn check(&self, gateway: &Gateway, now: Instant) {
        let view = gateway.view(now);
        self.check_rules(&view);
        for pool in &view.pool {
            assert_eq!(pool.leased + pool.resting + pool.free, pool.leasable, "{pool:?}");
            // What is leased is what the data path may hold.
            let whole = self.wholes.contains_key(&pool.address);
            let ports = self.ports.keys().filter(|(address, _)| *address == pool.address).count();
            let leased = if whole { pool.leasable as usize } else { ports };
            assert_eq!((pool.leased as usize, pool.whole == WholeUse::Leased), (leased, whole), "{pool:?}");
        }
        // What hosts rely on is in the data path.
        for (key, rule) in &self.granted {
            let (held, _) = self.rules.get(key).unwrap_or_else(|| panic!("{rule:?} is not in the data path"));
            assert_eq!(held, rule);
        }
        let names: BTreeMap<_, _> =
            view.clients.iter().map(|client| (client.client_id, client.host)).collect();
        assert_eq!(names, self.registered);
        assert_eq!(gateway.is_drained(), self.rules.is_empty());
        let wakes = !self.registered.is_empty() || self.rules.len() > self.ops.len();
        assert_eq!(
            gateway.poll_timeout().is_some(),
            wakes,
            "a timer is set when something ends, and only then"
        );
        assert!(gateway.poll_timeout().is_none_or(|at| at > now), "nothing that is due is left");
    }

    /// What the machine says it holds is what the data path was told to hold.
    fn check_rules(&self, view: &GatewayView) {
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        for client in &view.clients {
            for binding in &client.bindings {
                let key = (client.client_id, binding.bind_id);
                let (rule, _) =
                    self.rules.get(&key).unwrap_or_else(|| panic!("{binding:?} was never asked for"));
                assert_eq!(
                    (&rule.leased, rule.address, rule.remote, rule.host),
                    (&binding.leased, binding.address, binding.remote, client.host)
                );
                assert!(seen.insert(key));
            }
        }
        for departing in &view.departing {
            let key = (departing.client_id, departing.bind_id);
            assert_eq!(self.rules.get(&key).map(|(rule, _)| rule), Some(departing));
            assert!(seen.insert(key));
        }
        assert!(seen.iter().eq(self.rules.keys()), "the data path holds what the machine forgot");
    }
}
