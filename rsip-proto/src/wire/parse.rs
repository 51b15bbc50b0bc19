//! Bytes to values.
//!
//! A message is looked at in passes, one for each kind of mistake, so that which mistake is reported does not depend on
//! where in the message it stands: header, message type, framing, parameter types, parameters that do not belong,
//! repetitions, values, missing ones, order.

use crate::wire::codec::Param;
use crate::wire::error::{BadParam, ParseError, ParseErrorKind};
use crate::wire::fields::{Fields, check_address, check_tuple, indicator};
use crate::wire::header::{Header, VERSION};
use crate::wire::message::Message;
use crate::wire::param::{Address, Ports, QueryTuple};
use crate::wire::table::{ASSIGN_REQUEST_RSIPSEC, Field, Grammar, MessageType, ParamType, grammar};
use crate::wire::tlv::{Overrun, Tlv, Tlvs};

/// What is wrong, and where. Becomes a [`ParseError`] with all the bytes at hand.
type Fault = (usize, ParseErrorKind);

/// A parameter with its value read, and where it begins.
struct Located {
    offset: usize,
    param: Param,
}

impl Message {
    /// Reads exactly one message: a datagram, or what a [`super::Framer`] gave.
    ///
    /// Vendor-specific parameters are passed over wherever they stand (RFC 3103 section 8.12). Remote ports of don't care
    /// with a number of 0, which others send, become [`Ports::ANY`]. 0.0.0.0 and port 0 stay what they are: where they mean
    /// don't care is for the caller to know.
    ///
    /// # Errors
    ///
    /// [`ParseError`]: what is wrong, where, and what a gateway answers to it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        parse(bytes).map_err(|(offset, kind)| ParseError::new(bytes, offset, kind))
    }
}

fn parse(bytes: &[u8]) -> Result<Message, Fault> {
    let message_type = parse_header(bytes)?;
    let tlvs = Tlvs::of_message(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|Overrun(offset)| (offset, ParseErrorKind::Overrun))?;
    let grammar = grammar(message_type);
    let typed = check_types(&tlvs, grammar)?;
    let params = parse_values(&typed)?;
    check_presence(&params, grammar, bytes.len())?;
    let fields = place(&params, grammar, message_type, bytes.len())?;
    fields.into_message(message_type).map_err(|field| (bytes.len(), ParseErrorKind::MissingParam(field)))
}

fn parse_header(bytes: &[u8]) -> Result<MessageType, Fault> {
    let header = Header::read(bytes).ok_or((0, ParseErrorKind::ShortHeader(bytes.len())))?;
    if header.version != VERSION {
        return Err((0, ParseErrorKind::Version(header.version)));
    }
    // There are four bytes, so this also refuses an Overall Length of less than four.
    if usize::from(header.length) != bytes.len() {
        return Err((2, ParseErrorKind::OverallLength { stated: header.length, actual: bytes.len() }));
    }
    MessageType::from_number(header.message_type).ok_or(match header.message_type {
        ASSIGN_REQUEST_RSIPSEC => (1, ParseErrorKind::UnsupportedType(header.message_type)),
        other => (1, ParseErrorKind::UnknownType(other)),
    })
}

