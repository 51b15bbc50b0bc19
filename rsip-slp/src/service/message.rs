//! The requests of the service agent.

use super::ServiceConfig;
use crate::agent::DIRECTORY_AGENT;
use crate::text::{AttributeList, ScopeList};
use crate::wire::message::{SrvDeReg, SrvReg, SrvRqst, UrlEntry};
use crate::wire::{Body, EncodeError, Flags, Message};

impl ServiceConfig {
    fn encode(&self, flags: Flags, xid: u16, body: Body) -> Result<Vec<u8>, EncodeError> {
        Message { flags, xid, language: self.language.clone(), body }.encode()
    }

    /// Looks for directory agents by multicast; all scopes are named (RFC 2608 section 8.1).
    pub(super) fn search(&self, xid: u16, previous_responders: String) -> Result<Vec<u8>, EncodeError> {
        let request = SrvRqst {
            previous_responders,
            service_type: DIRECTORY_AGENT.to_owned(),
            scopes: self.scopes.to_string(),
            ..SrvRqst::default()
        };
        let flags = Flags { request_mcast: true, ..Flags::default() };
        self.encode(flags, xid, Body::SrvRqst(request))
    }

    /// Asks one directory agent to introduce itself; no scope is named (RFC 2608 section 12).
    pub(super) fn introduction(&self, xid: u16) -> Result<Vec<u8>, EncodeError> {
        let request = SrvRqst { service_type: DIRECTORY_AGENT.to_owned(), ..SrvRqst::default() };
        self.encode(Flags::default(), xid, Body::SrvRqst(request))
    }

    /// Registers, or updates some attributes of what is registered.
    pub(super) fn registration(
        &self,
        xid: u16,
        scopes: &ScopeList,
        attributes: &AttributeList,
        fresh: bool,
        lifetime: u16,
    ) -> Result<Vec<u8>, EncodeError> {
        let registration = SrvReg {
            entry: UrlEntry { lifetime, url: self.url.to_string() },
            service_type: self.url.service_type.clone(),
            scopes: scopes.to_string(),
            attributes: attributes.to_string(),
        };
        self.encode(Flags { fresh, ..Flags::default() }, xid, Body::SrvReg(registration))
    }

    /// Takes the registration back, with the scopes that it was made with.
    pub(super) fn deregistration(&self, xid: u16, scopes: &ScopeList) -> Result<Vec<u8>, EncodeError> {
        let end = SrvDeReg {
            scopes: scopes.to_string(),
            entry: UrlEntry { lifetime: 0, url: self.url.to_string() },
            tags: String::new(),
        };
        self.encode(Flags::default(), xid, Body::SrvDeReg(end))
    }
}
