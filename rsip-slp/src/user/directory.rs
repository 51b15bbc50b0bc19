//! The directory agents that a user agent knows.

use std::net::Ipv4Addr;

use crate::agent::DIRECTORY_AGENT;
use crate::text::{ScopeList, ServiceUrl, type_matches};
use crate::wire::message::DaAdvert;

/// Directory agents that are remembered, at most.
const MOST: usize = 16;

/// One of them.
#[derive(Clone, Debug)]
struct Directory {
    address: Ipv4Addr,
    /// Nothing: configured, and taken to support what it is asked for.
    scopes: Option<ScopeList>,
    /// It was asked; whatever came of it, it is not asked again.
    tried: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Directories(Vec<Directory>);

impl Directories {
    pub(super) fn configured(addresses: &[Ipv4Addr]) -> Self {
        let directory = |address: &Ipv4Addr| Directory { address: *address, scopes: None, tried: false };
        Self(addresses.iter().map(directory).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one that introduced itself.
    pub(super) fn add(&mut self, advert: &DaAdvert) {
        let Some((address, scopes)) = read_advert(advert) else { return };
        let known = self.0.iter().any(|directory| directory.address == address);
        if !known && advert.boot_timestamp != 0 && self.0.len() < MOST {
            self.0.push(Directory { address, scopes: Some(scopes), tried: false });
        }
    }

    /// Those to ask for services in `wanted`, each with the scopes to name. A scope that several support is asked for at
    /// the first of them; only configured ones are all asked.
    pub(super) fn next_to_ask(&mut self, wanted: &ScopeList) -> Vec<(Ipv4Addr, ScopeList)> {
        let mut left = wanted.clone();
        let mut asks = Vec::new();
        for directory in self.0.iter_mut().filter(|directory| !directory.tried) {
            let scopes = match &directory.scopes {
                None => wanted.clone(),
                Some(scopes) => left.intersection(scopes),
            };
            if scopes.is_empty() {
                continue;
            }
            directory.tried = true;
            if directory.scopes.is_some() {
                left = left.difference(&scopes);
            }
            asks.push((directory.address, scopes));
        }
        asks
    }
}

/// Address and scopes of a directory agent; nothing when the advertisement is none that can be used.
pub(crate) fn read_advert(advert: &DaAdvert) -> Option<(Ipv4Addr, ScopeList)> {
    if advert.error.is_some() {
        return None;
    }
    // Other schemes are silently discarded (RFC 2608 appendix C).
    let url = ServiceUrl::parse(&advert.url).ok()?;
    let address = url.address().filter(|_| type_matches(&url.service_type, DIRECTORY_AGENT))?;
    let nobody = address.is_unspecified() || address.is_multicast() || address.is_broadcast();
    let scopes = ScopeList::parse(&advert.scopes).ok().filter(|scopes| !scopes.is_empty())?;
    (!nobody && !address.is_loopback()).then_some((address, scopes))
}
