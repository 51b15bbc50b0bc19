//! What may stand in which message: the grammar of RFC 3103 section 9 as one table, read by the parser and the emitter.

use std::fmt;

use crate::wire::numbered::numbered;

numbered! {
    /// Message type (RFC 3103 appendix B).
    MessageType,
    1 ErrorResponse "ERROR_RESPONSE";
    2 RegisterRequest "REGISTER_REQUEST";
    3 RegisterResponse "REGISTER_RESPONSE";
    4 DeRegisterRequest "DE-REGISTER_REQUEST";
    5 DeRegisterResponse "DE-REGISTER_RESPONSE";
    6 AssignRequestRsaIp "ASSIGN_REQUEST_RSA-IP";
    7 AssignResponseRsaIp "ASSIGN_RESPONSE_RSA-IP";
    8 AssignRequestRsapIp "ASSIGN_REQUEST_RSAP-IP";
    9 AssignResponseRsapIp "ASSIGN_RESPONSE_RSAP-IP";
    10 ExtendRequest "EXTEND_REQUEST";
    11 ExtendResponse "EXTEND_RESPONSE";
    12 FreeRequest "FREE_REQUEST";
    13 FreeResponse "FREE_RESPONSE";
    14 QueryRequest "QUERY_REQUEST";
    15 QueryResponse "QUERY_RESPONSE";
    16 ListenRequest "LISTEN_REQUEST";
    17 ListenResponse "LISTEN_RESPONSE";
}

/// ASSIGN_REQUEST_RSIPSEC of RFC 3104: a message that exists, but not here (error 208, not 206).
pub const ASSIGN_REQUEST_RSIPSEC: u8 = 22;

impl MessageType {
    /// Whether a gateway may answer it at all, be it with an error. Not an ERROR_RESPONSE: "there are no error conditions
    /// that can be caused by an ERROR_RESPONSE" (RFC 3103 section 9.1.3), and two gateways, or a gateway and an echo
    /// service, would answer each other for ever.
    #[must_use]
    pub const fn is_answerable(self) -> bool {
        !matches!(self, Self::ErrorResponse)
    }

    /// Whether only gateways send it (RFC 3103 appendix B). To a gateway it is error 206.
    #[must_use]
    pub const fn is_response(self) -> bool {
        match self {
            Self::ErrorResponse
            | Self::RegisterResponse
            | Self::DeRegisterResponse
            | Self::AssignResponseRsaIp
            | Self::AssignResponseRsapIp
            | Self::ExtendResponse
            | Self::FreeResponse
            | Self::QueryResponse
            | Self::ListenResponse => true,
            Self::RegisterRequest
            | Self::DeRegisterRequest
            | Self::AssignRequestRsaIp
            | Self::AssignRequestRsapIp
            | Self::ExtendRequest
            | Self::FreeRequest
            | Self::QueryRequest
            | Self::ListenRequest => false,
        }
    }
}

numbered! {
    /// Parameter type (RFC 3103 section 8). SPI (22) belongs to RFC 3104 and is not understood here.
    ParamType,
    1 Address "Address";
    2 Ports "Ports";
    3 LeaseTime "Lease Time";
    4 ClientId "Client ID";
    5 BindId "Bind ID";
    6 TunnelType "Tunnel Type";
    7 RsipMethod "RSIP Method";
    8 Error "Error";
    9 FlowPolicy "Flow Policy";
    10 Indicator "Indicator";
    11 MessageCounter "Message Counter";
    12 VendorSpecific "Vendor Specific";
}

/// A parameter's part in a message: the grammar's `<Address (local)>` and `<Address (remote)>` are one [`ParamType`] but
/// two fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The error that an ERROR_RESPONSE reports.
    Error,
    /// The host's name at the gateway.
    ClientId,
    /// The binding's name.
    BindId,
    /// A lease, or the wish for one.
    LeaseTime,
    /// The gateway's policies.
    FlowPolicy,
    /// The public address.
    LocalAddress,
    /// The public ports.
    LocalPorts,
    /// The peer's address.
    RemoteAddress,
    /// The peer's ports.
    RemotePorts,
    /// How packets travel between host and gateway.
    TunnelType,
    /// The tunnel's far end.
    TunnelEndpoint,
    /// What the gateway can lease.
    RsipMethod,
    /// The message's number.
    MessageCounter,
    /// An address or network tuple of QUERY: an Indicator and one or two Addresses.
    QueryTuple,
}

impl Field {
    /// Whether parameters of this type can play this part.
    pub(super) const fn takes(self, param: ParamType) -> bool {
        matches!(
            (self, param),
            (Self::Error, ParamType::Error)
                | (Self::ClientId, ParamType::ClientId)
                | (Self::BindId, ParamType::BindId)
                | (Self::LeaseTime, ParamType::LeaseTime)
                | (Self::FlowPolicy, ParamType::FlowPolicy)
                | (Self::LocalAddress | Self::RemoteAddress | Self::TunnelEndpoint, ParamType::Address)
                | (Self::LocalPorts | Self::RemotePorts, ParamType::Ports)
                | (Self::TunnelType, ParamType::TunnelType)
                | (Self::RsipMethod, ParamType::RsipMethod)
                | (Self::MessageCounter, ParamType::MessageCounter)
                | (Self::QueryTuple, ParamType::Indicator | ParamType::Address)
        )
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "Error",
            Self::ClientId => "Client ID",
            Self::BindId => "Bind ID",
            Self::LeaseTime => "Lease Time",
            Self::FlowPolicy => "Flow Policy",
            Self::LocalAddress => "Address (local)",
            Self::LocalPorts => "Ports (local)",
            Self::RemoteAddress => "Address (remote)",
            Self::RemotePorts => "Ports (remote)",
            Self::TunnelType => "Tunnel Type",
            Self::TunnelEndpoint => "Address (tunnel endpoint)",
            Self::RsipMethod => "RSIP Method",
            Self::MessageCounter => "Message Counter",
            Self::QueryTuple => "tuple",
        })
    }
}

