//! What a service agent answers to those who look for services.
//!
//! To a unicast request there is always an answer, if only that there is nothing or an error. To a multicast request
//! there is none unless something was found (RFC 2608 sections 7 and 8.2). Whether directory agents are known makes no
//! difference: whoever multicasts does not know them.

use super::ServiceConfig;
use crate::agent::{DIRECTORY_AGENT, SERVICE_AGENT};
use crate::text::{
    Attribute, AttributeList, Predicate, ScopeList, TagList, Value, fold, previous_responders, type_matches,
};
use crate::wire::message::{
    AttrRply, AttrRqst, NamingAuthority, SaAdvert, SrvRply, SrvRqst, SrvTypeRply, SrvTypeRqst, UrlEntry,
};
use crate::wire::{Body, ErrorCode, Flags, Message, ParseError};

/// What there is to say.
enum Answer {
    /// Something was found.
    Found(Body),
    /// Nothing was found: said to whoever asked by unicast.
    Nothing(Body),
    /// Nothing is said to anybody.
    Silence,
}

impl ServiceConfig {
    /// The answer to what was read; `group`: it was sent to the group or by broadcast, whatever its flags say.
    pub(super) fn answer(&self, parsed: &Result<Message, ParseError>, group: bool) -> Option<Message> {
        let (flags, xid, language, answer) = match parsed {
            Ok(message) => {
                let function = message.body.function();
                let answer = self
                    .find(message)
                    .unwrap_or_else(|error| function.refusal(error).map_or(Answer::Silence, Answer::Nothing));
                (message.flags, message.xid, &message.language, answer)
            }
            Err(error) => {
                let header = error.header.as_ref()?;
                let refusal = header.function.refusal(error.code());
                (header.flags, header.xid, &header.language, refusal.map_or(Answer::Silence, Answer::Nothing))
            }
        };
        let multicast = group || flags.request_mcast;
        let body = match answer {
            Answer::Found(body) => body,
            Answer::Nothing(body) if !multicast => body,
            Answer::Nothing(_) | Answer::Silence => return None,
        };
        Some(Message { flags: Flags::default(), xid, language: language.clone(), body })
    }

    fn find(&self, message: &Message) -> Result<Answer, ErrorCode> {
        let responders = match &message.body {
            Body::SrvRqst(request) => &request.previous_responders,
            Body::AttrRqst(request) => &request.previous_responders,
            Body::SrvTypeRqst(request) => &request.previous_responders,
            // Nobody registers with a service agent, and nobody asks again.
            Body::SrvReg(_) | Body::SrvDeReg(_) => return Err(ErrorCode::MsgNotSupported),
            Body::SrvRply(_)
            | Body::SrvAck { .. }
            | Body::AttrRply(_)
            | Body::DaAdvert(_)
            | Body::SrvTypeRply(_)
            | Body::SaAdvert(_) => return Ok(Answer::Silence),
        };
        if previous_responders(responders).any(|responder| self.addresses().contains(&responder)) {
            return Ok(Answer::Silence);
        }
        match &message.body {
            Body::SrvRqst(request) if fold(&request.service_type) == SERVICE_AGENT => self.introduce(request),
            Body::SrvRqst(request) => self.services(request, &message.language),
            Body::AttrRqst(request) => self.attributes_of(request, &message.language),
            Body::SrvTypeRqst(request) => self.service_types(request),
            _ => Ok(Answer::Silence),
        }
    }

    fn services(&self, request: &SrvRqst, language: &str) -> Result<Answer, ErrorCode> {
        let nothing = || Answer::Nothing(Body::SrvRply(SrvRply::default()));
        let wanted = fold(&request.service_type);
        if wanted.is_empty() {
            return Err(ErrorCode::ParseError);
        }
        let predicate = Predicate::parse(&request.predicate).map_err(|_| ErrorCode::ParseError)?;
        if wanted == DIRECTORY_AGENT {
            // The scopes may be left out here (section 11.2), and this is no directory agent.
            return Ok(nothing());
        }
        self.check_scopes(&request.scopes)?;
        if !type_matches(&self.url.service_type, &wanted) {
            return Ok(nothing());
        }
        if !predicate.is_empty() {
            self.check_language(language)?;
        }
        if !predicate.is_satisfied_by(&self.attributes) {
            return Ok(nothing());
        }
        no_authentication(&request.spi)?;
        let entry = UrlEntry { lifetime: self.lifetime, url: self.url.to_string() };
        Ok(Answer::Found(Body::SrvRply(SrvRply { error: None, entries: vec![entry] })))
    }

