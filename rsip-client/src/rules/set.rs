//! The ordered rules and the default policy, and how they are changed. The first rule that fits decides; where none does, the
//! policy.

use std::ops::RangeInclusive;

use rsip_ebpf_common::rules::RULES_MAX;
use serde::{Deserialize, Serialize};

use super::{Action, Rule};

/// A change of the rules, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Change {
    /// Show them.
    List,
    /// After all others.
    Add(String),
    /// Before the rule with this number, which counts from 1.
    Insert(usize, String),
    /// Remove the rule with this number.
    Delete(usize),
    /// Another default policy.
    Policy(Action),
    /// Remove all rules.
    Flush,
    /// These rules and this policy instead of all that there are.
    Replace(Vec<String>, Option<Action>),
}

/// Why the rules stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The text is no rule.
    #[error("{0}")]
    Rule(#[from] super::RuleError),
    /// No rule has the number.
    #[error("there is no rule {number}; there are {count}")]
    NoSuchRule {
        /// The number.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The programs look at so many.
    #[error("{0} rules are more than the {RULES_MAX} that there can be")]
    TooMany(usize),
}

/// A rule, and where the kernel counts its hits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The rule.
    pub rule: Rule,
    /// Index into `RULE_HITS`.
    pub slot: u32,
}

/// The rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    policy: Action,
    entries: Vec<Entry>,
}

impl RuleSet {
    /// The rules in their order.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub fn new(rules: impl IntoIterator<Item = Rule>, policy: Action) -> Result<Self, ChangeError> {
        let mut set = Self { policy, entries: Vec::new() };
        let rules: Vec<Rule> = rules.into_iter().collect();
        check_count(rules.len())?;
        for rule in rules {
            let slot = set.free_slot();
            set.entries.push(Entry { rule, slot });
        }
        Ok(set)
    }

    /// What becomes of a bind that no rule fits.
    #[must_use]
    pub const fn policy(&self) -> Action {
        self.policy
    }

    /// The rules in their order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What becomes of every bind of a port, where nothing but the port decides; `None`: it depends on who binds.
    #[must_use]
    pub fn decides(&self, port: u16) -> Option<Action> {
        match self.entries.iter().find(|entry| entry.rule.ports.contains(&port)) {
            Some(entry) if entry.rule.is_by_port_alone() => Some(entry.rule.action),
            Some(_) => None,
            None => Some(self.policy),
        }
    }

    /// Changes the rules. The slots of new rules are returned: they have to be emptied before the rules come into force.
    ///
    /// # Errors
    ///
    /// Nothing is changed then.
    pub fn change(&mut self, change: &Change) -> Result<Vec<u32>, ChangeError> {
        let before = self.entries.clone();
        match change {
            Change::List => {}
            Change::Add(rule) => self.insert(self.entries.len(), rule.parse()?)?,
            Change::Insert(number, rule) => {
                let rule = rule.parse()?;
                self.check_number(*number)?;
                self.insert(number - 1, rule)?;
            }
            Change::Delete(number) => {
                self.check_number(*number)?;
                self.entries.remove(number - 1);
            }
            Change::Policy(policy) => self.policy = *policy,
            Change::Flush => self.entries.clear(),
            Change::Replace(rules, policy) => {
                let rules = rules.iter().map(|rule| rule.parse()).collect::<Result<Vec<Rule>, _>>()?;
                self.replace(rules)?;
                self.policy = policy.unwrap_or(self.policy);
            }
        }
        Ok(self.entries.iter().filter(|entry| !before.contains(entry)).map(|entry| entry.slot).collect())
    }

    fn insert(&mut self, at: usize, rule: Rule) -> Result<(), ChangeError> {
        check_count(self.entries.len() + 1)?;
        let slot = self.free_slot();
        self.entries.insert(at.min(self.entries.len()), Entry { rule, slot });
        Ok(())
    }

    /// A rule that was there before goes on counting.
    fn replace(&mut self, rules: Vec<Rule>) -> Result<(), ChangeError> {
        check_count(rules.len())?;
        let mut old = std::mem::take(&mut self.entries);
        let kept: Vec<(Rule, Option<u32>)> = rules
            .into_iter()
            .map(|rule| {
                let at = old.iter().position(|entry| entry.rule == rule);
                let slot = at.map(|at| old.remove(at).slot);
                (rule, slot)
            })
            .collect();
        let mut taken: Vec<u32> = kept.iter().filter_map(|(_, slot)| *slot).collect();
        for (rule, slot) in kept {
            let slot = slot.unwrap_or_else(|| free(&taken));
            taken.push(slot);
            self.entries.push(Entry { rule, slot });
        }
        Ok(())
    }

    fn check_number(&self, number: usize) -> Result<(), ChangeError> {
        let count = self.entries.len();
        if (1..=count).contains(&number) { Ok(()) } else { Err(ChangeError::NoSuchRule { number, count }) }
    }

    fn free_slot(&self) -> u32 {
        free(&self.entries.iter().map(|entry| entry.slot).collect::<Vec<_>>())
    }
}

