//! The gateway's side: the machine, its data path, and its way of dying.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_proto::gateway::{Gateway, GatewayConfig, Rule};
use rsip_proto::ids::{BindId, ClientId, OpId};
use rsip_proto::pool::PoolConfig;

/// Lease of everything.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Lease of everything in some runs.
pub(crate) const SHORT_LEASE: Duration = Duration::from_secs(10);

/// Ports that programs fight over.
pub(crate) const FOUGHT_OVER: std::ops::Range<u16> = 80..86;

/// Ports that administrators ask for.
pub(crate) const STATIC: std::ops::Range<u16> = 90..92;

fn config(lease_time: Duration) -> GatewayConfig {
    let mut config = GatewayConfig::new(PoolConfig {
        addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
        // Too few for everybody's wishes: blocks are refused and halved.
        whole: Vec::new(),
        port_range: 10_000..=10_099,
        listen_range: 1..=1023,
        reserved: vec![22],
        rest: Duration::from_secs(5),
    });
    config.lease_time = lease_time;
    config
}

/// What is known of one port in the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) host: Ipv4Addr,
    pub(crate) client_id: ClientId,
    pub(crate) bind_id: BindId,
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
    pub(crate) path: BTreeMap<(Ipv4Addr, u16), Entry>,
}

impl Gate {
    pub(crate) fn new(seed: u64, lease: Duration) -> Self {
        Self { machine: start(seed, lease), run: 0, down_until: None, path: BTreeMap::new() }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.down_until.is_none()
    }

    /// Killed: nothing is kept, and the data path dies with the daemon.
    pub(crate) fn kill(&mut self, until: Instant) {
        self.down_until = Some(until);
        self.run += 1;
        self.path.clear();
    }

    pub(crate) fn start_again(&mut self, seed: u64, lease: Duration) {
        self.machine = start(seed, lease);
        self.down_until = None;
    }

    /// Carries out a change, and says whether it worked.
    pub(crate) fn apply(&mut self, change: &Change) -> bool {
        if !change.works {
            return false;
        }
        let Rule { client_id, bind_id, host, address, .. } = change.rule;
        let entry = Entry { host, client_id, bind_id };
        for port in change.rule.leased.iter() {
            let key = (address, port);
            if change.install {
                let before = self.path.insert(key, entry);
                assert_eq!(before, None, "port {port} is given to {entry:?}, and has an owner");
            } else {
                assert_eq!(self.path.remove(&key), Some(entry), "port {port} is taken from its owner");
            }
        }
        true
    }
}

fn start(seed: u64, lease: Duration) -> Gateway {
    Gateway::new(config(lease), seed).expect("the pool of the tests makes sense")
}
