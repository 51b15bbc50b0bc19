//! One public address: who holds which of its ports, which are free, and which rest.
//!
//! ```text
//!            claim                    release                 rest is over
//!   free ------------> held by one ------------> resting -------------------> free
//!                          ^                        |
//!                          +------------------------+
//!                   claim by number, or nothing else is left
//! ```
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

/// What is the same for every address.
pub(super) struct Ranges {
    /// Every port that may be leased at all.
    pub(super) leasable: PortSet,
    /// Those of them that the gateway itself chooses from.
    pub(super) choosable: PortSet,
}

/// One public address.
pub(super) struct AddressPool {
    address: Ipv4Addr,
    ranges: Arc<Ranges>,
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
    pub(super) fn new(address: Ipv4Addr, ranges: Arc<Ranges>) -> Self {
        let free = ranges.choosable.clone();
        Self {
            address,
            ranges,
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

    pub(super) fn leasable(&self, port: u16) -> bool {
        self.ranges.leasable.contains(port)
    }

    pub(super) fn holder(&self, port: u16) -> Option<Holder> {
        self.holders.get(usize::from(port)).copied().and_then(NonZeroU64::new).map(Holder)
    }

    /// Whether any port can still be given.
    pub(super) fn has_room(&self) -> bool {
        self.held < self.ranges.leasable.len()
    }

    /// The lowest `count` free ports that follow one another.
    pub(super) fn contiguous(&self, count: u16) -> Option<Vec<u16>> {
        let first = self.free.run(count)?;
        Some((first..=u16::MAX).take(usize::from(count)).collect())
    }

    /// The lowest `count` free ports, wherever they are.
    pub(super) fn scattered(&self, count: u16) -> Option<Vec<u16>> {
        (self.free.len() >= u32::from(count)).then(|| self.free.iter().take(usize::from(count)).collect())
    }

    /// All free ports, and of the resting ones those that have rested longest (RFC 3102 section 6.1 allows this where
    /// ports are scarce).
    pub(super) fn scarce(&self, count: u16) -> Option<Vec<u16>> {
        let choosable = |port: &u16| self.ranges.choosable.contains(*port);
        let rested = self.resting.values().map(|(_, port)| *port).filter(choosable);
        let mut ports: Vec<u16> = self.free.iter().chain(rested).take(usize::from(count)).collect();
        ports.sort_unstable();
        (ports.len() == usize::from(count)).then_some(ports)
    }

    /// Gives all of these ports to `holder`, or none of them.
    pub(super) fn claim(&mut self, ports: &[u16], wanted: Holder) -> Result<(), PoolFault> {
        for &port in ports {
            if !self.leasable(port) {
                return Err(PoolFault::NotLeasable { address: self.address, port });
            }
            if let Some(holder) = self.holder(port) {
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

    /// Takes all of these ports from `by`, or none of them; they rest until `until`.
    pub(super) fn release(
        &mut self,
        ports: &[u16],
        by: Holder,
        until: Option<Instant>,
    ) -> Result<(), PoolFault> {
        for &port in ports {
            let holder = self.holder(port);
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

    /// Frees the ports whose rest is over.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(first) = self.resting.first_entry().filter(|first| first.get().0 <= now) {
            let (_, port) = first.remove();
            self.place_in_rest.remove(&port);
            self.set_free(port);
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
        let resting = self.resting.values().filter(|(until, _)| *until > now).count();
        let resting = u32::try_from(resting).unwrap_or(u32::MAX);
        PoolUsage {
            address: self.address,
            leasable: self.ranges.leasable.len(),
            leased: self.held,
            resting,
            free: self.ranges.leasable.len().saturating_sub(self.held).saturating_sub(resting),
            whole: WholeUse::Never,
        }
    }
}

/// When a rest that begins now is over; `None` where there is no rest.
pub(super) fn rest_until(now: Instant, rest: Duration) -> Option<Instant> {
    // A rest beyond the end of the clock is a configuration that means "never": as far as the clock can say.
    (!rest.is_zero()).then(|| now.checked_add(rest).unwrap_or_else(|| now + Duration::from_secs(86_400)))
}
