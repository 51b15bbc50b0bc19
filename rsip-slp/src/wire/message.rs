//! Messages as values (RFC 2608 sections 8 and 10). Strings stand as they do on the wire, escapes included; what they
//! mean is told by [`crate::text`].

use super::ErrorCode;

/// One message: the header's fields that are not computed, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The flags of the header.
    pub flags: Flags,
    /// Transaction ID: a retransmission has that of the request, and so has the reply. 0 only in an unsolicited
    /// DAAdvert.
    pub xid: u16,
    /// Language tag, `en` for example; a reply has that of the request.
    pub language: String,
    /// What is said.
    pub body: Body,
}

/// Flags of the header (RFC 2608 section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// OVERFLOW: the reply did not fit into a datagram, and is not whole.
    pub overflow: bool,
    /// FRESH: a SrvReg that replaces all that was registered for its URL.
    pub fresh: bool,
    /// REQUEST MCAST: the request was sent by multicast or broadcast.
    pub request_mcast: bool,
}

/// Kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Function {
    /// Service Request.
    SrvRqst = 1,
    /// Service Reply.
    SrvRply = 2,
    /// Service Registration.
    SrvReg = 3,
    /// Service Deregister.
    SrvDeReg = 4,
    /// Service Acknowledge.
    SrvAck = 5,
    /// Attribute Request.
    AttrRqst = 6,
    /// Attribute Reply.
    AttrRply = 7,
    /// DA Advertisement.
    DaAdvert = 8,
    /// Service Type Request.
    SrvTypeRqst = 9,
    /// Service Type Reply.
    SrvTypeRply = 10,
    /// SA Advertisement.
    SaAdvert = 11,
}

impl Function {
    /// All of them, by number.
    pub const ALL: [Self; 11] = [
        Self::SrvRqst,
        Self::SrvRply,
        Self::SrvReg,
        Self::SrvDeReg,
        Self::SrvAck,
        Self::AttrRqst,
        Self::AttrRply,
        Self::DaAdvert,
        Self::SrvTypeRqst,
        Self::SrvTypeRply,
        Self::SaAdvert,
    ];

    /// The function of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.number() == number)
    }

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The reply to a request that could not be served; nothing for what is no request.
    #[must_use]
    pub fn refusal(self, error: ErrorCode) -> Option<Body> {
        let error = Some(error);
        match self {
            Self::SrvRqst => Some(Body::SrvRply(SrvRply { error, entries: Vec::new() })),
            Self::SrvReg | Self::SrvDeReg => Some(Body::SrvAck { error }),
            Self::AttrRqst => Some(Body::AttrRply(AttrRply { error, attributes: String::new() })),
            Self::SrvTypeRqst => Some(Body::SrvTypeRply(SrvTypeRply { error, service_types: String::new() })),
            Self::SrvRply
            | Self::SrvAck
            | Self::AttrRply
            | Self::DaAdvert
            | Self::SrvTypeRply
            | Self::SaAdvert => None,
        }
    }
}

/// Body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Looks for services, directory agents or service agents.
    SrvRqst(SrvRqst),
    /// Names services.
    SrvRply(SrvRply),
    /// Registers a service with a directory agent.
    SrvReg(SrvReg),
    /// Takes a registration, or attributes of it, back.
    SrvDeReg(SrvDeReg),
    /// Answers a registration.
    SrvAck {
        /// Nothing: success.
        error: Option<ErrorCode>,
    },
    /// Asks for attributes of a service, or of all services of a type.
    AttrRqst(AttrRqst),
    /// Names attributes.
    AttrRply(AttrRply),
    /// A directory agent introduces itself.
    DaAdvert(DaAdvert),
    /// Asks for all types of service.
    SrvTypeRqst(SrvTypeRqst),
    /// Names types of service.
    SrvTypeRply(SrvTypeRply),
    /// A service agent introduces itself.
    SaAdvert(SaAdvert),
}

