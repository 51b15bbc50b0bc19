//! What outlives a crash of the agent.

use std::time::{Duration, Instant};

use crate::host::binding::{Fate, Fixed, Lease, Slot, State, Target};
use crate::host::blocks::ephemeral_ports;
use crate::host::registration::{Held, Registration};
use crate::host::requests::creates_binding;
use crate::host::retransmit::after;
use crate::host::{BindingKind, Host, HostBinding, HostConfig, Method, terms};
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
        let fits = flow_policy.is_some_and(|policy| terms::against_policy(&host.config, policy).is_none());
        let held = client_id.zip(longest).filter(|_| !in_doubt && fits);
        if let Some((client_id, lease_time)) = held {
            host.registration = Registration::Held(Held {
                client_id,
                lease_time,
                expires_at: after(now, lease_time),
                flow_policy,
                methods: Vec::new(),
                tunnel_types: Vec::new(),
                since: now,
                confirmed: false,
                announced: false,
            });
        } else {
            host.registration = Registration::None { stale: client_id, at: now };
        }
        for binding in bindings {
            host.take_over(binding, held.is_some(), now);
        }
        let blocks = host.table.iter().filter(|(_, slot)| slot.target == Target::Block && slot.used);
        let resumed: usize = blocks.map(|(_, slot)| resumed_ports(slot)).sum();
        if resumed > 0 {
            host.ephemeral = resumed.max(host.config.block_size.into());
        }
        host
    }

    /// What the shell should keep for [`Host::resume`].
    #[must_use]
    pub fn saved(&self) -> SavedState {
        let asking =
            self.outstanding.as_ref().is_some_and(|outstanding| creates_binding(&outstanding.message.body));
        // Their names mean nothing under the new registration, or something else.
        let renewing = self.table.iter().any(|(_, slot)| slot.is_lost() || slot.ended.is_some());
        let client_id = self.client_id();
        let bindings = self
            .table
            .iter()
            .filter_map(|(_, slot)| {
                let held = slot.lease().map(|lease| (lease.binding.clone(), lease.time));
                let (binding, lease_time) = held.or_else(|| slot.ended.clone())?;
                let ended = matches!(slot.state, State::Installing { fate: Fate::Withdraw(_), .. });
                let releasing = matches!(slot.state, State::Freeing { .. }) || !slot.wanted();
                (!ended).then_some(SavedBinding { binding, lease_time, releasing })
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
            // One at most: more than one is never leased.
            BindingKind::Address if self.table.iter().any(|(_, slot)| slot.target == Target::Address) => {
                return;
            }
            BindingKind::Address => Target::Address,
            BindingKind::Block => Target::Block,
            BindingKind::Listen | BindingKind::StaticListen => match binding.leased.iter().next() {
                Some(port) if self.table.by_port(port).is_none() => Target::Port(port),
                _ => return,
            },
        };
        let of_use = self.is_of_use(&binding);
        if held && !of_use {
            let lease = Lease::new(binding.clone(), lease_time, now);
            let stray = Slot::new(Target::Stray, State::Resumed(lease), self.new_backoff());
            let id = self.table.insert(stray);
            self.enqueue(id, now);
        }
        let method_changed = (target == Target::Address) != (self.config.method == Method::RsaIp);
        if method_changed || (releasing && !(held && of_use)) {
            return;
        }
        let mut slot = Slot::new(target, State::Asking, self.new_backoff());
        slot.size = self.request_size();
        match binding.kind {
            BindingKind::StaticListen if !releasing => slot.fixed = Fixed::Kept,
            _ => slot.used = !releasing && binding.kind != BindingKind::StaticListen,
        }
        slot.state = State::Resumed(Lease::new(binding, lease_time, now));
        if !(held && of_use) {
            // The old name is not trusted, or is for another peer: the same is asked for under a new one.
            slot.remember();
            slot.state = State::Asking;
        }
        let id = self.table.insert(slot);
        self.enqueue(id, now);
    }

    /// Whether this is what this run would lease: the agent may have been started with another method or peer.
    fn is_of_use(&self, binding: &HostBinding) -> bool {
        let remote = self.flow_policy().map(|policy| terms::remote(&self.config, policy));
        (binding.kind == BindingKind::Address) == (self.config.method == Method::RsaIp)
            && remote.is_none_or(|remote| remote == binding.remote)
    }
}

fn resumed_ports(slot: &Slot) -> usize {
    slot.hint.as_ref().map_or_else(|| ephemeral_ports(slot), |(_, leased)| leased.iter().count())
}
