//! Settings of the host's state machine.

use std::fmt;
use std::time::Duration;

use crate::lease::Remote;
use crate::wire::{RsipMethod, TunnelType};

/// Which transport carries RSIP for the life of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostTransport {
    /// A connection; no timers of ours.
    Tcp,
    /// Datagrams with retransmission (RFC 3103 section 10.1).
    Udp,
}

/// What is leased for the host's own choice of ports (RFC 3103 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A block of ports of an address that other hosts may share, and each port that a program wants by number.
    RsapIp,
    /// A whole address: every port of it is the host's own, so that no LISTEN is sent.
    RsaIp,
}

impl Method {
    /// The method as it stands in a message.
    #[must_use]
    pub const fn on_the_wire(self) -> RsipMethod {
        match self {
            Self::RsapIp => RsipMethod::RsapIp,
            Self::RsaIp => RsipMethod::RsaIp,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.on_the_wire().fmt(f)
    }
}

/// Settings of a [`super::Host`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// TCP or UDP.
    pub transport: HostTransport,
    /// Ports of an address, or a whole one.
    pub method: Method,
    /// The peer that the leases are for: named in every request when the gateway has a remote flow policy (RFC 3103
    /// section 7.2), and only then. Under the macro policy its address counts, under the micro policy its port, too.
    pub remote: Remote,
    /// Tunnel types that this host has. Of those the gateway's favourite is asked for.
    pub tunnels: Vec<TunnelType>,
    /// Ephemeral ports in one block, 1 to 255; 0: no block is leased. Of no meaning with RSA-IP.
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
    /// How often the gateway is asked which networks are local (QUERY), beside after each registration.
    pub query_interval: Duration,
    /// Pause between attempts to reach or register at the gateway, doubled up to `retry_max`.
    pub retry_min: Duration,
    /// Longest pause between attempts.
    pub retry_max: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            transport: HostTransport::Tcp,
            method: Method::RsapIp,
            remote: Remote::Any,
            tunnels: vec![TunnelType::IpIp],
            block_size: 255,
            lease_wish: None,
            first_timeout: Duration::from_micros(12_500),
            retries: 6,
            request_timeout: Duration::from_secs(3),
            probe_interval: Duration::from_secs(15),
            query_interval: Duration::from_secs(300),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
        }
    }
}
