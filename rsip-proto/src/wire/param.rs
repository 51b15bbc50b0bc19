//! The parameters of RFC 3103 section 8 as values. Client ID, Bind ID and Message Counter are in [`crate::ids`]; a Lease
//! Time is a `u32` of seconds.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

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
    /// Any ports, this many (0 is accepted from others in remote parameters, never sent).
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

/// Flow Policy parameter (RFC 3103 sections 7 and 8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPolicy {
    /// How ports are granted.
    pub local: LocalPolicy,
    /// Which peers a binding may talk to.
    pub remote: RemotePolicy,
}

/// Local flow policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalPolicy {
    /// 1: an address, or an address and one or more ports.
    Macro,
    /// 2: exactly one port per request.
    Micro,
}

/// Remote flow policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemotePolicy {
    /// 1: only the named address.
    Macro,
    /// 2: only the named address and port.
    Micro,
    /// 3: any peer.
    None,
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

macro_rules! error_codes {
    ($($number:literal $variant:ident $name:literal $text:literal;)+) => {
        /// Error parameter (RFC 3103 section 8.8 and appendix A; 401 to 403: RFC 3104).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!($number, ": ", $text, ".")] $variant,)+
            /// A number that no RFC defines.
            Other(u16),
        }

        impl ErrorCode {
            /// Every code that has a name.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)+ Self::Other(number) => number }
            }

            /// The code of a number from the wire.
            #[must_use]
            pub const fn from_number(number: u16) -> Self {
                match number { $($number => Self::$variant,)+ other => Self::Other(other) }
            }

            /// The RFC's name, in capitals.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ Self::Other(_) => "UNDEFINED" }
            }

            /// What it means, in a few words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ Self::Other(_) => "no RFC defines this number" }
            }
        }
    };
}

error_codes! {
    101 UnknownError "UNKNOWN_ERROR" "unidentified error";
    102 UseTcp "USE_TCP" "the gateway speaks RSIP over TCP only";
    103 FlowPolicyViolation "FLOW_POLICY_VIOLATION" "the request has too little detail for the flow policy";
    104 InternalServerError "INTERNAL_SERVER_ERROR" "fault inside the gateway";
    105 MessageCounterRequired "MESSAGE_COUNTER_REQUIRED" "message counter missing";
    106 UnsupportedRsipVersion "UNSUPPORTED_RSIP_VERSION" "RSIP version not supported";
    201 MissingParam "MISSING_PARAM" "a required parameter is missing";
    202 DuplicateParam "DUPLICATE_PARAM" "a parameter is repeated illegally";
    203 ExtraParam "EXTRA_PARAM" "a parameter does not belong in this message";
    204 IllegalParam "ILLEGAL_PARAM" "parameter type not understood";
    205 BadParam "BAD_PARAM" "a parameter is malformed";
    206 IllegalMessage "ILLEGAL_MESSAGE" "message type not understood";
    207 BadMessage "BAD_MESSAGE" "message malformed";
    208 UnsupportedMessage "UNSUPPORTED_MESSAGE" "optional message not supported here";
    301 RegisterFirst "REGISTER_FIRST" "the host is not registered";
    302 AlreadyRegistered "ALREADY_REGISTERED" "the host is registered already";
    303 AlreadyUnregistered "ALREADY_UNREGISTERED" "the host is unregistered already";
    304 RegistrationDenied "REGISTRATION_DENIED" "the gateway does not register this host";
    305 BadClientId "BAD_CLIENT_ID" "wrong client ID";
    306 BadBindId "BAD_BIND_ID" "no such binding of this host";
    307 BadTunnelType "BAD_TUNNEL_TYPE" "tunnel type not possible for this host";
    308 LocalAddrUnavailable "LOCAL_ADDR_UNAVAILABLE" "no public address is available now";
    309 LocalAddrportUnavailable "LOCAL_ADDRPORT_UNAVAILABLE" "not enough public ports are available now";
    310 LocalAddrInuse "LOCAL_ADDR_INUSE" "the public address is in use";
    311 LocalAddrportInuse "LOCAL_ADDRPORT_INUSE" "the public port is in use";
    312 LocalAddrUnallowed "LOCAL_ADDR_UNALLOWED" "the public address is not allowed for this host";
    313 LocalAddrportUnallowed "LOCAL_ADDRPORT_UNALLOWED" "the public port is not allowed for this host";
    314 RemoteAddrUnallowed "REMOTE_ADDR_UNALLOWED" "the remote address is not allowed";
    315 RemoteAddrportUnallowed "REMOTE_ADDRPORT_UNALLOWED" "the remote address and port are not allowed";
    401 IpsecUnallowed "IPSEC_UNALLOWED" "IPsec is not allowed for this host";
    402 IpsecSpiUnavailable "IPSEC_SPI_UNAVAILABLE" "no SPI is available now";
    403 IpsecSpiInuse "IPSEC_SPI_INUSE" "the SPI is in use";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.number(), self.name(), self.text())
    }
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
