//! The life of a binding: granted, taken into use, extended, ended.

use std::time::{Duration, Instant};

use crate::host::binding::{Fate, Lease, Slot, SlotId, State};
use crate::host::grant::{Offer, usable};
use crate::host::retransmit::after;
use crate::host::{DenyReason, Host, HostBinding, HostCommand, InstallFailed, WithdrawReason};
use crate::ids::{BindId, ClientId, OpId};
use crate::wire::Body;

impl Host {
    /// The outcome of `Publish`. After `Err` nothing of the binding is in use.
    pub fn handle_done(&mut self, op: OpId, result: Result<(), InstallFailed>, now: Instant) {
        let Some(id) = self.ops.remove(&op) else { return };
        let Some(slot) = self.table.get(id) else { return };
        let (lease, fate) = match &slot.state {
            State::Installing { op: current, lease, fate } if *current == op => (lease.clone(), *fate),
            _ => return,
        };
        match (result, fate) {
            (Ok(()), Fate::Use) => {
                self.table.change(id, |slot| {
                    slot.state = State::InUse { lease, lost: false };
                    slot.backoff.reset();
                });
                self.allow(id);
            }
            (Ok(()), Fate::Renew) => {
                // The verdict has to wait: the gateway does not hold the port at this moment.
                self.table.change(id, |slot| slot.state = State::InUse { lease, lost: true });
            }
            (Ok(()), Fate::Withdraw(reason)) => {
                self.withdraw(id, reason);
                self.ended(id, reason, now);
            }
            (Err(InstallFailed), fate) => {
                self.deny(id, DenyReason::InstallFailed);
                self.not_for_a_program(id);
                if fate == Fate::Use {
                    self.give_back(id, lease.binding.bind_id, true);
                } else {
                    self.retry_later(id, now);
                }
            }
        }
        if self.leaving.is_some() {
            self.take_out(id);
        }
        self.settle(id, now);
        self.enqueue(id, now);
        self.pump(now);
    }

    /// A binding was granted; its lease runs since `since`. `fits`: the answer is of the request's own kind.
    pub(super) fn granted(
        &mut self,
        id: SlotId,
        request: &Body,
        grant: &Offer<'_>,
        fits: bool,
        since: Instant,
        now: Instant,
    ) {
        let lease = self.accept(id, request, grant, since).filter(|lease| fits && lease.expires_at > now);
        let Some((slot, lease)) = self.table.get(id).zip(lease) else {
            self.unusable(id, grant.bind_id, now);
            return;
        };
        let (old, wanted) = (slot.renewing(), slot.wanted());
        let asking = matches!(slot.state, State::Asking);
        self.prolong(lease.time, lease.expires_at);
        self.clear_name(id, lease.name());
        match old {
            Some(old) => {
                self.commands.push_back(HostCommand::Renamed { old, binding: lease.binding.clone() });
                self.table.change(id, |slot| {
                    slot.was_granted();
                    slot.state = State::InUse { lease, lost: false };
                });
                self.allow(id);
            }
            None if asking && wanted => {
                self.leave_other_addresses(lease.binding.address, now);
                self.install(id, lease);
            }
            None if asking => self.give_back_unused(id, lease),
            None => self.unusable(id, grant.bind_id, now),
        }
    }

    /// The lease in a grant, if this host can use it.
    fn accept(&self, id: SlotId, request: &Body, grant: &Offer<'_>, since: Instant) -> Option<Lease> {
        let client_id = self.client_id()?;
        let usable = usable(client_id, request, grant)?;
        let name = (client_id, grant.bind_id);
        let taken = self.table.by_bind_id(grant.bind_id).is_some()
            || self.table.published_as(name, id).is_some_and(|other| self.is_installing(other));
        if taken {
            return None;
        }
        let binding = HostBinding {
            kind: self.table.get(id)?.kind(),
            client_id,
            bind_id: grant.bind_id,
            address: usable.address,
            leased: usable.leased,
            remote: usable.remote,
            tunnel: usable.tunnel,
            tunnel_endpoint: usable.tunnel_endpoint,
        };
        Some(Lease::new(binding, Duration::from_secs(grant.lease_time.into()), since))
    }

    fn is_installing(&self, id: SlotId) -> bool {
        self.table.get(id).is_some_and(|slot| matches!(slot.state, State::Installing { .. }))
    }

    /// Two bindings in use never have one name: what was lost under a name that a restarted gateway gives again gets
    /// another one, of no meaning to the gateway, until it is granted again.
    fn clear_name(&mut self, except: SlotId, name: (ClientId, BindId)) {
        let Some(other) = self.table.published_as(name, except) else { return };
        let (client_id, _) = name;
        let taken = |bind_id: BindId| {
            self.table
                .iter()
                .any(|(_, slot)| slot.lease().is_some_and(|it| it.name() == (client_id, bind_id)))
        };
        let Some(free) = (0..=u32::MAX).rev().map(BindId).find(|bind_id| !taken(*bind_id)) else { return };
        let renamed = self.table.change(other, |slot| match &mut slot.state {
            State::InUse { lease, lost: true } => {
                lease.binding.bind_id = free;
                Some(lease.binding.clone())
            }
            _ => None,
        });
        if let Some(binding) = renamed.flatten() {
            self.commands.push_back(HostCommand::Renamed { old: name, binding });
        }
    }

