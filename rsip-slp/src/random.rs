//! Random numbers from a seed: for transaction IDs and waits, which must differ and need not be secret.

use std::time::Duration;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A transaction ID: never 0, which unsolicited DAAdverts have.
    pub(crate) fn xid(&mut self) -> u16 {
        loop {
            let [high, low, ..] = self.next().to_be_bytes();
            match u16::from_be_bytes([high, low]) {
                0 => {}
                xid => return xid,
            }
        }
    }

    /// From nothing up to `longest`.
    pub(crate) fn wait(&mut self, longest: Duration) -> Duration {
        let [a, b, c, d, ..] = self.next().to_be_bytes();
        longest.mul_f64(f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut random = Random::new(1);
        let longest = Duration::from_secs(3);
        let waits: Vec<Duration> = (0..1000).map(|_| random.wait(longest)).collect();
        assert!(waits.iter().all(|wait| *wait <= longest));
        for part in 0..3 {
            let in_part = |wait: &&Duration| wait.as_secs() == part;
            assert!((250..420).contains(&waits.iter().filter(in_part).count()), "second {part}");
        }
    }

    #[test]
    fn transaction_ids_differ_and_are_never_zero() {
        let mut random = Random::new(7);
        let ids: std::collections::BTreeSet<u16> = (0..1000).map(|_| random.xid()).collect();
        assert!(ids.len() > 980 && !ids.contains(&0));
    }
}
