//! The operator's rules: shown, and changed while binds go on.

use super::Agent;
use crate::control::Response;
use crate::rules::set::{Change, Entry};
use crate::status::{Rule, RulesView};

impl Agent {
    /// Carries out a change and shows what the rules are then; the error says why nothing changed.
    pub(super) fn change_rules(&mut self, change: &Change) -> Result<Response, String> {
        if *change != Change::List {
            let mut rules = self.effects.book.rules().clone();
            let fresh = rules.change(change).map_err(|error| error.to_string())?;
            tracing::info!(?change, "rules");
            self.effects.set_rules(rules, &fresh, true).map_err(|error| super::describe(&error))?;
        }
        Ok(Response::Rules(Box::new(self.rules())))
    }

    /// The rules and how many binds each has decided.
    pub(super) fn rules(&self) -> RulesView {
        let effects = &self.effects;
        let hits = |slot| effects.hooks.rule_hits(slot).unwrap_or_default();
        let set = effects.book.rules();
        RulesView {
            policy: set.policy().policy().to_owned(),
            policy_hits: hits(rsip_ebpf_common::rules::POLICY_SLOT),
            rules: set.entries().iter().map(|entry| rule(entry, hits(entry.slot))).collect(),
        }
    }
}

fn rule(entry: &Entry, hits: u64) -> Rule {
    let rule = &entry.rule;
    Rule {
        text: rule.to_string(),
        action: rule.action,
        first: *rule.ports.start(),
        last: *rule.ports.end(),
        protocol: rule.protocol,
        program: rule.program.clone(),
        user: rule.user.as_ref().map(|user| user.name.clone()),
        cgroup: rule.cgroup.clone(),
        hits,
    }
}
