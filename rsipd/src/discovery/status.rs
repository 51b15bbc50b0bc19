//! What the administrator sees: plain values, as JSON on the control socket. The names are for scripts: they stay.

use std::fmt;
use std::net::SocketAddrV4;
use std::time::Instant;

use rsip_slp::service::{DirectoryView, Kind, Progress, ServiceAgent};
use serde::{Deserialize, Serialize};

/// How hosts find the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who does it.
    pub mode: Mode,
    /// The advertised URL, while there is one.
    pub url: Option<String>,
    /// The advertised load, 0 to 100, while there is one.
    pub load: Option<u8>,
    /// Where the gateway is, or is to be, registered.
    pub registrations: Vec<Registration>,
    /// Why it cannot be found.
    pub problem: Option<String>,
}

/// Who makes the gateway known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nobody: it is configured so, or has ended.
    Off,
    /// It is not known yet.
    Starting,
    /// The SLP daemon of this host.
    Daemon,
    /// The gateway itself.
    Alone,
    /// Nobody: it could not be done, and is tried again.
    Failed,
}

/// One place where the gateway is, or is to be, registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// A directory agent, or the daemon.
    pub at: SocketAddrV4,
    /// `daemon`, `configured` or `found`.
    pub kind: String,
    /// `asking`, `waiting`, `registering`, `registered`, `other scopes` or `leaving`.
    pub state: String,
    /// The scopes that it holds the gateway in.
    pub scopes: Vec<String>,
    /// Seconds until it is renewed.
    pub renewed_in: Option<u64>,
}

impl Status {
    /// Nothing but a mode.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, url: None, load: None, registrations: Vec::new(), problem: None }
    }

    pub(super) fn of(agent: &ServiceAgent, url: &str, load: u8, now: Instant) -> Self {
        let view = agent.view(now);
        Self {
            url: Some(url.to_owned()),
            load: Some(load),
            registrations: view.directories.iter().map(Registration::from).collect(),
            ..Self::new(if view.answers { Mode::Alone } else { Mode::Daemon })
        }
    }
}

impl From<&DirectoryView> for Registration {
    fn from(view: &DirectoryView) -> Self {
        Self {
            at: view.address,
            kind: match view.kind {
                Kind::Daemon => "daemon",
                Kind::Configured => "configured",
                Kind::Found => "found",
            }
            .to_owned(),
            state: match view.state {
                Progress::Asking => "asking",
                Progress::Waiting => "waiting",
                Progress::Registering => "registering",
                Progress::Registered => "registered",
                Progress::OtherScopes => "other scopes",
                Progress::Leaving => "leaving",
            }
            .to_owned(),
            scopes: view.scopes.iter().map(str::to_owned).collect(),
            renewed_in: view.renewed_in.map(|left| left.as_secs()),
        }
    }
}

/// One line.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::Off => f.write_str("off")?,
            Mode::Starting => f.write_str("starting")?,
            Mode::Daemon => f.write_str("by this host's SLP daemon")?,
            Mode::Alone => f.write_str("answers itself")?,
            Mode::Failed => f.write_str("FAILED")?,
        }
        if let Some(problem) = &self.problem {
            write!(f, ": {problem}")?;
        }
        if let Some(load) = self.load {
            write!(f, ", load {load}")?;
        }
        self.registrations.iter().try_for_each(|registration| {
            let Registration { at, state, scopes, .. } = registration;
            let scopes = if scopes.is_empty() { String::new() } else { format!(" in {}", scopes.join(",")) };
            write!(f, "; {at} {state}{scopes}")
        })
    }
}
