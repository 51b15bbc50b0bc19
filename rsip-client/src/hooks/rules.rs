//! The maps of the operator's rules.

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use rsip_ebpf_common::rules::{RULES_MAX, Rule, SETS, maps};
use rsip_sys::tc::{self, EbpfError};

use super::HooksError;
use super::ebpf::map_error;
use crate::rules::compile::Compiled;

const PORTS: u32 = 65_536;

/// The maps, and what is in them.
pub(super) struct RuleMaps {
    rules: Array<MapData, Rule>,
    first: Array<MapData, u16>,
    hits: PerCpuArray<MapData, u64>,
    /// What was written for each set last; `None`: nobody knows.
    known: [Option<Vec<u16>>; SETS as usize],
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, EbpfError> {
        Ok(Self {
            rules: tc::take_map(ebpf, maps::RULES)?,
            first: tc::take_map(ebpf, maps::RULE_OF_PORT)?,
            hits: tc::take_map(ebpf, maps::RULE_HITS)?,
            known: [None, None],
        })
    }

    /// Writes the rules where none of them holds yet; they do when the answer is in the configuration. `now`: what stands there.
    pub(super) fn write(&mut self, compiled: &Compiled, now: u32) -> Result<u32, HooksError> {
        let second = now & rsip_ebpf_common::rules::WORD_SECOND == 0;
        let set = u32::from(second);
        for (index, rule) in (set * RULES_MAX..).zip(&compiled.rules) {
            self.rules.set(index, rule, 0).map_err(map_error(maps::RULES))?;
        }
        let Some(known) = self.known.get_mut(usize::from(second)) else { return Ok(now) };
        // Of what is written half nobody knows.
        let before = known.take();
        for (port, first) in changes(before.as_deref(), &compiled.first) {
            self.first.set(set * PORTS + port, first, 0).map_err(map_error(maps::RULE_OF_PORT))?;
        }
        *known = Some(compiled.first.clone());
        Ok(compiled.word(second))
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

/// The ports for which something else is to be written than was before; all of them where nobody knows what was.
fn changes<'a>(before: Option<&'a [u16]>, after: &'a [u16]) -> impl Iterator<Item = (u32, u16)> + 'a {
    (0..).zip(after.iter().copied()).zip(0..).filter_map(move |((port, first), at): (_, usize)| {
        let same = before.and_then(|before| before.get(at)) == Some(&first);
        (!same).then_some((port, first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_differs_and_everything_where_nobody_knows() {
        let before = [0, 1, 1, 2];
        let of = |before, after: &[u16]| changes(before, after).collect::<Vec<_>>();
        assert_eq!(of(Some(&before), &before), []);
        assert_eq!(of(Some(&before), &[0, 1, 3, 0]), [(2, 3), (3, 0)]);
        assert_eq!(of(None, &[0, 1]), [(0, 0), (1, 1)]);
    }
}
