//! Who uses what is leased: the kernel's list of sockets, and the programs' own count where that has holes.

use std::collections::BTreeMap;

use super::Effects;
use crate::hooks::PortTable as _;
use crate::usage::diag::Snapshot;

impl Effects {
    /// Sockets per port, as the kernel's tables say; none while there is no leased address. `None`: the kernel does not
    /// tell.
    pub fn sockets(&self) -> Option<BTreeMap<u16, usize>> {
        let Some(public) = self.book.public() else { return Some(BTreeMap::new()) };
        let list = self.socket_list()?;
        let mut uses = list.uses(public);
        for socket in list.others(public) {
            // Bound to all addresses, and connected to a private peer: it is free for the public side when that ends.
            let seen = uses.get(&socket.port).copied().unwrap_or_default();
            if self.book.holder(socket.port).is_some()
                && self.counted(socket.port) > seen
                && self.hooks.counts(socket.cookie)
            {
                uses.insert(socket.port, seen + 1);
            }
        }
        Some(uses)
    }

    /// How many sockets use a port; `sockets` is the kernel's word ([`Effects::sockets`]). Where the kernel does not list every
    /// one, the programs' own count stands in: a socket that both know is in both.
    pub fn uses(&self, port: u16, sockets: &BTreeMap<u16, usize>) -> usize {
        let seen = sockets.get(&port).copied().unwrap_or_default();
        if self.lists_idle {
            return seen;
        }
        seen.max(self.counted(port))
    }

    fn counted(&self, port: u16) -> usize {
        let counted = self.hooks.uses(port).unwrap_or_default();
        usize::try_from(counted).unwrap_or(usize::MAX)
    }

    /// Whether the kernel lists every socket that has a port.
    pub const fn lists_all(&self) -> bool {
        self.lists_idle
    }

    /// Sockets that may use what is leased, as the kernel's tables say. `None`: the kernel does not tell.
    pub fn socket_list(&self) -> Option<Snapshot> {
        match Snapshot::take() {
            Ok(snapshot) => Some(snapshot.through(self.tunnel.as_ref().map(|tunnel| tunnel.link().index))),
            Err(error) => {
                tracing::warn!(%error, "cannot list sockets");
                None
            }
        }
    }
}
