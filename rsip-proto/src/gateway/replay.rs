//! Message counters: what was answered last to whom, so that a duplicate gets the same answer and nothing is done twice
//! (RFC 3103 section 10.1).
//!
//! A session is one peer: address, port and transport. Per session the last counter and its answer are kept (the RFC's
//! "last message" buffer), no more. How much is kept is bounded: [`SESSIONS_PER_HOST`] sessions of each host, and
//! [`STRANGERS`] hosts that are not registered.
//!
//! What a counter means, where the RFC is silent:
//!
//! - Equal to the last, of the same message type: a duplicate. While its answer is not known yet: silence, since the
//!   answer will come.
//! - A REGISTER_REQUEST that comes [`WINDOW`] after the one with the same counter is none: no host retransmits that
//!   long, so it is a host that started anew and counts from 1 again. Likewise anything from an unregistered host.
//! - Lower than the last, over UDP, from a registered host: an old datagram that the network held back; dropped. Except a
//!   REGISTER_REQUEST, which starts the host's counting anew whatever its counter.
//! - Anything else is new. Over TCP that includes lower counters: the connection keeps the order itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Peer, Transport};
use crate::ids::MessageCounter;
use crate::wire::{Message, MessageType};

/// Sessions kept for one host. A host needs one; a host that comes from more at the same time loses the oldest.
pub(super) const SESSIONS_PER_HOST: usize = 4;

/// Hosts that are not registered, for which sessions are kept.
pub(super) const STRANGERS: usize = 1024;

/// How long after the first copy a duplicate can come. The RFC's own back-off gives up after 1.6 s.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// What a request is, by its counter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not seen before: to be carried out, and its answer to be stored.
    New,
    /// Carried out and answered: this is the answer.
    Answered(Message),
    /// Being carried out: silence.
    UnderWay,
    /// Older than the last: silence.
    Stale,
}

struct Session {
    peer: Peer,
    counter: MessageCounter,
    request: MessageType,
    since: Instant,
    answer: Option<Message>,
}

#[derive(Default)]
struct HostSessions {
    /// The last used one stands last.
    sessions: VecDeque<Session>,
    /// Place among the strangers; none while the host is registered.
    stranger: Option<u64>,
}

/// The last answers, by peer.
#[derive(Default)]
pub(super) struct Replay {
    hosts: BTreeMap<Ipv4Addr, HostSessions>,
    /// Hosts that are not registered, in the order in which they came.
    strangers: BTreeMap<u64, Ipv4Addr>,
    next_place: u64,
}

impl Replay {
    /// Judges a request, and makes it the session's last one if it is new.
    pub(super) fn judge(
        &mut self,
        peer: Peer,
        counter: MessageCounter,
        request: MessageType,
        now: Instant,
    ) -> Verdict {
        let host = *peer.address.ip();
        if !self.hosts.contains_key(&host) {
            self.enter(host);
        }
        let Some(entry) = self.hosts.get_mut(&host) else { return Verdict::New };
        let registered = entry.stranger.is_none();
        let starts_anew = request == MessageType::RegisterRequest;
        if let Some(index) = entry.sessions.iter().position(|session| session.peer == peer) {
            let last = &entry.sessions[index];
            let recent = now.saturating_duration_since(last.since) < WINDOW;
            if last.counter == counter && last.request == request && (recent || (registered && !starts_anew))
            {
                return last.answer.clone().map_or(Verdict::UnderWay, Verdict::Answered);
            }
            let older = is_older(counter, last.counter) && peer.transport == Transport::Udp;
            if older && registered && !starts_anew {
                return Verdict::Stale;
            }
            entry.sessions.remove(index);
        }
        if entry.sessions.len() >= SESSIONS_PER_HOST {
            entry.sessions.pop_front();
        }
        entry.sessions.push_back(Session { peer, counter, request, since: now, answer: None });
        Verdict::New
    }

    /// Keeps the answer to the session's last request. An answer to an older request is not kept.
    pub(super) fn store(&mut self, peer: Peer, answer: &Message) {
        let Some(entry) = self.hosts.get_mut(peer.address.ip()) else { return };
        for session in &mut entry.sessions {
            if session.peer == peer && answer.counter == Some(session.counter) {
                session.answer = Some(answer.clone());
            }
        }
    }

    /// A connection is gone, and its session with it.
    pub(super) fn forget_connection(&mut self, connection: u64) {
        for entry in self.hosts.values_mut() {
            entry.sessions.retain(|session| session.peer.transport != Transport::Tcp(connection));
        }
        let strangers = &mut self.strangers;
        self.hosts.retain(|_, entry| match entry.stranger {
            Some(place) if entry.sessions.is_empty() => {
                strangers.remove(&place);
                false
            }
            _ => true,
        });
    }

    /// The host is registered from now on: what is kept for it is not given up for strangers.
    pub(super) fn registered(&mut self, host: Ipv4Addr) {
        let entry = self.hosts.entry(host).or_default();
        if let Some(place) = entry.stranger.take() {
            self.strangers.remove(&place);
        }
    }

    /// The host is registered no more: what is kept for it stays as long as there is room.
    pub(super) fn unregistered(&mut self, host: Ipv4Addr) {
        if self.hosts.get(&host).is_some_and(|entry| entry.stranger.is_none()) {
            self.enter(host);
        }
    }

    /// Makes a host a stranger; the stranger that came first makes room.
    fn enter(&mut self, host: Ipv4Addr) {
        if self.strangers.len() >= STRANGERS
            && let Some((_, oldest)) = self.strangers.pop_first()
        {
            self.hosts.remove(&oldest);
        }
        self.strangers.insert(self.next_place, host);
        self.hosts.entry(host).or_default().stranger = Some(self.next_place);
        self.next_place += 1;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.hosts.values().map(|entry| entry.sessions.len()).sum()
    }
}

/// Serial number arithmetic: `a` is within the half of the numbers before `b`.
const fn is_older(a: MessageCounter, b: MessageCounter) -> bool {
    let distance = b.0.wrapping_sub(a.0);
    distance != 0 && distance < 1 << 31
}
