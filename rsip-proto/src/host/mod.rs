//! The host's state machine (RFC 3103 appendix D, with LISTEN, EXTEND and asynchronous messages added from the text).
//!
//! # What it does
//!
//! It keeps one registration at one gateway, and in it a set of *slots*: one for each port that a program or the
//! administrator wants by number (LISTEN), one for each block of ephemeral ports (ASSIGN), or, with RSA-IP, one for a whole
//! address and nothing else. A slot is asked for, taken into use by the shell, extended at half life, and given back:
//!
//! ```text
//!            granted            handle_done(Ok)            nobody wants it, its turn came
//!  Asking -----------> Installing -----------> InUse -------------------------------> Freeing --> gone
//!   ^  |                   | Err                |  ^ granted again: Renamed              ^
//!   |  | refused           +--------------------|--|-------------------------------------+
//!   |  v                                        v  |
//!  Waiting                                  InUse, lost (the gateway restarted) -- refused --> Withdraw
//! ```
//!
//! What was never granted and is wanted by a program alone ends with a refusal; blocks, addresses and the administrator's
//! ports wait and are asked for again.
//!
//! Under a remote flow policy every request names the configured peer. A gateway whose terms do not fit the configuration
//! is left again at once, and asked anew from time to time ([`Mismatch`]).
//!
//! # What the gateway takes away
//!
//! - REGISTER_FIRST: it forgot us. What is in use stays so while the same is asked for again (`Renamed`), since no word
//!   says that it must not be used; a refusal ends it.
//! - DE-REGISTER_RESPONSE: all use stops at once (RFC 3103 section 9.5.1). We register again and ask for the same; what is
//!   granted is published anew.
//! - FREE_RESPONSE: the use of that binding stops at once. A program keeps its socket and loses the port: it is not asked
//!   for again until somebody binds it. Blocks, addresses and the administrator's ports are asked for again after a pause.
//! - Another public address: what was in use at the old one goes out of use before the first lease at the new one comes into
//!   use, and the same ports are asked for there.
//! - An extension that is refused is asked for again while the lease lasts; BAD_BIND_ID instead means that the gateway
//!   lost the binding, and the same is asked for again at once. A lease that ends ends the use, and the same is asked for
//!   again.
//!
//! # Rules
//!
//! - One request is outstanding at a time; the rest stands in line, those for whom somebody waits first.
//! - A program is answered after the effect: `Verdict Ok` only after `handle_done(Ok)`, and always by its deadline.
//! - A lease runs from the moment when its request was *first sent*, so that it never ends later here than at the
//!   gateway: what the gateway may have given to somebody else is not used.
//! - Over UDP a request that nobody answers stays the outstanding one, and is sent again with the same counter after a
//!   pause: the host may not go on to the next counter (RFC 3103 section 10.1), and the late answer tells what the
//!   gateway did. Over TCP the connection is closed; if the unanswered request could have created a binding, both sides
//!   begin anew, since its name will never be heard.
//! - Whatever comes from the gateway, time passes between two attempts at the same thing: no answer makes it spin.
//!
//! | file | what |
//! |---|---|
//! | [`command`], [`config`], [`resume`], [`view`] | the interface |
//! | `wants`, `blocks`, `whole`, `leave` | what programs and the administrator want; the end |
//! | `link`, `retransmit` | the transport, silence, and when to try again |
//! | `moved` | the host's own network changes: another private address |
//! | `registration`, `terms` | being registered, beginning anew, and whether the terms fit |
//! | `locality` | what the gateway calls local |
//! | `requests`, `queue` | what is asked next |
//! | `answers`, `grant` | what the gateway says, and whether it is of use |
//! | `leases`, `losses` | how bindings begin and go on; how they end |
//! | `binding`, `table` | what is known of each |

pub mod command;
pub mod config;
pub mod resume;
pub mod view;

mod answers;
mod binding;
mod blocks;
mod grant;
mod leases;
mod leave;
mod link;
mod locality;
mod losses;
mod moved;
mod queue;
mod registration;
mod requests;
mod retransmit;
mod table;
mod terms;
#[cfg(test)]
mod tests;
mod wants;
mod whole;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