/// Parameter types known, at home in this message, and not too many of one; three passes.
fn check_types<'a>(tlvs: &[Tlv<'a>], grammar: &Grammar) -> Result<Vec<(ParamType, Tlv<'a>)>, Fault> {
    let typed: Vec<(ParamType, Tlv<'a>)> = tlvs
        .iter()
        .map(|tlv| match ParamType::from_number(tlv.number) {
            Some(param) => Ok((param, *tlv)),
            None => Err((tlv.offset, ParseErrorKind::UnknownParam(tlv.number))),
        })
        .collect::<Result<_, _>>()?;
    let judged = || typed.iter().filter(|(param, _)| *param != ParamType::VendorSpecific);
    for (param, tlv) in judged() {
        if grammar.limit(*param) == Some(0) {
            return Err((tlv.offset, ParseErrorKind::ExtraParam(*param)));
        }
    }
    let mut seen = [0_usize; u8::MAX as usize + 1];
    for (param, tlv) in judged() {
        let Some(count) = seen.get_mut(usize::from(tlv.number)) else { continue };
        *count += 1;
        if grammar.limit(*param).is_some_and(|limit| *count > limit) {
            return Err((tlv.offset, ParseErrorKind::DuplicateParam(*param)));
        }
    }
    Ok(typed)
}

/// The values; vendor-specific parameters are left out from here on.
fn parse_values(typed: &[(ParamType, Tlv<'_>)]) -> Result<Vec<Located>, Fault> {
    let mut params = Vec::with_capacity(typed.len());
    for (param_type, tlv) in typed {
        match Param::parse(*param_type, tlv.value) {
            Ok(Param::VendorSpecific) => {}
            Ok(param) => params.push(Located { offset: tlv.offset, param }),
            Err(reason) => return Err((tlv.offset, ParseErrorKind::BadParam { param: *param_type, reason })),
        }
    }
    Ok(params)
}

/// Whether there are as many parameters of each type as the message needs, wherever they stand.
fn check_presence(params: &[Located], grammar: &Grammar, end: usize) -> Result<(), Fault> {
    for (index, field) in grammar.required.iter().enumerate() {
        let earlier = grammar.required.iter().take(index);
        let Some(&param_type) = ParamType::ALL.iter().find(|param| field.takes(**param)) else { continue };
        let rank = earlier.filter(|field| field.takes(param_type)).count();
        if params.iter().filter(|located| located.param.param_type() == param_type).count() <= rank {
            return Err((end, ParseErrorKind::MissingParam(*field)));
        }
    }
    Ok(())
}

/// Gives each parameter its part: the required ones by place, the optional ones by type.
fn place(
    params: &[Located],
    grammar: &Grammar,
    message_type: MessageType,
    end: usize,
) -> Result<Fields, Fault> {
    let mut fields = Fields::default();
    let mut params = params.iter();
    for field in grammar.required {
        let located = params.next().ok_or((end, ParseErrorKind::MissingParam(*field)))?;
        put(&mut fields, *field, located)?;
    }
    let rest = params.as_slice();
    check_tuple_shapes(rest, grammar, message_type, end)?;
    while let Some(located) = params.next() {
        if let Param::Indicator(value) = located.param {
            fields.tuples.push(parse_tuple(value, message_type, located.offset, &mut params, end)?);
            continue;
        }
        let found = located.param.param_type();
        let optional = grammar.optional.iter().find(|(field, _)| field.takes(found));
        let (field, _) = optional.ok_or((located.offset, ParseErrorKind::ExtraParam(found)))?;
        put(&mut fields, *field, located)?;
    }
    Ok(fields)
}

fn put(fields: &mut Fields, field: Field, located: &Located) -> Result<(), Fault> {
    let bad =
        |reason| (located.offset, ParseErrorKind::BadParam { param: located.param.param_type(), reason });
    match (field, &located.param) {
        (Field::Error, Param::Error(error)) => fields.error = Some(*error),
        (Field::ClientId, Param::ClientId(id)) => fields.client_id = Some(*id),
        (Field::BindId, Param::BindId(id)) => fields.bind_id = Some(*id),
        (Field::LeaseTime, Param::LeaseTime(seconds)) => fields.lease_time = Some(*seconds),
        (Field::FlowPolicy, Param::FlowPolicy(policy)) => fields.flow_policy = Some(*policy),
        (Field::MessageCounter, Param::MessageCounter(counter)) => fields.counter = Some(*counter),
        (Field::TunnelType, Param::TunnelType(tunnel)) => fields.tunnel_types.push(*tunnel),
        (Field::RsipMethod, Param::RsipMethod(method)) => fields.methods.push(*method),
        (Field::LocalAddress | Field::RemoteAddress | Field::TunnelEndpoint, Param::Address(address)) => {
            check_address(field, address).map_err(bad)?;
            let place = match field {
                Field::LocalAddress => &mut fields.local_address,
                Field::RemoteAddress => &mut fields.remote_address,
                _ => &mut fields.tunnel_endpoint,
            };
            *place = Some(address.clone());
        }
        (Field::LocalPorts, Param::Ports(Ports::DontCare { count: 0 })) => {
            return Err(bad(BadParam::NoPorts));
        }
        (Field::RemotePorts, Param::Ports(Ports::DontCare { count: 0 })) => {
            fields.remote_ports = Some(Ports::ANY);
        }
        (Field::LocalPorts, Param::Ports(ports)) => fields.local_ports = Some(ports.clone()),
        (Field::RemotePorts, Param::Ports(ports)) => fields.remote_ports = Some(ports.clone()),
        (expected, param) => {
            let found = param.param_type();
            return Err((located.offset, ParseErrorKind::Order { expected, found }));
        }
    }
    Ok(())
}

/// How many Addresses an Indicator leads; `None` where it means nothing in this message.
const fn tuple_size(value: u16, message_type: MessageType) -> Option<usize> {
    match value {
        indicator::LOCAL_ADDRESS => Some(1),
        indicator::LOCAL_NETWORK => Some(2),
        indicator::REMOTE_ADDRESS if message_type.is_response() => Some(1),
        indicator::REMOTE_NETWORK if message_type.is_response() => Some(2),
        _ => None,
    }
}

/// Whether a QUERY's Indicators mean something, and there are as many Addresses as they need.
fn check_tuple_shapes(
    params: &[Located],
    grammar: &Grammar,
    message_type: MessageType,
    end: usize,
) -> Result<(), Fault> {
    if !grammar.optional.iter().any(|(field, _)| *field == Field::QueryTuple) {
        return Ok(());
    }
    let mut needed = 0_usize;
    for located in params {
        if let Param::Indicator(value) = located.param {
            let bad =
                ParseErrorKind::BadParam { param: ParamType::Indicator, reason: BadParam::Indicator(value) };
            needed += tuple_size(value, message_type).ok_or((located.offset, bad))?;
        }
    }
    let mut addresses = params.iter().filter(|located| located.param.param_type() == ParamType::Address);
    if addresses.clone().count() < needed {
        return Err((end, ParseErrorKind::MissingParam(Field::QueryTuple)));
    }
    match addresses.nth(needed) {
        Some(extra) => Err((extra.offset, ParseErrorKind::ExtraParam(ParamType::Address))),
        None => Ok(()),
    }
}

/// Reads the Addresses that an Indicator leads: they must follow it at once.
fn parse_tuple<'a>(
    value: u16,
    message_type: MessageType,
    offset: usize,
    params: &mut impl Iterator<Item = &'a Located>,
    end: usize,
) -> Result<QueryTuple, Fault> {
    let mut address = || -> Result<Address, Fault> {
        let located = params.next().ok_or((end, ParseErrorKind::MissingParam(Field::QueryTuple)))?;
        match &located.param {
            Param::Address(address) => Ok(address.clone()),
            other => {
                let kind = ParseErrorKind::Order { expected: Field::QueryTuple, found: other.param_type() };
                Err((located.offset, kind))
            }
        }
    };
    // A request's tuples have no locality: that is what they ask.
    let local =
        message_type.is_response() && matches!(value, indicator::LOCAL_ADDRESS | indicator::LOCAL_NETWORK);
    let tuple = if matches!(value, indicator::LOCAL_ADDRESS | indicator::REMOTE_ADDRESS) {
        QueryTuple::Address { local, address: address()? }
    } else {
        QueryTuple::Network { local, network: address()?, netmask: address()? }
    };
    check_tuple(&tuple)
        .map_err(|reason| (offset, ParseErrorKind::BadParam { param: ParamType::Address, reason }))?;
    Ok(tuple)
}
