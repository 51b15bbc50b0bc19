//! How many errors one source may cause over UDP, where a source address proves nothing.
//!
//! A token bucket each, kept as the one time at which it will be full again: [`BURST`] answers at once, then
//! [`PER_SECOND`]. More than [`SOURCES`] buckets that are not full are not kept: then sources without a bucket get no
//! error answers until one is full again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Errors that one source gets at once.
pub(super) const BURST: u32 = 50;
/// Errors that one source gets per second, in the long run.
pub(super) const PER_SECOND: u32 = 50;
/// Sources with a bucket that is not full.
pub(super) const SOURCES: usize = 4096;

/// The buckets.
#[derive(Default)]
pub(super) struct ErrorLimiter {
    full_at: BTreeMap<Ipv4Addr, Instant>,
}

impl ErrorLimiter {
    /// Takes a token, if there is one.
    pub(super) fn allows(&mut self, source: Ipv4Addr, now: Instant) -> bool {
        let token = Duration::from_secs(1) / PER_SECOND;
        if self.full_at.len() >= SOURCES && !self.full_at.contains_key(&source) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= SOURCES {
                return false;
            }
        }
        let full_at = self.full_at.entry(source).or_insert(now);
        let after = (*full_at).max(now) + token;
        if after > now + token * BURST {
            return false;
        }
        *full_at = after;
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.full_at.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_a_burst_then_the_rate() {
        let start = Instant::now();
        let source = Ipv4Addr::new(10, 0, 0, 2);
        let mut limiter = ErrorLimiter::default();
        let burst = (0..1000).filter(|_| limiter.allows(source, start)).count();
        assert_eq!(burst, BURST as usize);
        assert!(limiter.allows(Ipv4Addr::new(10, 0, 0, 3), start), "another source has its own bucket");
        let rate =
            (0..1000u64).filter(|ms| limiter.allows(source, start + Duration::from_millis(*ms))).count();
        assert!((PER_SECOND as usize - 1..=PER_SECOND as usize).contains(&rate), "{rate}");
        let later = start + Duration::from_secs(60);
        assert_eq!((0..1000).filter(|_| limiter.allows(source, later)).count(), BURST as usize);
    }

    #[test]
    fn keeps_a_bounded_number_of_buckets() {
        let start = Instant::now();
        let mut limiter = ErrorLimiter::default();
        for source in 0..3 * SOURCES as u32 {
            limiter.allows(Ipv4Addr::from(source), start);
            assert!(limiter.len() <= SOURCES);
        }
        assert!(!limiter.allows(Ipv4Addr::new(10, 0, 0, 1), start));
        assert!(limiter.allows(Ipv4Addr::new(10, 0, 0, 1), start + Duration::from_secs(1)));
    }
}
