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
        // The kernel's tables are asked only when the programs' own count does not settle it.
        let sockets = if counted.iter().any(|(_, used)| !used) {
            match self.effects.sockets() {
                Some(sockets) => sockets,
                None => return self.usage.postpone(now),
            }
        } else {
            BTreeMap::new()
        };
        let used: BTreeSet<u16> = counted
            .into_iter()
            .filter(|(port, used)| *used || sockets.contains_key(port))
            .map(|(port, _)| port)
            .collect();
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
