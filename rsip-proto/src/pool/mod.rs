//! Which public addresses and ports are free, held or resting.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What may be leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// `POOL`: the public addresses, in the order in which they are tried.
    pub addresses: Vec<Ipv4Addr>,
    /// `PORT_RANGE`: where ports that the gateway chooses come from.
    pub port_range: RangeInclusive<u16>,
    /// `LISTEN_RANGE`: ports that a host may ask for by number.
    pub listen_range: RangeInclusive<u16>,
    /// `RESERVED_PORTS`: never leased.
    pub reserved: Vec<u16>,
    /// How long a freed port rests before the gateway itself chooses it again (RFC 3102 section 6.1 recommends two
    /// minutes). A port asked for by number is given at once: the host that had it has waited out its connections.
    pub rest: Duration,
}
