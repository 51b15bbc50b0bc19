//! What the host wants or holds: one slot for each port asked for by number and for each block.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::host::retransmit::{Backoff, after};
use crate::host::{BindingKind, HostBinding, WithdrawReason};
use crate::ids::{BindId, ClientId, OpId};
use crate::lease::Leased;
use crate::wire::ErrorCode;

/// Names a slot; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SlotId(pub(super) u64);

/// What a slot is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// LISTEN on this port.
    Port(u16),
    /// RSAP ports for the kernel's own choice.
    Block,
    /// A whole address (RSA-IP).
    Address,
    /// Nothing that is wanted: a binding that has to be given back.
    Stray,
}

/// The administrator's part in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fixed {
    /// None.
    No,
    /// Asked for, no verdict yet.
    Asked,
    /// Granted once: kept, and asked for again whenever it is lost.
    Kept,
}

/// A binding with its clock.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) binding: HostBinding,
    /// As granted or extended last.
    pub(super) time: Duration,
    /// When to ask for more; `None` once that is under way.
    pub(super) extend_at: Option<Instant>,
    pub(super) expires_at: Instant,
}

impl Lease {
    /// A lease that runs since `since`.
    pub(super) fn new(binding: HostBinding, time: Duration, since: Instant) -> Self {
        let mut lease = Self { binding, time, extend_at: None, expires_at: since };
        lease.run(time, since);
        lease
    }

    /// Runs anew since `since`, for `time`.
    pub(super) fn run(&mut self, time: Duration, since: Instant) {
        self.time = time;
        self.extend_at = Some(after(since, time / 2));
        self.expires_at = after(since, time);
    }

    /// The name under which the shell knows it.
    pub(super) const fn name(&self) -> (ClientId, BindId) {
        (self.binding.client_id, self.binding.bind_id)
    }

    /// More than three quarters are over.
    pub(super) fn is_urgent(&self, now: Instant) -> bool {
        self.expires_at.saturating_duration_since(now) < self.time / 4
    }
}

/// What becomes of a binding once the shell has it in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is used.
    Use,
    /// The gateway lost it meanwhile: ask again.
    Renew,
    /// It ended meanwhile: take it out again.
    Withdraw(WithdrawReason),
}

/// How far a slot is.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// To be asked for: in line, or asked.
    Asking,
    /// Refused; asked for again later.
    Waiting {
        /// When.
        retry_at: Instant,
    },
    /// Held by an earlier run of the agent; an EXTEND will tell whether the gateway knows it.
    Resumed(Lease),
    /// Given to the shell, which has not answered yet.
    Installing {
        /// Which command.
        op: OpId,
        /// What was granted.
        lease: Lease,
        /// What happened meanwhile.
        fate: Fate,
    },
    /// In use.
    InUse {
        /// What was granted.
        lease: Lease,
        /// The gateway lost it; it is asked for again.
        lost: bool,
    },
    /// Not in use; the gateway is being told.
    Freeing {
        /// Which binding.
        bind_id: BindId,
        /// All of it, where it was one that we could have used.
        lease: Option<Lease>,
        /// How often the gateway failed to do it.
        refusals: u8,
        /// When to tell it again; `None`: in line, or told.
        retry_at: Option<Instant>,
        /// Something is wrong with this one: pause before it is asked for again.
        hold_off: bool,
    },
}

/// One thing wanted or held.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) target: Target,
    pub(super) state: State,
    /// Somebody waits for a verdict, until then.
    pub(super) waiting: Option<Instant>,
    /// A program is among those who wait.
    pub(super) program_waits: bool,
    /// A program uses the port; for a block: it was not released.
    pub(super) used: bool,
    pub(super) fixed: Fixed,
    /// Ask for exactly this: what was held before.
    pub(super) hint: Option<(Ipv4Addr, Leased)>,
    /// What was held until the gateway ended the registration, and for how long: it is asked for again, also after a crash.
    pub(super) ended: Option<(HostBinding, Duration)>,
    /// Ports to ask for in a block.
    pub(super) size: u8,
    pub(super) refused: Option<ErrorCode>,
    pub(super) backoff: Backoff,
    /// The wake-up under which the table has filed this slot.
    pub(super) filed: Option<Instant>,
}

impl Slot {
    pub(super) const fn new(target: Target, state: State, backoff: Backoff) -> Self {
        Self {
            target,
            state,
            waiting: None,
            program_waits: false,
            used: false,
            fixed: Fixed::No,
            hint: None,
            ended: None,
            size: 0,
            refused: None,
            backoff,
            filed: None,
        }
    }

