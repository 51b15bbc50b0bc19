//! The messages of the user agent.

use super::config::{UserConfig, Wish};
use crate::agent::DIRECTORY_AGENT;
use crate::text::ScopeList;
use crate::wire::message::{AttrRqst, SrvRqst};
use crate::wire::{Body, EncodeError, Flags, Message};

const UNICAST: Flags = Flags { overflow: false, fresh: false, request_mcast: false };
const MULTICAST: Flags = Flags { request_mcast: true, ..UNICAST };

impl UserConfig {
    fn encode(&self, flags: Flags, xid: u16, body: Body) -> Result<Vec<u8>, EncodeError> {
        Message { flags, xid, language: self.language.clone(), body }.encode()
    }

    /// Looks for directory agents; all scopes are named (RFC 2608 section 8.1).
    pub(super) fn directory_request(
        &self,
        xid: u16,
        previous_responders: String,
    ) -> Result<Vec<u8>, EncodeError> {
        let request = SrvRqst {
            previous_responders,
            service_type: DIRECTORY_AGENT.to_owned(),
            scopes: self.scopes.to_string(),
            ..SrvRqst::default()
        };
        self.encode(MULTICAST, xid, Body::SrvRqst(request))
    }

    /// Looks for services among service agents.
    pub(super) fn multicast_service_request(
        &self,
        xid: u16,
        previous_responders: String,
        scopes: &ScopeList,
    ) -> Result<Vec<u8>, EncodeError> {
        self.encode(MULTICAST, xid, self.service_body(previous_responders, scopes))
    }

    /// Asks one agent for services.
    pub(super) fn service_request(&self, xid: u16, scopes: &ScopeList) -> Result<Vec<u8>, EncodeError> {
        self.encode(UNICAST, xid, self.service_body(String::new(), scopes))
    }

    fn service_body(&self, previous_responders: String, scopes: &ScopeList) -> Body {
        Body::SrvRqst(SrvRqst {
            previous_responders,
            service_type: self.service_type.clone(),
            scopes: scopes.to_string(),
            predicate: self.predicate.clone(),
            spi: String::new(),
        })
    }

    /// Asks for the attributes of a service.
    pub(super) fn attribute_request(&self, xid: u16, url: String) -> Result<Vec<u8>, EncodeError> {
        let tags = match &self.attributes {
            Wish::Tags(tags) => tags.join(","),
            Wish::Nothing | Wish::Everything => String::new(),
        };
        let scopes = self.scopes.to_string();
        let request = AttrRqst { url, scopes, tags, ..AttrRqst::default() };
        self.encode(UNICAST, xid, Body::AttrRqst(request))
    }
}
