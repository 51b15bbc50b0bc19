//! The operator's rules: the first one that fits a bind decides whether it is asked for, passes without a lease, or fails.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_uid_gid,
        generated::{bpf_get_current_ancestor_cgroup_id, bpf_loop},
    },
    macros::map,
    maps::{Array, PerCpuArray},
};
use rsip_ebpf_common::{
    host::Config,
    rules::{
        ACTION_DENY, ACTION_IGNORE, CGROUP_DEPTH, COMMAND_LENGTH, HITS, MATCH_CGROUP, MATCH_COMMAND,
        MATCH_UID, POLICY_SLOT, RULES_MAX, Rule, SETS, WORD_COUNT, WORD_POLICY_SHIFT, WORD_SECOND,
    },
};

use crate::task::Task;

const EVERY_PORT: u32 = 65_536;

#[map]
static RULES: Array<Rule> = Array::with_max_entries(RULES_MAX * SETS, 0);
#[map]
static RULE_OF_PORT: Array<u16> = Array::with_max_entries(EVERY_PORT * SETS, 0);
#[map]
static RULE_HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(HITS, 0);

/// What becomes of a bind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The gateway is asked, or has been.
    Lease,
    /// It passes without a lease.
    Ignore,
    /// It fails.
    Deny,
}

impl Decision {
    #[inline(always)]
    fn of(action: u32) -> Self {
        match action {
            ACTION_IGNORE => Self::Ignore,
            ACTION_DENY => Self::Deny,
            _ => Self::Lease,
        }
    }
}

/// A search for the rule that decides. What it looks for comes first; the kernel's callbacks take a pointer to all of it.
#[repr(C)]
struct Search {
    command: [u8; COMMAND_LENGTH],
    leader: [u8; COMMAND_LENGTH],
    port: u32,
    protocol: u32,
    uid: u32,
    /// In `RULES`: the next rule, and the end of the set.
    next: u32,
    end: u32,
    action: u32,
    slot: u32,
    pad: u32,
}

/// The decision on a bind of `port` by the calling thread, and where it is to be counted.
#[inline(always)]
pub(crate) fn decide(config: &Config, port: u32, protocol: u32) -> (Decision, u32) {
    let word = config.rules;
    let set = u32::from(word & WORD_SECOND != 0);
    let first = match RULE_OF_PORT.get(set * EVERY_PORT + (port & (EVERY_PORT - 1))) {
        Some(first) => u32::from(*first),
        None => 0,
    };
    let policy = word >> WORD_POLICY_SHIFT;
    let (action, slot) = if first == 0 {
        (policy, POLICY_SLOT)
    } else {
        search(set, first - 1, word & WORD_COUNT, policy, port, protocol)
    };
    (Decision::of(action), slot)
}

/// Counts a bind that was decided: once for each, however often its system call was restarted.
#[inline(always)]
pub(crate) fn hit(slot: u32) {
    if let Some(hits) = RULE_HITS.get_ptr_mut(slot) {
        // SAFETY: the entry is this CPU's own, and programs of these types do not interrupt each other.
        unsafe { *hits += 1 };
    }
}

/// Looks from rule `first` of a set on.
#[inline(always)]
fn search(set: u32, first: u32, count: u32, policy: u32, port: u32, protocol: u32) -> (u32, u32) {
    let base = set * RULES_MAX;
    let mut search = Search {
        command: bpf_get_current_comm().unwrap_or_default(),
        leader: Task::current().map_or([0; COMMAND_LENGTH], Task::leader_command),
        port,
        protocol,
        uid: bpf_get_current_uid_gid() as u32,
        next: base + first,
        end: base + count.min(RULES_MAX),
        action: policy,
        slot: POLICY_SLOT,
        pad: 0,
    };
    // SAFETY: the callback takes a `Search` and does not keep it.
    unsafe { bpf_loop(RULES_MAX, look as *mut c_void, (&raw mut search).cast(), 0) };
    (search.action, search.slot)
}

/// Looks at the next rule. 1: the search is over.
unsafe extern "C" fn look(_round: u32, search: *mut c_void) -> i64 {
    // SAFETY: `search` passes a `Search`.
    let search = unsafe { &mut *search.cast::<Search>() };
    if search.next >= search.end {
        return 1;
    }
    let Some(rule) = RULES.get(search.next) else {
        return 1;
    };
    search.next += 1;
    if !fits(rule, search) {
        return 0;
    }
    search.action = rule.action;
    search.slot = rule.slot;
    1
}

#[inline(always)]
fn fits(rule: &Rule, search: &Search) -> bool {
    if search.port < rule.first || search.port > rule.last {
        return false;
    }
    if rule.protocol != 0 && rule.protocol != search.protocol {
        return false;
    }
    if rule.flags & MATCH_UID != 0 && rule.uid != search.uid {
        return false;
    }
    if rule.flags & MATCH_COMMAND != 0
        && !is_same(&rule.command, &search.command)
        && !is_same(&rule.command, &search.leader)
    {
        return false;
    }
    rule.flags & MATCH_CGROUP == 0 || is_below(rule.cgroup_id)
}

#[inline(always)]
fn is_same(a: &[u8; COMMAND_LENGTH], b: &[u8; COMMAND_LENGTH]) -> bool {
    for at in 0..COMMAND_LENGTH {
        if a[at] != b[at] {
            return false;
        }
        if a[at] == 0 {
            // What follows the end is of no meaning.
            return true;
        }
    }
    true
}

/// Whether the calling thread is in this cgroup or below it.
#[inline(always)]
fn is_below(cgroup: u64) -> bool {
    if cgroup == 0 {
        return false;
    }
    for level in 0..CGROUP_DEPTH {
        // SAFETY: takes no pointer.
        let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) };
        if ancestor == cgroup {
            return true;
        }
        if ancestor == 0 {
            return false;
        }
    }
    false
}
