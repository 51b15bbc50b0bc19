//! What programs and the administrator want, and what they are told.

use std::time::Instant;

use crate::host::binding::{Fixed, Slot, SlotId, State, Target};
use crate::host::registration::{Obstacle, Registration};
use crate::host::retransmit::{Backoff, after};
use crate::host::{DenyReason, Host, HostCommand, WithdrawReason};
use crate::wire::ErrorCode;

/// Who wants a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Program,
    Administrator,
}

impl Host {
    /// A program binds this port: answered by one `Verdict`, shared by all who wait for the port.
    pub fn want_port(&mut self, port: u16, now: Instant) {
        self.want(port, Asker::Program, now);
    }

    /// The administrator wants this port: answered by one `Verdict`. Once granted it is kept until [`Host::unlisten`],
    /// and asked for again whenever it is lost; refused, it is forgotten. With RSA-IP it is granted as soon as the address
    /// is in use, and nothing is kept: it comes and goes with the address.
    pub fn listen(&mut self, port: u16, now: Instant) {
        self.want(port, Asker::Administrator, now);
    }

    /// No program uses this port any more. It is given back, unless it is wanted again before its turn comes.
    pub fn release_port(&mut self, port: u16, now: Instant) {
        let Some(id) = self.table.by_port(port) else { return };
        self.table.change(id, |slot| slot.used = false);
        self.settle(id, now);
        self.enqueue(id, now);
        self.pump(now);
    }

    /// The administrator does not want this port any more; it is given back once no program uses it either.
    pub fn unlisten(&mut self, port: u16, now: Instant) {
        let Some(id) = self.table.by_port(port) else { return };
        let nobody_else = self.table.change(id, |slot| {
            slot.fixed = Fixed::No;
            slot.refresh_kind();
            !slot.program_waits
        });
        if nobody_else == Some(true) {
            self.deny(id, DenyReason::Timeout);
        }
        self.settle(id, now);
        self.enqueue(id, now);
        self.pump(now);
    }

    pub(super) fn new_backoff(&self) -> Backoff {
        Backoff::new(&self.config)
    }

    fn want(&mut self, port: u16, asker: Asker, now: Instant) {
        if self.leaving.is_some() || self.stopped {
            self.verdict(port, Err(DenyReason::Unreachable));
            return;
        }
        if port == 0 {
            // "Any port" is not a port that could be asked for.
            self.verdict(port, Err(DenyReason::Gateway(ErrorCode::LocalAddrportUnallowed)));
            return;
        }
        let id = match self.table.by_port(port) {
            Some(id) => id,
            None if self.is_leased_otherwise(port) => {
                // Part of a block or of a whole address: the gateway would call it taken, by us.
                self.verdict(port, Ok(()));
                return;
            }
            None => self.table.insert(Slot::new(Target::Port(port), State::Asking, self.new_backoff())),
        };
        let in_use =
            self.table.get(id).is_some_and(|slot| matches!(slot.state, State::InUse { lost: false, .. }));
        let waited_for = self.table.get(id).is_some_and(|slot| slot.waiting.is_some());
        let installing =
            self.table.get(id).is_some_and(|slot| matches!(slot.state, State::Installing { .. }));
        let hopeless = self.hopeless().filter(|_| !in_use && !waited_for && !installing);
        if let Some(reason) = hopeless {
            self.verdict(port, Err(reason));
            self.settle(id, now);
            return;
        }
        let deadline = after(now, self.config.request_timeout);
        self.table.change(id, |slot| {
            match asker {
                Asker::Program => slot.program_waits = true,
                Asker::Administrator if slot.fixed == Fixed::No => slot.fixed = Fixed::Asked,
                Asker::Administrator => {}
            }
            slot.waiting.get_or_insert(deadline);
            if matches!(slot.state, State::Waiting { .. }) {
                slot.state = State::Asking;
            }
        });
        if in_use {
            self.allow(id);
        }
        self.enqueue(id, now);
        self.pump(now);
    }

    /// Why nothing that is asked now could be granted.
    fn hopeless(&self) -> Option<DenyReason> {
        if self.unreachable {
            return Some(DenyReason::Unreachable);
        }
        match self.registration {
            Registration::None { .. } => self.obstacle.map(Obstacle::reason),
            Registration::Held(_) => self.address_refused(),
        }
    }

    fn is_leased_otherwise(&self, port: u16) -> bool {
        self.table.iter().any(|(_, slot)| match &slot.state {
            State::InUse { lease, lost: false } => {
                matches!(slot.target, Target::Block | Target::Address)
                    && slot.wanted()
                    && lease.binding.leased.covers(port)
            }
            _ => false,
        })
    }

    /// Tells who waits for this slot that the port is theirs.
    pub(super) fn allow(&mut self, id: SlotId) {
        if self.table.get(id).is_some_and(|slot| slot.target == Target::Address) {
            self.allow_all_ports();
        }
        let port = self.table.change(id, |slot| {
            slot.waiting.take()?;
            slot.used |= std::mem::take(&mut slot.program_waits);
            if slot.fixed == Fixed::Asked {
                slot.fixed = Fixed::Kept;
            }
            slot.refresh_kind();
            match slot.target {
                Target::Port(port) => Some(port),
                Target::Block | Target::Address | Target::Stray => None,
            }
        });
        if let Some(port) = port.flatten() {
            self.verdict(port, Ok(()));
        }
    }

    /// Tells who waits for this slot that they wait in vain.
    pub(super) fn deny(&mut self, id: SlotId, reason: DenyReason) {
        if self.table.get(id).is_some_and(|slot| slot.target == Target::Address) {
            self.deny_all_ports(reason);
        }
        let port = self.table.change(id, |slot| {
            slot.waiting.take()?;
            slot.program_waits = false;
            if slot.fixed == Fixed::Asked {
                slot.fixed = Fixed::No;
            }
            slot.refresh_kind();
            match slot.target {
                Target::Port(port) => Some(port),
                Target::Block | Target::Address | Target::Stray => None,
            }
        });
        if let Some(port) = port.flatten() {
            self.verdict(port, Err(reason));
        }
    }

    fn verdict(&mut self, port: u16, outcome: Result<(), DenyReason>) {
        self.commands.push_back(HostCommand::Verdict { port, outcome });
    }

    /// Ends a slot that nobody wants and the gateway knows nothing of.
    pub(super) fn settle(&mut self, id: SlotId, _now: Instant) {
        let Some(slot) = self.table.get(id) else { return };
        if slot.wanted() || self.is_asked(id) {
            return;
        }
        match slot.state {
            State::Asking | State::Waiting { .. } => {}
            State::InUse { lost: true, .. } => self.withdraw(id, WithdrawReason::Freed),
            State::InUse { lost: false, .. }
            | State::Resumed(_)
            | State::Installing { .. }
            | State::Freeing { .. } => return,
        }
        self.queue.remove(id);
        self.table.remove(id);
    }
}
