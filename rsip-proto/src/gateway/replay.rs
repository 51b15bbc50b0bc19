//! Message counters: what was answered last to whom, so that a duplicate gets the same answer and nothing is done twice
//! (RFC 3103 section 10.1).
//!
//! A session is one peer: address, port and transport. Per session the last counter and its answer are kept (the RFC's
//! "last message" buffer), no more. How much is kept is bounded: [`SESSIONS_PER_HOST`] sessions for each registered host,
//! and for [`DEPARTED`] hosts that were registered. A session begins and goes on only with requests that succeed in
//! registering, or that name the host's client ID: nobody else can use up a host's counters. (What others are told is
//! not kept. It is an error, and the same question gets it again.)
//!
//! What a counter means, where the RFC is silent:
//!
//! - Equal to the last, of the same message type: a duplicate. While its answer is not known yet: silence, since the
//!   answer will come.
//! - Lower than the last, over UDP: an old datagram that the network held back; dropped. Over TCP it is new: a connection
//!   keeps the order itself.
//! - Except REGISTER_REQUEST, and DE-REGISTER_REQUEST (which does no harm when it comes twice, since a client ID is not
//!   used again): they are always looked at, so that a host that started anew at the same port, and counts from 1 again,
//!   comes through. It is told 302 and its client ID, and from then on its new counting is good too.
//! - A REGISTER_REQUEST that comes [`WINDOW`] after the one with the same counter is no duplicate: no host retransmits
//!   that long. Before that it does not start a new counting, and neither does an older one, which was refused before the
//!   one that succeeded. Nor does any answer to a host that is registered no more come again after that time.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Peer, Transport};
use crate::ids::MessageCounter;
use crate::wire::{Message, MessageType};

/// Sessions kept for one host. A host needs one; one that uses more at the same time loses the oldest.
pub(super) const SESSIONS_PER_HOST: usize = 4;

/// Hosts that were registered, for which sessions are still kept.
pub(super) const DEPARTED: usize = 1024;

/// How long after the first copy a duplicate can come. The RFC's own back-off gives up after 1.6 s.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// What a request is, by its counter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not seen before: to be carried out.
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
    /// The last request.
    counter: MessageCounter,
    request: MessageType,
    since: Instant,
    answer: Option<Message>,
    /// The REGISTER_REQUEST that began the session.
    registered: Option<(MessageCounter, Instant)>,
    /// Where the host may have begun to count anew.
    anew: Option<MessageCounter>,
}

#[derive(Default)]
struct HostSessions {
    /// The last used one stands last.
    sessions: VecDeque<Session>,
    /// Place among the departed; none while the host is registered.
    departed: Option<u64>,
}

/// The last answers, by peer.
#[derive(Default)]
pub(super) struct Replay {
    hosts: BTreeMap<Ipv4Addr, HostSessions>,
    /// Hosts that are registered no more, in the order in which they left.
    departed: BTreeMap<u64, Ipv4Addr>,
    next_place: u64,
}

impl Replay {
    /// Judges a request.
    pub(super) fn judge(
        &self,
        peer: Peer,
        counter: MessageCounter,
        request: MessageType,
        now: Instant,
    ) -> Verdict {
        let Some(entry) = self.hosts.get(peer.address.ip()) else { return Verdict::New };
        let Some(last) = entry.sessions.iter().find(|session| session.peer == peer) else {
            return Verdict::New;
        };
        let registers = request == MessageType::RegisterRequest;
        let is_registered = entry.departed.is_none();
        if last.counter == counter && last.request == request {
            let recent = now.saturating_duration_since(last.since) < WINDOW;
            if recent || (is_registered && !registers) {
                return last.answer.clone().map_or(Verdict::UnderWay, Verdict::Answered);
            }
        }
        let always = registers || request == MessageType::DeRegisterRequest;
        let counts_anew = last.anew.is_some_and(|first| is_older(first, counter));
        let older = peer.transport == Transport::Udp && is_older(counter, last.counter) && !counts_anew;
        if older && is_registered && !always { Verdict::Stale } else { Verdict::New }
    }

    /// A request that was judged new and is good: from now on it is the session's last one.
    pub(super) fn begin(&mut self, peer: Peer, counter: MessageCounter, request: MessageType, now: Instant) {
        let Some(entry) = self.hosts.get_mut(peer.address.ip()) else { return };
        let position = entry.sessions.iter().position(|session| session.peer == peer);
        let known = position.and_then(|index| entry.sessions.remove(index));
        if entry.sessions.len() >= SESSIONS_PER_HOST {
            entry.sessions.pop_front();
        }
        let registers = request == MessageType::RegisterRequest;
        let registered =
            if registers { Some((counter, now)) } else { known.and_then(|session| session.registered) };
        entry.sessions.push_back(Session {
            peer,
            counter,
            request,
            since: now,
            answer: None,
            registered,
            anew: None,
        });
    }

    /// A registered host was told so under this counter: it may have started anew, and go on from there.
    pub(super) fn may_count_anew(&mut self, peer: Peer, counter: MessageCounter, now: Instant) {
        let Some(entry) = self.hosts.get_mut(peer.address.ip()) else { return };
        let Some(session) = entry.sessions.iter_mut().find(|session| session.peer == peer) else { return };
        let is_late_copy = session.registered.is_some_and(|(registered, since)| {
            !is_older(registered, counter) && now.saturating_duration_since(since) < WINDOW
        });
        if !is_late_copy {
            session.anew = Some(counter);
        }
    }

