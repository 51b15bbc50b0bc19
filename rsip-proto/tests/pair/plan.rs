//! What goes wrong in a run, and the source of chance.

use std::time::Duration;

use rsip_proto::host::HostTransport;

/// Who misbehaves, apart from programs that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chaos {
    /// The network alone: loss, duplicates, reordering, outages; connections break.
    Network,
    /// Agents are killed and started again, too.
    Agents,
    /// The gateway is killed and started again, and its administrator takes things back, too.
    Gateway,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) transport: HostTransport,
    pub(crate) chaos: Chaos,
}

/// SplitMix64: small, and the same on every machine and in every version.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    pub(crate) fn in_thousand(&mut self, count: u64) -> bool {
        self.below(1000) < count
    }

    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from((to - from).as_micros()).expect("times of a run are short");
        from + Duration::from_micros(self.below(span.max(1)))
    }
}
