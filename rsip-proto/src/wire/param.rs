//! The parameters of RFC 3103 section 8 as values. Client ID, Bind ID and Message Counter are in [`crate::ids`]; a Lease
//! Time is a `u32` of seconds.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::numbered::numbered;

/// Address parameter (RFC 3103 section 8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Addrtype 1.
    Ipv4(Ipv4Addr),
    /// Addrtype 2: a netmask, in QUERY only.
    Netmask(Ipv4Addr),
    /// Addrtype 3.
    Ipv6(Ipv6Addr),
    /// Addrtype 4: a name, ASCII, no terminator. Never valid as a local address.
    Fqdn(String),
    /// No address bytes: "don't care". Carries the Addrtype byte that it was sent with; we send 1.
    DontCare(u8),
}

impl Address {
    /// The don't-care address as we send it.
    pub const ANY: Self = Self::DontCare(1);

    /// The IPv4 address, where this is one; in a remote parameter 0.0.0.0 is to be read as don't care by the caller.
    #[must_use]
    pub const fn ipv4(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Ipv4(address) => Some(*address),
            Self::Netmask(_) | Self::Ipv6(_) | Self::Fqdn(_) | Self::DontCare(_) => None,
        }
    }
}

/// Ports parameter (RFC 3103 section 8.2). A port is leased for TCP and UDP alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// `first` to `first + count - 1`; one port is a range of 1. `count` is at least 1 and the end at most 65535.
    Range {
        /// The lowest port.
        first: u16,
        /// How many.
        count: u8,
    },
    /// Exactly these, at least two.
    List(Vec<u16>),
    /// Any ports, this many, at least 1.
    DontCare {
        /// How many.
        count: u8,
    },
}

impl Ports {
    /// The don't-care ports as we send them in remote parameters.
    pub const ANY: Self = Self::DontCare { count: 1 };

    /// One port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self::Range { first: port, count: 1 }
    }

    /// These ports in the shortest form: a range where they follow each other, else a list. `None` where no parameter can
    /// carry them: none, or more than 255.
    #[must_use]
    pub fn from_ports(ports: &[u16]) -> Option<Self> {
        let count = u8::try_from(ports.len()).ok()?;
        let first = *ports.first()?;
        let contiguous = ports.array_windows().all(|[a, b]| a.checked_add(1) == Some(*b));
        Some(if contiguous { Self::Range { first, count } } else { Self::List(ports.to_vec()) })
    }

    /// The named ports, in the order given; none for don't care.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let (range, list): (std::ops::Range<u32>, &[u16]) = match self {
            Self::Range { first, count } => (u32::from(*first)..u32::from(*first) + u32::from(*count), &[]),
            Self::List(ports) => (0..0, ports),
            Self::DontCare { .. } => (0..0, &[]),
        };
        range.filter_map(|port| u16::try_from(port).ok()).chain(list.iter().copied())
    }
}

/// Tunnel Type parameter (RFC 3103 section 8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelType {
    /// 1: IP in IP (RFC 2003).
    IpIp,
    /// 2: GRE (RFC 2784), no key.
    Gre,
    /// 3: L2TP.
    L2tp,
    /// Any other value, kept so that it can be refused by name.
    Other(u8),
}

impl TunnelType {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::IpIp => 1,
            Self::Gre => 2,
            Self::L2tp => 3,
            Self::Other(number) => number,
        }
    }

    /// The type of a number from the wire.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::IpIp,
            2 => Self::Gre,
            3 => Self::L2tp,
            other => Self::Other(other),
        }
    }
}

/// RSIP Method parameter (RFC 3103 section 8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RsipMethod {
    /// 1: a whole address.
    RsaIp,
    /// 2: an address and ports.
    RsapIp,
    /// Any other value.
    Other(u8),
}

impl RsipMethod {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::RsaIp => 1,
            Self::RsapIp => 2,
            Self::Other(number) => number,
        }
    }

    /// The method of a number from the wire.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::RsaIp,
            2 => Self::RsapIp,
            other => Self::Other(other),
        }
    }
}

/// Flow Policy parameter (RFC 3103 sections 7 and 8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPolicy {
    /// How ports are granted.
    pub local: LocalPolicy,
    /// Which peers a binding may talk to.
    pub remote: RemotePolicy,
}

numbered! {
    /// Local flow policy.
    LocalPolicy,
    /// An address, or an address and one or more ports.
    1 Macro "macro";
    /// Exactly one port per request.
    2 Micro "micro";
}

numbered! {
    /// Remote flow policy.
    RemotePolicy,
    /// Only the named address.
    1 Macro "macro";
    /// Only the named address and port.
    2 Micro "micro";
    /// Any peer.
    3 None "none";
}

impl fmt::Display for FlowPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.local, self.remote)
    }
}

/// An address or network tuple of QUERY_REQUEST and QUERY_RESPONSE, its Indicator read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryTuple {
    /// Indicator and address.
    Address {
        /// In a response: local (indicator 1) or remote (3). False in a request.
        local: bool,
        /// The address asked about.
        address: Address,
    },
    /// Indicator, network and netmask.
    Network {
        /// In a response: local (indicator 2) or remote (4). False in a request.
        local: bool,
        /// The network.
        network: Address,
        /// Its mask ([`Address::Netmask`]).
        netmask: Address,
    },
}

impl fmt::Display for TunnelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IpIp => f.write_str("IP-IP"),
            Self::Gre => f.write_str("GRE"),
            Self::L2tp => f.write_str("L2TP"),
            Self::Other(value) => write!(f, "tunnel-{value}"),
        }
    }
}

impl fmt::Display for RsipMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaIp => f.write_str("RSA-IP"),
            Self::RsapIp => f.write_str("RSAP-IP"),
            Self::Other(value) => write!(f, "method-{value}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(address) => address.fmt(f),
            Self::Netmask(mask) => write!(f, "mask {mask}"),
            Self::Ipv6(address) => address.fmt(f),
            Self::Fqdn(name) => f.write_str(name),
            Self::DontCare(_) => f.write_str("any"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, count: 1 } => write!(f, "{first}"),
            Self::Range { first, count } => {
                write!(f, "{first}-{}", u32::from(*first) + u32::from(count.saturating_sub(1)))
            }
            Self::List(ports) => {
                for (i, port) in ports.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{port}")?;
                }
                Ok(())
            }
            Self::DontCare { count } => write!(f, "any {count}"),
        }
    }
}
