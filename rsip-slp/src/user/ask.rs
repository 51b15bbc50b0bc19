//! Unicast requests of the user agent, and what an answer to one means.

use std::net::Ipv4Addr;

use crate::exchange::Unicast;
use crate::text::{AttributeList, ScopeList, ServiceUrl};
use crate::wire::message::UrlEntry;
use crate::wire::{Body, ErrorCode, Function, Message, ParseError};

/// A unicast request under way.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) unicast: Unicast,
    pub(super) question: Question,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A directory agent, for services in some scopes.
    Services { directory: Ipv4Addr, scopes: ScopeList },
    /// A service agent whose multicast answer did not fit into a datagram, for the whole of it.
    Rest,
    /// Whoever told of a service, for its attributes.
    Attributes(ServiceUrl),
}

impl Question {
    fn reply(&self) -> Function {
        match self {
            Self::Services { .. } | Self::Rest => Function::SrvRply,
            Self::Attributes(_) => Function::AttrRply,
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Services.
    Services(Vec<UrlEntry>),
    /// Attributes.
    Attributes(AttributeList),
    /// "I cannot help you."
    Refused,
    /// "Not now": the request goes on.
    Busy,
    /// Not all fitted into the datagram; the services are those that did.
    Overflow(Vec<UrlEntry>),
}

impl Ask {
    /// What a message means that came from the one who was asked; nothing when it is no answer to this.
    pub(super) fn answer(&self, parsed: &Result<Message, ParseError>) -> Option<Answer> {
        let (function, xid, overflow) = match parsed {
            Ok(message) => (message.body.function(), message.xid, message.flags.overflow),
            Err(ParseError { header: Some(header), .. }) => {
                (header.function, header.xid, header.flags.overflow)
            }
            Err(_) => return None,
        };
        if (function, xid) != (self.question.reply(), self.unicast.xid) {
            return None;
        }
        let body = parsed.as_ref().ok().map(|message| &message.body);
        if overflow && !self.unicast.is_stream() {
            return Some(match body {
                Some(Body::SrvRply(reply)) => Answer::Overflow(reply.entries.clone()),
                _ => Answer::Overflow(Vec::new()),
            });
        }
        Some(match body {
            Some(Body::SrvRply(reply)) => match reply.error {
                None => Answer::Services(reply.entries.clone()),
                // There are some, but none that speaks so: as good as none.
                Some(ErrorCode::LanguageNotSupported) => Answer::Services(Vec::new()),
                Some(ErrorCode::DaBusyNow) => Answer::Busy,
                Some(_) => Answer::Refused,
            },
            Some(Body::AttrRply(reply)) => match (reply.error, AttributeList::parse(&reply.attributes)) {
                (None, Ok(attributes)) => Answer::Attributes(attributes),
                (Some(ErrorCode::DaBusyNow), _) => Answer::Busy,
                _ => Answer::Refused,
            },
            _ => Answer::Refused,
        })
    }
}
