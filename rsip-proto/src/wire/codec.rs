//! One parameter as a value, its bytes, and the rules that both directions check.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::ids::{BindId, ClientId, MessageCounter};
use crate::wire::error::BadParam;
use crate::wire::error_code::ErrorCode;
use crate::wire::param::{Address, FlowPolicy, LocalPolicy, Ports, RemotePolicy, RsipMethod, TunnelType};
use crate::wire::table::ParamType;
use crate::wire::tlv::TLV_HEADER_LEN;

/// Addrtype values (RFC 3103 section 8.1).
mod addrtype {
    pub(super) const IPV4: u8 = 1;
    pub(super) const NETMASK: u8 = 2;
    pub(super) const IPV6: u8 = 3;
    pub(super) const FQDN: u8 = 4;
}

/// The longest name, in bytes (RFC 1035 section 2.3.4).
const MAX_FQDN_LEN: usize = 255;

/// A parameter whose value was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Param {
    Address(Address),
    Ports(Ports),
    LeaseTime(u32),
    ClientId(ClientId),
    BindId(BindId),
    TunnelType(TunnelType),
    RsipMethod(RsipMethod),
    Error(ErrorCode),
    FlowPolicy(FlowPolicy),
    Indicator(u16),
    MessageCounter(MessageCounter),
    /// Passed over silently (RFC 3103 section 8.12), so its value is not kept.
    VendorSpecific,
}

impl Param {
    pub(super) const fn param_type(&self) -> ParamType {
        match self {
            Self::Address(_) => ParamType::Address,
            Self::Ports(_) => ParamType::Ports,
            Self::LeaseTime(_) => ParamType::LeaseTime,
            Self::ClientId(_) => ParamType::ClientId,
            Self::BindId(_) => ParamType::BindId,
            Self::TunnelType(_) => ParamType::TunnelType,
            Self::RsipMethod(_) => ParamType::RsipMethod,
            Self::Error(_) => ParamType::Error,
            Self::FlowPolicy(_) => ParamType::FlowPolicy,
            Self::Indicator(_) => ParamType::Indicator,
            Self::MessageCounter(_) => ParamType::MessageCounter,
            Self::VendorSpecific => ParamType::VendorSpecific,
        }
    }

    /// Reads a value. What depends on the message or on the parameter's part in it is not judged here; neither is
    /// a don't-care number of 0 ports.
    pub(super) fn parse(param: ParamType, value: &[u8]) -> Result<Self, BadParam> {
        Ok(match param {
            ParamType::Address => Self::Address(parse_address(value)?),
            ParamType::Ports => Self::Ports(parse_ports(value)?),
            ParamType::LeaseTime => Self::LeaseTime(u32::from_be_bytes(exactly(value)?)),
            ParamType::ClientId => Self::ClientId(ClientId(u32::from_be_bytes(exactly(value)?))),
            ParamType::BindId => Self::BindId(BindId(u32::from_be_bytes(exactly(value)?))),
            ParamType::TunnelType => {
                let [number] = exactly(value)?;
                Self::TunnelType(TunnelType::from_number(number))
            }
            ParamType::RsipMethod => {
                let [number] = exactly(value)?;
                Self::RsipMethod(RsipMethod::from_number(number))
            }
            ParamType::Error => Self::Error(ErrorCode::from_number(u16::from_be_bytes(exactly(value)?))),
            ParamType::FlowPolicy => {
                let [local, remote] = exactly(value)?;
                Self::FlowPolicy(parse_flow_policy(local, remote)?)
            }
            // Section 8.10 says two bytes, sections 9.14 and 9.15 say one.
            ParamType::Indicator => Self::Indicator(match *value {
                [value] => u16::from(value),
                _ => u16::from_be_bytes(exactly(value)?),
            }),
            ParamType::MessageCounter => {
                Self::MessageCounter(MessageCounter(u32::from_be_bytes(exactly(value)?)))
            }
            ParamType::VendorSpecific if value.len() < 4 => return Err(BadParam::Length(value.len())),
            ParamType::VendorSpecific => Self::VendorSpecific,
        })
    }

    /// Whether the value is one that [`Param::parse`] would give back.
    pub(super) fn check(&self) -> Result<(), BadParam> {
        match self {
            Self::Address(Address::Fqdn(name)) => check_fqdn(name.as_bytes()),
            Self::Ports(ports) => check_ports(ports),
            _ => Ok(()),
        }
    }

    /// Bytes of the parameter, type and length included.
    pub(super) fn buffer_len(&self) -> usize {
        TLV_HEADER_LEN
            + match self {
                Self::Address(Address::Ipv4(_) | Address::Netmask(_)) => 5,
                Self::Address(Address::Ipv6(_)) => 17,
                Self::Address(Address::Fqdn(name)) => 1 + name.len(),
                Self::Address(Address::DontCare(_)) => 1,
                Self::Ports(Ports::Range { .. }) => 3,
                Self::Ports(Ports::List(ports)) => 1 + 2 * ports.len(),
                Self::Ports(Ports::DontCare { .. }) => 1,
                Self::LeaseTime(_) | Self::ClientId(_) | Self::BindId(_) | Self::MessageCounter(_) => 4,
                Self::TunnelType(_) | Self::RsipMethod(_) => 1,
                Self::Error(_) | Self::FlowPolicy(_) | Self::Indicator(_) => 2,
                Self::VendorSpecific => 0,
            }
    }