    /// Keeps the answer to the session's last request. An answer to any other request is not kept.
    pub(super) fn store(&mut self, peer: Peer, answer: &Message) {
        let Some(entry) = self.hosts.get_mut(peer.address.ip()) else { return };
        for session in &mut entry.sessions {
            if session.peer == peer && answer.counter == Some(session.counter) && session.answer.is_none() {
                session.answer = Some(answer.clone());
            }
        }
    }

    /// A connection is gone, and its session with it.
    pub(super) fn forget_connection(&mut self, connection: u64) {
        for entry in self.hosts.values_mut() {
            entry.sessions.retain(|session| session.peer.transport != Transport::Tcp(connection));
        }
    }

    /// The host is registered from now on: sessions are kept for it.
    pub(super) fn registered(&mut self, host: Ipv4Addr) {
        let entry = self.hosts.entry(host).or_default();
        if let Some(place) = entry.departed.take() {
            self.departed.remove(&place);
        }
    }

    /// The host is registered no more. Only what it was told about leaving stays, as long as there is room: nothing
    /// that it was granted before is good any more.
    pub(super) fn unregistered(&mut self, host: Ipv4Addr) {
        let Some(entry) = self.hosts.get_mut(&host).filter(|entry| entry.departed.is_none()) else { return };
        entry.sessions.retain(|session| session.request == MessageType::DeRegisterRequest);
        if entry.sessions.is_empty() {
            self.hosts.remove(&host);
            return;
        }
        entry.departed = Some(self.next_place);
        self.departed.insert(self.next_place, host);
        self.next_place += 1;
        if self.departed.len() > DEPARTED
            && let Some((_, oldest)) = self.departed.pop_first()
        {
            self.hosts.remove(&oldest);
        }
    }
}

/// Serial number arithmetic: `a` is within the half of the numbers before `b`.
const fn is_older(a: MessageCounter, b: MessageCounter) -> bool {
    let distance = b.0.wrapping_sub(a.0);
    distance != 0 && distance < 1 << 31
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;
    use crate::wire::Body;

    fn peer(host: u32, port: u16) -> Peer {
        Peer { address: SocketAddrV4::new(Ipv4Addr::from(host), port), transport: Transport::Udp }
    }

    fn answer(counter: u32) -> Message {
        Message::new(MessageCounter(counter), Body::RegisterRequest)
    }

    #[test]
    fn keeps_a_bounded_number_of_sessions() {
        let now = Instant::now();
        let mut replay = Replay::default();
        for host in 0..3 * DEPARTED as u32 {
            replay.registered(Ipv4Addr::from(host));
            for port in 1..20 {
                replay.begin(peer(host, port), MessageCounter(1), MessageType::DeRegisterRequest, now);
                replay.store(peer(host, port), &answer(1));
            }
            replay.unregistered(Ipv4Addr::from(host));
            assert!(replay.hosts.len() <= DEPARTED && replay.departed.len() <= DEPARTED);
        }
        assert!(replay.hosts.values().all(|entry| entry.sessions.len() == SESSIONS_PER_HOST));
        // The last to leave, and its last ports, are the ones that are kept.
        let last = 3 * DEPARTED as u32 - 1;
        let judge = |host, port| {
            replay.judge(peer(host, port), MessageCounter(1), MessageType::DeRegisterRequest, now)
        };
        assert_eq!(judge(last, 19), Verdict::Answered(answer(1)));
        assert_eq!((judge(last, 15), judge(0, 19)), (Verdict::New, Verdict::New));
    }

    #[test]
    fn strangers_leave_nothing_behind() {
        let now = Instant::now();
        let mut replay = Replay::default();
        replay.begin(peer(1, 1), MessageCounter(1), MessageType::QueryRequest, now);
        replay.store(peer(1, 1), &answer(1));
        replay.may_count_anew(peer(1, 1), MessageCounter(1), now);
        replay.unregistered(Ipv4Addr::from(1));
        assert!(replay.hosts.is_empty() && replay.departed.is_empty());
    }

    #[test]
    fn coming_and_going_does_not_add_up() {
        let mut replay = Replay::default();
        for counter in 0..10 {
            replay.registered(Ipv4Addr::from(1));
            let leaves = MessageType::DeRegisterRequest;
            replay.begin(peer(1, 1), MessageCounter(counter), leaves, Instant::now());
            replay.unregistered(Ipv4Addr::from(1));
            replay.unregistered(Ipv4Addr::from(1));
        }
        assert_eq!((replay.hosts.len(), replay.departed.len()), (1, 1));
        replay.registered(Ipv4Addr::from(2));
        replay.begin(peer(2, 1), MessageCounter(1), MessageType::QueryRequest, Instant::now());
        replay.unregistered(Ipv4Addr::from(2));
        assert_eq!((replay.hosts.len(), replay.departed.len()), (1, 1), "nothing about leaving to be kept");
    }

    #[test]
    fn counters_have_an_order_around_the_wrap() {
        let table = [(1, 2, true), (2, 1, false), (5, 5, false), (u32::MAX, 1, true), (1, u32::MAX, false)];
        for (a, b, older) in table {
            assert_eq!(is_older(MessageCounter(a), MessageCounter(b)), older, "{a} {b}");
        }
    }
}
