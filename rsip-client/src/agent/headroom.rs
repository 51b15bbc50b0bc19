//! More ephemeral ports before there are none left (RFC 3102 section 3.1: a host whose ports are all in use has to ask for
//! more). The kernel's refusal of a connection cannot be turned into a wait, so more are asked for in time.

use std::time::{Duration, Instant};

use rsip_ebpf_common::host::Counter;

use super::{Agent, Stage};

/// While nothing leaves through the tunnel, hardly any port comes into use: a look every so often is enough.
const CALM: Duration = Duration::from_secs(5);

/// When the ports in use were counted last.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    last: Option<(Instant, u64)>,
}

impl Headroom {
    /// Whether to count now; `sent`: packets that have left through the tunnel so far.
    fn is_due(&mut self, now: Instant, sent: u64) -> bool {
        let due =
            self.last.is_none_or(|(at, before)| sent != before || now.saturating_duration_since(at) >= CALM);
        if due {
            self.last = Some((now, sent));
        }
        due
    }
}

/// Three quarters are in use.
const fn is_scarce(leased: usize, used: usize) -> bool {
    used * 4 >= leased * 3
}

impl Agent {
    /// Asks for another block when the ports for connections run short, up to `--blocks` of them.
    pub(super) fn look_for_headroom(&mut self, now: Instant) {
        let most = usize::from(self.settings.block) * usize::from(self.settings.blocks);
        let leased = self.effects.book.block_ports();
        // Without hooks what was leased at start is what there is.
        let running = matches!(self.stage, Stage::Running) && self.settings.hooks;
        if !running || leased.is_empty() || leased.len() + usize::from(self.settings.block) > most {
            return;
        }
        let sent = self.effects.hooks.counter(Counter::TunnelOut).unwrap_or_default();
        if !self.headroom.is_due(now, sent) {
            return;
        }
        let Some(sockets) = self.effects.sockets() else { return };
        let used = leased.iter().filter(|port| sockets.contains_key(port)).count();
        if is_scarce(leased.len(), used) {
            tracing::info!(leased = leased.len(), used, "ephemeral ports run short: asking for more");
            self.host.want_block(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_asked_for_before_the_last_port_is_in_use() {
        for (leased, used, scarce) in [(255, 0, false), (255, 191, false), (255, 192, true), (255, 255, true)]
        {
            assert_eq!(is_scarce(leased, used), scarce, "{used} of {leased}");
        }
        assert!(is_scarce(1, 1) && !is_scarce(1, 0), "one port at a time");
        assert!(is_scarce(4, 3) && !is_scarce(4, 2));
    }

    #[test]
    fn looks_while_something_is_sent_and_now_and_then() {
        let (mut headroom, now) = (Headroom::default(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(headroom.is_due(now, 0), "the first time");
        assert!(!headroom.is_due(after(1), 0));
        assert!(headroom.is_due(after(2), 7), "something was sent");
        assert!(!headroom.is_due(after(6), 7));
        assert!(headroom.is_due(after(7), 7), "for safety");
    }
}
