//! The multicast convergence algorithm (RFC 2608 section 6.3).

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::Step;
use crate::agent::Timing;

/// Multicast again and again, with the list of those who answered already, until nobody else answers.
#[derive(Clone, Debug)]
pub(crate) struct Convergence {
    pub(crate) xid: u16,
    responders: Vec<Ipv4Addr>,
    /// When it is sent next.
    next: Instant,
    wait: Duration,
    /// When those who have not yet answered would have, where somebody had before it was last sent.
    settled: Option<Instant>,
    settle: Duration,
    ends: Instant,
}

impl Convergence {
    pub(crate) fn new(xid: u16, now: Instant, timing: &Timing, ends: Instant) -> Self {
        Self {
            xid,
            responders: Vec::new(),
            next: now,
            wait: timing.retry,
            settled: None,
            // The waits between two requests must double; how long to listen for whoever has not answered yet is left
            // to the asker. An agent on the link answers at once.
            settle: timing.retry / 2,
            ends: ends.min(now + timing.multicast_max),
        }
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        if now >= self.ends || self.settled.is_some_and(|settled| now >= settled) {
            return Step::End;
        }
        if now < self.next {
            return Step::Wait;
        }
        self.next = now + self.wait;
        self.wait *= 2;
        self.settled = (!self.responders.is_empty()).then_some(now + self.settle);
        Step::Send
    }

    /// Somebody answered. False: not for the first time.
    pub(crate) fn heard(&mut self, from: Ipv4Addr) -> bool {
        if self.responders.contains(&from) {
            return false;
        }
        self.responders.push(from);
        self.settled = None;
        true
    }

    /// The PRList: who has answered.
    pub(crate) fn previous_responders(&self) -> String {
        let addresses: Vec<String> = self.responders.iter().map(Ipv4Addr::to_string).collect();
        addresses.join(",")
    }

    pub(crate) fn timer(&self) -> Instant {
        let next = self.next.min(self.ends);
        self.settled.map_or(next, |settled| settled.min(next))
    }
}