    /// Appends the parameter. It must have passed [`Param::check`].
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([self.param_type().number(), 0, 0]);
        match self {
            Self::Address(address) => emit_address(address, out),
            Self::Ports(ports) => emit_ports(ports, out),
            Self::LeaseTime(seconds) => out.extend(seconds.to_be_bytes()),
            Self::ClientId(id) => out.extend(id.0.to_be_bytes()),
            Self::BindId(id) => out.extend(id.0.to_be_bytes()),
            Self::TunnelType(tunnel) => out.push(tunnel.number()),
            Self::RsipMethod(method) => out.push(method.number()),
            Self::Error(error) => out.extend(error.number().to_be_bytes()),
            Self::FlowPolicy(policy) => out.extend([policy.local.number(), policy.remote.number()]),
            Self::Indicator(value) => out.extend(value.to_be_bytes()),
            Self::MessageCounter(counter) => out.extend(counter.0.to_be_bytes()),
            Self::VendorSpecific => {}
        }
        // No value that passes the check is longer than 511 bytes.
        let length = u16::try_from(out.len() - start - TLV_HEADER_LEN).unwrap_or(u16::MAX);
        if let Some(field) = out.get_mut(start + 1..start + TLV_HEADER_LEN) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], BadParam> {
    value.try_into().map_err(|_| BadParam::Length(value.len()))
}

fn parse_address(value: &[u8]) -> Result<Address, BadParam> {
    let length = || BadParam::Length(value.len());
    let (&addrtype, address) = value.split_first().ok_or_else(length)?;
    if address.is_empty() {
        return Ok(Address::DontCare(addrtype));
    }
    let ipv4 = || <[u8; 4]>::try_from(address).map(Ipv4Addr::from).map_err(|_| length());
    match addrtype {
        addrtype::IPV4 => ipv4().map(Address::Ipv4),
        addrtype::NETMASK => ipv4().map(Address::Netmask),
        addrtype::IPV6 => <[u8; 16]>::try_from(address)
            .map(|bytes| Address::Ipv6(Ipv6Addr::from(bytes)))
            .map_err(|_| length()),
        addrtype::FQDN => {
            check_fqdn(address)?;
            String::from_utf8(address.to_vec()).map(Address::Fqdn).map_err(|_| BadParam::Fqdn)
        }
        other => Err(BadParam::AddressType(other)),
    }
}

fn emit_address(address: &Address, out: &mut Vec<u8>) {
    match address {
        Address::Ipv4(address) => {
            out.push(addrtype::IPV4);
            out.extend(address.octets());
        }
        Address::Netmask(mask) => {
            out.push(addrtype::NETMASK);
            out.extend(mask.octets());
        }
        Address::Ipv6(address) => {
            out.push(addrtype::IPV6);
            out.extend(address.octets());
        }
        Address::Fqdn(name) => {
            out.push(addrtype::FQDN);
            out.extend(name.bytes());
        }
        Address::DontCare(addrtype) => out.push(*addrtype),
    }
}

/// Printable ASCII only, so that a name in a log or a terminal is no more than a name.
fn check_fqdn(name: &[u8]) -> Result<(), BadParam> {
    let fits = (1..=MAX_FQDN_LEN).contains(&name.len());
    if fits && name.iter().all(u8::is_ascii_graphic) { Ok(()) } else { Err(BadParam::Fqdn) }
}

/// The number of port fields tells the forms apart: none is don't care, one is a port or a range, more are a list.
fn parse_ports(value: &[u8]) -> Result<Ports, BadParam> {
    let length = || BadParam::Length(value.len());
    let (&number, fields) = value.split_first().ok_or_else(length)?;
    let (fields, odd) = fields.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(length());
    }
    let ports = match fields {
        [] => return Ok(Ports::DontCare { count: number }),
        [first] => Ports::Range { first: u16::from_be_bytes(*first), count: number },
        list if list.len() == usize::from(number) => {
            Ports::List(list.iter().map(|field| u16::from_be_bytes(*field)).collect())
        }
        list => return Err(BadParam::PortFields { fields: list.len(), number }),
    };
    check_ports(&ports)?;
    Ok(ports)
}

fn emit_ports(ports: &Ports, out: &mut Vec<u8>) {
    match ports {
        Ports::Range { first, count } => {
            out.push(*count);
            out.extend(first.to_be_bytes());
        }
        Ports::List(ports) => {
            out.push(u8::try_from(ports.len()).unwrap_or(u8::MAX));
            out.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        }
        Ports::DontCare { count } => out.push(*count),
    }
}

fn check_ports(ports: &Ports) -> Result<(), BadParam> {
    match ports {
        Ports::Range { count: 0, .. } | Ports::DontCare { count: 0 } => Err(BadParam::NoPorts),
        Ports::Range { first, count } if first.checked_add(u16::from(count - 1)).is_none() => {
            Err(BadParam::PortRange { first: *first, count: *count })
        }
        Ports::Range { .. } | Ports::DontCare { .. } => Ok(()),
        Ports::List(ports) if !(2..=usize::from(u8::MAX)).contains(&ports.len()) => {
            Err(BadParam::PortCount(ports.len()))
        }
        // A port twice in one binding would be one port leased twice.
        Ports::List(ports) => {
            let mut sorted = ports.clone();
            sorted.sort_unstable();
            match sorted.array_windows().find(|[a, b]| a == b) {
                Some([port, _]) => Err(BadParam::RepeatedPort(*port)),
                None => Ok(()),
            }
        }
    }
}

fn parse_flow_policy(local: u8, remote: u8) -> Result<FlowPolicy, BadParam> {
    match (LocalPolicy::from_number(local), RemotePolicy::from_number(remote)) {
        (Some(local), Some(remote)) => Ok(FlowPolicy { local, remote }),
        _ => Err(BadParam::FlowPolicy { local, remote }),
    }
}