impl Body {
    /// Which kind of message it is.
    #[must_use]
    pub fn function(&self) -> Function {
        match self {
            Self::SrvRqst(_) => Function::SrvRqst,
            Self::SrvRply(_) => Function::SrvRply,
            Self::SrvReg(_) => Function::SrvReg,
            Self::SrvDeReg(_) => Function::SrvDeReg,
            Self::SrvAck { .. } => Function::SrvAck,
            Self::AttrRqst(_) => Function::AttrRqst,
            Self::AttrRply(_) => Function::AttrRply,
            Self::DaAdvert(_) => Function::DaAdvert,
            Self::SrvTypeRqst(_) => Function::SrvTypeRqst,
            Self::SrvTypeRply(_) => Function::SrvTypeRply,
            Self::SaAdvert(_) => Function::SaAdvert,
        }
    }
}

/// Service Request (RFC 2608 section 8.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvRqst {
    /// Who has answered already: IPv4 addresses with commas between.
    pub previous_responders: String,
    /// `service:rsip`, for example.
    pub service_type: String,
    /// Scopes with commas between; may be empty where directory or service agents are looked for.
    pub scopes: String,
    /// LDAPv3 search filter; empty: every service of the type.
    pub predicate: String,
    /// Which authentication block is wanted; empty: none.
    pub spi: String,
}

/// URL Entry (RFC 2608 section 4.3). Authentication blocks are passed over when it is read, and never written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlEntry {
    /// Seconds.
    pub lifetime: u16,
    /// Where the service is.
    pub url: String,
}

/// Service Reply (RFC 2608 section 8.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvRply {
    /// Nothing: success.
    pub error: Option<ErrorCode>,
    /// What was found.
    pub entries: Vec<UrlEntry>,
}

/// Service Registration (RFC 2608 section 8.3). Whether it is incremental is told by [`Flags::fresh`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvReg {
    /// Where the service is, and how long that holds.
    pub entry: UrlEntry,
    /// `service:rsip`, for example.
    pub service_type: String,
    /// Scopes with commas between.
    pub scopes: String,
    /// Attribute list.
    pub attributes: String,
}

/// Service Deregister (RFC 2608 section 10.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvDeReg {
    /// The scopes with which the service was registered.
    pub scopes: String,
    /// The service; its lifetime means nothing.
    pub entry: UrlEntry,
    /// Attributes to take back; empty: the service itself.
    pub tags: String,
}

/// Attribute Request (RFC 2608 section 10.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrRqst {
    /// Who has answered already.
    pub previous_responders: String,
    /// The URL of a service, or a service type.
    pub url: String,
    /// Scopes with commas between.
    pub scopes: String,
    /// Which attributes; empty: all.
    pub tags: String,
    /// Which authentication block is wanted; empty: none.
    pub spi: String,
}

/// Attribute Reply (RFC 2608 section 10.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttrRply {
    /// Nothing: success.
    pub error: Option<ErrorCode>,
    /// Attribute list.
    pub attributes: String,
}

/// Directory Agent Advertisement (RFC 2608 section 8.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaAdvert {
    /// Nothing: success; always so when it is multicast.
    pub error: Option<ErrorCode>,
    /// When it last lost its registrations, in seconds since 1970; 0: it is going down.
    pub boot_timestamp: u32,
    /// `service:directory-agent://` and its address.
    pub url: String,
    /// Scopes with commas between.
    pub scopes: String,
    /// Attribute list.
    pub attributes: String,
    /// SLP SPIs that it can verify.
    pub spis: String,
}

/// Service Type Request (RFC 2608 section 10.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvTypeRqst {
    /// Who has answered already.
    pub previous_responders: String,
    /// Whose types are asked for.
    pub naming_authority: NamingAuthority,
    /// Scopes with commas between.
    pub scopes: String,
}

/// Whose service types are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NamingAuthority {
    /// Those registered with IANA, which have no naming authority.
    #[default]
    Iana,
    /// Those of one authority; not empty.
    Named(String),
    /// All.
    All,
}

/// Service Type Reply (RFC 2608 section 10.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SrvTypeRply {
    /// Nothing: success.
    pub error: Option<ErrorCode>,
    /// Service types with commas between.
    pub service_types: String,
}

/// Service Agent Advertisement (RFC 2608 section 8.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SaAdvert {
    /// `service:service-agent://` and its address.
    pub url: String,
    /// Scopes with commas between.
    pub scopes: String,
    /// Attribute list.
    pub attributes: String,
}
