//! What forwards packets. The protocol machine says which [`Rule`]s must hold; a [`Datapath`] makes it so.
//!
//! The contract, the same for every implementation ([`contract::check`] tests it):
//! - `install` answers `Ok` only when packets are forwarded as the rule says, and on an error nothing of the rule holds;
//! - `install` never takes a port away from another host: that would be two holders of one port, and is an error; so would be
//!   a port of an address that another host holds whole, and the reverse;
//! - under a remote policy what is leased is forwarded to and from [`Rule::remote`] alone; without one, a rule that wants that
//!   is refused, never half done;
//! - a host has one tunnel: a rule of another type than those that hold for the same host is refused;
//! - `remove` answers `Ok` when nothing of the rule holds any more, also when it did not before;
//! - `close` leaves no program, device, rule or queueing discipline behind.

pub mod contract;
pub mod ebpf;
pub mod fake;

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;

use rsip_proto::gateway::{Misuse, Rule};
use rsip_proto::lease::Remote;
use rsip_proto::wire::TunnelType;
use rsip_sys::tc::EbpfError;
use serde::{Deserialize, Serialize};

/// Forwards packets between hosts and the public realm.
pub trait Datapath {
    /// What it is, in a word, for logs and status.
    fn name(&self) -> &'static str;

    /// Makes the rule hold.
    ///
    /// # Errors
    /// Then nothing of the rule holds.
    fn install(&mut self, rule: &Rule) -> Result<(), DatapathError>;

    /// Makes the rule not hold.
    ///
    /// # Errors
    /// Then some of it may still hold; it can be tried again.
    fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError>;

    /// Whether the whole rule holds, asked from where packets are forwarded and not from memory.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn holds(&self, rule: &Rule) -> Result<bool, DatapathError>;

    /// Waits for a host that sends what it may not (RFC 3103 section 10.4). What it sent is dropped already, and not every
    /// packet is reported: about one a second for each host and kind. Cancel safe.
    fn misused(&mut self) -> impl Future<Output = (Ipv4Addr, Misuse)>;

    /// What was forwarded and dropped since the start.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn stats(&self) -> Result<Stats, DatapathError>;

    /// Ends it.
    fn close(self) -> impl Future<Output = Result<(), DatapathError>>;
}

/// Why the data path cannot do what it is told.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The programs, or their places at the interfaces.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// A map did not take or give a value.
    #[error("map {map}: {source}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// Not one of the pool's addresses.
    #[error("{0} is not an address of the pool")]
    ForeignAddress(Ipv4Addr),
    /// No tunnels of this type here.
    #[error("this data path has no {0} tunnels")]
    Tunnel(TunnelType),
    /// The host has a tunnel of another type.
    #[error("{host} has a {other} tunnel: it cannot have one of another type beside it")]
    OtherTunnel {
        /// Which host.
        host: Ipv4Addr,
        /// What it has.
        other: TunnelType,
    },
    /// Rules with a peer are only for a data path that was made for them.
    #[error("this data path has no remote policy: it cannot confine a lease to {0}")]
    Remote(Remote),
    /// Port 0 is nobody's.
    #[error("port 0 cannot be leased")]
    PortZero,
    /// Another host holds it, or this one with another peer: the one thing that must never be.
    #[error("{address}{} is held by {holder}", port.map(|port| format!(":{port}")).unwrap_or_default())]
    Held {
        /// The public address.
        address: Ipv4Addr,
        /// The port; `None`: it is about the whole address, or ports of it are held while all of it is wanted.
        port: Option<u16>,
        /// Who holds it.
        holder: Ipv4Addr,
    },
    /// Something else of the system.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// What was forwarded and dropped. Packets, and bytes of inner packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Packets sent to hosts.
    pub inward_packets: u64,
    /// Their bytes.
    pub inward_bytes: u64,
    /// Packets sent to the public realm.
    pub outward_packets: u64,
    /// Their bytes.
    pub outward_bytes: u64,
    /// Dropped: the host does not hold the source address and port.
    pub bad_source: u64,
    /// Dropped: truncated or contradictory.
    pub malformed: u64,
    /// Dropped: time to live used up.
    pub ttl_exceeded: u64,
    /// Dropped: a protocol or fragment that belongs to no holder.
    pub unsupported: u64,
    /// Dropped: the kernel would not encapsulate or redirect.
    pub failed: u64,
    /// Dropped: too big for the tunnel or the external interface, and not to be fragmented.
    pub too_big: u64,
    /// Of those: the sender was told what fits.
    #[serde(default)]
    pub too_big_told: u64,
    /// Datagrams that went on in fragments, counted once for each cut.
    #[serde(default)]
    pub fragmented: u64,
    /// Dropped: from outside with an impossible source address.
    pub martian: u64,
    /// Dropped: from or to somebody with whom the port may not be used.
    pub bad_remote: u64,
    /// Dropped: from a host, in a tunnel of another type than its own.
    pub bad_tunnel: u64,
    /// Dropped: a GRE header with a wrong checksum, or with what no tunnel of ours has.
    #[serde(default)]
    pub bad_gre: u64,
}