/// The lowest slot that nobody has; there always is one, as there are as many as rules.
fn free(taken: &[u32]) -> u32 {
    (0..RULES_MAX).find(|slot| !taken.contains(slot)).unwrap_or_default()
}

fn check_count(count: usize) -> Result<(), ChangeError> {
    match u32::try_from(count) {
        Ok(few) if few <= RULES_MAX => Ok(()),
        _ => Err(ChangeError::TooMany(count)),
    }
}

/// Rules for ports alone.
pub fn by_port(
    action: Action,
    ranges: impl IntoIterator<Item = RangeInclusive<u16>>,
) -> impl Iterator<Item = Rule> {
    ranges.into_iter().map(move |ports| Rule::for_ports(action, ports))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::{Protocol, User};

    /// Any rule.
    pub(crate) fn rule() -> impl Strategy<Value = Rule> {
        let action = prop_oneof![Just(Action::Ignore), Just(Action::Lease), Just(Action::Deny)];
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        let user = (0_u32..3).prop_map(|uid| User { uid, name: uid.to_string() });
        (
            action,
            (1_u16..=200, 0_u16..=50),
            prop::option::of(protocol),
            prop::option::of("[a-c][a-z ]{0,17}[a-z]"),
            prop::option::of(user),
            prop::option::of("/[a-c](/[a-z]{1,3})?"),
        )
            .prop_map(|(action, (first, more), protocol, program, user, cgroup)| Rule {
                action,
                ports: first..=first + more,
                protocol,
                program,
                user,
                cgroup,
            })
    }

    fn set(rules: &[&str]) -> RuleSet {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        RuleSet::new(rules, Action::Lease).expect("few rules")
    }

    fn shown(set: &RuleSet) -> Vec<String> {
        set.entries().iter().map(|entry| entry.rule.to_string()).collect()
    }

    #[test]
    fn the_first_rule_that_names_a_port_decides_if_nothing_else_counts() {
        let set = set(&["I10-20", "D15-30", "A40-40 tcp", "I40-40"]);
        assert_eq!(set.decides(15), Some(Action::Ignore));
        assert_eq!(set.decides(25), Some(Action::Deny));
        assert_eq!(set.decides(40), None, "for UDP it is ignored");
        assert_eq!(set.decides(80), Some(Action::Lease), "the policy");
    }

    #[test]
    fn is_changed_in_place_and_keeps_the_counts_of_what_stays() {
        let mut set = set(&["I10-10", "I20-20"]);
        assert_eq!(set.change(&Change::Insert(2, "D15-15".to_owned())), Ok(vec![2]));
        assert_eq!(shown(&set), ["I10-10", "D15-15", "I20-20"]);
        assert_eq!(set.change(&Change::Delete(1)), Ok(vec![]));
        assert_eq!(set.change(&Change::Add("A30-30".to_owned())), Ok(vec![0]), "the slot is free again");
        let slot = set.entries()[1].slot;
        let rules = ["I1-1", "I20-20"].map(ToOwned::to_owned).to_vec();
        let new = set.change(&Change::Replace(rules, Some(Action::Deny))).expect("they are rules");
        assert_eq!((shown(&set), set.policy()), (vec!["I1-1".to_owned(), "I20-20".to_owned()], Action::Deny));
        assert_eq!((set.entries()[1].slot, new.len()), (slot, 1));
        assert_eq!(set.change(&Change::Flush), Ok(vec![]));
        assert!(set.entries().is_empty() && set.policy() == Action::Deny);
    }

    #[test]
    fn what_cannot_be_done_changes_nothing() {
        let mut set = set(&["I10-10"]);
        let before = set.clone();
        for change in [
            Change::Delete(0),
            Change::Delete(2),
            Change::Insert(0, "I1-1".to_owned()),
            Change::Insert(2, "I1-1".to_owned()),
            Change::Add("I0-1".to_owned()),
            Change::Replace(vec!["I1-1".to_owned(), "nonsense".to_owned()], None),
            Change::Replace(vec!["I1-1".to_owned(); 257], None),
        ] {
            assert!(set.change(&change).is_err(), "{change:?}");
            assert_eq!(set, before);
        }
        let full = Change::Replace(vec!["I1-1".to_owned(); 256], None);
        assert!(set.change(&full).is_ok());
        assert_eq!(set.change(&Change::Add("I1-1".to_owned())), Err(ChangeError::TooMany(257)));
    }
}
