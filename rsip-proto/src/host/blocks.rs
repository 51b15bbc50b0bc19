//! Ephemeral ports: blocks of them, and, where the gateway grants one port per request, one after the other.

use std::time::Instant;

use crate::host::binding::{Slot, State, Target};
use crate::host::{Host, Method};
use crate::ids::BindId;
use crate::wire::LocalPolicy;

/// No more ports can be wanted than there are.
const MAX_PORTS: usize = 65_535;

impl Host {
    /// One more block of ephemeral ports. Nothing happens while one is being asked for, when the configuration wants
    /// none, and with RSA-IP, where every port is leased already.
    pub fn want_block(&mut self, now: Instant) {
        if self.block_is_pending() || self.leaving.is_some() || self.stopped {
            return;
        }
        self.add_block(now);
        self.pump(now);
    }

    /// Nobody uses this block any more.
    pub fn release_block(&mut self, bind_id: BindId, now: Instant) {
        let block = self.table.iter().find(|(_, slot)| {
            slot.target == Target::Block && slot.lease().is_some_and(|lease| lease.binding.bind_id == bind_id)
        });
        let Some((id, _)) = block else { return };
        let released = self.table.change(id, |slot| {
            let ports = if slot.used { ephemeral_ports(slot) } else { 0 };
            slot.used = false;
            ports
        });
        self.ephemeral = self.ephemeral.saturating_sub(released.unwrap_or(0));
        self.settle(id, now);
        self.enqueue(id, now);
        self.pump(now);
    }

    /// What is held of ephemeral ports is enough after all: a block that is asked for or waits to be asked for again is
    /// forgotten. One that is granted all the same, as its request was on its way, is given back. The first block stays
    /// wanted until it is there.
    pub fn forgo_block(&mut self, now: Instant) {
        if !self.has_a_block() {
            return;
        }
        let pending = self.table.iter().filter(|(_, slot)| {
            let unheard = matches!(slot.state, State::Asking | State::Waiting { .. });
            slot.target == Target::Block && slot.used && unheard
        });
        for id in pending.map(|(id, _)| id).collect::<Vec<_>>() {
            self.table.change(id, |slot| slot.used = false);
            self.settle(id, now);
        }
        self.ephemeral = self.block_ports();
        self.pump(now);
    }

    pub(super) fn add_block(&mut self, now: Instant) {
        if !self.is_micro() {
            // Blocks may have come smaller than they were asked for.
            self.ephemeral = self.block_ports();
        }
        let more = usize::from(self.config.block_size);
        if more == 0 || self.ephemeral + more > MAX_PORTS || self.config.method == Method::RsaIp {
            return;
        }
        self.ephemeral += more;
        self.ask_for_block(now);
    }

    /// Local micro-flow policy: "exactly one port per request; more ports only one request at a time" (RFC 3103 section
    /// 7.1). So a block is gathered port by port, each with a bind ID of its own, until there are as many as one request
    /// would have brought elsewhere. Programs that wait go first.
    pub(super) fn gather_block(&mut self, now: Instant) {
        if !self.is_micro() || self.leaving.is_some() || self.block_is_pending() {
            return;
        }
        if self.block_ports() < self.ephemeral {
            self.ask_for_block(now);
        }
    }

    /// Ephemeral ports held and asked for.
    fn block_ports(&self) -> usize {
        let blocks = self.table.iter().filter(|(_, slot)| slot.target == Target::Block && slot.used);
        blocks.map(|(_, slot)| ephemeral_ports(slot)).sum()
    }

    fn ask_for_block(&mut self, now: Instant) {
        let mut slot = Slot::new(Target::Block, State::Asking, self.new_backoff());
        slot.used = true;
        slot.size = self.request_size();
        let id = self.table.insert(slot);
        self.enqueue(id, now);
    }

    /// So many ports are asked for in one request, at first.
    pub(super) fn request_size(&self) -> u8 {
        if self.is_micro() { 1 } else { self.config.block_size }
    }

    /// A new registration may have come with another policy.
    pub(super) fn fit_requests_to_policy(&mut self) {
        let size = self.request_size();
        for id in self.table.ids() {
            self.table.change(id, |slot| {
                if slot.target == Target::Block {
                    slot.size = size;
                }
            });
        }
    }

    /// There are ephemeral ports to go on with: more of them can wait.
    pub(super) fn has_a_block(&self) -> bool {
        self.table.iter().any(|(_, slot)| {
            slot.target == Target::Block
                && matches!(slot.state, State::InUse { lost: false, .. } | State::Installing { .. })
        })
    }

    pub(super) fn is_micro(&self) -> bool {
        self.flow_policy().is_some_and(|policy| policy.local == LocalPolicy::Micro)
    }

    fn block_is_pending(&self) -> bool {
        self.table.iter().any(|(_, slot)| {
            slot.target == Target::Block
                && slot.used
                && !matches!(slot.state, State::InUse { lost: false, .. })
        })
    }
}

/// Held, or asked for.
pub(super) fn ephemeral_ports(slot: &Slot) -> usize {
    match slot.lease() {
        Some(lease) => lease.binding.leased.iter().count(),
        None => usize::from(slot.size),
    }
}
