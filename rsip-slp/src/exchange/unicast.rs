//! A request to one agent (RFC 2608 sections 6.3 and 12.3).

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::Step;
use crate::agent::Command;

/// Sent again with doubling waits until it is answered or given up.
#[derive(Clone, Debug)]
pub(crate) struct Unicast {
    pub(crate) to: SocketAddrV4,
    pub(crate) xid: u16,
    bytes: Vec<u8>,
    stream: bool,
    next: Instant,
    wait: Duration,
    ends: Instant,
}

impl Unicast {
    /// A request by datagrams; by a connection, and so only once, where it is longer than `limit` or `stream` says so.
    pub(crate) fn new(
        to: SocketAddrV4,
        (xid, bytes): (u16, Vec<u8>),
        (limit, stream): (usize, bool),
        (now, wait, ends): (Instant, Duration, Instant),
    ) -> Self {
        let stream = stream || bytes.len() > limit;
        Self { to, xid, bytes, stream, next: now, wait, ends }
    }

    /// Goes on by a connection: the answer did not fit into a datagram. False: it did already.
    pub(crate) fn switch_to_stream(&mut self, now: Instant) -> bool {
        let switched = !self.stream;
        self.stream = true;
        if switched {
            self.next = now;
        }
        switched
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }

    pub(crate) fn poll(&mut self, now: Instant) -> Step {
        if now >= self.ends {
            return Step::End;
        }
        if now < self.next {
            return Step::Wait;
        }
        // A connection does by itself what retransmission does for datagrams.
        self.next = if self.stream { self.ends } else { now + self.wait };
        self.wait *= 2;
        Step::Send
    }

    pub(crate) fn timer(&self) -> Instant {
        self.next.min(self.ends)
    }

    pub(crate) fn command(&self) -> Command {
        let (to, bytes) = (self.to, self.bytes.clone());
        if self.stream { Command::Connect { to, bytes } } else { Command::Datagram { to, bytes } }
    }
}