pub use command::{
    BindingKind, DenyReason, HostBinding, HostCommand, InstallFailed, Mismatch, RegistrationChange,
    WithdrawReason,
};
pub use config::{HostConfig, HostTransport, Method};
pub use resume::{SavedBinding, SavedState};
pub use view::{BindingState, BindingView, GatewayState, HostView, PendingView};

use crate::ids::{MessageCounter, OpId};
use crate::wire::ErrorCode;
use binding::{SlotId, Target};
use link::Link;
use locality::Locality;
use queue::Queue;
use registration::{Obstacle, Registration};
use requests::Outstanding;
use retransmit::Backoff;
use table::Table;

/// A host that leases addresses and ports from one gateway.
///
/// Call an input method, then [`Host::next_command`] until it answers `None`, then sleep until [`Host::poll_timeout`]
/// or the next input.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    commands: VecDeque<HostCommand>,
    link: Link,
    link_backoff: Backoff,
    /// Known to be out of reach, since the last attempt failed.
    unreachable: bool,
    registration: Registration,
    register_backoff: Backoff,
    /// Why we are not registered, or not for long.
    obstacle: Option<Obstacle>,
    /// An ALREADY_REGISTERED was answered by DE-REGISTER once: a second one in a row is a refusal.
    displaced: bool,
    counter: MessageCounter,
    outstanding: Option<Outstanding>,
    locality: Locality,
    /// Ephemeral ports wanted.
    ephemeral: usize,
    /// What it complained of.
    complaints: BTreeMap<ErrorCode, u64>,
    heard_at: Instant,
    probe_now: bool,
    /// The gateway may hold a binding whose name we never heard.
    doubt: bool,
    table: Table,
    queue: Queue,
    ops: BTreeMap<OpId, SlotId>,
    next_op: u64,
    /// `shutdown` was called, and ends at that time.
    leaving: Option<Instant>,
    stopped: bool,
}

impl Host {
    /// A host that is not registered. Nothing happens before [`Host::start`].
    #[must_use]
    pub fn new(config: HostConfig, now: Instant) -> Self {
        Self {
            link: Link::Closed,
            link_backoff: Backoff::new(&config),
            unreachable: false,
            registration: Registration::None { stale: None, at: now },
            register_backoff: Backoff::new(&config),
            obstacle: None,
            displaced: false,
            counter: MessageCounter::ASYNCHRONOUS,
            outstanding: None,
            locality: Locality::new(now),
            ephemeral: 0,
            complaints: BTreeMap::new(),
            heard_at: now,
            probe_now: false,
            doubt: false,
            table: Table::default(),
            queue: Queue::default(),
            ops: BTreeMap::new(),
            next_op: 0,
            leaving: None,
            stopped: false,
            commands: VecDeque::new(),
            config,
        }
    }

    /// Connects, registers, and leases a block or an address unless one is there from an earlier run.
    pub fn start(&mut self, now: Instant) {
        if !matches!(self.link, Link::Closed) || self.leaving.is_some() || self.stopped {
            return;
        }
        self.heard_at = now;
        let target = match self.config.method {
            Method::RsapIp => Target::Block,
            Method::RsaIp => Target::Address,
        };
        let resumed = self.table.iter().any(|(_, slot)| slot.target == target && slot.used);
        match target {
            _ if resumed => {}
            Target::Address => self.add_address(now),
            Target::Block | Target::Port(_) | Target::Stray => self.add_block(now),
        }
        self.connect(now);
    }

    /// To be called when [`Host::poll_timeout`] is reached; calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        self.leave_timeout(now);
        self.link_timeout(now);
        self.request_timeout(now);
        for id in self.table.due(now) {
            self.slot_timeout(id, now);
        }
        self.registration_timeout(now);
        self.pump(now);
    }

    /// The next thing to do; `None`: all done until the next input.
    pub fn next_command(&mut self) -> Option<HostCommand> {
        self.commands.pop_front()
    }

    /// When [`Host::handle_timeout`] is to be called; `None`: not before the next input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let request = self.outstanding.as_ref().map(|outstanding| outstanding.clock.deadline());
        [self.leaving, self.link_deadline(), request, self.registration_deadline(), self.table.next_wake()]
            .into_iter()
            .flatten()
            .min()
    }
}
