//! What the administrator decides about the protocol.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::pool::PoolConfig;
use crate::wire::{FlowPolicy, LocalPolicy, RemotePolicy, TunnelType};

/// Settings of a [`super::Gateway`]. The defaults are those of `rsipd.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Public addresses and ports that may be leased.
    pub pool: PoolConfig,
    /// Hosts registered at the same time, at most.
    pub max_clients: u32,
    /// Ports that one host may hold, at most.
    pub max_ports_per_client: u32,
    /// `MAX_ADDRESSES_PER_CLIENT`: whole addresses that one host may hold, at most.
    pub max_addresses_per_client: u32,
    /// Lease of a registration and of a binding whose host has no wish; at least a second, at most `max_lease_time`.
    pub lease_time: Duration,
    /// No lease is longer than this; at least a second.
    pub max_lease_time: Duration,
    /// What is demanded of requests, the same for every host. The data path enforces it by [`super::Rule::remote`].
    pub flow_policy: FlowPolicy,
    /// `REMOTE_DENY`: peers that no lease may be for. Asked only under a remote policy: without one nobody names a peer.
    pub remote_deny: Vec<RemoteDeny>,
    /// Tunnel types that the data path can do, best first. With none, every ASSIGN and LISTEN gets 307.
    pub tunnel_types: Vec<TunnelType>,
    /// Networks that QUERY calls local: (network, prefix length).
    pub private_nets: Vec<(Ipv4Addr, u8)>,
    /// Whether LISTEN is served; off: 208.
    pub listen: bool,
}

/// One entry of `REMOTE_DENY`: peers with whom nobody may talk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDeny {
    /// (network, prefix length); a single address has 32. Bits behind the prefix mean nothing.
    pub network: (Ipv4Addr, u8),
    /// Their ports; `0..=65535` for all of them.
    pub ports: RangeInclusive<u16>,
}

impl GatewayConfig {
    /// Defaults for a pool.
    #[must_use]
    pub fn new(pool: PoolConfig) -> Self {
        Self {
            pool,
            max_clients: 256,
            max_ports_per_client: 4096,
            max_addresses_per_client: 1,
            lease_time: Duration::from_secs(600),
            max_lease_time: Duration::from_secs(3600),
            flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None },
            remote_deny: Vec::new(),
            tunnel_types: vec![TunnelType::IpIp],
            private_nets: Vec::new(),
            listen: true,
        }
    }
}
