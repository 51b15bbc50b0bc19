//! Messages on one line, for logs and for people.

use std::fmt;

use crate::wire::codec::Param;
use crate::wire::error::ParseError;
use crate::wire::fields::{Fields, indicator};
use crate::wire::message::Message;
use crate::wire::table::Field;

/// As in `LISTEN_REQUEST #3, client 1, local 192.0.2.1 80, remote any any 1, lease 3600 s, tunnel IP-IP`.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message_type())?;
        if let Some(counter) = self.counter {
            write!(f, " #{counter}")?;
        }
        let params = Fields::of(self).into_params(self.message_type());
        let mut last = None;
        for (field, param) in &params {
            if *field == Field::MessageCounter {
                continue;
            }
            // Addresses and ports of one end, and what is repeated, stand together.
            let joined = match (last, field) {
                (Some(Field::LocalAddress), Field::LocalPorts) => true,
                (Some(Field::RemoteAddress), Field::RemotePorts) => true,
                (Some(Field::QueryTuple), Field::QueryTuple) => !matches!(param, Param::Indicator(_)),
                (Some(last), field) => last == *field,
                (None, _) => false,
            };
            match (joined, field) {
                (true, _) => f.write_str(" ")?,
                (false, field) => write!(f, ", {}", label(*field))?,
            }
            write_value(f, *field, param, self.message_type().is_response())?;
            last = Some(*field);
        }
        Ok(())
    }
}

/// The word before a field's value; ends in a space where there is one.
const fn label(field: Field) -> &'static str {
    match field {
        Field::Error => "error ",
        Field::ClientId => "client ",
        Field::BindId => "bind ",
        Field::LeaseTime => "lease ",
        Field::FlowPolicy => "flow policy ",
        Field::LocalAddress | Field::LocalPorts => "local ",
        Field::RemoteAddress | Field::RemotePorts => "remote ",
        Field::TunnelType => "tunnel ",
        Field::TunnelEndpoint => "tunnel endpoint ",
        Field::RsipMethod => "method ",
        Field::MessageCounter => "counter ",
        Field::QueryTuple => "",
    }
}

fn write_value(f: &mut fmt::Formatter<'_>, field: Field, param: &Param, response: bool) -> fmt::Result {
    match param {
        Param::Address(address) => write!(f, "{address}"),
        Param::Ports(ports) => write!(f, "{ports}"),
        Param::LeaseTime(seconds) => write!(f, "{seconds} s"),
        Param::ClientId(id) => write!(f, "{id}"),
        Param::BindId(id) => write!(f, "{id}"),
        Param::TunnelType(tunnel) => write!(f, "{tunnel}"),
        Param::RsipMethod(method) => write!(f, "{method}"),
        Param::Error(error) => write!(f, "{error}"),
        Param::FlowPolicy(policy) => write!(f, "{policy}"),
        Param::MessageCounter(counter) => write!(f, "{counter}"),
        Param::Indicator(value) => f.write_str(match (*value, response) {
            (indicator::LOCAL_ADDRESS, false) => "address",
            (indicator::LOCAL_NETWORK, false) => "network",
            (indicator::LOCAL_ADDRESS, true) => "local address",
            (indicator::LOCAL_NETWORK, true) => "local network",
            (indicator::REMOTE_ADDRESS, _) => "remote address",
            (indicator::REMOTE_NETWORK, _) => "remote network",
            _ => "tuple",
        }),
        Param::VendorSpecific => write!(f, "{field}"),
    }
}

/// Bytes on one line, whatever they are: the message, or why there is none and how the bytes begin.
#[derive(Clone, Copy, Debug)]
pub struct Pretty<'a>(pub &'a [u8]);

/// Bytes of what cannot be read that are shown.
const SHOWN: usize = 64;

impl fmt::Display for Pretty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Message::parse(self.0) {
            Ok(message) => message.fmt(f),
            Err(error) => write_malformed(f, self.0, &error),
        }
    }
}

fn write_malformed(f: &mut fmt::Formatter<'_>, bytes: &[u8], error: &ParseError) -> fmt::Result {
    match error.message_type() {
        Some(message_type) => write!(f, "malformed {message_type}")?,
        None => f.write_str("malformed message")?,
    }
    if let Some(counter) = error.counter() {
        write!(f, " #{counter}")?;
    }
    write!(f, ", {error}, {} bytes:", bytes.len())?;
    bytes.iter().take(SHOWN).try_for_each(|byte| write!(f, " {byte:02x}"))?;
    if bytes.len() > SHOWN { f.write_str(" ...") } else { Ok(()) }
}