    /// SAAdvert (section 8.6).
    fn introduce(&self, request: &SrvRqst) -> Result<Answer, ErrorCode> {
        let predicate = Predicate::parse(&request.predicate).map_err(|_| ErrorCode::ParseError)?;
        if !request.scopes.trim().is_empty() {
            self.check_scopes(&request.scopes)?;
        }
        no_authentication(&request.spi)?;
        let mut attributes = AttributeList::default();
        let value = Value::from_text(&self.url.service_type).into_iter().collect();
        attributes.set(Attribute::new("service-type", value).map_err(|_| ErrorCode::InternalError)?);
        let Some(address) = self.addresses().first().filter(|_| predicate.is_satisfied_by(&attributes))
        else {
            // "MUST NOT respond if the SrvRqst predicate is not satisfied", however it was asked.
            return Ok(Answer::Silence);
        };
        Ok(Answer::Found(Body::SaAdvert(SaAdvert {
            url: format!("{SERVICE_AGENT}://{address}"),
            scopes: self.scopes.to_string(),
            attributes: attributes.to_string(),
        })))
    }

    fn attributes_of(&self, request: &AttrRqst, language: &str) -> Result<Answer, ErrorCode> {
        let answer = |attributes: String| Body::AttrRply(AttrRply { error: None, attributes });
        let tags = TagList::parse(&request.tags).map_err(|_| ErrorCode::ParseError)?;
        if request.url.is_empty() {
            return Err(ErrorCode::ParseError);
        }
        self.check_scopes(&request.scopes)?;
        // URLs are compared with regard to case, types are not (section 6.4).
        let is_ours =
            request.url == self.url.to_string() || type_matches(&self.url.service_type, &request.url);
        if !is_ours {
            return Ok(Answer::Nothing(answer(String::new())));
        }
        self.check_language(language)?;
        no_authentication(&request.spi)?;
        let selected = self.attributes.select(&tags);
        let body = answer(selected.to_string());
        Ok(if selected.is_empty() { Answer::Nothing(body) } else { Answer::Found(body) })
    }

    fn service_types(&self, request: &SrvTypeRqst) -> Result<Answer, ErrorCode> {
        self.check_scopes(&request.scopes)?;
        let answer = |service_types: String| Body::SrvTypeRply(SrvTypeRply { error: None, service_types });
        let own = naming_authority(&self.url.service_type);
        let wanted = match &request.naming_authority {
            NamingAuthority::All => true,
            NamingAuthority::Iana => own.is_none(),
            NamingAuthority::Named(name) => own.is_some_and(|own| fold(own) == fold(name)),
        };
        Ok(if wanted {
            Answer::Found(answer(self.url.service_type.clone()))
        } else {
            Answer::Nothing(answer(String::new()))
        })
    }

    fn check_scopes(&self, scopes: &str) -> Result<(), ErrorCode> {
        let scopes = ScopeList::parse(scopes).map_err(|_| ErrorCode::ParseError)?;
        if scopes.intersects(&self.scopes) { Ok(()) } else { Err(ErrorCode::ScopeNotSupported) }
    }

    /// The dialect makes no difference (section 16).
    fn check_language(&self, language: &str) -> Result<(), ErrorCode> {
        let primary = |tag: &str| fold(tag.split('-').next().unwrap_or_default());
        if primary(language) == primary(&self.language) {
            Ok(())
        } else {
            Err(ErrorCode::LanguageNotSupported)
        }
    }
}

fn no_authentication(spi: &str) -> Result<(), ErrorCode> {
    if spi.is_empty() { Ok(()) } else { Err(ErrorCode::AuthenticationUnknown) }
}

/// What follows the last dot of a service type (section 4.1).
fn naming_authority(service_type: &str) -> Option<&str> {
    service_type.rsplit_once('.').map(|(_, authority)| authority)
}
