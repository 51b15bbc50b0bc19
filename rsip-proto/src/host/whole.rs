//! RSA-IP: one whole address, and with it every port, without LISTEN (RFC 3103 section 9.16.3).

use std::time::Instant;

use crate::host::binding::{Fate, Fixed, Slot, SlotId, State, Target};
use crate::host::{DenyReason, Host, Method};

impl Host {
    /// Leases a whole address.
    pub(super) fn add_address(&mut self, now: Instant) {
        let mut slot = Slot::new(Target::Address, State::Asking, self.new_backoff());
        slot.used = true;
        let id = self.table.insert(slot);
        self.enqueue(id, now);
    }

    /// A port that is not asked for by itself: it comes with the whole address.
    pub(super) fn comes_with_the_address(&self, slot: &Slot) -> bool {
        self.config.method == Method::RsaIp && matches!(slot.target, Target::Port(_))
    }

    /// Why no port can be had while there is no address, as far as the gateway said.
    pub(super) fn address_refused(&self) -> Option<DenyReason> {
        self.table.iter().find_map(|(_, slot)| match slot.state {
            State::Waiting { .. } if slot.target == Target::Address => slot.refused.map(DenyReason::Gateway),
            _ => None,
        })
    }

    /// The address is being taken into use: who waits for a port of it needs nothing more from the gateway.
    pub(super) fn address_is_coming(&self) -> bool {
        self.table.iter().any(|(_, slot)| {
            slot.target == Target::Address && matches!(slot.state, State::Installing { fate: Fate::Use, .. })
        })
    }

    /// The address is in use: so is every port that somebody waits for.
    pub(super) fn allow_all_ports(&mut self) {
        for id in self.waiting_ports() {
            self.allow(id);
            self.forget_port(id);
        }
    }

    /// There is no address for those who wait for a port.
    pub(super) fn deny_all_ports(&mut self, reason: DenyReason) {
        for id in self.waiting_ports() {
            self.deny(id, reason);
            self.forget_port(id);
        }
    }

    fn waiting_ports(&self) -> Vec<SlotId> {
        let ports = self.table.iter().filter(|(_, slot)| self.comes_with_the_address(slot));
        ports.filter(|(_, slot)| slot.waiting.is_some()).map(|(id, _)| id).collect()
    }

    /// A port of the address has no lease of its own to look after.
    fn forget_port(&mut self, id: SlotId) {
        let without_lease = self.table.change(id, |slot| {
            slot.used = false;
            slot.fixed = Fixed::No;
            matches!(slot.state, State::Asking | State::Waiting { .. })
        });
        if without_lease == Some(true) {
            self.queue.remove(id);
            self.table.remove(id);
        }
    }
}
