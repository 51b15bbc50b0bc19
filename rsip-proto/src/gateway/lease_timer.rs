//! What ends at which time. The next one is found without looking at all the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::binding::{BindingKey, Phase};
use super::{Gateway, RemovalReason};
use crate::ids::ClientId;
use crate::wire::Body;

/// How long the data path is left alone after it could not forget a rule.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What happens at a time. At the same time bindings end before the registration they belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A binding's lease ends.
    Binding(BindingKey),
    /// A registration's lease ends.
    Registration(ClientId),
    /// The data path is asked once more to forget.
    Retry(BindingKey),
}

/// Every timer that is set. One that is removed or moved is gone at once.
#[derive(Default)]
pub(super) struct Timers {
    set: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(super) fn insert(&mut self, at: Instant, timer: Timer) {
        self.set.insert((at, timer));
    }

    pub(super) fn remove(&mut self, at: Instant, timer: Timer) {
        self.set.remove(&(at, timer));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.set.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.set.first()?;
        (at <= now).then(|| self.set.pop_first()).map(|_| timer)
    }
}

impl Gateway {
    /// Carries out what is due. Every entrance calls this first, so that no request meets a lease that has ended.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Binding(key) => {
                    let (client_id, bind_id) = key;
                    self.notify(client_id, Body::FreeResponse { client_id, bind_id });
                    self.end_binding(key, RemovalReason::Expired, now);
                }
                Timer::Registration(client_id) => self.depart(client_id, RemovalReason::Expired, None, now),
                Timer::Retry(key) => {
                    if let Some(Phase::Stuck { reason }) = self.bindings.get(key).map(|b| b.phase.clone()) {
                        self.remove(key, reason, None);
                    }
                }
            }
        }
    }
}
