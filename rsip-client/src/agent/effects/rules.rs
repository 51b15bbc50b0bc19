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
        if keep {
            self.state.rules = Some(SavedRules::from(&rules));
            self.store()?;
        }
        for slot in fresh {
            self.hooks.empty_rule_hits(*slot)?;
        }
        // Both forms of a rule must not contradict each other for long; what the programs look at first is written last.
        self.book.set_rules(&mut self.hooks, rules)?;
        self.write_rules()
    }

    /// Writes the rules with the cgroups as they are.
    pub(super) fn write_rules(&mut self) -> Result<(), EffectError> {
        self.written.cgroups = self.named_cgroups();
        let compiled =
            compile(self.book.rules(), |path| self.written.cgroups.get(path).copied().unwrap_or(0));
        self.written.word = self.hooks.write_rules(&compiled, self.written.word)?;
        self.write_config()
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
