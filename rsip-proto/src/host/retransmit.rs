//! When a request is sent again, and when it has failed (RFC 3103 section 10.1 and appendix D).

use std::time::{Duration, Instant};

use crate::host::{HostConfig, HostTransport};

/// `now + wait`, without the overflow that a nonsensical lease could cause.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    // A year is longer than any agent waits for one thing, and short enough for every clock.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now.checked_add(wait.min(YEAR)).unwrap_or(now)
}

/// What is to be done about a request that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Wait on.
    Nothing,
    /// Send the same message again.
    Resend,
    /// Nobody answers.
    Failed,
}

/// The clock of one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retransmit {
    first_timeout: Duration,
    retries: u8,
    first_sent: Instant,
    round_began: Instant,
    wait: Duration,
    left: u8,
    at: Instant,
    parked: bool,
}

impl Retransmit {
    /// The clock of a request that is being sent now.
    pub(super) fn start(config: &HostConfig, now: Instant) -> Self {
        // A connection does its own retransmission: one wait, no retry.
        let (first_timeout, retries) = match config.transport {
            HostTransport::Udp => (config.first_timeout, config.retries),
            HostTransport::Tcp => (config.request_timeout, 0),
        };
        let first_timeout = first_timeout.max(Duration::from_millis(1));
        Self {
            first_timeout,
            retries,
            first_sent: now,
            round_began: now,
            wait: first_timeout,
            left: retries,
            at: after(now, first_timeout),
            parked: false,
        }
    }

    /// When the first copy was sent. What the gateway promised in its answer cannot have begun earlier.
    pub(super) const fn first_sent(&self) -> Instant {
        self.first_sent
    }

    /// When the first copy of the present round was sent.
    pub(super) const fn round_began(&self) -> Instant {
        self.round_began
    }

    /// When [`Self::poll`] has something to say.
    pub(super) const fn deadline(&self) -> Instant {
        self.at
    }

    /// What is to be done now.
    pub(super) fn poll(&mut self, now: Instant) -> Due {
        if now < self.at {
            return Due::Nothing;
        }
        if self.parked {
            self.begin_round(now);
            return Due::Resend;
        }
        if self.left == 0 {
            return Due::Failed;
        }
        self.left -= 1;
        self.wait = self.wait.saturating_mul(2);
        // Counted from the planned time, so that a late wake-up does not stretch the schedule; a wake-up that is very
        // late must not fire several copies at once.
        let planned = after(self.at, self.wait);
        self.at = if planned > now { planned } else { after(now, self.wait) };
        Due::Resend
    }

    /// After [`Due::Failed`]: the host may not go on to the next counter before this request is answered (RFC 3103
    /// section 10.1), so it is sent again in a whole new round, later.
    pub(super) fn park(&mut self, until: Instant) {
        self.parked = true;
        self.at = until;
    }

    /// Ends the pause at once.
    pub(super) fn unpark(&mut self, now: Instant) -> bool {
        let parked = self.parked;
        if parked {
            self.begin_round(now);
        }
        parked
    }

    fn begin_round(&mut self, now: Instant) {
        self.parked = false;
        self.round_began = now;
        self.wait = self.first_timeout;
        self.left = self.retries;
        self.at = after(now, self.wait);
    }
}

/// Pauses that double.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `retry_min`, ends with `retry_max`.
    pub(super) fn new(config: &HostConfig) -> Self {
        // A pause of nothing would be a loop that never rests.
        let min = config.retry_min.max(Duration::from_millis(1));
        Self { min, max: config.retry_max.max(min), next: min }
    }

    /// The pause to make now.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = self.next.saturating_mul(2).min(self.max);
        pause
    }

    /// It worked: the next trouble begins with the short pause again.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(config: &HostConfig) -> (Vec<u128>, u128) {
        let start = Instant::now();
        let mut clock = Retransmit::start(config, start);
        let mut sent = vec![0];
        loop {
            let at = clock.deadline();
            match clock.poll(at) {
                Due::Resend => sent.push((at - start).as_micros()),
                Due::Failed => return (sent, (at - start).as_micros()),
                Due::Nothing => panic!("the deadline is reached"),
            }
        }
    }

    #[test]
    fn follows_the_times_of_appendix_d() {
        let config = HostConfig { transport: HostTransport::Udp, ..HostConfig::default() };
        let (sent, failed) = times(&config);
        assert_eq!(sent, [0, 12_500, 37_500, 87_500, 187_500, 387_500, 787_500]);
        assert_eq!(failed, 1_587_500);
    }

    #[test]
    fn waits_once_on_a_connection() {
        let (sent, failed) = times(&HostConfig::default());
        assert_eq!(sent, [0]);
        assert_eq!(failed, 3_000_000);
    }

    #[test]
    fn does_nothing_before_its_time() {
        let now = Instant::now();
        let config = HostConfig { transport: HostTransport::Udp, ..HostConfig::default() };
        let mut clock = Retransmit::start(&config, now);
        assert_eq!(clock.poll(now + Duration::from_millis(12)), Due::Nothing);
        assert_eq!(clock.poll(now + Duration::from_millis(13)), Due::Resend);
    }

    #[test]
    fn a_late_wake_up_sends_one_copy() {
        let now = Instant::now();
        let config = HostConfig { transport: HostTransport::Udp, ..HostConfig::default() };
        let mut clock = Retransmit::start(&config, now);
        let late = now + Duration::from_secs(1);
        assert_eq!(clock.poll(late), Due::Resend);
        assert_eq!(clock.poll(late), Due::Nothing);
    }

    #[test]
    fn a_parked_request_begins_a_new_round() {
        let now = Instant::now();
        let config = HostConfig { transport: HostTransport::Udp, retries: 0, ..HostConfig::default() };
        let mut clock = Retransmit::start(&config, now);
        let failed = clock.deadline();
        assert_eq!(clock.poll(failed), Due::Failed);
        let later = failed + Duration::from_secs(1);
        clock.park(later);
        assert_eq!(clock.poll(failed), Due::Nothing);
        assert_eq!(clock.poll(later), Due::Resend);
        assert_eq!(clock.deadline(), later + config.first_timeout);
        assert_eq!(clock.first_sent(), now);
        assert_eq!(clock.round_began(), later);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let config = HostConfig {
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(3),
            ..HostConfig::default()
        };
        let mut backoff = Backoff::new(&config);
        assert_eq!([1, 2, 3, 3].map(Duration::from_secs), std::array::from_fn(|_| backoff.pause()));
        backoff.reset();
        assert_eq!(backoff.pause(), Duration::from_secs(1));
    }

    #[test]
    fn an_endless_lease_does_not_overflow_the_clock() {
        let now = Instant::now();
        assert!(after(now, Duration::MAX) > now);
    }
}