    /// EXTEND was granted; the lease runs since `since`.
    pub(super) fn extended(
        &mut self,
        id: SlotId,
        bind_id: BindId,
        seconds: u32,
        since: Instant,
        now: Instant,
    ) {
        let time = Duration::from_secs(seconds.into());
        let expires_at = after(since, time);
        let holds = self.table.get(id).is_some_and(|slot| slot.bind_id() == Some(bind_id));
        if !holds {
            // It ended by our own clock while the gateway prolonged it.
            let asking = self.table.get(id).is_some_and(|slot| matches!(slot.state, State::Asking));
            if asking {
                self.give_back(id, bind_id, false);
            } else if self.table.by_bind_id(bind_id).is_none() {
                self.give_back_stray(bind_id, now);
            }
            return;
        }
        self.prolong(time, expires_at);
        let resumed = self.table.change(id, |slot| match &mut slot.state {
            State::InUse { lease, .. } => {
                lease.run(time, since);
                None
            }
            State::Resumed(lease) => {
                lease.run(time, since);
                Some((lease.clone(), slot.wanted()))
            }
            _ => None,
        });
        if let Some((lease, wanted)) = resumed.flatten() {
            if expires_at <= now || !wanted {
                self.give_back_unused(id, lease);
            } else {
                self.install(id, lease);
            }
        }
    }

    /// A binding is not in use any more, and the gateway does not hold it.
    pub(super) fn ended(&mut self, id: SlotId, reason: WithdrawReason, now: Instant) {
        self.table.change(id, |slot| {
            slot.remember();
            if reason == WithdrawReason::Deregistered {
                slot.ended = slot.lease().map(|lease| (lease.binding.clone(), lease.time));
            }
            slot.state = State::Asking;
        });
        if reason == WithdrawReason::Revoked {
            // The administrator's will: not the same again, and not at once.
            self.table.change(id, |slot| slot.hint = None);
            self.not_for_a_program(id);
            self.retry_later(id, now);
        }
    }

    /// Something about this slot is due.
    pub(super) fn slot_timeout(&mut self, id: SlotId, now: Instant) {
        let Some(slot) = self.table.get(id) else { return };
        if slot.waiting.is_some_and(|at| at <= now) {
            self.deny(id, DenyReason::Timeout);
        }
        let Some(slot) = self.table.get(id) else { return };
        let expired = slot.lease().is_some_and(|lease| lease.expires_at <= now);
        match &slot.state {
            State::Installing { fate: Fate::Use | Fate::Renew, .. } if expired => {
                self.table.change(id, |slot| slot.set_fate(Fate::Withdraw(WithdrawReason::Expired)));
            }
            State::InUse { .. } | State::Resumed(_) if expired => {
                let lost = matches!(slot.state, State::InUse { lost: true, .. });
                let reason = if lost { WithdrawReason::Lost } else { WithdrawReason::Expired };
                self.withdraw(id, reason);
                self.ended(id, reason, now);
            }
            State::Waiting { retry_at } if *retry_at <= now => {
                let size = self.request_size();
                self.table.change(id, |slot| {
                    slot.state = State::Asking;
                    slot.size = size;
                });
            }
            State::InUse { .. } => {
                self.table.change(id, |slot| {
                    if let State::InUse { lease, .. } = &mut slot.state {
                        lease.extend_at = lease.extend_at.filter(|at| *at > now);
                    }
                });
            }
            State::Freeing { retry_at: Some(at), .. } if *at <= now => {
                self.table.change(id, |slot| {
                    if let State::Freeing { retry_at, .. } = &mut slot.state {
                        *retry_at = None;
                    }
                });
            }
            _ => {}
        }
        self.settle(id, now);
        self.enqueue(id, now);
    }

    fn install(&mut self, id: SlotId, lease: Lease) {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.ops.insert(op, id);
        self.commands.push_back(HostCommand::Publish { op, binding: lease.binding.clone() });
        self.table.change(id, |slot| {
            slot.was_granted();
            slot.state = State::Installing { op, lease, fate: Fate::Use };
        });
    }

    /// Tells the shell to take out of use what it has in use; nothing else changes.
    pub(super) fn withdraw(&mut self, id: SlotId, reason: WithdrawReason) {
        if let Some(Slot { state: State::InUse { lease, .. } | State::Installing { lease, .. }, .. }) =
            self.table.get(id)
        {
            self.commands.push_back(HostCommand::Withdraw { binding: lease.binding.clone(), reason });
        }
    }
}