/// How often an optional field may appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// `[Field]`
    Once,
    /// `[Field]...`
    Many,
}

/// One message's grammar, its header left out.
#[derive(Debug)]
pub(super) struct Grammar {
    /// `<Field>`: each once, in this order, before all others.
    pub(super) required: &'static [Field],
    /// `[Field]`: in any order on the wire; we send them in this one, which is the RFC's.
    pub(super) optional: &'static [(Field, Repeat)],
}

impl Grammar {
    /// How many parameters of this type the message can hold; `None`: any number.
    pub(super) fn limit(&self, param: ParamType) -> Option<usize> {
        let required = self.required_count(param);
        self.optional.iter().filter(|(field, _)| field.takes(param)).try_fold(required, |sum, (_, repeat)| {
            match repeat {
                Repeat::Once => Some(sum + 1),
                Repeat::Many => None,
            }
        })
    }

    /// How many parameters of this type the message must hold.
    pub(super) fn required_count(&self, param: ParamType) -> usize {
        self.required.iter().filter(|field| field.takes(param)).count()
    }
}

const COUNTER: (Field, Repeat) = (Field::MessageCounter, Repeat::Once);
const LEASE: (Field, Repeat) = (Field::LeaseTime, Repeat::Once);
const TUNNEL: (Field, Repeat) = (Field::TunnelType, Repeat::Once);
const ENDPOINT: (Field, Repeat) = (Field::TunnelEndpoint, Repeat::Once);
const TUPLES: (Field, Repeat) = (Field::QueryTuple, Repeat::Many);

const PORTS_REQUEST: &[Field] =
    &[Field::ClientId, Field::LocalAddress, Field::LocalPorts, Field::RemoteAddress, Field::RemotePorts];

/// The grammar of a message type (RFC 3103 sections 9.1 to 9.17).
#[rustfmt::skip] // A table: one row a message.
pub(super) const fn grammar(message: MessageType) -> &'static Grammar {
    use Field::{
        BindId, ClientId, Error, FlowPolicy, LeaseTime, LocalAddress, LocalPorts, RemoteAddress, RemotePorts,
        RsipMethod, TunnelType,
    };
    use MessageType as M;
    match message {
        M::ErrorResponse => &Grammar {
            required: &[Error],
            optional: &[COUNTER, (ClientId, Repeat::Once), (BindId, Repeat::Once)],
        },
        M::RegisterRequest => &Grammar { required: &[], optional: &[COUNTER] },
        M::RegisterResponse => &Grammar {
            required: &[ClientId, LeaseTime, FlowPolicy],
            optional: &[COUNTER, (RsipMethod, Repeat::Many), (TunnelType, Repeat::Many)],
        },
        M::DeRegisterRequest | M::DeRegisterResponse => &Grammar { required: &[ClientId], optional: &[COUNTER] },
        M::AssignRequestRsaIp => &Grammar {
            required: &[ClientId, LocalAddress, RemoteAddress, RemotePorts],
            optional: &[COUNTER, LEASE, TUNNEL],
        },
        M::AssignResponseRsaIp => &Grammar {
            required: &[ClientId, BindId, LocalAddress, RemoteAddress, RemotePorts, LeaseTime, TunnelType],
            optional: &[ENDPOINT, COUNTER],
        },
        M::AssignRequestRsapIp => &Grammar { required: PORTS_REQUEST, optional: &[COUNTER, LEASE, TUNNEL] },
        M::AssignResponseRsapIp => &Grammar {
            required: &[
                ClientId, BindId, LocalAddress, LocalPorts, RemoteAddress, RemotePorts, LeaseTime, TunnelType,
            ],
            optional: &[ENDPOINT, COUNTER],
        },
        M::ExtendRequest => &Grammar { required: &[ClientId, BindId], optional: &[LEASE, COUNTER] },
        M::ExtendResponse => &Grammar { required: &[ClientId, BindId, LeaseTime], optional: &[COUNTER] },
        M::FreeRequest | M::FreeResponse => &Grammar { required: &[ClientId, BindId], optional: &[COUNTER] },
        M::QueryRequest | M::QueryResponse => &Grammar { required: &[ClientId], optional: &[COUNTER, TUPLES] },
        M::ListenRequest => &Grammar {
            required: PORTS_REQUEST,
            optional: &[COUNTER, LEASE, (TunnelType, Repeat::Many)],
        },
        // Tunnel Type before Lease Time: the RFC's own order, unlike in the ASSIGN responses.
        M::ListenResponse => &Grammar {
            required: &[
                ClientId, BindId, LocalAddress, LocalPorts, RemoteAddress, RemotePorts, TunnelType, LeaseTime,
            ],
            optional: &[ENDPOINT, COUNTER],
        },
    }
}
