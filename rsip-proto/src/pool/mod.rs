//! Which public addresses and ports are free, held or resting.
//!
//! The pool knows holders by number only, and never the lease times: it gives ports out, takes them back, and lets them
//! rest. Its one promise is that a port has at most one holder; it checks that at each step and answers
//! [`PoolFault`] instead of breaking it.
//!
//! Whole addresses (RSA-IP) are not leased: every address is shared by port.

mod address;
mod error;
mod ports;

use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::wire::Ports;
use address::{AddressPool, Ranges, rest_until};
pub use error::{LeaseError, PoolError, PoolFault};
use ports::{PortSet, ports_of};

/// What may be leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// `POOL`: the public addresses that are shared by port, in the order in which they are tried.
    pub addresses: Vec<Ipv4Addr>,
    /// `RSA_POOL`: the public addresses that may be leased whole, in the order in which they are tried. An address may
    /// stand in `addresses` too: then the first lease decides which of both it is, until the last one has ended.
    pub whole: Vec<Ipv4Addr>,
    /// `PORT_RANGE`: where ports that the gateway chooses come from.
    pub port_range: RangeInclusive<u16>,
    /// `LISTEN_RANGE`: ports that a host may ask for by number.
    pub listen_range: RangeInclusive<u16>,
    /// `RESERVED_PORTS`: never leased. A port here that is in neither range changes nothing.
    pub reserved: Vec<u16>,
    /// How long a freed port rests before the gateway itself chooses it again (RFC 3102 section 6.1 recommends two
    /// minutes). A port asked for by number is given at once: the host that had it has waited out its connections.
    pub rest: Duration,
}

/// Who holds a port: a number that the pool's user chose, different for each lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub NonZeroU64);

/// Which ports are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Any this many of `PORT_RANGE`, all at one address.
    Any(u16),
    /// Exactly these, of `PORT_RANGE` or `LISTEN_RANGE`.
    Named(&'a [u16]),
}

/// Ports at one address: offered, then given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The public address.
    pub address: Ipv4Addr,
    /// Its ports: a range where they follow one another.
    pub ports: Ports,
}

/// How much of one address is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// The public address.
    pub address: Ipv4Addr,
    /// Ports that may be leased: both ranges without the reserved ones.
    pub leasable: u32,
    /// Of these: held.
    pub leased: u32,
    /// Of these: given back a short while ago.
    pub resting: u32,
    /// Of these: the rest.
    pub free: u32,
    /// Whether it may be leased whole, and is.
    pub whole: WholeUse,
}

/// What a public address is to those who want it whole (RSA-IP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WholeUse {
    /// Never leased whole: not in `RSA_POOL`.
    Never,
    /// May be leased whole now.
    Free,
    /// May be leased whole, but was given back a short while ago: the gateway chooses others first.
    Resting,
    /// Somebody holds ports of it, so that nobody can have it whole.
    Shared,
    /// Leased whole, so that nobody can have ports of it. Every port that may be leased counts as leased.
    Leased,
}

/// The public addresses and their ports.
pub struct Pool {
    addresses: Vec<AddressPool>,
    rest: Duration,
}

