//! The life of a binding: granted, taken into use, extended, lost, given back.

use std::time::{Duration, Instant};

use crate::host::binding::{Fate, Lease, Slot, SlotId, State, Target};
use crate::host::grant::usable;
use crate::host::retransmit::after;
use crate::host::{DenyReason, Host, HostBinding, HostCommand, InstallFailed, WithdrawReason};
use crate::ids::{BindId, OpId};
use crate::wire::message::PortBinding;
use crate::wire::{Body, ErrorCode};

/// FREE_REQUEST is repeated so often when the gateway fails to carry it out; then the lease's end must do.
const FREE_TRIES: u8 = 3;

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
        grant: &PortBinding,
        fits: bool,
        since: Instant,
        now: Instant,
    ) {
        let asked = match request {
            Body::ListenRequest(asked) => Some((&asked.local_address, &asked.local_ports)),
            Body::AssignRequestRsapIp(asked) => Some((&asked.local_address, &asked.local_ports)),
            _ => None,
        };
        let usable = asked
            .zip(self.client_id())
            .filter(|_| fits && self.table.by_bind_id(grant.bind_id).is_none())
            .and_then(|((address, ports), client)| {
                usable(client, address, ports, grant).map(|it| (client, it))
            });
        let time = Duration::from_secs(grant.lease_time.into());
        let Some((slot, (client_id, usable))) =
            self.table.get(id).zip(usable).filter(|_| after(since, time) > now)
        else {
            self.unusable(id, grant.bind_id, now);
            return;
        };
        let binding = HostBinding {
            kind: slot.kind(),
            client_id,
            bind_id: grant.bind_id,
            address: usable.address,
            ports: usable.ports,
            tunnel: usable.tunnel,
            tunnel_endpoint: usable.tunnel_endpoint,
        };
        let lease = Lease::new(binding, time, since);
        let wanted = slot.wanted();
        let old = match &slot.state {
            State::InUse { lease: held, lost: true } => Some((held.binding.client_id, held.binding.bind_id)),
            _ => None,
        };
        let asking = matches!(slot.state, State::Asking);
        self.prolong(time, lease.expires_at);
        match old {
            Some(old) => {
                self.commands.push_back(HostCommand::Renamed { old, binding: lease.binding.clone() });
                self.table.change(id, |slot| {
                    slot.was_granted();
                    slot.state = State::InUse { lease, lost: false };
                });
                self.allow(id);
            }
            None if asking && wanted => self.install(id, lease),
            None if asking => self.give_back_unused(id, lease),
            None => self.unusable(id, grant.bind_id, now),
        }
    }

    /// A binding came that this host cannot use: it is given back, and counts as a refusal (RFC 3103 section 9.7.3).
    pub(super) fn unusable(&mut self, id: SlotId, bind_id: BindId, now: Instant) {
        self.deny(id, DenyReason::InstallFailed);
        self.lost_for_good(id);
        self.not_for_a_program(id);
        // A name that one of our own bindings has would free that one.
        let known = self.table.by_bind_id(bind_id).is_some();
        let idle = self.table.get(id).is_some_and(|slot| matches!(slot.state, State::Asking));
        match (known, idle) {
            (true, true) => self.retry_later(id, now),
            (true, false) => {}
            (false, true) => self.give_back(id, bind_id, true),
            (false, false) => self.give_back_stray(bind_id, now),
        }
    }

    /// A request for a binding was refused.
    pub(super) fn refused(&mut self, id: SlotId, error: ErrorCode, now: Instant) {
        self.lost_for_good(id);
        let wider = self.table.change(id, |slot| {
            if !matches!(slot.state, State::Asking) {
                return None;
            }
            slot.refused = Some(error);
            Some(slot.ask_wider(error))
        });
        match wider.flatten() {
            None | Some(true) => {}
            Some(false) => {
                self.deny(id, DenyReason::Gateway(error));
                self.not_for_a_program(id);
                self.retry_later(id, now);
            }
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

    /// EXTEND was refused.
    pub(super) fn extend_refused(&mut self, id: SlotId, bind_id: BindId, error: ErrorCode, now: Instant) {
        let unused = self.table.change(id, |slot| {
            if slot.bind_id() != Some(bind_id) {
                return false;
            }
            if error == ErrorCode::BadBindId {
                slot.remember();
            }
            let wanted = slot.wanted();
            match &mut slot.state {
                State::Resumed(_) if error == ErrorCode::BadBindId => slot.state = State::Asking,
                State::InUse { lost, .. } if error == ErrorCode::BadBindId => {
                    *lost = true;
                    return !wanted;
                }
                State::Resumed(lease) | State::InUse { lease, .. } => {
                    // It may be given another time, and at last the lease runs out.
                    let left = lease.expires_at.saturating_duration_since(now);
                    lease.extend_at = Some(after(now, (left / 2).max(Duration::from_secs(1))));
                }
                _ => {}
            }
            false
        });
        if unused == Some(true) {
            self.withdraw(id, WithdrawReason::Freed);
            self.table.remove(id);
        }
        // A binding of an earlier run is not used before the gateway says yes; it did not.
        let refused = self.table.get(id).is_some_and(|slot| matches!(slot.state, State::Resumed(_)));
        if refused {
            self.table.change(id, Slot::remember);
            self.give_back(id, bind_id, false);
        }
    }

    /// FREE was answered by FREE_RESPONSE.
    pub(super) fn gave_back(&mut self, id: SlotId, bind_id: BindId, now: Instant) {
        let freeing = self.table.get(id).is_some_and(|slot| {
            matches!(slot.state, State::Freeing { .. }) && slot.bind_id() == Some(bind_id)
        });
        if freeing {
            self.freed(id, now);
        }
    }

    /// FREE was refused.
    pub(super) fn free_refused(&mut self, id: SlotId, bind_id: BindId, error: ErrorCode, now: Instant) {
        let again = self.table.change(id, |slot| {
            let pause = slot.backoff.pause();
            match &mut slot.state {
                State::Freeing { bind_id: freeing, tries, retry_at, .. } if *freeing == bind_id => {
                    // No such binding: that is what was wanted.
                    let again = error != ErrorCode::BadBindId && *tries < FREE_TRIES;
                    *retry_at = again.then(|| after(now, pause));
                    Some(again)
                }
                _ => None,
            }
        });
        if again.flatten() == Some(false) {
            self.freed(id, now);
        }
    }

    /// The gateway does not hold the binding of this `Freeing` slot any more.
    pub(super) fn freed(&mut self, id: SlotId, now: Instant) {
        let hold_off = self.table.change(id, |slot| {
            let hold_off = matches!(slot.state, State::Freeing { hold_off: true, .. });
            slot.state = State::Asking;
            hold_off && slot.waiting.is_none()
        });
        if hold_off == Some(true) {
            self.retry_later(id, now);
        }
        self.settle(id, now);
        self.enqueue(id, now);
    }

    /// The gateway took a binding back.
    pub(super) fn revoked(&mut self, bind_id: BindId, now: Instant) {
        let Some(id) = self.table.by_bind_id(bind_id) else { return };
        let Some(slot) = self.table.get(id) else { return };
        match &slot.state {
            State::Freeing { .. } => self.freed(id, now),
            State::Installing { .. } => {
                self.table.change(id, |slot| slot.set_fate(Fate::Withdraw(WithdrawReason::Revoked)));
            }
            State::InUse { .. } | State::Resumed(_) => {
                self.withdraw(id, WithdrawReason::Revoked);
                self.ended(id, WithdrawReason::Revoked, now);
                self.settle(id, now);
                self.enqueue(id, now);
            }
            State::Asking | State::Waiting { .. } => {}
        }
    }

    /// A binding is not in use any more, and the gateway does not hold it.
    fn ended(&mut self, id: SlotId, reason: WithdrawReason, now: Instant) {
        self.table.change(id, |slot| {
            slot.remember();
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
                self.withdraw(id, WithdrawReason::Expired);
                self.ended(id, WithdrawReason::Expired, now);
            }
            State::Waiting { retry_at } if *retry_at <= now => {
                let size = self.config.block_size;
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

    /// What is in use and was lost at the gateway will not come back.
    fn lost_for_good(&mut self, id: SlotId) {
        let lost =
            self.table.get(id).is_some_and(|slot| matches!(slot.state, State::InUse { lost: true, .. }));
        if lost {
            self.withdraw(id, WithdrawReason::Lost);
            self.table.change(id, |slot| slot.state = State::Asking);
        }
    }

    /// The gateway is told that this binding is not needed; with `hold_off` it is not asked for again at once.
    pub(super) fn give_back(&mut self, id: SlotId, bind_id: BindId, hold_off: bool) {
        self.table.change(id, |slot| {
            let lease = slot.lease().filter(|lease| lease.binding.bind_id == bind_id).cloned();
            slot.state = State::Freeing { bind_id, lease, tries: 0, retry_at: None, hold_off };
        });
    }

    fn give_back_unused(&mut self, id: SlotId, lease: Lease) {
        self.table.change(id, |slot| {
            let bind_id = lease.binding.bind_id;
            slot.state =
                State::Freeing { bind_id, lease: Some(lease), tries: 0, retry_at: None, hold_off: false };
        });
    }

    fn give_back_stray(&mut self, bind_id: BindId, now: Instant) {
        let state = State::Freeing { bind_id, lease: None, tries: 0, retry_at: None, hold_off: false };
        let id = self.table.insert(Slot::new(Target::Stray, state, self.new_backoff()));
        self.enqueue(id, now);
    }

    /// A port that cannot be had is not asked for again on a program's behalf; blocks and the administrator's are.
    fn not_for_a_program(&mut self, id: SlotId) {
        self.table.change(id, |slot| {
            if matches!(slot.target, Target::Port(_)) && slot.fixed != super::binding::Fixed::Kept {
                slot.used = false;
            }
        });
    }

    /// Asks again after a pause, if it is wanted then.
    fn retry_later(&mut self, id: SlotId, now: Instant) {
        self.table.change(id, |slot| {
            if slot.waiting.is_none() {
                slot.state = State::Waiting { retry_at: after(now, slot.backoff.pause()) };
            } else {
                slot.state = State::Asking;
            }
        });
    }
}
