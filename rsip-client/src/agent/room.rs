//! Programs that find the leased ports taken, or nearly: the kernel is asked what is really taken, and more is leased.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use rsip_ebpf_common::host::{Event, ROOM_TCP, ROOM_UDP};

use super::{Agent, Stage, describe};
use crate::clock;
use crate::ephemeral::planner::{Planner, Step};
use crate::ephemeral::tally::{self, Destination, Tally};
use crate::hooks::HooksError;

/// Destinations of one counter that are remembered.
const ALIKE: usize = 8;

/// Who asked.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// By counter; to be looked at.
    asked: BTreeSet<u32>,
    /// By counter: when it was looked at last.
    seen: BTreeMap<u32, Instant>,
    /// Destinations that fall on one counter.
    destinations: BTreeMap<u32, Vec<Destination>>,
}

/// While a block is on its way, a counter is looked at again after this.
const AGAIN: Duration = Duration::from_millis(100);
/// Counters that are remembered: a look at everything comes every other second, and forgets them.
const REMEMBERED: usize = 4096;

impl Rooms {
    /// Everything was looked at: who asks again is noted again.
    pub(super) fn forget(&mut self) {
        if self.destinations.len() > REMEMBERED {
            self.destinations.clear();
            self.seen.clear();
        }
    }
}

impl Agent {
    /// Somebody's ports run short.
    pub(super) fn room_is_wanted(&mut self, event: &Event) {
        let rooms = &mut self.ephemeral.rooms;
        rooms.asked.insert(event.slot);
        if event.slot == ROOM_TCP || event.slot == ROOM_UDP {
            return;
        }
        let mut octets = [0; 16];
        let (first, second) = octets.split_at_mut(8);
        first.copy_from_slice(&event.cookie.to_ne_bytes());
        second.copy_from_slice(&event.cgroup_id.to_ne_bytes());
        let port = u16::try_from(event.port).unwrap_or_default();
        let destination = Destination { address: Ipv6Addr::from(octets), port };
        let alike = rooms.destinations.entry(event.slot).or_default();
        if !alike.contains(&destination) {
            alike.truncate(ALIKE - 1);
            alike.insert(0, destination);
        }
    }

    /// Looks at what is taken for those who asked, corrects the programs' counts, and leases more.
    pub(super) async fn make_room(&mut self, now: Instant) {
        let asked = std::mem::take(&mut self.ephemeral.rooms.asked);
        if asked.is_empty() || !matches!(self.stage, Stage::Running) {
            return;
        }
        let open = self.effects.choice();
        let mut need = 0;
        let waits = self.block_is_pending(now) && !self.ephemeral.is_refused();
        for slot in asked {
            // More is on its way, and that is known to be needed.
            let rooms = &mut self.ephemeral.rooms;
            let seen = rooms.seen.insert(slot, now);
            if waits && seen.is_some_and(|at| now < at + AGAIN) {
                rooms.seen.extend(seen.map(|at| (slot, at)));
                continue;
            }
            match self.tally_room(slot, &open) {
                Ok(taken) => need = need.max(taken),
                Err(error) => tracing::warn!(%error, slot, "cannot tell how many ports are taken"),
            }
        }
        if !Planner::is_scarce(open.len(), need) {
            return;
        }
        let look = self.bare_look(need, now);
        let steps = self.ephemeral.planner.press(&look);
        let helps = steps.iter().any(|step| matches!(step, Step::Lease | Step::Open(_)));
        self.carry_out_steps(steps, &look, now).await;
        let refused = self.ephemeral.is_refused();
        // As many as are allowed, or as there are: then it is no use to wait.
        let exhausted = !helps && (refused || !look.pending);
        if let Err(error) = self.effects.set_exhausted(exhausted) {
            tracing::error!(error = %describe(&error), "waiting programs are not told");
        }
    }

    fn tally_room(&mut self, slot: u32, open: &BTreeSet<u16>) -> Result<usize, RoomError> {
        let at = u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX);
        // What begins from here on counts twice, perhaps, and never not at all.
        let begun = self.effects.hooks.room_begun(slot)?;
        let taken = match slot {
            ROOM_UDP => Tally::udp()?.count(|port| open.contains(&port)),
            ROOM_TCP => Tally::tcp()?.count(|port| open.contains(&port)),
            _ => {
                let bound = self.bound_now(open);
                let mut most = 0;
                for destination in self.ephemeral.rooms.destinations.get(&slot).into_iter().flatten() {
                    let ports = tally::connections(*destination)?;
                    let shared = ports.iter().filter(|port| open.contains(port) && !bound.contains(port));
                    most = most.max(bound.len() + shared.count());
                }
                most
            }
        };
        let over = begun.wrapping_sub(u32::try_from(taken).unwrap_or(u32::MAX));
        self.effects.hooks.set_room_over(slot, over, at)?;
        Ok(taken)
    }
}

#[derive(Debug, thiserror::Error)]
enum RoomError {
    #[error(transparent)]
    Kernel(#[from] io::Error),
    #[error(transparent)]
    Hooks(#[from] HooksError),
}
