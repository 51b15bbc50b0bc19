//! Why a pool cannot be, and why it does not give.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::Holder;

/// A pool that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// `POOL` is empty.
    #[error("POOL names no address")]
    NoAddress,
    /// An address that nobody can be reached at.
    #[error("POOL: {0} is not a unicast address of a host")]
    Unusable(Ipv4Addr),
    /// An address stands twice.
    #[error("POOL names {0} twice")]
    Twice(Ipv4Addr),
    /// A range that ends before it begins.
    #[error("{option}: {}-{} ends before it begins", .range.start(), .range.end())]
    Reversed {
        /// The option's name in the configuration.
        option: &'static str,
        /// Its value.
        range: RangeInclusive<u16>,
    },
    /// Port 0 cannot be used by anybody.
    #[error("{option}: port 0 cannot be leased")]
    PortZero {
        /// The option's name in the configuration.
        option: &'static str,
    },
    /// `RESERVED_PORTS` leaves nothing of `PORT_RANGE`.
    #[error("RESERVED_PORTS leaves no port of PORT_RANGE")]
    NothingLeft,
}

/// Why nothing is offered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Every port of every address is held.
    #[error("no port of any public address is free")]
    Exhausted,
    /// The address is not in the pool.
    #[error("{0} is not in the pool")]
    NotInPool(Ipv4Addr),
    /// The port is outside the ranges, or reserved.
    #[error("port {0} is not for lease")]
    NotLeasable(u16),
    /// The port is held.
    #[error("port {0} is in use")]
    InUse(u16),
    /// Not as many free ports at any one address.
    #[error("no public address has {0} free ports")]
    TooMany(u16),
    /// The request names no port, a port twice, or more than 255 ports.
    #[error("not a set of 1 to 255 ports")]
    NotASet,
}

/// The allocator's own assertions: what these report must never happen. Reported, not hidden, and never at the price of
/// a port with two holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// A port that was about to be given is held.
    #[error("{address} port {port} was about to be given to {wanted:?}, but {holder:?} holds it")]
    TwoHolders {
        /// Where.
        address: Ipv4Addr,
        /// Which.
        port: u16,
        /// Who has it, and keeps it.
        holder: Holder,
        /// Who was to get it, and does not.
        wanted: Holder,
    },
    /// A port was given back by one who does not hold it. It stays as it was.
    #[error("{address} port {port} was given back by {by:?}, but its holder is {holder:?}")]
    NotTheHolder {
        /// Where.
        address: Ipv4Addr,
        /// Which.
        port: u16,
        /// Who has it, if anybody.
        holder: Option<Holder>,
        /// Who gave it back.
        by: Holder,
    },
    /// A port that is not for lease was about to be given.
    #[error("{address} port {port} was about to be given, but is not for lease")]
    NotLeasable {
        /// Where.
        address: Ipv4Addr,
        /// Which.
        port: u16,
    },
    /// An address that the pool does not have was to be given or was given back.
    #[error("{0} is not in the pool")]
    Unknown(Ipv4Addr),
}
