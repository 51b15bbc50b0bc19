//! Who asked for which port, and giving leases back when somebody says so.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rsip_ebpf_common::host::Event;
use rsip_proto::host::{BindingKind, BindingView};

use super::{Agent, command};
use crate::control::{Asked, FreeAnswer, FreeOutcome, FreeTarget};

/// The program that asked for a port by number, by port: those of ports that are leased, and a few more.
#[derive(Debug, Default)]
pub(super) struct Holders {
    asked: BTreeMap<u16, Asked>,
}

impl Holders {
    /// A program binds a port that is not leased yet. Whoever asks while the answer is open shares it: the first one counts.
    pub(super) fn asked(&mut self, port: u16, event: &Event) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let asked = Asked { port, pid: event.tgid, program: command(event), uid: event.uid, since };
        self.asked.insert(port, asked);
    }

    /// Forgets the askers of all other ports.
    fn keep(&mut self, is_wanted: impl Fn(u16) -> bool) {
        self.asked.retain(|port, _| is_wanted(*port));
    }

    /// The askers of ports that are held.
    fn of(&self, holds: impl Fn(u16) -> bool) -> Vec<Asked> {
        self.asked.values().filter(|asked| holds(asked.port)).cloned().collect()
    }
}

impl Agent {
    /// Who asked for the ports that are leased now.
    pub(super) fn holders(&self) -> Vec<Asked> {
        let book = &self.effects.book;
        self.holders.of(|port| book.holder(port).is_some())
    }

    /// Forgets who asked for what is neither leased nor waited for any more.
    pub(super) fn forget_askers(&mut self) {
        let (book, wants) = (&self.effects.book, &self.wants);
        self.holders.keep(|port| book.holder(port).is_some() || wants.waits_for(port));
    }

    /// Gives leases back at once; without `force` only those that no socket uses.
    pub(super) fn free(&mut self, targets: Vec<FreeTarget>, force: bool, now: Instant) -> Vec<FreeAnswer> {
        targets
            .into_iter()
            .map(|target| FreeAnswer { target, outcome: self.free_one(target, force, now) })
            .collect()
    }

    fn free_one(&mut self, target: FreeTarget, force: bool, now: Instant) -> FreeOutcome {
        let bindings = self.host.view(now).bindings;
        let is_meant = |view: &&BindingView| match target {
            FreeTarget::Bind(id) => view.binding.bind_id.0 == id,
            FreeTarget::Port(port) => view.binding.leased.iter().any(|leased| leased == port),
        };
        let Some(view) = bindings.iter().find(is_meant) else { return FreeOutcome::NotLeased };
        let bind_id = view.binding.bind_id;
        match (view.binding.kind, target) {
            (BindingKind::Address, _) => return FreeOutcome::Whole,
            (BindingKind::Block, FreeTarget::Port(_)) => return FreeOutcome::OfBlock(bind_id.0),
            _ => {}
        }
        let sockets = self.sockets_of(view);
        if sockets > 0 && !force {
            return FreeOutcome::InUse(sockets);
        }
        tracing::info!(%bind_id, leased = %view.binding.leased, sockets, "given back, as asked for");
        if view.binding.kind == BindingKind::Block {
            self.host.release_block(bind_id, now);
        } else {
            for port in view.binding.leased.iter() {
                self.usage.forget(port);
                if self.listeners.drop_port(port) {
                    self.host.unlisten(port, now);
                }
                self.host.release_port(port, now);
            }
        }
        FreeOutcome::Freed(bind_id.0)
    }

    fn sockets_of(&self, view: &BindingView) -> usize {
        let report = self.report(Instant::now());
        let id = view.binding.bind_id.0;
        report.leases.iter().find(|lease| lease.bind_id == id).map_or(0, |lease| lease.sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_askers_of_what_is_held_only() {
        let mut holders = Holders::default();
        let mut event = Event { tgid: 7, uid: 33, ..Event::default() };
        event.command[..7].copy_from_slice(b"apache2");
        holders.asked(80, &event);
        holders.asked(81, &event);
        holders.asked(82, &event);
        let held = holders.of(|port| port == 80);
        assert_eq!(held.len(), 1);
        assert_eq!((held[0].port, held[0].pid, held[0].program.as_str()), (80, 7, "apache2"));
        assert_eq!(holders.of(|port| port == 81).len(), 1, "it may be granted still");
        holders.keep(|port| port != 81);
        assert!(holders.of(|port| port == 81).is_empty(), "forgotten");
        assert_eq!(holders.asked.len(), 2);
    }
}
