//! What one binding gives to a host: the same words for gateway, host and data path.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::wire::Ports;

/// What is leased of a public address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leased {
    /// RSA-IP: the whole address, with all its ports, ICMP and every other protocol.
    Address,
    /// RSAP-IP and LISTEN: these ports, TCP and UDP alike. Never don't care.
    Ports(Ports),
}

impl Leased {
    /// The ports that are named one by one; none for a whole address, which has them all.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports().into_iter().flat_map(Ports::iter)
    }

    /// The ports, unless the address is leased whole.
    #[must_use]
    pub const fn ports(&self) -> Option<&Ports> {
        match self {
            Self::Address => None,
            Self::Ports(ports) => Some(ports),
        }
    }

    /// Whether this port is part of the lease.
    #[must_use]
    pub fn covers(&self, port: u16) -> bool {
        self.ports().is_none_or(|ports| ports.iter().any(|leased| leased == port))
    }
}

impl From<Ports> for Leased {
    fn from(ports: Ports) -> Self {
        Self::Ports(ports)
    }
}

impl fmt::Display for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("all"),
            Self::Ports(ports) => ports.fmt(f),
        }
    }
}

/// With whom a lease may be used: the remote flow policy (RFC 3103 section 7.2), applied to one binding. It holds in both
/// directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// No remote policy: with everybody.
    Any,
    /// Remote macro: with this address, any port.
    Address(Ipv4Addr),
    /// Remote micro: with this address and port.
    Port(SocketAddrV4),
}

impl Remote {
    /// The peer's address, if it is restricted.
    #[must_use]
    pub const fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Any => None,
            Self::Address(address) => Some(*address),
            Self::Port(peer) => Some(*peer.ip()),
        }
    }

    /// The peer's port, if it is restricted.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Any | Self::Address(_) => None,
            Self::Port(peer) => Some(peer.port()),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Address(address) => address.fmt(f),
            Self::Port(peer) => peer.fmt(f),
        }
    }
}
