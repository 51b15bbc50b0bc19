//! The rules as the programs on bind() read them.

use rsip_ebpf_common::rules::{
    ACTION_DENY, ACTION_IGNORE, ACTION_LEASE, COMMAND_LENGTH, MATCH_CGROUP, MATCH_COMMAND, MATCH_UID,
    Rule as KernelRule, WORD_COUNT, WORD_POLICY_SHIFT, WORD_SECOND,
};

use super::set::{Entry, RuleSet};
use super::{Action, PROGRAM_LENGTH, Protocol};

/// What is written into the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// In their order.
    pub rules: Vec<KernelRule>,
    /// For each port the first rule that names it, from 1; 0: none.
    pub first: Vec<u16>,
    policy: u32,
}

impl Compiled {
    /// For [`rsip_ebpf_common::host::Config::rules`], where the rules are in the second set or in the first one.
    #[must_use]
    pub fn word(&self, second: bool) -> u32 {
        let count = u32::try_from(self.rules.len()).unwrap_or(WORD_COUNT) & WORD_COUNT;
        count | if second { WORD_SECOND } else { 0 } | self.policy << WORD_POLICY_SHIFT
    }
}

/// Compiles a set of rules. `cgroup`: the ID of the cgroup with this path; 0: there is none.
pub fn compile(set: &RuleSet, cgroup: impl Fn(&str) -> u64) -> Compiled {
    let mut first = vec![0_u16; usize::from(u16::MAX) + 1];
    for (index, entry) in set.entries().iter().enumerate() {
        let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
        for port in entry.rule.ports.clone() {
            if let Some(place @ 0) = first.get_mut(usize::from(port)) {
                *place = number;
            }
        }
    }
    let rules = set.entries().iter().map(|entry| rule(entry, &cgroup)).collect();
    Compiled { rules, first, policy: action(set.policy()) }
}

const fn action(action: Action) -> u32 {
    match action {
        Action::Lease => ACTION_LEASE,
        Action::Ignore => ACTION_IGNORE,
        Action::Deny => ACTION_DENY,
    }
}

fn rule(entry: &Entry, cgroup: impl Fn(&str) -> u64) -> KernelRule {
    let rule = &entry.rule;
    let mut flags = 0;
    let mut command = [0; COMMAND_LENGTH];
    if let Some(program) = &rule.program {
        flags |= MATCH_COMMAND;
        for (place, byte) in command.iter_mut().zip(program.bytes().take(PROGRAM_LENGTH)) {
            *place = byte;
        }
    }
    if rule.user.is_some() {
        flags |= MATCH_UID;
    }
    if rule.cgroup.is_some() {
        flags |= MATCH_CGROUP;
    }
    KernelRule {
        cgroup_id: rule.cgroup.as_deref().map_or(0, cgroup),
        command,
        first: (*rule.ports.start()).into(),
        last: (*rule.ports.end()).into(),
        protocol: match rule.protocol {
            None => 0,
            Some(Protocol::Tcp) => libc::IPPROTO_TCP.unsigned_abs(),
            Some(Protocol::Udp) => libc::IPPROTO_UDP.unsigned_abs(),
        },
        uid: rule.user.as_ref().map_or(0, |user| user.uid),
        flags,
        action: action(rule.action),
        slot: entry.slot,
        pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::Rule;
    use crate::rules::set::tests::rule as any_rule;

    /// A bind.
    #[derive(Clone, Debug)]
    struct Bind {
        port: u16,
        protocol: Protocol,
        program: String,
        uid: u32,
        /// Paths of the cgroup and of all above it.
        cgroups: Vec<String>,
    }

    fn bind() -> impl Strategy<Value = Bind> {
        let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
        (1_u16..300, protocol, "[a-c][a-z ]{0,13}[a-z]", 0_u32..3, "/[a-c]", "[a-z]{1,3}").prop_map(
            |(port, protocol, program, uid, above, below)| Bind {
                port,
                protocol,
                program,
                uid,
                cgroups: vec![format!("{above}/{below}"), above],
            },
        )
    }

    /// What the text of the rules says.
    fn told(set: &RuleSet, bind: &Bind) -> (Action, Option<u32>) {
        let cut = |name: &str| name.bytes().take(15).collect::<Vec<_>>();
        let fits = |rule: &Rule| {
            rule.ports.contains(&bind.port)
                && rule.protocol.is_none_or(|protocol| protocol == bind.protocol)
                && rule.program.as_deref().is_none_or(|name| cut(name) == cut(&bind.program))
                && rule.user.as_ref().is_none_or(|user| user.uid == bind.uid)
                && rule.cgroup.as_ref().is_none_or(|path| bind.cgroups.contains(path))
        };
        match set.entries().iter().find(|entry| fits(&entry.rule)) {
            Some(entry) => (entry.rule.action, Some(entry.slot)),
            None => (set.policy(), None),
        }
    }

    /// What the programs make of the compiled form: `rsip-ebpf/src/host/rules.rs` in few words.
    fn done(compiled: &Compiled, bind: &Bind, ids: impl Fn(&str) -> u64) -> (u32, Option<u32>) {
        let mut command = [0_u8; COMMAND_LENGTH];
        for (place, byte) in command.iter_mut().zip(bind.program.bytes().take(15)) {
            *place = byte;
        }
        let protocol = match bind.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        let fits = |rule: &&KernelRule| {
            (rule.first..=rule.last).contains(&bind.port.into())
                && (rule.protocol == 0 || rule.protocol == protocol)
                && (rule.flags & MATCH_UID == 0 || rule.uid == bind.uid)
                && (rule.flags & MATCH_COMMAND == 0 || rule.command == command)
                && (rule.flags & MATCH_CGROUP == 0
                    || bind.cgroups.iter().any(|path| ids(path) == rule.cgroup_id))
        };
        let first = usize::from(compiled.first[usize::from(bind.port)]);
        let from = first.checked_sub(1);
        let found = from.and_then(|from| compiled.rules[from..].iter().find(fits));
        match found {
            Some(rule) => (rule.action, Some(rule.slot)),
            None => (compiled.word(false) >> WORD_POLICY_SHIFT, None),
        }
    }

    fn id(path: &str) -> u64 {
        path.bytes().fold(1, |id, byte| id * 31 + u64::from(byte))
    }

    #[test]
    fn one_word_says_which_set_how_many_and_what_else() {
        let set = RuleSet::new(["I1-1".parse().expect("a rule")], Action::Deny).expect("few rules");
        let compiled = compile(&set, id);
        assert_eq!(compiled.word(false), 1 | ACTION_DENY << WORD_POLICY_SHIFT);
        assert_eq!(compiled.word(true), compiled.word(false) | WORD_SECOND);
    }

    proptest! {
        #[test]
        fn decides_as_the_text_says(
            rules in prop::collection::vec(any_rule(), 0..12),
            policy in prop_oneof![Just(Action::Ignore), Just(Action::Lease), Just(Action::Deny)],
            binds in prop::collection::vec(bind(), 1..20),
        ) {
            let set = RuleSet::new(rules, policy).expect("few rules");
            let compiled = compile(&set, id);
            for bind in binds {
                let (wanted, slot) = told(&set, &bind);
                prop_assert_eq!(done(&compiled, &bind, id), (action(wanted), slot), "{:?}", bind);
                if let Some(by_port) = set.decides(bind.port) {
                    prop_assert_eq!(by_port, wanted, "nothing but the port counts");
                }
            }
        }
    }
}
