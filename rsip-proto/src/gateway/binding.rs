//! Bindings: what was leased, and where it stands between a request and the data path.
//!
//! ```text
//!   ASSIGN, LISTEN --> Installing --done--> Active --FREE, expiry, ...--> Removing --done--> gone
//!                          |                  ^                              |
//!                          +--failed--> gone  +--- FREE failed --------------+
//!                          |                                                 | failed, and nobody to keep it
//!                          +--done, but ended meanwhile--> Removing          v
//!                                                             ^-- retry -- Stuck
//! ```
//!
//! In each of these states the ports are taken in the pool; they are given back on the way to "gone", nowhere else. At
//! most one command is under way for a binding, so its outcome is never in doubt.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Instant;

use super::{BindingState, Peer, RemovalReason, Rule};
use crate::ids::{BindId, ClientId, MessageCounter};
use crate::lease::Leased;
use crate::pool::{Grant, Holder};

/// Names a binding for as long as anything of it is left.
pub(super) type BindingKey = (ClientId, BindId);

/// Whom to answer, and under which counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyTo {
    pub(super) peer: Peer,
    pub(super) counter: Option<MessageCounter>,
}

/// What to do when the data path holds a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterInstall {
    /// Tell the host, who waits.
    Answer(ReplyTo),
    /// Remove it again: it has ended before it began.
    Undo(RemovalReason),
}

/// Where a binding stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Install is under way.
    Installing(AfterInstall),
    /// Holds until `expires`.
    Active,
    /// Remove is under way.
    Removing {
        /// Who waits for a FREE_RESPONSE.
        reply: Option<ReplyTo>,
        reason: RemovalReason,
    },
    /// Remove failed; the next attempt has a timer.
    Stuck { reason: RemovalReason },
}

/// One binding.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) rule: Rule,
    pub(super) listen: bool,
    /// The lease as last granted, in seconds.
    pub(super) lease: u32,
    /// When it ends. Means something only while active.
    pub(super) expires: Instant,
    /// Whether `Event::Bound` was given.
    pub(super) announced: bool,
    pub(super) phase: Phase,
}

impl Binding {
    pub(super) const fn key(&self) -> BindingKey {
        (self.rule.client_id, self.rule.bind_id)
    }

    pub(super) fn grant(&self) -> Grant {
        Grant { address: self.rule.address, leased: self.rule.leased.clone() }
    }

    pub(super) fn port_count(&self) -> u32 {
        port_count(&self.rule.leased)
    }

    pub(super) const fn state(&self) -> BindingState {
        match self.phase {
            Phase::Installing(AfterInstall::Answer(_)) => BindingState::Installing,
            Phase::Active => BindingState::Active,
            Phase::Installing(AfterInstall::Undo(_)) | Phase::Removing { .. } | Phase::Stuck { .. } => {
                BindingState::Removing
            }
        }
    }
}

/// How many ports are leased by number; none with a whole address.
pub(super) fn port_count(leased: &Leased) -> u32 {
    u32::try_from(leased.iter().count()).unwrap_or(u32::MAX)
}

/// The pool's name for a binding: different for each, since the pair of IDs is.
pub(super) fn holder_of((client, bind): BindingKey) -> Holder {
    // Never 0: neither ID is.
    Holder(NonZeroU64::new((u64::from(client.0) << 32) | u64::from(bind.0)).unwrap_or(NonZeroU64::MIN))
}

/// Every binding of which anything is left, also those of hosts that are registered no more.
#[derive(Default)]
pub(super) struct Bindings {
    all: BTreeMap<BindingKey, Binding>,
}

impl Bindings {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, key: BindingKey) -> Option<&Binding> {
        self.all.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: BindingKey) -> Option<&mut Binding> {
        self.all.get_mut(&key)
    }

    pub(super) fn insert(&mut self, binding: Binding) {
        self.all.insert(binding.key(), binding);
    }

    pub(super) fn remove(&mut self, key: BindingKey) -> Option<Binding> {
        self.all.remove(&key)
    }

    pub(super) fn contains(&self, key: BindingKey) -> bool {
        self.all.contains_key(&key)
    }

    pub(super) fn of(&self, client: ClientId) -> impl Iterator<Item = &Binding> {
        self.all.range((client, BindId(0))..=(client, BindId(u32::MAX))).map(|(_, binding)| binding)
    }

    pub(super) fn keys_of(&self, client: ClientId) -> Vec<BindingKey> {
        self.of(client).map(Binding::key).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.all.values()
    }
}
