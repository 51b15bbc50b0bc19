//! What the gateway complains of (RFC 3103 section 10.4): packets that this host sent with an address or a port that is not
//! leased, to a peer that the lease is not for, or through a tunnel that is not agreed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rsip_proto::ids::MessageCounter;
use rsip_proto::wire::{Body, ErrorCode, Message};

/// The same complaint is told once in this time; the status has the number.
const INTERVAL: Duration = Duration::from_secs(60);

/// When which complaint was told last.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: BTreeMap<ErrorCode, Instant>,
}

impl Complaints {
    /// Looks at a message of the gateway, and tells the operator where it is a complaint.
    pub(super) fn heard(&mut self, message: &Message, now: Instant) {
        let Body::ErrorResponse { error, .. } = &message.body else { return };
        if message.counter != Some(MessageCounter::ASYNCHRONOUS) || !self.is_due(*error, now) {
            return;
        }
        let why = meaning(*error);
        tracing::warn!(%error, why, "the gateway complains of packets that this host sent");
    }

    fn is_due(&mut self, error: ErrorCode, now: Instant) -> bool {
        let due = self.told.get(&error).is_none_or(|at| now.saturating_duration_since(*at) >= INTERVAL);
        if due {
            self.told.insert(error, now);
        }
        due
    }
}

/// What is to be made of it.
const fn meaning(error: ErrorCode) -> &'static str {
    match error {
        ErrorCode::LocalAddrUnallowed => "a source address that is not leased",
        ErrorCode::LocalAddrportUnallowed => "a source port that is not leased",
        ErrorCode::RemoteAddrUnallowed => "a peer that the lease is not for, see --remote",
        ErrorCode::RemoteAddrportUnallowed => "a port of the peer that the lease is not for, see --remote",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_complaint_is_told_once_a_minute() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let second = |n| now + Duration::from_secs(n);
        assert!(complaints.is_due(ErrorCode::LocalAddrportUnallowed, now));
        assert!(!complaints.is_due(ErrorCode::LocalAddrportUnallowed, second(59)));
        assert!(complaints.is_due(ErrorCode::RemoteAddrUnallowed, second(59)), "another one");
        assert!(complaints.is_due(ErrorCode::LocalAddrportUnallowed, second(60)));
    }
}
