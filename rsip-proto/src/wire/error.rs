//! Why bytes are no message, and which RSIP error a gateway answers.

use crate::ids::{BindId, ClientId, MessageCounter};
use crate::wire::error_code::ErrorCode;
use crate::wire::header::Header;
use crate::wire::table::{Field, MessageType, ParamType};
use crate::wire::tlv::Tlvs;

/// Why bytes are not one RSIP message.
///
/// Besides the reason it holds what could still be read, so that a gateway can answer. A host never answers: it discards
/// what it cannot read (RFC 3103 section 9.1.3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (byte {offset})")]
pub struct ParseError {
    offset: usize,
    kind: ParseErrorKind,
    message_type: Option<u8>,
    has_counter: bool,
    counter: Option<MessageCounter>,
    client_id: Option<ClientId>,
    bind_id: Option<BindId>,
}

/// What is wrong. In the order in which it is looked for: where several things are wrong, the first is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseErrorKind {
    /// Fewer than four bytes.
    #[error("shorter than a header: {0} bytes")]
    ShortHeader(usize),
    /// A version other than 1.
    #[error("RSIP version {0} is not supported")]
    Version(u8),
    /// Overall Length is not the number of bytes there are, or smaller than the header.
    #[error("Overall Length says {stated}, there are {actual} bytes")]
    OverallLength {
        /// What the header says.
        stated: u16,
        /// Bytes that were given.
        actual: usize,
    },
    /// A message type that no RFC defines, or that only RFC 3104's gateways send.
    #[error("message type {0} is not understood")]
    UnknownType(u8),
    /// A message type of RFC 3104.
    #[error("message type {0} is not supported")]
    UnsupportedType(u8),
    /// A parameter reaches past the message's end.
    #[error("a parameter runs past the end of the message")]
    Overrun,
    /// A parameter type that no RFC defines, or that belongs to RFC 3104.
    #[error("parameter type {0} is not understood")]
    UnknownParam(u8),
    /// A parameter that does not belong in this message.
    #[error("{0} does not belong in this message")]
    ExtraParam(ParamType),
    /// More of these than this message may hold.
    #[error("{0} is repeated")]
    DuplicateParam(ParamType),
    /// A parameter whose length or value is not allowed.
    #[error("{param}: {reason}")]
    BadParam {
        /// Which.
        param: ParamType,
        /// What is wrong with it.
        reason: BadParam,
    },
    /// A required parameter is not there.
    #[error("{0} is missing")]
    MissingParam(Field),
    /// All that is required is there, but not in the RFC's order, or an optional parameter stands before a required one.
    #[error("{found} stands where {expected} belongs")]
    Order {
        /// What the grammar wants here.
        expected: Field,
        /// What is here.
        found: ParamType,
    },
}

/// What is wrong with a parameter's length or value. The emitter refuses the same things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParam {
    /// The length does not fit the type.
    #[error("a length of {0} is not possible")]
    Length(usize),
    /// An Addrtype that no RFC defines, with address bytes after it.
    #[error("address type {0} is not understood")]
    AddressType(u8),
    /// A name that is empty, longer than 255 bytes, or has bytes that are not printable ASCII.
    #[error("not a name of 1 to 255 printable ASCII characters")]
    Fqdn,
    /// A name asked for or given as local address.
    #[error("a name cannot be a local address")]
    LocalFqdn,
    /// A netmask outside of a network tuple.
    #[error("a netmask cannot stand here")]
    Netmask,
    /// Number and the count of port fields fit no form of the parameter.
    #[error("{fields} port fields for a number of {number}")]
    PortFields {
        /// Port fields.
        fields: usize,
        /// The Number field.
        number: u8,
    },
    /// A list of fewer than two or more than 255 ports.
    #[error("a list of {0} ports is not possible")]
    PortCount(usize),
    /// A range that ends past port 65535.
    #[error("{count} ports from {first} run past 65535")]
    PortRange {
        /// The lowest port.
        first: u16,
        /// How many.
        count: u8,
    },
    /// A list that names a port twice.
    #[error("port {0} is named twice")]
    RepeatedPort(u16),
    /// A number of zero ports.
    #[error("a number of 0 ports")]
    NoPorts,
    /// Reserved or undefined policies.
    #[error("flow policy local {local}, remote {remote} is not defined")]
    FlowPolicy {
        /// Local policy.
        local: u8,
        /// Remote policy.
        remote: u8,
    },
    /// An Indicator with no meaning in this message.
    #[error("indicator {0} has no meaning in this message")]
    Indicator(u16),
    /// An address tuple whose address is neither IPv4 nor IPv6 nor a name.
    #[error("an address tuple needs an address or a name")]
    TupleAddress,
    /// A network tuple whose network is not IPv4 (there is no IPv6 netmask).
    #[error("a network tuple needs an IPv4 network")]
    TupleNetwork,
    /// A network tuple whose netmask is not of type netmask.
    #[error("a network tuple needs a netmask")]
    TupleNetmask,
}

/// How far the reading came. Later is greater, so that a gateway can put its own checks in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Version or Overall Length is wrong.
    Header,
    /// The message type is not known.
    MessageType,
    /// Parameters do not end where the message does.
    Framing,
    /// All parameters could be told apart; one of them, or their choice, is wrong.
    Parameters,
}

