//! What happened: one log line for each change of state, and the counters.

use std::time::Instant;

use rsip_proto::gateway::{Event, RemovalReason, Rule};

use crate::control::view::Events;

/// Refusals logged in a row, before the rate counts.
const BURST: f64 = 20.0;
/// Refusals logged in a second, in the long run: a host that sends garbage does not fill the disk.
const PER_SECOND: f64 = 2.0;

/// Logs and counts.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) counters: Events,
    tokens: f64,
    refilled: Instant,
    suppressed: u64,
}

impl Journal {
    pub(crate) fn new(now: Instant) -> Self {
        Self { counters: Events::default(), tokens: BURST, refilled: now, suppressed: 0 }
    }

    pub(crate) fn record(&mut self, event: &Event, now: Instant) {
        let counters = &mut self.counters;
        match event {
            Event::Registered { client_id, host } => {
                counters.registered += 1;
                tracing::info!(%client_id, %host, "registered");
            }
            Event::Unregistered { client_id, host, reason } => {
                counters.unregistered += 1;
                tracing::info!(%client_id, %host, reason = word(*reason), "registration ended");
            }
            Event::Bound { rule, lease_time, listen } => {
                counters.bound += 1;
                let Rule { client_id, bind_id, host, address, leased, remote, tunnel } = rule;
                let kind = if *listen { "listen" } else { "assign" };
                tracing::info!(%client_id, %bind_id, %host, %address, %leased, %remote, %tunnel, kind, lease_time, "bound");
            }
            Event::Extended { client_id, bind_id, lease_time } => {
                counters.extended += 1;
                tracing::debug!(%client_id, %bind_id, lease_time, "extended");
            }
            Event::Unbound { rule, reason } => {
                counters.unbound += 1;
                let Rule { client_id, bind_id, host, address, leased, .. } = rule;
                let reason = word(*reason);
                tracing::info!(%client_id, %bind_id, %host, %address, %leased, reason, "binding ended");
            }
            Event::Stuck { rule } => {
                let Rule { client_id, bind_id, host, address, leased, .. } = rule;
                tracing::warn!(%client_id, %bind_id, %host, %address, %leased, "data path keeps a rule: ports stay taken");
            }
            Event::Fault { detail } => {
                tracing::error!(detail, "the gateway contradicts itself: please report this")
            }
            Event::Misused { client_id, host, misuse } => {
                let error = misuse.error_code().name();
                *counters.misused.entry(error.to_owned()).or_default() += 1;
                if self.may_log(now) {
                    tracing::info!(%client_id, %host, error, "host sent data that it may not send");
                } else {
                    self.suppressed += 1;
                }
            }
            Event::Refused { peer, error, detail } => {
                *counters.refused.entry(error.name().to_owned()).or_default() += 1;
                if self.may_log(now) {
                    let suppressed = std::mem::take(&mut self.suppressed);
                    let error = error.name();
                    if suppressed == 0 {
                        tracing::info!(host = %peer.address, error, detail, "refused");
                    } else {
                        tracing::info!(host = %peer.address, error, detail, suppressed, "refused");
                    }
                } else {
                    self.suppressed += 1;
                }
            }
        }
    }

    fn may_log(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * PER_SECOND).min(BURST);
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }
}

fn word(reason: RemovalReason) -> &'static str {
    match reason {
        RemovalReason::Freed => "freed",
        RemovalReason::Expired => "expired",
        RemovalReason::DeRegistered => "de-registered",
        RemovalReason::Revoked => "revoked",
        RemovalReason::InstallFailed => "install failed",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn refusals_are_logged_at_a_bounded_rate_and_all_counted() {
        let start = Instant::now();
        let mut journal = Journal::new(start);
        let logged = (0..1000).filter(|_| journal.may_log(start)).count();
        assert_eq!(logged, 20);
        assert!(!journal.may_log(start + Duration::from_millis(400)));
        assert!(journal.may_log(start + Duration::from_millis(1000)));
    }
}
