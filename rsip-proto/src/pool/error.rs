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
    #[error("{option}: {address} is not a unicast address of a host")]
    Unusable {
        /// The option's name in the configuration.
        option: &'static str,
        /// What it names.
        address: Ipv4Addr,
    },
    /// An address stands twice in one list. (In both it may.)
    #[error("{option} names {address} twice")]
    Twice {
        /// The option's name in the configuration.
        option: &'static str,
        /// What it names twice.
        address: Ipv4Addr,
    },
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
    /// No address can be had whole.
    #[error("no public address can be leased whole now")]
    NoWholeAddress,
    /// The address is not in the pool.
    #[error("{0} is not in the pool")]
    NotInPool(Ipv4Addr),
    /// Ports are wanted at an address that is leased whole or not at all.
    #[error("{0} is not leased by port")]
    NotShared(Ipv4Addr),
    /// An address is wanted whole that is leased by port or not at all.
    #[error("{0} is not leased whole")]
    NotWhole(Ipv4Addr),
    /// The address is leased whole, or it is wanted whole and ports of it are held.
    #[error("{0} is in use")]
    AddressInUse(Ipv4Addr),
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
    /// An address was about to be given, whole or in part, that is held whole.
    #[error("{address} was about to be given to {wanted:?}, but {holder:?} holds it whole")]
    HeldWhole {
        /// Which.
        address: Ipv4Addr,
        /// Who has it, and keeps it.
        holder: Holder,
        /// Who was to get it, and does not.
        wanted: Holder,
    },
    /// An address was about to be given whole of which ports are held.
    #[error("{address} was about to be given whole to {wanted:?}, but {held} ports of it are held")]
    PortsHeld {
        /// Which.
        address: Ipv4Addr,
        /// How many of its ports are held.
        held: u32,
        /// Who was to get it, and does not.
        wanted: Holder,
    },
    /// An address was about to be given whole that is never leased so.
    #[error("{0} was about to be given whole, but is not for lease so")]
    NeverWhole(Ipv4Addr),
    /// A whole address was given back by one who does not hold it. It stays as it was.
    #[error("{address} was given back whole by {by:?}, but its holder is {holder:?}")]
    NotTheWholeHolder {
        /// Which.
        address: Ipv4Addr,
        /// Who has it, if anybody.
        holder: Option<Holder>,
        /// Who gave it back.
        by: Holder,
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