impl ParseError {
    /// `offset` is where in `bytes` the reason lies; what else can be read is read here, as far as it goes.
    pub(super) fn new(bytes: &[u8], offset: usize, kind: ParseErrorKind) -> Self {
        let mut error = Self {
            offset,
            kind,
            message_type: bytes.get(1).copied(),
            has_counter: false,
            counter: None,
            client_id: None,
            bind_id: None,
        };
        let end = Header::read(bytes).map_or(0, |header| usize::from(header.length).min(bytes.len()));
        for tlv in Tlvs::of_message(bytes.get(..end).unwrap_or_default()).map_while(Result::ok) {
            let value = || <[u8; 4]>::try_from(tlv.value).ok().map(u32::from_be_bytes);
            match ParamType::from_number(tlv.number) {
                Some(ParamType::MessageCounter) => {
                    error.has_counter = true;
                    error.counter = error.counter.or(value().map(MessageCounter));
                }
                Some(ParamType::ClientId) => error.client_id = error.client_id.or(value().map(ClientId)),
                Some(ParamType::BindId) => error.bind_id = error.bind_id.or(value().map(BindId)),
                _ => {}
            }
        }
        error
    }

    /// Where in the bytes, from 0.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> ParseErrorKind {
        self.kind
    }

    /// How far the reading came.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        match self.kind {
            ParseErrorKind::ShortHeader(_)
            | ParseErrorKind::Version(_)
            | ParseErrorKind::OverallLength { .. } => Stage::Header,
            ParseErrorKind::UnknownType(_) | ParseErrorKind::UnsupportedType(_) => Stage::MessageType,
            ParseErrorKind::Overrun => Stage::Framing,
            ParseErrorKind::UnknownParam(_)
            | ParseErrorKind::ExtraParam(_)
            | ParseErrorKind::DuplicateParam(_)
            | ParseErrorKind::BadParam { .. }
            | ParseErrorKind::MissingParam(_)
            | ParseErrorKind::Order { .. } => Stage::Parameters,
        }
    }

    /// The error that a gateway answers. A response, which no gateway expects, is 206 whatever else is wrong with it.
    #[must_use]
    pub fn error_code(&self) -> ErrorCode {
        if self.stage() > Stage::Header && self.message_type().is_some_and(MessageType::is_response) {
            return ErrorCode::IllegalMessage;
        }
        match self.kind {
            ParseErrorKind::ShortHeader(_)
            | ParseErrorKind::OverallLength { .. }
            | ParseErrorKind::Overrun
            | ParseErrorKind::Order { .. } => ErrorCode::BadMessage,
            ParseErrorKind::Version(_) => ErrorCode::UnsupportedRsipVersion,
            ParseErrorKind::UnknownType(_) => ErrorCode::IllegalMessage,
            ParseErrorKind::UnsupportedType(_) => ErrorCode::UnsupportedMessage,
            ParseErrorKind::UnknownParam(_) => ErrorCode::IllegalParam,
            ParseErrorKind::ExtraParam(_) => ErrorCode::ExtraParam,
            ParseErrorKind::DuplicateParam(_) => ErrorCode::DuplicateParam,
            ParseErrorKind::BadParam { .. } => ErrorCode::BadParam,
            ParseErrorKind::MissingParam(_) => ErrorCode::MissingParam,
        }
    }

    /// Whether a gateway may answer at all: not what may be a broken ERROR_RESPONSE, see [`MessageType::is_answerable`].
    #[must_use]
    pub fn is_answerable(&self) -> bool {
        self.message_type().is_none_or(MessageType::is_answerable)
    }

    /// The message type, where it is a known one.
    #[must_use]
    pub fn message_type(&self) -> Option<MessageType> {
        self.message_type.and_then(MessageType::from_number)
    }

    /// The message type's byte, where there are two bytes.
    #[must_use]
    pub const fn message_type_number(&self) -> Option<u8> {
        self.message_type
    }

    /// The message counter, where one can be read: for the answer.
    #[must_use]
    pub const fn counter(&self) -> Option<MessageCounter> {
        self.counter
    }

    /// Whether the parameters could be told apart and no Message Counter was among them: over UDP that is error 105, and
    /// comes before what is wrong with a parameter.
    #[must_use]
    pub fn lacks_counter(&self) -> bool {
        self.stage() == Stage::Parameters && !self.has_counter
    }

    /// The client ID, where one can be read: for the answer.
    #[must_use]
    pub const fn client_id(&self) -> Option<ClientId> {
        self.client_id
    }

    /// The bind ID, where one can be read: for the answer.
    #[must_use]
    pub const fn bind_id(&self) -> Option<BindId> {
        self.bind_id
    }
}

/// Why a message cannot be written: its values fit no message that a parser would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A value that its parameter cannot carry.
    #[error("{field}: {reason}")]
    BadParam {
        /// Whose value.
        field: Field,
        /// What is wrong with it.
        reason: BadParam,
    },
    /// More bytes than Overall Length can state.
    #[error("{0} bytes are more than a message can have")]
    TooLong(usize),
}
