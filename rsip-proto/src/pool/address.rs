//! One public address: who holds which of its ports, which are free, and which rest; or who holds it whole.
//!
//! ```text
//!            claim                    release                 rest is over
//!   free ------------> held by one ------------> resting -------------------> free
//!                          ^                        |
//!                          +------------------------+
//!                   claim by number, or nothing else is left
//! ```
//!
//! That is the way of each port, and of the address as a whole. The two do not mix: the address is not claimed whole while
//! a port of it is held, and no port while it is held whole.
//!
//! A port outside the ranges, or reserved, is in none of these states: it is missing from `leasable`, and nothing here
//! ever takes a port that is not in there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::PoolFault;
use super::ports::PortSet;
use super::{Holder, PoolUsage, WholeUse};

/// Which ports of an address may be leased: the same for every address that is shared, none for the others.
pub(super) struct Ranges {
    /// Every port that may be leased at all.
    pub(super) leasable: PortSet,
    /// Those of them that the gateway itself chooses from.
    pub(super) choosable: PortSet,
}

impl Ranges {
    /// Of an address that is not shared.
    pub(super) fn none() -> Self {
        Self { leasable: PortSet::new(), choosable: PortSet::new() }
    }
}

/// An address as a whole.
enum Whole {
    /// Never leased so.
    Never,
    /// Not leased so now; it may rest.
    Open { rests_until: Option<Instant> },
    /// Leased so.
    Held(Holder),
}

/// One public address.
pub(super) struct AddressPool {
    address: Ipv4Addr,
    ranges: Arc<Ranges>,
    whole: Whole,
    /// By port: the holder's number, 0 for nobody. Made when the first port is taken, so that an address nobody uses
    /// costs little.
    holders: Vec<u64>,
    held: u32,
    /// Choosable ports that are neither held nor resting.
    free: PortSet,
    /// Resting ports in the order in which they were given back, and where each stands in that order.
    resting: BTreeMap<u64, (Instant, u16)>,
    place_in_rest: BTreeMap<u16, u64>,
    next_place: u64,
}

impl AddressPool {
    pub(super) fn new(address: Ipv4Addr, ranges: Arc<Ranges>, whole: bool) -> Self {
        let free = ranges.choosable.clone();
        Self {
            address,
            ranges,
            whole: if whole { Whole::Open { rests_until: None } } else { Whole::Never },
            holders: Vec::new(),
            held: 0,
            free,
            resting: BTreeMap::new(),
            place_in_rest: BTreeMap::new(),
            next_place: 0,
        }
    }

    pub(super) const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Whether ports of it may be leased.
    pub(super) fn is_shared(&self) -> bool {
        self.ranges.leasable.len() > 0
    }

    /// Whether it may be leased whole.
    pub(super) const fn is_whole(&self) -> bool {
        !matches!(self.whole, Whole::Never)
    }

    pub(super) const fn is_held_whole(&self) -> bool {
        matches!(self.whole, Whole::Held(_))
    }

    pub(super) fn leasable(&self, port: u16) -> bool {
        self.ranges.leasable.contains(port)
    }

    /// Who holds this port: by itself, or with the whole address.
    pub(super) fn holder(&self, port: u16) -> Option<Holder> {
        match self.whole {
            Whole::Held(holder) => Some(holder),
            Whole::Never | Whole::Open { .. } => self.port_holder(port),
        }
    }

    fn port_holder(&self, port: u16) -> Option<Holder> {
        self.holders.get(usize::from(port)).copied().and_then(NonZeroU64::new).map(Holder)
    }

    /// Whether any port can still be given.
    pub(super) fn has_room(&self) -> bool {
        !self.is_held_whole() && self.held < self.ranges.leasable.len()
    }

    /// Whether it can be given whole.
    pub(super) const fn can_be_whole(&self) -> bool {
        matches!(self.whole, Whole::Open { .. }) && self.held == 0
    }