impl Pool {
    /// A pool in which everything is free.
    ///
    /// # Errors
    ///
    /// [`PoolError`] says which setting makes no sense.
    pub fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        let ranges = Arc::new(Ranges::new(config)?);
        let mut addresses: Vec<AddressPool> = Vec::with_capacity(config.addresses.len());
        for &address in &config.addresses {
            if address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
            {
                return Err(PoolError::Unusable(address));
            }
            if addresses.iter().any(|known| known.address() == address) {
                return Err(PoolError::Twice(address));
            }
            addresses.push(AddressPool::new(address, Arc::clone(&ranges)));
        }
        if addresses.is_empty() {
            return Err(PoolError::NoAddress);
        }
        Ok(Self { addresses, rest: config.rest })
    }

    /// Which ports would be given now; nothing is taken yet.
    ///
    /// With `address` they are at that address. Without, at `preferred` if it can be (a host is best served at one
    /// address), else at the first that has them. Ports that the gateway chooses follow one another where possible;
    /// resting ones are chosen, longest rest first, only where nothing else is left.
    ///
    /// # Errors
    ///
    /// [`LeaseError`] says why there are none.
    pub fn offer(
        &mut self,
        wish: Wish<'_>,
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
        now: Instant,
    ) -> Result<Grant, LeaseError> {
        for known in &mut self.addresses {
            known.tick(now);
        }
        if !self.addresses.iter().any(AddressPool::has_room) {
            return Err(LeaseError::Exhausted);
        }
        let (index, ports) = match wish {
            Wish::Any(count) => self.choose(count, address, preferred)?,
            Wish::Named(ports) => self.find(ports, address, preferred)?,
        };
        let ports = ports_of(&ports).ok_or(LeaseError::NotASet)?;
        Ok(Grant { address: self.addresses[index].address(), ports })
    }

    /// Gives an offer to `holder`, all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`PoolFault`] if a port of it is held or not for lease: the offer is not fresh. Then nothing has changed.
    pub fn take(&mut self, offer: &Grant, holder: Holder) -> Result<(), PoolFault> {
        let ports: Vec<u16> = offer.ports.iter().collect();
        self.known(offer.address)?.claim(&ports, holder)
    }

    /// Takes back what `holder` was granted; the ports rest.
    ///
    /// # Errors
    ///
    /// [`PoolFault`] if `holder` does not hold all of it; then nothing has changed.
    pub fn release(&mut self, grant: &Grant, holder: Holder, now: Instant) -> Result<(), PoolFault> {
        let until = rest_until(now, self.rest);
        self.take_back(grant, holder, until)
    }

    /// Takes back what `holder` was granted but never used; the ports are free at once.
    ///
    /// # Errors
    ///
    /// As [`Pool::release`].
    pub fn cancel(&mut self, grant: &Grant, holder: Holder) -> Result<(), PoolFault> {
        self.take_back(grant, holder, None)
    }

    fn take_back(&mut self, grant: &Grant, holder: Holder, until: Option<Instant>) -> Result<(), PoolFault> {
        let ports: Vec<u16> = grant.ports.iter().collect();
        self.known(grant.address)?.release(&ports, holder, until)
    }

    fn known(&mut self, address: Ipv4Addr) -> Result<&mut AddressPool, PoolFault> {
        let mut addresses = self.addresses.iter_mut();
        addresses.find(|known| known.address() == address).ok_or(PoolFault::Unknown(address))
    }

    /// Who holds this port.
    #[must_use]
    pub fn holder(&self, address: Ipv4Addr, port: u16) -> Option<Holder> {
        self.addresses.iter().find(|known| known.address() == address)?.holder(port)
    }

    /// How much is in use, by address, in the configured order.
    pub fn usage(&self, now: Instant) -> impl Iterator<Item = PoolUsage> + '_ {
        self.addresses.iter().map(move |known| known.usage(now))
    }

    /// Which addresses to look at, the preferred one first.
    fn candidates(
        &self,
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<Vec<usize>, LeaseError> {
        let position = |wanted| self.addresses.iter().position(|known| known.address() == wanted);
        if let Some(wanted) = address {
            return Ok(vec![position(wanted).ok_or(LeaseError::NotInPool(wanted))?]);
        }
        let preferred = preferred.and_then(position);
        let others = (0..self.addresses.len()).filter(|&index| Some(index) != preferred);
        Ok(preferred.into_iter().chain(others).collect())
    }

    fn choose(
        &self,
        count: u16,
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<(usize, Vec<u16>), LeaseError> {
        if !(1..=255).contains(&count) {
            return Err(LeaseError::NotASet);
        }
        let candidates = self.candidates(address, preferred)?;
        let first_with = |indices: &[usize], ports: fn(&AddressPool, u16) -> Option<Vec<u16>>| {
            indices.iter().find_map(|&index| Some((index, ports(&self.addresses[index], count)?)))
        };
        // One address for a host is worth more than ports in a row, so its own is tried both ways before any other.
        let is_own = |index: &&usize| Some(self.addresses[**index].address()) == preferred;
        let own: Vec<usize> = candidates.first().filter(is_own).copied().into_iter().collect();
        first_with(&own, AddressPool::contiguous)
            .or_else(|| first_with(&own, AddressPool::scattered))
            .or_else(|| first_with(&candidates, AddressPool::contiguous))
            .or_else(|| first_with(&candidates, AddressPool::scattered))
            .or_else(|| first_with(&candidates, AddressPool::scarce))
            .ok_or(LeaseError::TooMany(count))
    }

    fn find(
        &self,
        ports: &[u16],
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<(usize, Vec<u16>), LeaseError> {
        let mut sorted = ports.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != ports.len() || !(1..=255).contains(&ports.len()) {
            return Err(LeaseError::NotASet);
        }
        let mut in_use = None;
        for index in self.candidates(address, preferred)? {
            let known = &self.addresses[index];
            if let Some(&port) = ports.iter().find(|port| !known.leasable(**port)) {
                return Err(LeaseError::NotLeasable(port));
            }
            match ports.iter().find(|port| known.holder(**port).is_some()) {
                None => return Ok((index, ports.to_vec())),
                Some(&port) => in_use = in_use.or(Some(port)),
            }
        }
        Err(in_use.map_or(LeaseError::Exhausted, LeaseError::InUse))
    }
}

impl Ranges {
    fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        let mut leasable = PortSet::new();
        let mut choosable = PortSet::new();
        for (option, range) in [("PORT_RANGE", &config.port_range), ("LISTEN_RANGE", &config.listen_range)] {
            if range.is_empty() {
                return Err(PoolError::Reversed { option, range: range.clone() });
            }
            if *range.start() == 0 {
                return Err(PoolError::PortZero { option });
            }
            range.clone().for_each(|port| leasable.insert(port));
        }
        config.port_range.clone().for_each(|port| choosable.insert(port));
        for &port in &config.reserved {
            leasable.remove(port);
            choosable.remove(port);
        }
        if choosable.len() == 0 {
            return Err(PoolError::NothingLeft);
        }
        Ok(Self { leasable, choosable })
    }
}
