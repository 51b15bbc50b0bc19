//! How busy the gateway says it is (RFC 3105 sections 6 and 7).

use std::time::{Duration, Instant};

use rsip_proto::gateway::GatewayView;
use rsip_slp::template::Load;

/// Between two looks at the whole gateway, at least: directory agents are told more rarely still.
const PAUSE: Duration = Duration::from_secs(5);

/// The share of what runs out first: registrations or public ports.
#[must_use]
pub fn load_of(view: &GatewayView, max_clients: u32) -> Load {
    let clients = u64::try_from(view.clients.len()).unwrap_or(u64::MAX);
    let leased = view.pool.iter().map(|address| u64::from(address.leased)).sum();
    let leasable = view.pool.iter().map(|address| u64::from(address.leasable)).sum();
    Load::share(clients, max_clients.into()).max(Load::share(leased, leasable))
}

/// When the load is to be computed again: soon after something changed, and not all the time.
#[derive(Clone, Copy, Debug)]
pub struct LoadClock {
    last: Instant,
    due: Option<Instant>,
}

impl LoadClock {
    /// Nothing has changed yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last: now, due: None }
    }

    /// Something was leased or given back.
    pub fn changed(&mut self, now: Instant) {
        self.due.get_or_insert((self.last + PAUSE).max(now));
    }

    /// When to compute.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It was computed.
    pub fn computed(&mut self, now: Instant) {
        self.last = now;
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_after_a_change_and_not_too_often() {
        let start = Instant::now();
        let mut clock = LoadClock::new(start);
        assert_eq!(clock.due(), None);
        clock.changed(start + Duration::from_secs(1));
        clock.changed(start + Duration::from_secs(4));
        assert_eq!(clock.due(), Some(start + PAUSE));
        clock.computed(start + PAUSE);
        assert_eq!(clock.due(), None);
        let later = start + Duration::from_secs(100);
        clock.changed(later);
        assert_eq!(clock.due(), Some(later), "at once after a quiet time");
    }
}
