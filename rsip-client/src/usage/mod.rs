//! When a port that was leased because a program bound it can be given back.
//!
//! ```text
//!             some socket            no socket               linger is over
//!   (track) ──────────────> Used ────────────────> Idle ────────────────────> Closing
//!                            ^ <─────────────────── │  no more binds without asking │
//!                            │      some socket                                    │ still no socket
//!                            └──────────────────────────────────────── Reopen ─────┤ after the grace
//!                                                                                  v
//!                                                                               Release
//! ```
//!
//! Two witnesses say whether a port is used: the programs' own count of bound sockets, and the kernel's socket tables
//! ([`diag`]), which also know accepted connections, TIME_WAIT, and sockets that were bound before the programs came.
//! Where they contradict each other, the tables are right, on kernels that list every socket. Nothing depends on an event arriving: every tracked port is looked at every so often; events only make it sooner.

pub mod diag;
pub mod ending;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A bind that passed the hook before the port was closed is a counted socket after at most this long.
const GRACE: Duration = Duration::from_millis(100);

/// The programs' count is compared with the kernel's tables after so many looks.
const PROOF: u32 = 12;

/// How a port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Used,
    Idle { since: Instant },
    Closing { since: Instant },
}

/// What is to be done with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// From now on a bind of it has to ask.
    Close(u16),
    /// It is used after all: binds pass again.
    Reopen(u16),
    /// Nobody uses it: give it back. It is not tracked any more.
    Release(u16),
}

/// The ports that are watched. Values in, values out; no clock.
#[derive(Debug)]
pub struct Usage {
    linger: Duration,
    tick: Duration,
    next_tick: Instant,
    next_proof: Instant,
    ports: BTreeMap<u16, Use>,
}

impl Usage {
    /// Ports are given back when they were unused for `linger`.
    pub fn new(linger: Duration, now: Instant) -> Self {
        let tick = (linger / 4).clamp(Duration::from_millis(250), Duration::from_secs(5));
        Self { linger, tick, next_tick: now, next_proof: now, ports: BTreeMap::new() }
    }

    /// Watches a port from now on. It counts as unused until a socket is seen.
    pub fn track(&mut self, port: u16, now: Instant) {
        if self.ports.is_empty() {
            self.next_tick = now + self.tick;
        }
        self.ports.entry(port).or_insert(Use::Idle { since: now });
    }

    /// Does not watch it any more.
    pub fn forget(&mut self, port: u16) {
        self.ports.remove(&port);
    }

    /// Whether there is anything to look at.
    pub fn tracks(&self, port: u16) -> bool {
        self.ports.contains_key(&port)
    }

    /// The last counted socket of a port has gone just now.
    pub fn released(&mut self, port: u16, now: Instant) {
        match self.ports.get_mut(&port) {
            // Used and released between two looks: the linger time begins anew.
            Some(Use::Idle { since }) => *since = now,
            Some(Use::Used) => self.next_tick = now,
            Some(Use::Closing { .. }) | None => {}
        }
    }

    /// A program asks for a port. `true`: it is held and was only being closed; let it pass.
    pub fn wanted(&mut self, port: u16, now: Instant) -> bool {
        match self.ports.get_mut(&port) {
            Some(state) => {
                // Granted again, but not bound yet.
                *state = Use::Idle { since: now };
                true
            }
            None => false,
        }
    }

    /// When [`Usage::observe`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = self.ports.values().filter_map(|state| match state {
            Use::Used => None,
            Use::Idle { since } => Some(*since + self.linger),
            Use::Closing { since } => Some(*since + GRACE),
        });
        let tick = (!self.ports.is_empty()).then_some(self.next_tick);
        deadlines.chain(tick).min()
    }

    /// A witness could not be heard: look again with the next tick, and decide nothing until then.
    pub fn postpone(&mut self, now: Instant) {
        let next = now + self.tick;
        self.next_tick = next;
        for state in self.ports.values_mut() {
            if let Use::Idle { since } | Use::Closing { since } = state {
                *since = now;
            }
        }
    }

    /// Whether the programs' count is to be compared with the kernel's tables again, even if it says that all is in use. `true`
    /// is said once.
    pub fn is_proof_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next_proof;
        if due {
            self.next_proof = now + PROOF * self.tick;
        }
        due
    }

    /// Whether the last look saw the port in use.
    pub fn is_in_use(&self, port: u16) -> bool {
        self.ports.get(&port) == Some(&Use::Used)
    }

    /// Ports to look at.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.keys().copied()
    }

    /// What follows from what both witnesses say now.
    pub fn observe(&mut self, now: Instant, is_used: impl Fn(u16) -> bool) -> Vec<Action> {
        if now >= self.next_tick {
            self.next_tick = now + self.tick;
        }
        let mut actions = Vec::new();
        let linger = self.linger;
        self.ports.retain(|&port, state| {
            let used = is_used(port);
            match *state {
                Use::Used if !used => *state = Use::Idle { since: now },
                Use::Idle { .. } if used => *state = Use::Used,
                Use::Idle { since } if now >= since + linger => {
                    *state = Use::Closing { since: now };
                    actions.push(Action::Close(port));
                }
                Use::Closing { .. } if used => {
                    *state = Use::Used;
                    actions.push(Action::Reopen(port));
                }
                Use::Closing { since } if now >= since + GRACE => {
                    actions.push(Action::Release(port));
                    return false;
                }
                Use::Used | Use::Idle { .. } | Use::Closing { .. } => {}
            }
            true
        });
        actions
    }
}

#[cfg(test)]
mod tests;
