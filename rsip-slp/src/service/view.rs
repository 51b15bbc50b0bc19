//! What a service agent does, for people.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::directory::{Directory, Kind, State};
use super::{Role, ServiceAgent};
use crate::text::ScopeList;
use crate::wire::ErrorCode;

/// Something that is worth a line in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A directory agent was found.
    Found {
        /// Where.
        directory: SocketAddrV4,
        /// Its scopes.
        scopes: ScopeList,
    },
    /// A directory agent, or the daemon, has the registration; once for each time that it had none.
    Registered {
        /// Where.
        directory: SocketAddrV4,
        /// In which scopes.
        scopes: ScopeList,
    },
    /// It acknowledged a renewal or an update.
    Refreshed {
        /// Who.
        directory: SocketAddrV4,
    },
    /// It refused.
    Refused {
        /// Who.
        directory: SocketAddrV4,
        /// Why.
        error: ErrorCode,
    },
    /// It did not answer.
    Silent {
        /// Who.
        directory: SocketAddrV4,
    },
    /// It says that it is going down.
    GoingDown {
        /// Who.
        directory: SocketAddrV4,
    },
    /// It has lost its registrations.
    Rebooted {
        /// Who.
        directory: SocketAddrV4,
    },
    /// The registration was taken back.
    Deregistered {
        /// Where.
        directory: SocketAddrV4,
    },
}

/// What a service agent does at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whether it answers requests itself.
    pub answers: bool,
    /// Where the service is, or is to be, registered.
    pub directories: Vec<DirectoryView>,
}

/// A place where the service is, or is to be, registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryView {
    /// Where.
    pub address: SocketAddrV4,
    /// How it is known.
    pub kind: Kind,
    /// What is under way.
    pub state: Progress,
    /// The scopes that it holds the service in; none: it does not.
    pub scopes: ScopeList,
    /// Until the registration is renewed; nothing: there is none.
    pub renewed_in: Option<Duration>,
}

/// What is under way with a directory agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is asked to introduce itself.
    Asking,
    /// The next attempt waits.
    Waiting,
    /// A registration is under way.
    Registering,
    /// It has the registration.
    Registered,
    /// It has none of the scopes.
    OtherScopes,
    /// The registration is taken back.
    Leaving,
}

impl ServiceAgent {
    /// What it does at this moment.
    #[must_use]
    pub fn view(&self, now: Instant) -> View {
        let directories = self.directories.iter().map(|directory| directory.view(now)).collect();
        View { answers: matches!(self.config.role, Role::Alone { .. }), directories }
    }
}

impl Directory {
    fn view(&self, now: Instant) -> DirectoryView {
        let held = self.held.as_ref().filter(|held| held.expires > now);
        let state = match (&self.state, held) {
            (State::Asking(_), _) => Progress::Asking,
            (State::Waiting(_), _) => Progress::Waiting,
            (State::Registering { .. }, _) => Progress::Registering,
            (State::Settled, Some(_)) => Progress::Registered,
            (State::Settled, None) => Progress::OtherScopes,
            (State::Leaving(_), _) => Progress::Leaving,
        };
        DirectoryView {
            address: self.address,
            kind: self.kind,
            state,
            scopes: held.map(|held| held.scopes.clone()).unwrap_or_default(),
            renewed_in: held.map(|held| held.renew.saturating_duration_since(now)),
        }
    }
}
