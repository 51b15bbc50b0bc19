//! What is refused, lost, revoked or not needed: given back, asked for again later, or forgotten.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::host::binding::{Fate, Fixed, Lease, Slot, SlotId, State, Target};
use crate::host::retransmit::after;
use crate::host::{DenyReason, Host, WithdrawReason};
use crate::ids::BindId;
use crate::wire::ErrorCode;

/// FREE_REQUEST is sent so often to a gateway that fails to carry it out; then both sides begin anew.
const FREE_TRIES: u8 = 3;

impl Host {
    /// A binding came that this host cannot use: it is given back, and counts as a refusal (RFC 3103 section 9.7.3).
    pub(super) fn unusable(&mut self, id: SlotId, bind_id: BindId, now: Instant) {
        self.deny(id, DenyReason::InstallFailed);
        self.lost_for_good(id, WithdrawReason::Lost);
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
        self.lost_for_good(id, WithdrawReason::Refused(error));
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
                State::Freeing { bind_id: freeing, refusals, retry_at, .. } if *freeing == bind_id => {
                    *refusals = refusals.saturating_add(1);
                    // No such binding: that is what was wanted.
                    let again = error != ErrorCode::BadBindId && *refusals < FREE_TRIES;
                    *retry_at = again.then(|| after(now, pause));
                    Some(again)
                }
                _ => None,
            }
        });
        if again.flatten() != Some(false) {
            return;
        }
        self.freed(id, now);
        if error != ErrorCode::BadBindId {
            // The two sides do not agree on what is held: "de-registering then re-registering" settles it (RFC 3103
            // section 9.12.3).
            self.lose_registration(true, now);
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

    /// What is in use and was lost at the gateway will not come back.
    pub(super) fn lost_for_good(&mut self, id: SlotId, reason: WithdrawReason) {
        let lost =
            self.table.get(id).is_some_and(|slot| matches!(slot.state, State::InUse { lost: true, .. }));
        if lost {
            self.withdraw(id, reason);
            self.table.change(id, |slot| slot.state = State::Asking);
        }
    }

    /// The gateway leases this address from now on. A host has one: what was lost at another one, and is still in use, goes out
    /// of use, and the same ports are asked for at the new one.
    pub(super) fn leave_other_addresses(&mut self, address: Ipv4Addr, now: Instant) {
        for id in self.table.ids() {
            let left = self.table.get(id).is_some_and(|slot| match &slot.state {
                State::InUse { lease, lost: true } => lease.binding.address != address,
                _ => false,
            });
            if left {
                self.lost_for_good(id, WithdrawReason::OtherAddress(address));
                self.table.change(id, |slot| {
                    if let Some((at, _)) = &mut slot.hint {
                        *at = address;
                    }
                });
                self.enqueue(id, now);
            }
        }
    }

    /// The gateway is told that this binding is not needed; with `hold_off` it is not asked for again at once.
    pub(super) fn give_back(&mut self, id: SlotId, bind_id: BindId, hold_off: bool) {
        self.table.change(id, |slot| {
            let lease = slot.lease().filter(|lease| lease.binding.bind_id == bind_id).cloned();
            slot.state = State::Freeing { bind_id, lease, refusals: 0, retry_at: None, hold_off };
        });
    }

    pub(super) fn give_back_unused(&mut self, id: SlotId, lease: Lease) {
        self.table.change(id, |slot| {
            let bind_id = lease.binding.bind_id;
            slot.was_granted();
            slot.state =
                State::Freeing { bind_id, lease: Some(lease), refusals: 0, retry_at: None, hold_off: false };
        });
    }

    pub(super) fn give_back_stray(&mut self, bind_id: BindId, now: Instant) {
        let state = State::Freeing { bind_id, lease: None, refusals: 0, retry_at: None, hold_off: false };
        let id = self.table.insert(Slot::new(Target::Stray, state, self.new_backoff()));
        self.enqueue(id, now);
    }

    /// A port that cannot be had is not asked for again on a program's behalf; blocks and the administrator's are.
    pub(super) fn not_for_a_program(&mut self, id: SlotId) {
        self.table.change(id, |slot| {
            if matches!(slot.target, Target::Port(_)) && slot.fixed != Fixed::Kept {
                slot.used = false;
            }
        });
    }

    /// Asks again after a pause, if it is wanted then.
    pub(super) fn retry_later(&mut self, id: SlotId, now: Instant) {
        self.table.change(id, |slot| {
            if slot.waiting.is_none() {
                slot.state = State::Waiting { retry_at: after(now, slot.backoff.pause()) };
            } else {
                slot.state = State::Asking;
            }
        });
    }
}
