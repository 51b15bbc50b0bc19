//! Ephemeral ports on demand (RFC 3102 section 3.1: a host whose ports are all in use has to ask for more): looks at what is
//! in use, and does what [`Planner`] says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rsip_ebpf_common::host::Counter;
use rsip_proto::host::{BindingKind, HostView};

use super::room::Rooms;
use super::{Agent, Stage, describe};
use crate::ephemeral::planner::{Block, Look, Planner, Step};
use crate::ephemeral::tally::{Need, Tally};
use crate::hooks::PortTable as _;
use crate::{ports, status};

/// While nothing leaves through the tunnel, hardly any port comes into use: a look every so often is enough.
const CALM: Duration = Duration::from_secs(5);
/// So many ports are looked at one by one whenever somebody waits.
const FEW: usize = 1024;
/// Looking takes at most one part in so many of the agent's time.
const SHARE: u32 = 20;

/// What is known of the ports for the kernel's own choice.
#[derive(Debug)]
pub(super) struct Ephemeral {
    pub(super) planner: Planner,
    /// When it was looked last, how long that took, and what had left through the tunnel.
    last: Option<(Instant, Duration, u64)>,
    /// What was seen.
    pub(super) need: Need,
    /// Ports that connections cannot share, as seen then.
    bound: BTreeSet<u16>,
    pub(super) rooms: Rooms,
    /// The log tells once that the gateway gives no more.
    refused_told: bool,
}

impl Ephemeral {
    pub(super) fn new(planner: Planner) -> Self {
        Self {
            planner,
            last: None,
            need: Need::default(),
            bound: BTreeSet::new(),
            rooms: Rooms::default(),
            refused_told: false,
        }
    }

    /// The gateway refused more ports, and has not given any since.
    pub(super) const fn is_refused(&self) -> bool {
        self.refused_told
    }

    /// Whether to look now; `sent`: packets that have left through the tunnel so far.
    fn is_due(&self, now: Instant, sent: u64) -> bool {
        let Some((at, took, before)) = self.last else { return true };
        let passed = now.saturating_duration_since(at);
        let busy = sent != before || self.planner.reserved().next().is_some() || self.refused_told;
        passed >= took * SHARE && (busy || passed >= CALM)
    }
}

