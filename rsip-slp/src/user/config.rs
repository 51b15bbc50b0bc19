//! What a user agent is to look for, and how.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::agent::Timing;
use crate::template;
use crate::text::ScopeList;
use crate::wire::DATAGRAM_LIMIT;

/// What a user agent is to look for, and how.
#[derive(Clone, Debug)]
pub struct UserConfig {
    /// `service:rsip`, for example.
    pub service_type: String,
    /// What the service must be like, a search filter; empty: anything.
    pub predicate: String,
    /// In which scopes; in none nothing is found.
    pub scopes: ScopeList,
    /// Language tag of requests.
    pub language: String,
    /// Directory agents that are known beforehand. They are asked first; only when none of them answers others are
    /// searched.
    pub directories: Vec<Ipv4Addr>,
    /// Ask nobody but `directories` (RFC 2608 section 14, "No DA Discovery").
    pub only_configured: bool,
    /// Which attributes of each service are asked for.
    pub attributes: Wish,
    /// Whether the first service is enough.
    pub enough: Enough,
    /// The whole search ends after this.
    pub limit: Duration,
    /// Bytes of a datagram, headers not counted.
    pub datagram_limit: usize,
    /// The times of the protocol.
    pub timing: Timing,
}

/// Which attributes are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// None.
    Nothing,
    /// Those with these tags; `*` stands for any characters.
    Tags(Vec<String>),
    /// All.
    Everything,
}

/// When the search has found enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// When nobody else answers.
    All,
    /// When the first has answered.
    First,
}

impl UserConfig {
    /// Looks for RSIP gateways as RFC 3105 says: all of them, with their load, in the default scope.
    ///
    /// Without `start_wait`: somebody waits for the answer. A program that is started with its host should wait, lest all
    /// hosts ask at once after a power cut.
    #[must_use]
    pub fn rsip() -> Self {
        Self {
            service_type: template::SERVICE_TYPE.to_owned(),
            predicate: template::PREDICATE.to_owned(),
            scopes: ScopeList::default_scope(),
            language: template::LANGUAGE.to_owned(),
            directories: Vec::new(),
            only_configured: false,
            attributes: Wish::Tags(vec![template::LOAD.to_owned()]),
            enough: Enough::All,
            limit: Duration::from_secs(15),
            datagram_limit: DATAGRAM_LIMIT,
            timing: Timing { start_wait: Duration::ZERO, ..Timing::default() },
        }
    }
}
