//! The operator's rules as the bind hooks read them: which binds are asked for, which pass, which fail. Written by user space
//! only.
//!
//! There are two sets of rules, one behind the other in each map; [`crate::host::Config::rules`] says in one word which one
//! holds and how long it is, so that no bind sees half of a set. The set that does not hold is rewritten.

/// Names of the maps.
pub mod maps {
    /// `Array<Rule>`, [`super::RULES_MAX`] entries for each set.
    pub const RULES: &str = "RULES";
    /// `Array<u16>`, 65,536 entries for each set: the first rule of the set that names the port, counted from 1; 0: none does.
    pub const RULE_OF_PORT: &str = "RULE_OF_PORT";
    /// `PerCpuArray<u64>`: binds that a rule decided, by [`super::Rule::slot`]; those that no rule decided in
    /// [`super::POLICY_SLOT`]. Counted by the programs; user space empties a slot before a rule gets it.
    pub const RULE_HITS: &str = "RULE_HITS";
}

/// Rules in a set.
pub const RULES_MAX: u32 = 256;
/// Sets.
pub const SETS: u32 = 2;
/// Where the default policy counts.
pub const POLICY_SLOT: u32 = RULES_MAX;
/// Entries of `RULE_HITS`.
pub const HITS: u32 = RULES_MAX + 1;
/// How deep in the tree a cgroup can be that a rule names.
pub const CGROUP_DEPTH: u32 = 24;
/// Bytes of a command name, with its NUL.
pub const COMMAND_LENGTH: usize = 16;

/// The port is asked for at the gateway.
pub const ACTION_LEASE: u32 = 0;
/// The bind passes without a lease.
pub const ACTION_IGNORE: u32 = 1;
/// The bind fails with EACCES.
pub const ACTION_DENY: u32 = 2;

/// [`Rule::flags`]: [`Rule::uid`] counts.
pub const MATCH_UID: u32 = 1;
/// [`Rule::flags`]: [`Rule::command`] counts.
pub const MATCH_COMMAND: u32 = 2;
/// [`Rule::flags`]: [`Rule::cgroup_id`] counts.
pub const MATCH_CGROUP: u32 = 4;

/// [`crate::host::Config::rules`]: how many rules the set has.
pub const WORD_COUNT: u32 = 0xffff;
/// [`crate::host::Config::rules`]: the second set holds.
pub const WORD_SECOND: u32 = 1 << 16;
/// [`crate::host::Config::rules`]: where the action stands for binds that no rule decides.
pub const WORD_POLICY_SHIFT: u32 = 17;

/// One rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Programs in this cgroup, or anywhere below it. 0: there is no such cgroup now, and the rule matches nobody.
    pub cgroup_id: u64,
    /// The name of the calling thread or of its process, NUL-padded.
    pub command: [u8; COMMAND_LENGTH],
    /// The lowest port.
    pub first: u32,
    /// The highest port.
    pub last: u32,
    /// IPPROTO_TCP or IPPROTO_UDP; 0: both.
    pub protocol: u32,
    /// Real user ID of the caller.
    pub uid: u32,
    /// `MATCH_*`.
    pub flags: u32,
    /// `ACTION_*`.
    pub action: u32,
    /// Where it counts.
    pub slot: u32,
    /// Always 0.
    pub pad: u32,
}

const _: () = assert!(size_of::<Rule>() == 56);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding (size asserted above), any bit pattern valid.
    unsafe impl aya::Pod for super::Rule {}
}
