//! From TOML values to values that mean something; each function says what it would have taken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::DeValue;

/// A value with its place in the text.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// Why a value cannot be taken; the span is that of the part which is wrong.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) span: Range<usize>,
    pub(super) what: String,
}

fn complain<T>(value: &Value<'_>, what: impl Into<String>) -> Result<T, Complaint> {
    Err(Complaint { span: value.span(), what: what.into() })
}

fn kind(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn string<'a>(value: &'a Value<'_>) -> Result<&'a str, Complaint> {
    match value.get_ref().as_str() {
        Some(text) => Ok(text),
        None => complain(value, format!("{} stands where a string in quotes should be", kind(value))),
    }
}

pub(super) fn boolean(value: &Value<'_>) -> Result<bool, Complaint> {
    match value.get_ref().as_bool() {
        Some(flag) => Ok(flag),
        None => complain(value, format!("{} stands where true or false should be", kind(value))),
    }
}

pub(super) fn integer(value: &Value<'_>, allowed: RangeInclusive<u32>) -> Result<u32, Complaint> {
    let Some(integer) = value.get_ref().as_integer() else {
        return complain(value, format!("{} stands where a whole number should be", kind(value)));
    };
    match i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| u32::try_from(n).ok()) {
        Some(number) if allowed.contains(&number) => Ok(number),
        _ => complain(
            value,
            format!("{} is outside {} to {}", integer.as_str(), allowed.start(), allowed.end()),
        ),
    }
}

/// The items of a list; a single value counts as a list of one where `scalar` says so.
pub(super) fn items<'a, 'b>(value: &'a Value<'b>, scalar: bool) -> Result<Vec<&'a Value<'b>>, Complaint> {
    match value.get_ref().as_array() {
        Some(array) => Ok(array.iter().collect()),
        None if scalar => Ok(vec![value]),
        None => complain(value, format!("{} stands where a list in [ ] should be", kind(value))),
    }
}

/// The name of one interface: a string, or a list of exactly one.
pub(super) fn interface(value: &Value<'_>) -> Result<String, Complaint> {
    let names = items(value, true)?;
    let [name] = names.as_slice() else {
        return complain(value, format!("names {} interfaces; this version serves exactly one", names.len()));
    };
    let text = string(name)?;
    // The kernel's own rule (dev_valid_name), so that a mistake is found here and not as "no such device".
    let fits = !text.is_empty() && text.len() < 16 && text != "." && text != "..";
    if fits && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        Ok(text.to_owned())
    } else {
        complain(name, format!("{text:?} cannot be the name of an interface"))
    }
}

pub(super) fn address(value: &Value<'_>) -> Result<Ipv4Addr, Complaint> {
    let text = string(value)?;
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        return complain(value, format!("{text:?} is not an IPv4 address"));
    };
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast() {
        return complain(value, format!("{address} cannot be the address of a host"));
    }
    Ok(address)
}

pub(super) fn addresses(value: &Value<'_>, count: RangeInclusive<usize>) -> Result<Vec<Ipv4Addr>, Complaint> {
    let mut seen = BTreeSet::new();
    let mut addresses = Vec::new();
    for item in items(value, true)? {
        let address = address(item)?;
        if !seen.insert(address) {
            return complain(item, format!("{address} is listed twice"));
        }
        addresses.push(address);
    }
    match addresses.len() {
        n if n < *count.start() => complain(value, "is empty"),
        n if n > *count.end() => {
            complain(value, format!("lists {n} addresses; {} can be served", count.end()))
        }
        _ => Ok(addresses),
    }
}

pub(super) fn network(value: &Value<'_>) -> Result<(Ipv4Addr, u8), Complaint> {
    network_text(string(value)?).map_err(|what| Complaint { span: value.span(), what })
}

/// A network as `a.b.c.d/n`; bits beyond the prefix must be zero, since they are a slip more often than not. The error
/// says what is wrong.
pub(super) fn network_text(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        Some((address.parse::<Ipv4Addr>().ok()?, length.parse::<u8>().ok().filter(|length| *length <= 32)?))
    });
    let Some((address, length)) = parsed else {
        return Err(format!("{text:?} is not a network"));
    };
    let network = network_of(address, length);
    if network != address {
        return Err(format!("{text:?} has bits beyond its prefix: {network}/{length} is meant?"));
    }
    Ok((network, length))
}

/// The network that `address` is in.
pub(crate) fn network_of(address: Ipv4Addr, length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(length))).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn port(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port != 0)
}

/// `PORT` or `FIRST-LAST`; the last may be before the first.
pub(super) fn range(text: &str) -> Option<RangeInclusive<u16>> {
    match text.split_once('-') {
        Some((first, last)) => Some(port(first)?..=port(last)?),
        None => port(text).map(|port| port..=port),
    }
}

pub(super) fn port_range(value: &Value<'_>) -> Result<RangeInclusive<u16>, Complaint> {
    let text = string(value)?;
    let Some(range) = range(text) else {
        return complain(value, format!("{text:?} is not a range of ports"));
    };
    if range.is_empty() {
        return complain(value, format!("{text:?} ends before it begins"));
    }
    Ok(range)
}

/// A list of ports, each a number or a range in quotes; sorted, each once.
pub(super) fn ports(value: &Value<'_>) -> Result<Vec<u16>, Complaint> {
    let mut ports = BTreeSet::new();
    for item in items(value, false)? {
        if item.get_ref().is_integer() {
            ports.extend(u16::try_from(integer(item, 1..=65535)?).ok());
        } else {
            ports.extend(port_range(item)?);
        }
    }
    Ok(ports.into_iter().collect())
}
