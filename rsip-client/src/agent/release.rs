//! Giving back what nobody uses: both witnesses are heard, and what follows is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Agent, describe};
use crate::hooks::PortTable as _;
use crate::usage::Action;

impl Agent {
    /// Looks at the ports that are watched.
    pub(super) fn look_at_usage(&mut self, now: Instant) {
        let counted: Vec<(u16, bool)> = self
            .usage
            .ports()
            .map(|port| (port, self.effects.hooks.uses(port).is_ok_and(|uses| uses > 0)))
            .collect();
        // The kernel's tables are asked when the programs' own count does not settle it, and now and then to prove the count.
        let settled = |&(port, used): &(u16, bool)| used && self.usage.is_in_use(port);
        let all_settled = counted.iter().all(settled);
        let asked = self.usage.is_proof_due(now) || !all_settled;
        let sockets = if asked {
            match self.effects.sockets() {
                Some(sockets) => sockets,
                None => return self.usage.postpone(now),
            }
        } else {
            BTreeMap::new()
        };
        let is_last_word = asked && self.effects.lists_all();
        let mut used: BTreeSet<u16> = sockets.into_keys().collect();
        let unproved: Vec<u16> = counted
            .into_iter()
            .filter(|(port, used_too)| *used_too && !used.contains(port))
            .map(|(port, _)| port)
            .collect();
        if !is_last_word {
            used.extend(unproved);
        } else if !unproved.is_empty() {
            // The list is not of one moment: a socket that began to listen meanwhile can be missed, but not twice.
            let Some(again) = self.effects.sockets() else { return self.usage.postpone(now) };
            let wrong = unproved.iter().filter(|port| !again.contains_key(port));
            tracing::debug!(ports = ?wrong.collect::<Vec<_>>(), "counted, but no socket is there");
            used.extend(again.into_keys());
        }
        for action in self.usage.observe(now, |port| used.contains(&port)) {
            let book = &self.effects.book;
            let outcome = match action {
                Action::Close(port) => book.close(&mut self.effects.hooks, [port]),
                Action::Reopen(port) => book.open(&mut self.effects.hooks, [port]),
                Action::Release(port) => {
                    tracing::info!(port, "nobody uses it any more");
                    self.host.release_port(port, now);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                tracing::error!(error = %describe(&error), ?action, "the port table is not written");
            }
        }
    }
}