    /// Somebody has a use for it.
    pub(super) fn wanted(&self) -> bool {
        self.used || self.fixed != Fixed::No || self.waiting.is_some()
    }

    /// What a binding for this slot is for.
    pub(super) fn kind(&self) -> BindingKind {
        match (self.target, self.fixed) {
            (Target::Block | Target::Stray, _) => BindingKind::Block,
            (Target::Address, _) => BindingKind::Address,
            (Target::Port(_), Fixed::No) => BindingKind::Listen,
            (Target::Port(_), Fixed::Asked | Fixed::Kept) => BindingKind::StaticListen,
        }
    }

    /// The lease, whatever state it is in.
    pub(super) const fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Resumed(lease) | State::Installing { lease, .. } | State::InUse { lease, .. } => {
                Some(lease)
            }
            State::Freeing { lease, .. } => lease.as_ref(),
            State::Asking | State::Waiting { .. } => None,
        }
    }

    /// The name under which the gateway holds a binding for this slot, as far as we know.
    pub(super) const fn bind_id(&self) -> Option<BindId> {
        match &self.state {
            State::Freeing { bind_id, .. } => Some(*bind_id),
            State::Resumed(lease)
            | State::Installing { lease, fate: Fate::Use, .. }
            | State::InUse { lease, lost: false } => Some(lease.binding.bind_id),
            State::Installing { .. } | State::InUse { .. } | State::Asking | State::Waiting { .. } => None,
        }
    }

    /// The name under which it was held, while it is asked for again.
    pub(super) const fn renewing(&self) -> Option<(ClientId, BindId)> {
        match &self.state {
            State::InUse { lease, lost: true } => Some(lease.name()),
            _ => None,
        }
    }

    /// The gateway does not hold any more what the shell has in use.
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self.state, State::InUse { lost: true, .. } | State::Installing { fate: Fate::Renew, .. })
    }

    /// Notes what is held, so that exactly this is asked for again.
    pub(super) fn remember(&mut self) {
        if let Some(lease) = self.lease() {
            self.hint = Some((lease.binding.address, lease.binding.leased.clone()));
        }
    }

    /// It was granted: what was said about earlier attempts does not count any more.
    pub(super) fn was_granted(&mut self) {
        self.hint = None;
        self.ended = None;
        self.refused = None;
    }

    /// After a refusal: asks for less, or for something like it. False: there is nothing else to ask for.
    pub(super) fn ask_wider(&mut self, error: ErrorCode) -> bool {
        let other_address = matches!(
            error,
            ErrorCode::LocalAddrUnavailable | ErrorCode::LocalAddrInuse | ErrorCode::LocalAddrUnallowed
        );
        let fewer = matches!(
            error,
            // A quota and the local micro-flow policy may be told in these words, too.
            ErrorCode::LocalAddrportUnavailable
                | ErrorCode::LocalAddrportUnallowed
                | ErrorCode::FlowPolicyViolation
        );
        let block = self.target == Target::Block;
        if self.hint.is_some() && (block || self.target == Target::Address || other_address) {
            self.hint = None;
            return true;
        }
        if block && fewer && self.size > 1 {
            self.size /= 2;
            return true;
        }
        false
    }

    /// What becomes of it meanwhile, decided before the shell has it in use. The first end counts.
    pub(super) fn set_fate(&mut self, new: Fate) {
        if let State::Installing { fate, .. } = &mut self.state
            && !matches!(fate, Fate::Withdraw(_))
        {
            *fate = new;
        }
    }

    /// Makes the binding's kind follow the administrator's wishes.
    pub(super) fn refresh_kind(&mut self) {
        let kind = self.kind();
        if let State::Resumed(lease) | State::Installing { lease, .. } | State::InUse { lease, .. } =
            &mut self.state
        {
            lease.binding.kind = kind;
        }
    }

    /// When something has to be done about it.
    pub(super) fn wake(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Asking | State::Installing { fate: Fate::Withdraw(_), .. } => None,
            State::Waiting { retry_at } => Some(*retry_at),
            State::Resumed(lease) | State::Installing { lease, .. } | State::InUse { lease, lost: true } => {
                Some(lease.expires_at)
            }
            State::InUse { lease, lost: false } => {
                Some(lease.extend_at.map_or(lease.expires_at, |at| at.min(lease.expires_at)))
            }
            State::Freeing { retry_at, .. } => *retry_at,
        };
        state.into_iter().chain(self.waiting).min()
    }
}
