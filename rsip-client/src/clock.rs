//! Time that goes on while the machine is suspended.
//!
//! `Instant` stands still meanwhile (CLOCK_MONOTONIC), and leases run out at the gateway all the same. So the agent's `now` is
//! an [`Instant`] to which the time slept is added: the difference between CLOCK_BOOTTIME and CLOCK_MONOTONIC, which grows
//! by suspends and by nothing else. The wall clock is not asked at all.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What CLOCK_BOOTTIME was ahead when the process first asked.
static AHEAD: OnceLock<Duration> = OnceLock::new();
/// The time slept, in milliseconds. It never falls, whatever lies between two readings of two clocks.
static SLEPT: AtomicU64 = AtomicU64::new(0);
/// What is less was no suspend.
const SHORTEST: Duration = Duration::from_millis(100);

/// Now, with the time that the machine slept.
pub fn now() -> Instant {
    Instant::now() + slept()
}

/// When a deadline made of [`now`] is, for timers, which stand still during a suspend: not later than it.
pub fn timer(deadline: Instant) -> Instant {
    deadline.checked_sub(slept()).unwrap_or(deadline)
}

/// How long the machine was suspended since the process first asked.
pub fn slept() -> Duration {
    let ahead = ahead();
    let slept = ahead.saturating_sub(*AHEAD.get_or_init(|| ahead));
    let known = Duration::from_millis(SLEPT.load(Ordering::Relaxed));
    if slept < known + SHORTEST {
        return known;
    }
    let slept = u64::try_from(slept.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(SLEPT.fetch_max(slept, Ordering::Relaxed).max(slept))
}

/// The clock of `bpf_ktime_get_ns`.
pub fn monotonic() -> Duration {
    read(ClockId::CLOCK_MONOTONIC)
}

fn ahead() -> Duration {
    // What is read second is later by the time between the two: a few microseconds at most, or a suspend, seen early.
    let monotonic = monotonic();
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(monotonic)
}

/// A clock that cannot be read, which no kernel has, stands still.
fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_forward_and_has_not_slept() {
        let first = now();
        assert!(now() >= first);
        assert!(slept() < Duration::from_secs(1), "{:?}", slept());
        assert!(timer(now()) <= now());
    }
}
