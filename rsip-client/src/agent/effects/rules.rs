//! The operator's rules, as the programs have them.

use std::collections::BTreeMap;

use super::Effects;
use crate::agent::failure::EffectError;
use crate::rules::compile::compile;
use crate::rules::set::RuleSet;
use crate::state::Rules as SavedRules;

/// What is written into the maps.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// [`rsip_ebpf_common::host::Config::rules`].
    pub(super) word: u32,
    /// IDs of the cgroups that rules name; 0: there is none.
    cgroups: BTreeMap<String, u64>,
}

impl Effects {
    /// From now on binds go by these rules. `fresh`: slots of rules that begin to count; `keep`: they outlive a crash.
    ///
    /// # Errors
    ///
    /// A map does not take it.
    pub(in crate::agent) fn set_rules(
        &mut self,
        rules: RuleSet,
        fresh: &[u32],
        keep: bool,
    ) -> Result<(), EffectError> {
        let (before, saved) = (self.book.rules().clone(), self.state.rules.clone());
        let outcome = self.exchange_rules(rules, fresh, keep);
        if outcome.is_err() {
            // As the caller hears: nothing has changed. What could not be written may be written now, or not: binds go by the old
            // set until all of the new one is there.
            self.state.rules = saved;
            let undone = self.book.set_rules(&mut self.hooks, before).map_err(EffectError::from);
            if let Err(error) = undone.and(self.store().map_err(EffectError::from)) {
                tracing::error!(%error, "rules that could not be changed are not put back");
            }
        }
        outcome
    }

    fn exchange_rules(&mut self, rules: RuleSet, fresh: &[u32], keep: bool) -> Result<(), EffectError> {
        if keep {
            self.state.rules = Some(SavedRules::from(&rules));
            self.store()?;
        }
        for slot in fresh {
            self.hooks.empty_rule_hits(*slot)?;
        }
        // The programs look at the rules first: so a port that both sets forbid stays forbidden, whatever the table of ports
        // says meanwhile. They are written last, and come into force all at once.
        self.book.set_rules(&mut self.hooks, rules)?;
        self.write_rules()
    }

    /// Writes the rules with the cgroups as they are.
    pub(super) fn write_rules(&mut self) -> Result<(), EffectError> {
        let cgroups = self.named_cgroups();
        let compiled = compile(self.book.rules(), |path| cgroups.get(path).copied().unwrap_or(0));
        let word = self.hooks.write_rules(&compiled, self.written.word)?;
        let before = std::mem::replace(&mut self.written, Written { word, cgroups });
        // The next rules would be written over those that hold.
        self.write_config().inspect_err(|_| self.written = before)
    }

    /// A service that is started anew may have a new cgroup at the same path.
    pub(in crate::agent) fn follow_cgroups(&mut self) {
        if !self.active || self.written.cgroups.is_empty() {
            return;
        }
        if self.named_cgroups() != self.written.cgroups
            && let Err(error) = self.write_rules()
        {
            tracing::error!(%error, "rules do not follow their cgroups");
        }
    }

    fn named_cgroups(&self) -> BTreeMap<String, u64> {
        let paths = self.book.rules().entries().iter().filter_map(|entry| entry.rule.cgroup.clone());
        paths.map(|path| (path.clone(), rsip_sys::cgroup::id(&path).unwrap_or(0))).collect()
    }
}
