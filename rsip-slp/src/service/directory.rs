//! Where the service is registered: directory agents, or the daemon of this host.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::exchange::Unicast;
use crate::text::{AttributeList, ScopeList};

/// Directory agents that are remembered, at most.
pub const MAX_DIRECTORIES: usize = 16;

/// How this agent knows of a directory agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is the daemon of this host.
    Daemon,
    /// It is configured.
    Configured,
    /// It was searched, or introduced itself.
    Found,
}

/// One place where the service is, or is to be, registered.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    pub(super) address: SocketAddrV4,
    pub(super) kind: Kind,
    /// What it said of itself; nothing: it has not yet, or is the daemon, which need not.
    pub(super) advert: Option<Advert>,
    pub(super) state: State,
    /// What it holds, as far as is known.
    pub(super) held: Option<Held>,
    /// Attempts in vain since the last success.
    pub(super) failures: u32,
    /// It was seen not to know incremental registration.
    pub(super) only_whole: bool,
}

/// What a directory agent said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Advert {
    pub(super) boot_timestamp: u32,
    pub(super) scopes: ScopeList,
    /// Of one service, no refresh or update is to come earlier.
    pub(super) min_refresh: Duration,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    /// It is asked to introduce itself.
    Asking(Unicast),
    /// The next attempt waits.
    Waiting(Instant),
    /// A registration is under way.
    Registering { unicast: Unicast, sent: Sent },
    /// It has what it should have, or cannot have it for lack of a scope in common.
    Settled,
    /// The registration is taken back.
    Leaving(Unicast),
}

/// A registration on its way.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) scopes: ScopeList,
    /// All attributes that it has after this.
    pub(super) attributes: AttributeList,
    pub(super) lifetime: Duration,
    pub(super) fresh: bool,
}

/// A registration that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) scopes: ScopeList,
    pub(super) attributes: AttributeList,
    pub(super) updated: Instant,
    pub(super) renew: Instant,
    pub(super) expires: Instant,
}

impl Directory {
    pub(super) fn new(address: SocketAddrV4, kind: Kind, state: State) -> Self {
        Self { address, kind, advert: None, state, held: None, failures: 0, only_whole: false }
    }

    pub(super) fn host(&self) -> Ipv4Addr {
        *self.address.ip()
    }

    /// The scopes to register in: all of ours that it supports (RFC 2608 section 8.3).
    pub(super) fn scopes(&self, own: &ScopeList) -> ScopeList {
        match (&self.advert, self.kind) {
            (Some(advert), _) => own.intersection(&advert.scopes),
            (None, Kind::Daemon) => own.clone(),
            (None, Kind::Configured | Kind::Found) => ScopeList::default(),
        }
    }

    pub(super) fn min_refresh(&self) -> Duration {
        // Not more often than once a second, whatever it says (section 8.3).
        self.advert.as_ref().map_or(Duration::ZERO, |advert| advert.min_refresh).max(Duration::from_secs(1))
    }

    /// The lifetime to register with: renewed at half of it, and that must not be too early for the directory agent.
    pub(super) fn lifetime(&self, wanted: u16) -> u16 {
        let least = u16::try_from(self.min_refresh().as_secs().saturating_mul(2)).unwrap_or(u16::MAX);
        wanted.max(least)
    }

    /// How long after so many failures the next attempt waits: doubled each time.
    pub(super) fn back_off(&self, first: Duration, most: Duration) -> Duration {
        first.saturating_mul(1 << self.failures.min(20)).min(most)
    }

    /// When the next update of the attributes may go out.
    pub(super) fn next_update(&self, held: &Held, interval: Duration) -> Instant {
        held.updated + self.min_refresh().max(interval)
    }
}

impl Held {
    pub(super) fn new(sent: Sent, least: Duration, before: Option<&Self>, now: Instant) -> Self {
        let Sent { scopes, attributes, lifetime, fresh } = sent;
        // Whether an update renews the lifetime, too, is not said: a whole registration does.
        let (renew, expires) = match before.filter(|_| !fresh) {
            Some(before) => (before.renew, before.expires),
            None => (now + (lifetime / 2).max(least), now + lifetime),
        };
        Self { scopes, attributes, updated: now, renew, expires }
    }
}

/// Whether a boot timestamp is later than another one. They wrap around in 2106 (RFC 2608 section 9.2).
pub(super) fn is_newer(timestamp: u32, than: u32) -> bool {
    let difference = timestamp.wrapping_sub(than);
    difference != 0 && difference < 1 << 31
}
