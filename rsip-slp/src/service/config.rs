//! What a service agent advertises, and how.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::agent::Timing;
use crate::template;
use crate::text::{AttributeList, ScopeList, ServiceUrl};
use crate::wire::DATAGRAM_LIMIT;

/// What a service agent advertises, and how.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Where the service is.
    pub url: ServiceUrl,
    /// What it is like.
    pub attributes: AttributeList,
    /// The language of the attributes.
    pub language: String,
    /// In which scopes it is found.
    pub scopes: ScopeList,
    /// Seconds that others may remember it; not 0. A directory agent whose `min-refresh-interval` asks for it is told more.
    pub lifetime: u16,
    /// Who registers it and answers.
    pub role: Role,
    /// An update of the attributes waits until the last one is so old.
    pub update_interval: Duration,
    /// Bytes of a datagram, headers not counted.
    pub datagram_limit: usize,
    /// The times of the protocol.
    pub timing: Timing,
}

/// Who registers a service with directory agents, and answers those who look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A daemon of this host: the service is registered there, and nowhere else.
    Daemon {
        /// The daemon.
        at: SocketAddrV4,
        /// By connections; else by datagrams.
        stream: bool,
    },
    /// This agent itself.
    Alone {
        /// All addresses of this host: whoever lists one of them as a previous responder is not answered. SAAdverts name
        /// the first; there must be one.
        addresses: Vec<Ipv4Addr>,
        /// Directory agents that are known beforehand; others are then not searched, but heard.
        directories: Vec<Ipv4Addr>,
    },
}

/// A service agent cannot be so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A service without a scope is never found.
    #[error("there is no scope")]
    NoScope,
    /// A registration without a lifetime is refused by every directory agent.
    #[error("the lifetime is 0")]
    NoLifetime,
    /// An agent without an address cannot say where it is.
    #[error("there is no own address")]
    NoAddress,
    /// More directory agents than are remembered.
    #[error("{0} directory agents, at most {most} are served", most = super::directory::MAX_DIRECTORIES)]
    TooManyDirectories(usize),
    /// The advertisement does not fit into messages.
    #[error(transparent)]
    TooLong(#[from] crate::wire::EncodeError),
}

impl ServiceConfig {
    /// The advertisement of an RSIP gateway, in the default scope.
    #[must_use]
    pub fn rsip(url: ServiceUrl, attributes: AttributeList, role: Role) -> Self {
        Self {
            url,
            attributes,
            language: template::LANGUAGE.to_owned(),
            scopes: ScopeList::default_scope(),
            lifetime: 3600,
            role,
            update_interval: Duration::from_secs(15),
            datagram_limit: DATAGRAM_LIMIT,
            timing: Timing::default(),
        }
    }

    pub(super) fn addresses(&self) -> &[Ipv4Addr] {
        match &self.role {
            Role::Daemon { .. } => &[],
            Role::Alone { addresses, .. } => addresses,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.scopes.is_empty() {
            return Err(ConfigError::NoScope);
        }
        if self.lifetime == 0 {
            return Err(ConfigError::NoLifetime);
        }
        if let Role::Alone { addresses, directories } = &self.role {
            if addresses.is_empty() {
                return Err(ConfigError::NoAddress);
            }
            if directories.len() > super::directory::MAX_DIRECTORIES {
                return Err(ConfigError::TooManyDirectories(directories.len()));
            }
        }
        self.registration(1, &self.scopes, &self.attributes, true, self.lifetime)?;
        Ok(())
    }
}
