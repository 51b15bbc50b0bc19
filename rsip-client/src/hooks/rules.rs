//! The maps of the operator's rules.

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use rsip_ebpf_common::rules::{RULES_MAX, Rule, maps};
use rsip_sys::tc::{self, EbpfError};

use super::HooksError;
use super::ebpf::map_error;
use crate::rules::compile::Compiled;

const PORTS: u32 = 65_536;

/// The maps, and which of the two sets in them holds.
pub(super) struct RuleMaps {
    rules: Array<MapData, Rule>,
    first: Array<MapData, u16>,
    hits: PerCpuArray<MapData, u64>,
    second: bool,
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, EbpfError> {
        Ok(Self {
            rules: tc::take_map(ebpf, maps::RULES)?,
            first: tc::take_map(ebpf, maps::RULE_OF_PORT)?,
            hits: tc::take_map(ebpf, maps::RULE_HITS)?,
            second: false,
        })
    }

    /// Writes the rules where none of them holds yet; they do when the answer is in the configuration. `now`: what stands there.
    pub(super) fn write(&mut self, compiled: &Compiled, now: u32) -> Result<u32, HooksError> {
        self.second = now & rsip_ebpf_common::rules::WORD_SECOND == 0;
        let set = u32::from(self.second);
        for (index, rule) in (set * RULES_MAX..).zip(&compiled.rules) {
            self.rules.set(index, rule, 0).map_err(map_error(maps::RULES))?;
        }
        for (index, first) in (set * PORTS..).zip(&compiled.first) {
            self.first.set(index, first, 0).map_err(map_error(maps::RULE_OF_PORT))?;
        }
        Ok(compiled.word(self.second))
    }

    pub(super) fn hits(&self, slot: u32) -> Result<u64, HooksError> {
        Ok(self.hits.get(&slot, 0).map_err(map_error(maps::RULE_HITS))?.iter().sum())
    }

    pub(super) fn empty(&mut self, slot: u32) -> Result<(), HooksError> {
        let cpus = nr_cpus().map_err(|(_, error)| HooksError::Events(error))?;
        let none = PerCpuValues::try_from(vec![0; cpus]).map_err(HooksError::Events)?;
        self.hits.set(slot, none, 0).map_err(map_error(maps::RULE_HITS))
    }
}
