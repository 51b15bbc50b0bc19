//! tshark's words for our values. A number without a word is one that RFC 3103 does not define.

use rsip_proto::wire::{LocalPolicy, RemotePolicy, RsipMethod, TunnelType};

pub(super) const fn tunnel(tunnel: TunnelType) -> Option<&'static str> {
    match tunnel {
        TunnelType::IpIp => Some("IP-IP Tunnel"),
        TunnelType::Gre => Some("GRE Tunnel"),
        TunnelType::L2tp => Some("L2TP"),
        TunnelType::Other(_) => None,
    }
}

pub(super) const fn method(method: RsipMethod) -> Option<&'static str> {
    match method {
        RsipMethod::RsaIp => Some("RSA-IP"),
        RsipMethod::RsapIp => Some("RSAP-IP"),
        RsipMethod::Other(_) => None,
    }
}

pub(super) const fn local_policy(policy: LocalPolicy) -> &'static str {
    match policy {
        LocalPolicy::Macro => "Macro Flows",
        LocalPolicy::Micro => "Micro Flows",
    }
}

pub(super) const fn remote_policy(policy: RemotePolicy) -> &'static str {
    match policy {
        RemotePolicy::Macro => "Macro Flows",
        RemotePolicy::Micro => "Micro Flows",
        RemotePolicy::None => "No Policy",
    }
}

pub(super) const fn address_type(number: u8) -> Option<&'static str> {
    Some(match number {
        0 => "Reserved",
        1 => "IPv4",
        2 => "IPv4 Netmask",
        3 => "IPv6",
        4 => "Fully Qualified Domain Name",
        _ => return None,
    })
}

/// What is added to "Address" where no address follows the type.
pub(super) const fn any_address(addrtype: u8) -> &'static str {
    match addrtype {
        0 => "",
        1 => ": Any IPv4 Address",
        2 => ": Any IPv4 Netmask",
        3 => ": Any IPv6 Address",
        4 => ": Any Fully Qualified Domain Name",
        _ => ": Unknown Address Type",
    }
}

/// Appendix A of RFC 3103; 401 to 403: appendix B of RFC 3104.
pub(super) const fn error(number: u16) -> Option<&'static str> {
    Some(match number {
        101 => "Unknown Error",
        102 => "Use TCP",
        103 => "Flow Policy Violation",
        104 => "Internal Server Error",
        105 => "Message Counter Required",
        106 => "Unsupported RSIP Version",
        201 => "Missing Parameter",
        202 => "Duplicate Parameter",
        203 => "Extra Parameter",
        204 => "Illegal Parameter",
        205 => "Bad Parameter",
        206 => "Illegal Message",
        207 => "Bad Message",
        208 => "Unsupported Message",
        301 => "Register First",
        302 => "Already Registered",
        303 => "Already Unregistered",
        304 => "Registration Denied",
        305 => "Bad Client ID",
        306 => "Bad Bind ID",
        307 => "Bad Tunnel Type",
        308 => "Local Address Unavailable",
        309 => "Local Address Port Unavailable",
        310 => "Local Address Inuse",
        311 => "Local Address Port Inuse",
        312 => "Local Address Unallowed",
        313 => "Local Address Port Unallowed",
        314 => "Remote Address Unallowed",
        315 => "Remote Address Port Unallowed",
        401 => IPSEC_UNALLOWED,
        402 => IPSEC_SPI_UNAVAILABLE,
        403 => IPSEC_SPI_INUSE,
        _ => return None,
    })
}

pub(super) const IPSEC_UNALLOWED: &str = "IPsec Unallowed";
pub(super) const IPSEC_SPI_UNAVAILABLE: &str = "IPsec SPI Unavailable";
pub(super) const IPSEC_SPI_INUSE: &str = "IPsec SPI Inuse";
