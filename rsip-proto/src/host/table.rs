//! All slots, found by name, by port and by the time of their next wake-up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::host::binding::{Slot, SlotId, State, Target};
use crate::ids::{BindId, ClientId};

/// All slots.
#[derive(Debug, Default)]
pub(super) struct Table {
    slots: BTreeMap<SlotId, Slot>,
    ports: BTreeMap<u16, SlotId>,
    wakes: BTreeSet<(Instant, SlotId)>,
    next: u64,
}

impl Table {
    /// Files a new slot. A port that has a slot already keeps that one for look-ups.
    pub(super) fn insert(&mut self, slot: Slot) -> SlotId {
        let id = SlotId(self.next);
        self.next += 1;
        if let Target::Port(port) = slot.target {
            self.ports.entry(port).or_insert(id);
        }
        self.slots.insert(id, slot);
        self.file(id);
        id
    }

    pub(super) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        if let Some(at) = slot.filed {
            self.wakes.remove(&(at, id));
        }
        if let Target::Port(port) = slot.target
            && self.ports.get(&port) == Some(&id)
        {
            self.ports.remove(&port);
        }
        Some(slot)
    }

    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(&id)
    }

    /// Changes a slot, and files it under its new wake-up.
    pub(super) fn change<R>(&mut self, id: SlotId, change: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let result = change(self.slots.get_mut(&id)?);
        self.file(id);
        Some(result)
    }

    pub(super) fn by_port(&self, port: u16) -> Option<SlotId> {
        self.ports.get(&port).copied()
    }

    /// The slot whose binding has this name at the gateway.
    pub(super) fn by_bind_id(&self, bind_id: BindId) -> Option<SlotId> {
        self.iter().find_map(|(id, slot)| (slot.bind_id() == Some(bind_id)).then_some(id))
    }

    /// The other slot whose binding the shell knows under this name.
    pub(super) fn published_as(&self, name: (ClientId, BindId), except: SlotId) -> Option<SlotId> {
        self.iter().find_map(|(id, slot)| match &slot.state {
            State::InUse { lease, .. } | State::Installing { lease, .. } => {
                (id != except && lease.name() == name).then_some(id)
            }
            State::Asking | State::Waiting { .. } | State::Resumed(_) | State::Freeing { .. } => None,
        })
    }

    /// In the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.slots.iter().map(|(id, slot)| (*id, slot))
    }

    pub(super) fn ids(&self) -> Vec<SlotId> {
        self.slots.keys().copied().collect()
    }

    /// The earliest wake-up of all.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Those whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<SlotId> {
        self.wakes.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }

    fn file(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let wake = slot.wake();
        if slot.filed == wake {
            return;
        }
        if let Some(old) = std::mem::replace(&mut slot.filed, wake) {
            self.wakes.remove(&(old, id));
        }
        if let Some(new) = wake {
            self.wakes.insert((new, id));
        }
    }
}