    /// When nothing of it rests any more; `None` if nothing does.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        // What was given back last rests longest.
        let ports = self.resting.values().next_back().map(|(until, _)| *until);
        self.whole_rests_until().max(ports)
    }

    const fn whole_rests_until(&self) -> Option<Instant> {
        match self.whole {
            Whole::Open { rests_until } => rests_until,
            Whole::Never | Whole::Held(_) => None,
        }
    }

    /// Whether the gateway may choose ports here by itself: what was leased whole rests whole.
    fn is_rested(&self) -> bool {
        self.whole_rests_until().is_none()
    }

    /// The lowest `count` free ports that follow one another.
    pub(super) fn contiguous(&self, count: u16) -> Option<Vec<u16>> {
        let first = self.is_rested().then(|| self.free.run(count))??;
        Some((first..=u16::MAX).take(usize::from(count)).collect())
    }

    /// The lowest `count` free ports, wherever they are.
    pub(super) fn scattered(&self, count: u16) -> Option<Vec<u16>> {
        let enough = self.is_rested() && self.free.len() >= u32::from(count);
        enough.then(|| self.free.iter().take(usize::from(count)).collect())
    }

    /// All free ports, and of the resting ones those that have rested longest (RFC 3102 section 6.1 allows this where
    /// ports are scarce).
    pub(super) fn scarce(&self, count: u16) -> Option<Vec<u16>> {
        self.is_rested().then(|| self.last_resort(count))?
    }

    /// As [`AddressPool::scarce`], also where the whole address rests.
    pub(super) fn last_resort(&self, count: u16) -> Option<Vec<u16>> {
        let choosable = |port: &u16| self.ranges.choosable.contains(*port);
        let rested = self.resting.values().map(|(_, port)| *port).filter(choosable);
        let mut ports: Vec<u16> = self.free.iter().chain(rested).take(usize::from(count)).collect();
        ports.sort_unstable();
        (ports.len() == usize::from(count)).then_some(ports)
    }

    /// Gives all of these ports to `holder`, or none of them.
    pub(super) fn claim(&mut self, ports: &[u16], wanted: Holder) -> Result<(), PoolFault> {
        if let Whole::Held(holder) = self.whole {
            return Err(PoolFault::HeldWhole { address: self.address, holder, wanted });
        }
        for &port in ports {
            if !self.leasable(port) {
                return Err(PoolFault::NotLeasable { address: self.address, port });
            }
            if let Some(holder) = self.port_holder(port) {
                return Err(PoolFault::TwoHolders { address: self.address, port, holder, wanted });
            }
        }
        if self.holders.is_empty() {
            self.holders = vec![0; 1 << 16];
        }
        for &port in ports {
            self.holders[usize::from(port)] = wanted.0.get();
            self.held += 1;
            self.free.remove(port);
            self.wake(port);
        }
        Ok(())
    }

    /// Gives the whole address to `holder`.
    pub(super) const fn claim_whole(&mut self, wanted: Holder) -> Result<(), PoolFault> {
        let address = self.address;
        match self.whole {
            Whole::Never => Err(PoolFault::NeverWhole(address)),
            Whole::Held(holder) => Err(PoolFault::HeldWhole { address, holder, wanted }),
            Whole::Open { .. } if self.held > 0 => {
                Err(PoolFault::PortsHeld { address, held: self.held, wanted })
            }
            Whole::Open { .. } => {
                self.whole = Whole::Held(wanted);
                Ok(())
            }
        }
    }

    /// Takes all of these ports from `by`, or none of them; they rest until `until`.
    pub(super) fn release(
        &mut self,
        ports: &[u16],
        by: Holder,
        until: Option<Instant>,
    ) -> Result<(), PoolFault> {
        for &port in ports {
            let holder = self.port_holder(port);
            if holder != Some(by) {
                return Err(PoolFault::NotTheHolder { address: self.address, port, holder, by });
            }
        }
        for &port in ports {
            self.holders[usize::from(port)] = 0;
            self.held -= 1;
            match until {
                Some(until) => {
                    self.resting.insert(self.next_place, (until, port));
                    self.place_in_rest.insert(port, self.next_place);
                    self.next_place += 1;
                }
                None => self.set_free(port),
            }
        }
        Ok(())
    }

    /// Takes the whole address from `by`; it rests until `until`.
    pub(super) fn release_whole(&mut self, by: Holder, until: Option<Instant>) -> Result<(), PoolFault> {
        match self.whole {
            Whole::Held(holder) if holder == by => {
                self.whole = Whole::Open { rests_until: until };
                Ok(())
            }
            Whole::Held(holder) => {
                Err(PoolFault::NotTheWholeHolder { address: self.address, holder: Some(holder), by })
            }
            Whole::Never | Whole::Open { .. } => {
                Err(PoolFault::NotTheWholeHolder { address: self.address, holder: None, by })
            }
        }
    }

    /// Frees what has rested.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(first) = self.resting.first_entry().filter(|first| first.get().0 <= now) {
            let (_, port) = first.remove();
            self.place_in_rest.remove(&port);
            self.set_free(port);
        }
        if let Whole::Open { rests_until } = &mut self.whole {
            rests_until.take_if(|until| *until <= now);
        }
    }

    /// Ends a port's rest, if it rests.
    fn wake(&mut self, port: u16) {
        if let Some(place) = self.place_in_rest.remove(&port) {
            self.resting.remove(&place);
        }
    }

    fn set_free(&mut self, port: u16) {
        if self.ranges.choosable.contains(port) {
            self.free.insert(port);
        }
    }

    pub(super) fn usage(&self, now: Instant) -> PoolUsage {
        let leasable = self.ranges.leasable.len();
        let rests_whole = self.whole_rests_until().is_some_and(|until| until > now);
        let resting = self.resting.values().filter(|(until, _)| *until > now).count();
        let whole = match self.whole {
            Whole::Never => WholeUse::Never,
            Whole::Held(_) => WholeUse::Leased,
            Whole::Open { .. } if self.held > 0 => WholeUse::Shared,
            Whole::Open { .. } if rests_whole || resting > 0 => WholeUse::Resting,
            Whole::Open { .. } => WholeUse::Free,
        };
        let leased = if whole == WholeUse::Leased { leasable } else { self.held };
        let left = leasable.saturating_sub(leased);
        let resting = if rests_whole { left } else { u32::try_from(resting).unwrap_or(u32::MAX).min(left) };
        PoolUsage { address: self.address, leasable, leased, resting, free: left - resting, whole }
    }
}

/// When a rest that begins now is over; `None` where there is no rest.
pub(super) fn rest_until(now: Instant, rest: Duration) -> Option<Instant> {
    // A rest beyond the end of the clock is a configuration that means "never": as far as the clock can say.
    (!rest.is_zero()).then(|| now.checked_add(rest).unwrap_or_else(|| now + Duration::from_secs(86_400)))
}
