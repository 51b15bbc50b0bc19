//! Which public addresses and ports are free, held or resting.
//!
//! The pool knows holders by number only, and never the lease times: it gives ports out, takes them back, and lets them
//! rest. Its one promise is that a port has at most one holder; it checks that at each step and answers
//! [`PoolFault`] instead of breaking it.
//!
//! An address is shared by port (RSAP-IP), leased whole (RSA-IP), or open for both: then whoever comes first decides, until
//! the last lease of it has ended.

mod address;
mod choice;
mod error;
mod ports;

use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lease::Leased;
use address::{AddressPool, Ranges, rest_until};
pub use error::{LeaseError, PoolError, PoolFault};
use ports::PortSet;

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
    /// How long a freed port, or a freed whole address with all its ports, rests before the gateway itself chooses it
    /// again (RFC 3102 section 6.1 recommends two minutes). What is asked for by name is given at once: the host that had
    /// it has waited out its connections.
    pub rest: Duration,
}

/// Who holds a port or an address: a number that the pool's user chose, different for each lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub NonZeroU64);

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish<'a> {
    /// Any this many of `PORT_RANGE`, all at one address.
    Any(u16),
    /// Exactly these, of `PORT_RANGE` or `LISTEN_RANGE`.
    Named(&'a [u16]),
    /// A whole address.
    Whole,
}

/// An address, or ports of one: offered, then given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The public address.
    pub address: Ipv4Addr,
    /// What of it; ports are a range where they follow one another.
    pub leased: Leased,
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
    /// Those of `POOL` in its order, then those that stand in `RSA_POOL` only.
    addresses: Vec<AddressPool>,
    /// Places in `addresses` of those that may be leased whole, in the order of `RSA_POOL`.
    whole: Vec<usize>,
    rest: Duration,
}

impl Pool {
    /// A pool in which everything is free.
    ///
    /// # Errors
    ///
    /// [`PoolError`] says which setting makes no sense.
    pub fn new(config: &PoolConfig) -> Result<Self, PoolError> {
        let shared = Arc::new(Ranges::new(config)?);
        let none = Arc::new(Ranges::none());
        for (option, list) in [("POOL", &config.addresses), ("RSA_POOL", &config.whole)] {
            check_addresses(option, list)?;
        }
        if config.addresses.is_empty() {
            return Err(PoolError::NoAddress);
        }
        let only_whole = config.whole.iter().filter(|address| !config.addresses.contains(address));
        let addresses = config.addresses.iter().map(|address| (address, &shared));
        let addresses: Vec<AddressPool> = addresses
            .chain(only_whole.map(|address| (address, &none)))
            .map(|(&address, ranges)| {
                AddressPool::new(address, Arc::clone(ranges), config.whole.contains(&address))
            })
            .collect();
        let place = |wanted: &Ipv4Addr| addresses.iter().position(|known| known.address() == *wanted);
        let whole = config.whole.iter().filter_map(place).collect();
        Ok(Self { addresses, whole, rest: config.rest })
    }

    /// What would be given now; nothing is taken yet.
    ///
    /// With `address` it is at that address. Without, at `preferred` if it can be (a host is best served at one address, and
    /// with the one that it had), else at the first that has it. What the gateway chooses has rested, as far as there is
    /// such; else what has rested longest. Ports follow one another where possible. Whole addresses that cannot be had by
    /// port are chosen before those that can.
    ///
    /// # Errors
    ///
    /// [`LeaseError`] says why there is nothing.
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
        match wish {
            Wish::Any(count) => self.any_ports(count, address, preferred),
            Wish::Named(ports) => self.named_ports(ports, address, preferred),
            Wish::Whole => self.whole_address(address, preferred),
        }
    }

    /// Gives an offer to `holder`, all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`PoolFault`] if something of it is held or not for lease: the offer is not fresh. Then nothing has changed.
    pub fn take(&mut self, offer: &Grant, holder: Holder) -> Result<(), PoolFault> {
        let known = self.known(offer.address)?;
        match &offer.leased {
            Leased::Address => known.claim_whole(holder),
            Leased::Ports(ports) => known.claim(&ports.iter().collect::<Vec<_>>(), holder),
        }
    }

    /// Takes back what `holder` was granted; it rests.
    ///
    /// # Errors
    ///
    /// [`PoolFault`] if `holder` does not hold all of it; then nothing has changed.
    pub fn release(&mut self, grant: &Grant, holder: Holder, now: Instant) -> Result<(), PoolFault> {
        let until = rest_until(now, self.rest);
        self.take_back(grant, holder, until)
    }

    /// Takes back what `holder` was granted but never used; it is free at once.
    ///
    /// # Errors
    ///
    /// As [`Pool::release`].
    pub fn cancel(&mut self, grant: &Grant, holder: Holder) -> Result<(), PoolFault> {
        self.take_back(grant, holder, None)
    }

    fn take_back(&mut self, grant: &Grant, holder: Holder, until: Option<Instant>) -> Result<(), PoolFault> {
        let known = self.known(grant.address)?;
        match &grant.leased {
            Leased::Address => known.release_whole(holder, until),
            Leased::Ports(ports) => known.release(&ports.iter().collect::<Vec<_>>(), holder, until),
        }
    }

    fn known(&mut self, address: Ipv4Addr) -> Result<&mut AddressPool, PoolFault> {
        let mut addresses = self.addresses.iter_mut();
        addresses.find(|known| known.address() == address).ok_or(PoolFault::Unknown(address))
    }

    /// Who holds this port, by itself or with its address.
    #[must_use]
    pub fn holder(&self, address: Ipv4Addr, port: u16) -> Option<Holder> {
        self.addresses.iter().find(|known| known.address() == address)?.holder(port)
    }

    /// Whether anybody holds it whole.
    #[must_use]
    pub fn is_held_whole(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|known| known.address() == address && known.is_held_whole())
    }

    /// How much is in use, by address: those of `POOL` in its order, then those that stand in `RSA_POOL` only.
    pub fn usage(&self, now: Instant) -> impl Iterator<Item = PoolUsage> + '_ {
        self.addresses.iter().map(move |known| known.usage(now))
    }
}

/// Whether hosts can be reached at these, each once.
fn check_addresses(option: &'static str, addresses: &[Ipv4Addr]) -> Result<(), PoolError> {
    for (index, &address) in addresses.iter().enumerate() {
        if address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast()
        {
            return Err(PoolError::Unusable { option, address });
        }
        if addresses[..index].contains(&address) {
            return Err(PoolError::Twice { option, address });
        }
    }
    Ok(())
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
