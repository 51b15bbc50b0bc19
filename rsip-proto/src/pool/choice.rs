//! What is offered: which address, and which of its ports. Changes nothing.

use std::net::Ipv4Addr;

use super::address::AddressPool;
use super::{Grant, LeaseError, Pool};
use crate::lease::Leased;
use crate::wire::Ports;

impl Pool {
    pub(super) fn any_ports(
        &self,
        count: u16,
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<Grant, LeaseError> {
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
        let (index, ports) = first_with(&own, AddressPool::contiguous)
            .or_else(|| first_with(&own, AddressPool::scattered))
            .or_else(|| first_with(&candidates, AddressPool::contiguous))
            .or_else(|| first_with(&candidates, AddressPool::scattered))
            .or_else(|| first_with(&candidates, AddressPool::scarce))
            .or_else(|| first_with(&candidates, AddressPool::last_resort))
            .ok_or(LeaseError::TooMany(count))?;
        self.grant(index, &ports)
    }

    pub(super) fn named_ports(
        &self,
        ports: &[u16],
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<Grant, LeaseError> {
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
                None => return self.grant(index, ports),
                Some(&port) => in_use = in_use.or(Some(port)),
            }
        }
        Err(in_use.map_or(LeaseError::Exhausted, LeaseError::InUse))
    }

    pub(super) fn whole_address(
        &self,
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<Grant, LeaseError> {
        let can_be_had = |index: &usize| self.addresses[*index].can_be_whole();
        let free: Vec<usize> = self.whole.iter().copied().filter(can_be_had).collect();
        if free.is_empty() {
            return Err(LeaseError::NoWholeAddress);
        }
        let index = if let Some(wanted) = address {
            let index = self.position(wanted).ok_or(LeaseError::NotInPool(wanted))?;
            if !self.addresses[index].is_whole() {
                return Err(LeaseError::NotWhole(wanted));
            }
            free.contains(&index).then_some(index).ok_or(LeaseError::AddressInUse(wanted))?
        } else {
            let preferred = preferred.and_then(|wanted| self.position(wanted));
            // What rests is the host's own if it is preferred: nobody else's late packets come there.
            let first = |index: &usize| {
                let known = &self.addresses[*index];
                (known.rests_until(), known.is_shared())
            };
            let chosen = free.iter().copied().find(|index| Some(*index) == preferred);
            chosen.or_else(|| free.into_iter().min_by_key(first)).ok_or(LeaseError::NoWholeAddress)?
        };
        Ok(Grant { address: self.addresses[index].address(), leased: Leased::Address })
    }

    /// Which addresses to look for ports at, the preferred one first.
    fn candidates(
        &self,
        address: Option<Ipv4Addr>,
        preferred: Option<Ipv4Addr>,
    ) -> Result<Vec<usize>, LeaseError> {
        if !self.addresses.iter().any(AddressPool::has_room) {
            return Err(LeaseError::Exhausted);
        }
        if let Some(wanted) = address {
            let index = self.position(wanted).ok_or(LeaseError::NotInPool(wanted))?;
            let known = &self.addresses[index];
            if !known.is_shared() {
                return Err(LeaseError::NotShared(wanted));
            }
            if known.is_held_whole() {
                return Err(LeaseError::AddressInUse(wanted));
            }
            return Ok(vec![index]);
        }
        let is_open = |index: &usize| {
            let known = &self.addresses[*index];
            known.is_shared() && !known.is_held_whole()
        };
        let preferred = preferred.and_then(|wanted| self.position(wanted)).filter(is_open);
        let others = (0..self.addresses.len()).filter(|index| is_open(index) && Some(*index) != preferred);
        Ok(preferred.into_iter().chain(others).collect())
    }

    fn position(&self, wanted: Ipv4Addr) -> Option<usize> {
        self.addresses.iter().position(|known| known.address() == wanted)
    }

    fn grant(&self, index: usize, ports: &[u16]) -> Result<Grant, LeaseError> {
        let ports = Ports::from_ports(ports).ok_or(LeaseError::NotASet)?;
        Ok(Grant { address: self.addresses[index].address(), leased: ports.into() })
    }
}