impl Agent {
    /// Looks at everything that is in use, if it is time to.
    pub(super) async fn look_at_ephemeral(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Running) || !self.settings.hooks || self.effects.choice().is_empty() {
            return;
        }
        let sent = self.effects.hooks.counter(Counter::TunnelOut).unwrap_or_default();
        if !self.ephemeral.is_due(now, sent) {
            return;
        }
        let Some(tally) = self.take_tally() else { return };
        self.ephemeral.last = Some((now, now.elapsed(), sent));
        let look = self.look(&tally, now);
        let steps = self.ephemeral.planner.look(now, &look);
        self.carry_out_steps(steps, &look, now).await;
        if !Planner::is_scarce(self.effects.choice().len(), look.need)
            && let Err(error) = self.effects.set_exhausted(false)
        {
            tracing::error!(error = %describe(&error), "the programs are not told");
        }
        // A block that was taken back, for one.
        if let Err(error) = self.effects.sync().await {
            tracing::error!(error = %describe(&error), "the kernel's choice of ports cannot be set");
        }
    }

    fn take_tally(&self) -> Option<Tally> {
        match Tally::take() {
            Ok(tally) => Some(tally),
            Err(error) => {
                tracing::warn!(%error, "cannot list sockets");
                None
            }
        }
    }

    /// What the planner has to know.
    fn look(&mut self, tally: &Tally, now: Instant) -> Look {
        let open = self.effects.choice();
        let listening = tally.listening().filter(|port| open.contains(port));
        let bound: BTreeSet<u16> = self.bound_ports(&open).into_iter().chain(listening).collect();
        self.ephemeral.need = tally.need(|port| open.contains(&port), |port| bound.contains(&port));
        self.ephemeral.bound = bound;
        self.ephemeral.rooms.forget();
        let blocks = self.effects.book.bindings().filter(|binding| binding.kind == BindingKind::Block);
        let blocks = blocks.map(|binding| Block {
            name: (binding.client_id, binding.bind_id),
            size: binding.leased.iter().count(),
            used: binding.leased.iter().filter(|port| tally.is_used(*port)).count(),
        });
        Look {
            blocks: blocks.collect(),
            need: self.ephemeral.need.ports(),
            pending: self.block_is_pending(now),
        }
    }

    /// The same where only the need is known.
    pub(super) fn bare_look(&mut self, need: usize, now: Instant) -> Look {
        let blocks = self.effects.book.bindings().filter(|binding| binding.kind == BindingKind::Block);
        let blocks = blocks.map(|binding| Block {
            name: (binding.client_id, binding.bind_id),
            size: binding.leased.iter().count(),
            used: 0,
        });
        Look { blocks: blocks.collect(), need, pending: self.block_is_pending(now) }
    }

    /// Ports of these that connections cannot share: as of the last look where they are many.
    pub(super) fn bound_now(&self, among: &BTreeSet<u16>) -> BTreeSet<u16> {
        let before = self.ephemeral.bound.intersection(among).copied();
        if among.len() <= FEW { before.chain(self.bound_ports(among)).collect() } else { before.collect() }
    }

    /// Ports that connections cannot share, since a program bound them.
    fn bound_ports(&self, among: &BTreeSet<u16>) -> BTreeSet<u16> {
        let is_bound = |port: &u16| self.effects.hooks.uses(*port).is_ok_and(|uses| uses > 0);
        among.iter().copied().filter(is_bound).collect()
    }

    /// Whether a block is asked for. The log hears once that the gateway gives none.
    pub(super) fn block_is_pending(&mut self, now: Instant) -> bool {
        let view = self.host.view(now);
        let mut blocks = view.pending.iter().filter(|pending| pending.kind == BindingKind::Block).peekable();
        let pending = blocks.peek().is_some();
        let refused = blocks.find_map(|pending| pending.refused.filter(|_| pending.retry_in.is_some()));
        match refused {
            Some(error) if !self.ephemeral.refused_told => {
                let leased = self.effects.book.block_ports().len();
                tracing::warn!(%error, leased, "the gateway gives no more ephemeral ports: asking again from time to time");
                self.ephemeral.refused_told = true;
            }
            None if !pending => self.ephemeral.refused_told = false,
            _ => {}
        }
        pending
    }

    pub(super) async fn carry_out_steps(&mut self, steps: Vec<Step>, look: &Look, now: Instant) {
        let leased = look.blocks.iter().map(|block| block.size).sum::<usize>();
        for step in steps {
            let outcome = match step {
                Step::Lease => {
                    tracing::info!(leased, need = look.need, "ephemeral ports run short: asking for more");
                    self.host.want_block(now);
                    Ok(())
                }
                Step::Forgo => {
                    self.host.forgo_block(now);
                    Ok(())
                }
                Step::Reserve(name) => {
                    tracing::info!(bind_id = %name.1, leased, need = look.need, "no new use: less would do");
                    self.effects.reserve(name).await
                }
                Step::Open(name) => {
                    tracing::info!(bind_id = %name.1, leased, need = look.need, "in use again");
                    self.effects.reopen(name).await
                }
                Step::Close(name) => self.effects.close_block(name),
                Step::Keep(name) => self.effects.open_block(name),
                Step::Return(name) => {
                    tracing::info!(bind_id = %name.1, leased, need = look.need, "nobody uses it any more: giving it back");
                    self.host.release_block(name.1, now);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                tracing::error!(error = %describe(&error), ?step, "cannot be done");
            }
        }
    }

    /// A program wants a port by number that is in a block on its way back: the block stays.
    pub(super) fn take_back(&mut self, port: u16) -> bool {
        let Some(name) = self.effects.book.holder(port).map(|it| (it.client_id, it.bind_id)) else {
            return false;
        };
        if !self.ephemeral.planner.reopen(name) {
            return false;
        }
        tracing::info!(bind_id = %name.1, port, "in use again");
        // The kernel's own choice follows with the next look.
        self.effects.reserved.remove(&name);
        if let Err(error) = self.effects.open_block(name) {
            tracing::error!(error = %describe(&error), "the port table is not written");
        }
        true
    }

    /// For the status.
    pub(super) fn ephemeral_status(&self, view: &HostView) -> status::Ephemeral {
        let now = ports::current().ok();
        let blocks = || view.bindings.iter().filter(|view| view.binding.kind == BindingKind::Block);
        let refused = view.pending.iter().filter(|pending| pending.kind == BindingKind::Block);
        let refused = refused.filter_map(|pending| pending.refused).next_back();
        let planner = &self.ephemeral.planner;
        let range = now.as_ref().map(|now| now.range.split_whitespace().collect::<Vec<_>>().join("-"));
        status::Ephemeral {
            range: range.unwrap_or_default(),
            reserved: now.as_ref().map(|now| now.reserved.clone()).unwrap_or_default(),
            choice: now.map(|now| ports::format_list(&ports::choice(&now))).unwrap_or_default(),
            confined: self.effects.state.sysctls.is_some(),
            blocks: blocks().count(),
            returning: blocks()
                .filter(|view| planner.is_reserved((view.binding.client_id, view.binding.bind_id)))
                .count(),
            leased: blocks().map(|view| view.binding.leased.iter().count()).sum(),
            used: self.ephemeral.need.used,
            need: self.ephemeral.need.ports(),
            level: planner.level().name().to_owned(),
            most: planner.most(),
            refused: refused.map(|error| error.to_string()),
        }
    }
}
