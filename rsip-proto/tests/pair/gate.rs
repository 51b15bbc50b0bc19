//! The gateway's side: the machine, its data path, and its way of dying.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use rsip_proto::gateway::{Gateway, Rule};
use rsip_proto::ids::{BindId, ClientId, OpId};
use rsip_proto::lease::{Leased, Remote};

use crate::plan::{Plan, Sabotage};

/// What is known in the data path of one port, or of an address that is leased whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) host: Ipv4Addr,
    pub(crate) client_id: ClientId,
    pub(crate) bind_id: BindId,
    pub(crate) remote: Remote,
}

/// A change of the data path that takes its time.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) op: OpId,
    pub(crate) rule: Rule,
    pub(crate) install: bool,
    pub(crate) works: bool,
}

/// The gateway.
pub(crate) struct Gate {
    pub(crate) machine: Gateway,
    /// Which start of the daemon this is.
    pub(crate) run: u64,
    /// Dead until then.
    pub(crate) down_until: Option<Instant>,
    plan: Plan,
    pub(crate) path: BTreeMap<(Ipv4Addr, u16), Entry>,
    pub(crate) whole: BTreeMap<Ipv4Addr, Entry>,
}

impl Gate {
    pub(crate) fn new(seed: u64, plan: Plan) -> Self {
        let machine = start(seed, &plan);
        Self { machine, run: 0, down_until: None, plan, path: BTreeMap::new(), whole: BTreeMap::new() }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    /// Killed: nothing is kept, and the data path dies with the daemon.
    pub(crate) fn kill(&mut self, until: Instant) {
        self.down_until = Some(until);
        self.run += 1;
        if self.plan.sabotage != Sabotage::PathSurvives {
            self.path.clear();
            self.whole.clear();
        }
    }

    pub(crate) fn start_again(&mut self, seed: u64) {
        self.machine = start(seed, &self.plan);
        self.down_until = None;
    }

    /// Carries out a change, and says whether it worked. Two holders of anything are found here, whoever they are.
    pub(crate) fn apply(&mut self, change: &Change) -> bool {
        if !change.works {
            return false;
        }
        if self.plan.sabotage == Sabotage::PathLies && change.install {
            return true;
        }
        let Rule { client_id, bind_id, host, address, remote, .. } = change.rule;
        let entry = Entry { host, client_id, bind_id, remote };
        let of_address = (address, 0)..=(address, u16::MAX);
        match (&change.rule.leased, change.install) {
            (Leased::Address, true) => {
                let ports = self.path.range(of_address).next();
                assert_eq!(ports, None, "{address} is given whole to {entry:?}, and a port of it is held");
                let before = self.whole.insert(address, entry);
                assert_eq!(before, None, "{address} is given whole to {entry:?}, and has an owner");
            }
            (Leased::Address, false) => {
                assert_eq!(self.whole.remove(&address), Some(entry), "{address} is taken from its owner");
            }
            (Leased::Ports(ports), true) => {
                let whole = self.whole.get(&address);
                assert_eq!(whole, None, "ports of {address} are given to {entry:?}, and it is held whole");
                for port in ports.iter() {
                    let before = self.path.insert((address, port), entry);
                    assert_eq!(before, None, "port {port} is given to {entry:?}, and has an owner");
                }
            }
            (Leased::Ports(ports), false) => {
                for port in ports.iter() {
                    let before = self.path.remove(&(address, port));
                    assert_eq!(before, Some(entry), "port {port} is taken from its owner");
                }
            }
        }
        true
    }

    /// Whether another than this host has the port, at whatever address.
    pub(crate) fn is_taken(&self, port: u16, host: Ipv4Addr) -> bool {
        let ports = self.path.iter().filter(|((_, it), _)| *it == port).map(|(_, entry)| entry);
        ports.chain(self.whole.values()).any(|entry| entry.host != host)
    }

    /// Whether no address could be leased whole to this host.
    pub(crate) fn has_no_address_for(&self, host: Ipv4Addr) -> bool {
        let taken = |address: &Ipv4Addr| {
            self.whole.contains_key(address)
                || self.path.range((*address, 0)..=(*address, u16::MAX)).any(|(_, it)| it.host != host)
        };
        self.plan.gateway().pool.whole.iter().all(taken)
    }
}

fn start(seed: u64, plan: &Plan) -> Gateway {
    Gateway::new(plan.gateway(), seed).expect("the pool of the tests makes sense")
}
