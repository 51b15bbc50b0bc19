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
    let known = Duration::from_millis(SLEPT.load(Ordering::Relaxed));
    let slept = reckon(ahead, *AHEAD.get_or_init(|| ahead), known);
    if slept == known {
        return known;
    }
    let slept = u64::try_from(slept.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(SLEPT.fetch_max(slept, Ordering::Relaxed).max(slept))
}

/// The time slept, by what CLOCK_BOOTTIME is ahead now and was `first`, where `known` of it is known.
fn reckon(ahead: Duration, first: Duration, known: Duration) -> Duration {
    let slept = ahead.saturating_sub(first);
    if slept < known + SHORTEST { known } else { slept }
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
    use std::fs;
    use std::path::Path;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn goes_forward_and_has_not_slept() {
        let first = now();
        assert!(now() >= first);
        assert!(slept() < Duration::from_secs(1), "{:?}", slept());
        assert!(timer(now()) <= now());
    }

    #[test]
    fn counts_suspends_and_never_takes_one_back() {
        let first = MS(5_000);
        let mut known = Duration::ZERO;
        for (ahead, slept) in [
            // What lies between two readings is no suspend.
            (5_000, 0),
            (5_003, 0),
            (4_990, 0),
            // An hour, and the same again.
            (3_605_000, 3_600_000),
            (3_604_950, 3_600_000),
            (7_205_000, 7_200_000),
            // A clock that says less than before is not believed.
            (5_000, 7_200_000),
        ] {
            known = reckon(MS(ahead), first, known);
            assert_eq!(known, MS(slept), "{ahead} ms ahead");
        }
    }

    /// The wall clock is for what people read. That nothing else looks at it is what makes its jumps harmless.
    #[test]
    fn the_wall_clock_steers_nothing() {
        const FOR_PEOPLE: [&str; 4] =
            ["agent/holders.rs", "bugreport.rs", "doctor/machine.rs", "held/owners.rs"];
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let machine = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rsip-proto/src");
        let mut found = Vec::new();
        for root in [&sources, &machine] {
            let mut folders = vec![root.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).expect("the sources are here").flatten() {
                    let path = entry.path();
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.extension().is_some_and(|ending| ending == "rs") {
                        let text = fs::read_to_string(&path).expect("readable");
                        let asks = [
                            concat!("System", "Time"),
                            concat!("CLOCK_", "REAL"),
                            concat!("gettimeof", "day"),
                        ];
                        if asks.iter().any(|word| text.contains(word)) {
                            let name = path.strip_prefix(root).expect("below it");
                            found.push(name.display().to_string());
                        }
                    }
                }
            }
        }
        found.sort();
        assert_eq!(found, FOR_PEOPLE);
    }
}
