//! The end: everything out of use, de-registered, with a bounded wait.

use std::time::{Duration, Instant};

use crate::host::binding::{Fate, Fixed, SlotId, State};
use crate::host::link::Link;
use crate::host::registration::Registration;
use crate::host::requests::Purpose;
use crate::host::retransmit::after;
use crate::host::table::Table;
use crate::host::{DenyReason, Host, HostCommand, WithdrawReason};
use crate::wire::Body;

/// How long the end may take.
const LEAVE_TIME: Duration = Duration::from_secs(2);

impl Host {
    /// Takes everything out of use and leaves the gateway; ends with `Stopped`, within two seconds. What is being taken
    /// into use is withdrawn as soon as `handle_done` says that it is.
    pub fn shutdown(&mut self, now: Instant) {
        if self.leaving.is_some() || self.stopped {
            return;
        }
        self.leaving = Some(after(now, LEAVE_TIME));
        for id in self.table.ids() {
            self.deny(id, DenyReason::Unreachable);
            self.table.change(id, |slot| {
                slot.used = false;
                slot.fixed = Fixed::No;
                slot.set_fate(Fate::Withdraw(WithdrawReason::Shutdown));
            });
            self.take_out(id);
        }
        if !self.link_is_up() {
            self.link = match self.link {
                Link::Connecting { .. } => {
                    self.commands.push_back(HostCommand::Disconnect);
                    Link::Closed
                }
                Link::Closed | Link::Down { .. } | Link::Parting { .. } | Link::Up { .. } => Link::Closed,
            };
        }
        // A request that rests for want of an answer is tried once more: the next one has to wait for it.
        if let Some(outstanding) = &mut self.outstanding
            && outstanding.clock.unpark(now)
        {
            self.commands.push_back(HostCommand::Send(outstanding.message.clone()));
        }
        self.pump(now);
    }

    /// Ends a slot while leaving, unless the shell is just taking its binding into use.
    pub(super) fn take_out(&mut self, id: SlotId) {
        let installing =
            self.table.get(id).is_some_and(|slot| matches!(slot.state, State::Installing { .. }));
        if !installing {
            self.withdraw(id, WithdrawReason::Shutdown);
            self.queue.remove(id);
            self.table.remove(id);
        }
    }

    /// DE-REGISTER_REQUEST, if there is something to end; it gives back every binding (RFC 3103 section 9.4.3).
    pub(super) fn leave_request(&mut self) -> Option<(Body, Purpose)> {
        match &self.registration {
            Registration::Held(held) => {
                Some((Body::DeRegisterRequest { client_id: held.client_id }, Purpose::Leave))
            }
            Registration::None { stale: Some(client_id), .. } => {
                Some((Body::DeRegisterRequest { client_id: *client_id }, Purpose::Forget))
            }
            Registration::None { stale: None, .. } => None,
        }
    }

    /// Stops once nothing is left to wait for.
    pub(super) fn finish_leaving(&mut self) {
        let quiet = self.outstanding.is_none() || !self.link_is_up();
        if self.leaving.is_some() && quiet && self.ops.is_empty() {
            self.stop();
        }
    }

    pub(super) fn leave_timeout(&mut self, now: Instant) {
        if self.leaving.is_some_and(|at| at <= now) {
            for id in self.table.ids() {
                self.withdraw(id, WithdrawReason::Shutdown);
            }
            self.stop();
        }
    }

    fn stop(&mut self) {
        if self.link_is_up() {
            self.commands.push_back(HostCommand::Disconnect);
        }
        self.link = Link::Closed;
        self.leaving = None;
        self.stopped = true;
        self.outstanding = None;
        self.registration = Registration::None { stale: None, at: self.heard_at };
        self.ops.clear();
        self.queue.clear();
        self.table = Table::default();
        self.commands.push_back(HostCommand::Stopped);
    }
}
