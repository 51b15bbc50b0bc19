//! What was found.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::template::Load;
use crate::text::{AttributeList, ServiceUrl, type_matches};
use crate::wire::message::UrlEntry;

/// Services that are remembered, at most: whoever answers with more hides nobody else for long.
const MOST: usize = 64;

/// A service that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where it is.
    pub url: ServiceUrl,
    /// How long that may be remembered.
    pub lifetime: Duration,
    /// The attributes that were asked for; nothing when nobody told.
    pub attributes: Option<AttributeList>,
    /// Who told of it: a directory agent or the service's own agent.
    pub told_by: SocketAddrV4,
}

impl Service {
    /// How busy it is, if it tells.
    #[must_use]
    pub fn load(&self) -> Option<Load> {
        self.attributes.as_ref().and_then(Load::of)
    }
}

/// All that was found, each URL once, in the order of the answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Found(Vec<Service>);

impl Found {
    pub(super) fn add(&mut self, service_type: &str, entries: &[UrlEntry], told_by: SocketAddrV4) {
        for entry in entries {
            // What leads nowhere, or somewhere else than was asked for, is of no use.
            let Ok(url) = ServiceUrl::parse(&entry.url) else { continue };
            if !type_matches(&url.service_type, service_type) {
                continue;
            }
            let lifetime = Duration::from_secs(entry.lifetime.into());
            if let Some(known) = self.0.iter_mut().find(|service| service.url == url) {
                known.lifetime = known.lifetime.max(lifetime);
            } else if self.0.len() < MOST {
                self.0.push(Service { url, lifetime, attributes: None, told_by });
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Service> {
        self.0.iter()
    }

    pub(super) fn set_attributes(&mut self, url: &ServiceUrl, attributes: AttributeList) {
        if let Some(service) = self.0.iter_mut().find(|service| service.url == *url) {
            service.attributes = Some(attributes);
        }
    }

    /// The least loaded first (RFC 3105 section 6); then those that do not tell. Of equals, who answered first: the
    /// nearest, more often than not.
    pub(super) fn sorted(mut self) -> Vec<Service> {
        self.0.sort_by_key(|service| service.load().map_or((true, 0), |load| (false, load.percent())));
        self.0
    }
}
