//! What outlives a crash of the agent.

use std::time::{Duration, Instant};

use crate::host::binding::{Fate, Fixed, Lease, Slot, State, Target};
use crate::host::registration::{Held, Registration};
use crate::host::requests::creates_binding;
use crate::host::retransmit::{Backoff, after};
use crate::host::{BindingKind, Host, HostBinding, HostConfig};
use crate::ids::ClientId;
use crate::wire::FlowPolicy;

/// One binding, as saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBinding {
    /// What was granted.
    pub binding: HostBinding,
    /// The lease as granted or extended last: no binding lives longer than this after a restart without the gateway's
    /// word.
    pub lease_time: Duration,
    /// It was being given back: nobody uses it.
    pub releasing: bool,
}

/// What the shell keeps in a file, so that a restarted agent goes on where the last one ended. Plain values; writing
/// and reading is the shell's work. Save it whenever it differs from what was saved last, before carrying out the
/// commands that came with the change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// The host's name at the gateway; `None`: not registered.
    pub client_id: Option<ClientId>,
    /// What the gateway demands of requests; `None`: not known, and then a resumed host registers anew.
    pub flow_policy: Option<FlowPolicy>,
    /// A request that may create a binding has no answer yet: after a crash the gateway may hold a binding whose name
    /// was never heard, and only registering anew gives it back.
    pub in_doubt: bool,
    /// Bindings held.
    pub bindings: Vec<SavedBinding>,
}

impl Host {
    /// A host that goes on where an earlier run of the agent ended. Nothing happens before [`Host::start`]. Bindings
    /// that the gateway confirms (or grants again) are given by `Publish`, as if they were new, and without a `Verdict`;
    /// `Registered` is told once the gateway has confirmed anything.
    #[must_use]
    pub fn resume(config: HostConfig, saved: SavedState, now: Instant) -> Self {
        let mut host = Self::new(config, now);
        let SavedState { client_id, flow_policy, in_doubt, bindings } = saved;
        let longest = bindings.iter().map(|saved| saved.lease_time).max();
        // Without a binding there is no lease to go by, and nothing to lose by registering anew.
        let held = client_id.zip(longest).filter(|_| !in_doubt && flow_policy.is_some());
        if let Some((client_id, lease_time)) = held {
            host.registration = Registration::Held(Held {
                client_id,
                lease_time,
                expires_at: after(now, lease_time),
                flow_policy,
                methods: Vec::new(),
                tunnel_types: Vec::new(),
                confirmed: false,
                announced: false,
            });
        } else {
            host.registration = Registration::None { stale: client_id, at: now };
        }
        for binding in bindings {
            host.take_over(binding, held.is_some(), now);
        }
        host
    }

    /// What the shell should keep for [`Host::resume`].
    #[must_use]
    pub fn saved(&self) -> SavedState {
        let asking =
            self.outstanding.as_ref().is_some_and(|outstanding| creates_binding(&outstanding.message.body));
        // Their names mean nothing under the new registration, or something else.
        let renewing = self.table.iter().any(|(_, slot)| slot.is_lost());
        let client_id = self.client_id();
        let bindings = self
            .table
            .iter()
            .filter_map(|(_, slot)| {
                let lease = slot.lease()?;
                let ended = matches!(slot.state, State::Installing { fate: Fate::Withdraw(_), .. });
                let releasing = matches!(slot.state, State::Freeing { .. }) || !slot.wanted();
                (!ended).then(|| SavedBinding {
                    binding: lease.binding.clone(),
                    lease_time: lease.time,
                    releasing,
                })
            })
            .collect();
        SavedState {
            client_id,
            flow_policy: self.flow_policy(),
            in_doubt: client_id.is_some() && (asking || renewing || self.doubt),
            bindings,
        }
    }

    fn take_over(&mut self, saved: SavedBinding, held: bool, now: Instant) {
        let SavedBinding { binding, lease_time, releasing } = saved;
        let target = match binding.kind {
            BindingKind::Address | BindingKind::Block => Target::Block,
            BindingKind::Listen | BindingKind::StaticListen => match binding.leased.iter().next() {
                Some(port) if self.table.by_port(port).is_none() => Target::Port(port),
                _ => return,
            },
        };
        let mut slot = Slot::new(target, State::Asking, Backoff::new(&self.config));
        slot.used = binding.kind != BindingKind::StaticListen && !releasing;
        slot.size = self.config.block_size;
        if binding.kind == BindingKind::StaticListen && !releasing {
            slot.fixed = Fixed::Kept;
        }
        slot.state = State::Resumed(Lease::new(binding, lease_time, now));
        if !held {
            // The old name is not trusted: the same ports are asked for under a new one.
            if releasing {
                return;
            }
            slot.remember();
            slot.state = State::Asking;
        }
        let id = self.table.insert(slot);
        self.enqueue(id, now);
    }
}
