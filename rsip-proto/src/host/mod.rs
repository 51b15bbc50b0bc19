//! The host's state machine (RFC 3103 appendix D, with LISTEN, EXTEND and asynchronous messages added from the text).
//!
//! # What it does
//!
//! It keeps one registration at one gateway, and in it a set of *slots*: one for each port that a program or the
//! administrator wants by number (LISTEN), one for each block of ephemeral ports (ASSIGN). A slot is asked for, taken
//! into use by the shell, extended at half life, and given back:
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
//! What was never granted and is wanted by a program alone ends with a refusal; blocks and the administrator's ports
//! wait and are asked for again.
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
//! | `wants`, `leave` | what programs and the administrator want; the end |
//! | `link`, `retransmit` | the transport, silence, and when to try again |
//! | `registration` | being registered, and beginning anew |
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
mod grant;
mod leases;
mod leave;
mod link;
mod losses;
mod queue;
mod registration;
mod requests;
mod retransmit;
mod table;
#[cfg(test)]
mod tests;
mod wants;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
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
use binding::SlotId;
use link::Link;
use queue::Queue;
use registration::Registration;
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
    /// Why the gateway does not register us.
    refused: Option<ErrorCode>,
    /// An ALREADY_REGISTERED was answered by DE-REGISTER once: a second one in a row is a refusal.
    displaced: bool,
    counter: MessageCounter,
    outstanding: Option<Outstanding>,
    /// What the gateway calls local, as told to the shell.
    local: Vec<(Ipv4Addr, u8)>,
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
            refused: None,
            displaced: false,
            counter: MessageCounter::ASYNCHRONOUS,
            outstanding: None,
            local: Vec::new(),
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

    /// Connects, registers, and leases a block unless one is there from an earlier run.
    pub fn start(&mut self, now: Instant) {
        if !matches!(self.link, Link::Closed) || self.leaving.is_some() || self.stopped {
            return;
        }
        self.heard_at = now;
        let has_block = self.table.iter().any(|(_, slot)| slot.target == binding::Target::Block);
        if !has_block {
            self.add_block(now);
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
