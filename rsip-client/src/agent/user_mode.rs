//! Ports that are leased before any program asks for one: all that the user-mode client (`--no-hooks`) has.

use std::time::Instant;

use rsip_proto::host::BindingKind;

use super::{Agent, Stage};

impl Agent {
    /// Asks for the next block while fewer ports are leased than were wanted for the start (`--ports`): one request brings 255
    /// at most.
    pub(super) fn want_first_blocks(&mut self, now: Instant) {
        if let Stage::Stopping { .. } = self.stage {
            return;
        }
        let wanted = usize::from(self.settings.block) * usize::from(self.settings.first_blocks);
        let view = self.host.view(now);
        let blocks = view.bindings.iter().filter(|view| view.binding.kind == BindingKind::Block);
        let leased: usize = blocks.map(|view| view.binding.leased.iter().count()).sum();
        if leased > 0 && leased < wanted {
            self.host.want_block(now);
        }
    }
}
