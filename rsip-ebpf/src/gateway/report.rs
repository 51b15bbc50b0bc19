//! Hosts that send what they may not are reported to the daemon, which tells them (RFC 3103, section 10.4).
//!
//! Whoever floods the gateway decides how many packets end here, so a report costs little and is rare: one a second for each
//! host and kind, and so many a second in all, for a flood may have many sources.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use rsip_ebpf_common::gateway::{Budget, Config, Counter, FLAG_REMOTE_MICRO, Misuse, MisuseKind};

use crate::maps::{self, Host};

const REPORTED_MAX: u32 = 1 << 12;
const MISUSES_BYTES: u32 = 16 * 1024;
const SECOND_NS: u64 = 1_000_000_000;
/// Reports of one CPU in a second, at most.
const PER_SECOND: u64 = 128;

#[map]
static MISUSES: RingBuf = RingBuf::with_byte_size(MISUSES_BYTES, 0);
#[map]
static REPORTED: LruHashMap<Misuse, u64> = LruHashMap::with_max_entries(REPORTED_MAX, 0);
#[map]
static BUDGET: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);

/// A packet of the host, with a source address of this index, is dropped for this reason; reports it if the host is to blame.
/// Answers what is counted: whoever holds nothing of the address has no port to be wrong with.
#[inline(always)]
pub(crate) fn refused(config: &Config, index: u32, host: Host, why: Counter) -> Counter {
    let (kind, counter) = match why {
        Counter::BadSource | Counter::Unsupported if !maps::holds_any(index, host) => {
            (MisuseKind::LocalAddress, Counter::BadSource)
        }
        Counter::BadSource => (MisuseKind::LocalPort, why),
        Counter::BadRemote if config.flags & FLAG_REMOTE_MICRO != 0 => (MisuseKind::RemotePort, why),
        Counter::BadRemote => (MisuseKind::RemoteAddress, why),
        _ => return why,
    };
    misuse(host, kind);
    counter
}

/// Reports a host, unless it was a short time ago.
#[inline(always)]
pub(crate) fn misuse(host: Host, kind: MisuseKind) {
    let report = Misuse { host: host.get(), kind: kind as u32 };
    let now = maps::now();
    // SAFETY: one word; at worst a report too many or too few.
    if let Some(&last) = unsafe { REPORTED.get(report) }
        && now.wrapping_sub(last) < SECOND_NS
    {
        return;
    }
    if !within_budget(now) {
        return;
    }
    // Where either has no room the report is lost; there will be a next one.
    REPORTED.insert(report, now, 0).ok();
    MISUSES.output::<Misuse>(report, 0).ok();
}

#[inline(always)]
fn within_budget(now: u64) -> bool {
    let Some(budget) = BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the entry is this CPU's own; tc programs do not interrupt each other.
    let budget = unsafe { &mut *budget };
    if now.wrapping_sub(budget.since_ns) >= SECOND_NS {
        *budget = Budget { since_ns: now, reports: 0 };
    }
    budget.reports += 1;
    budget.reports <= PER_SECOND
}
