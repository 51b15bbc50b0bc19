//! Settings of the host's state machine.

use std::time::Duration;

/// Which transport carries RSIP for the life of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTransport {
    /// A connection; no timers of ours.
    Tcp,
    /// Datagrams with retransmission (RFC 3103 section 10.1).
    Udp,
}

/// Settings of a [`super::Host`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// TCP or UDP.
    pub transport: HostTransport,
    /// Ephemeral ports in one block, 1 to 255; 0: no block is leased.
    pub block_size: u8,
    /// Lease that we ask for; `None`: as the gateway likes.
    pub lease_wish: Option<Duration>,
    /// First wait of the UDP back-off (12.5 ms in the RFC).
    pub first_timeout: Duration,
    /// Retransmissions after the first attempt (6 in the RFC).
    pub retries: u8,
    /// Longest wait for an answer over TCP, and longest time that a `want_port` may take.
    pub request_timeout: Duration,
    /// How often the registration is checked while nothing else is said.
    pub probe_interval: Duration,
    /// Pause between attempts to reach or register at the gateway, doubled up to `retry_max`.
    pub retry_min: Duration,
    /// Longest pause between attempts.
    pub retry_max: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            transport: HostTransport::Tcp,
            block_size: 255,
            lease_wish: None,
            first_timeout: Duration::from_micros(12_500),
            retries: 6,
            request_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(15),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
        }
    }
}
