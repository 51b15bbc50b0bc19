//! What is read from the maps and written into them while programs run.

use aya::maps::MapError;
use rsip_ebpf_common::host::{self, Counter, maps};

use super::{EbpfHooks, map_error};
use crate::hooks::{HooksError, PortTable};
use crate::rules::compile::Compiled;

impl EbpfHooks {
    /// So many sockets of a counter (`ROOM`) took a port, ever; wraps.
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn room_begun(&self, slot: u32) -> Result<u32, HooksError> {
        self.rooms.begun(slot)
    }

    /// So many of them do not take one any more, as the kernel's list says since `tallied_ns` (CLOCK_MONOTONIC).
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn set_room_over(&mut self, slot: u32, over: u32, tallied_ns: u64) -> Result<(), HooksError> {
        self.rooms.set_over(slot, over, tallied_ns)
    }

    /// What the programs counted, over all CPUs.
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn counter(&self, counter: Counter) -> Result<u64, HooksError> {
        let values = self.counters.get(&(counter as u32), 0).map_err(map_error(maps::COUNTERS))?;
        Ok(values.iter().sum())
    }

    /// Writes rules. They hold when the answer is written as [`host::Config::rules`]; `now`: what stands there.
    ///
    /// # Errors
    ///
    /// A map does not take it; what held before holds.
    pub fn write_rules(&mut self, compiled: &Compiled, now: u32) -> Result<u32, HooksError> {
        self.rules.write(compiled, now)
    }

    /// How many binds the rule with this slot decided.
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn rule_hits(&self, slot: u32) -> Result<u64, HooksError> {
        self.rules.hits(slot)
    }

    /// A rule begins to count anew.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn empty_rule_hits(&mut self, slot: u32) -> Result<(), HooksError> {
        self.rules.empty(slot)
    }
}

impl PortTable for EbpfHooks {
    fn set_port(&mut self, port: u16, verdict: host::Port) -> Result<(), HooksError> {
        self.ports.set(u32::from(port), verdict, 0).map_err(map_error(maps::PORTS))
    }

    fn answered(&mut self, port: u16) -> Result<(), HooksError> {
        match self.pending.remove(&u32::from(port)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            // aya tells a missing key of remove() as a failed system call.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(map_error(maps::PENDING)(error)),
        }
    }

    fn waiting(&self) -> Result<Vec<u16>, HooksError> {
        self.pending
            .keys()
            .filter_map(|key| key.map(|key| u16::try_from(key).ok()).transpose())
            .collect::<Result<_, _>>()
            .map_err(map_error(maps::PENDING))
    }

    fn uses(&self, port: u16) -> Result<u32, HooksError> {
        self.uses.get(&u32::from(port), 0).map_err(map_error(maps::USES))
    }
}
