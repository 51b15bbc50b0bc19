//! What is said over the control socket.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::rules::set::Change;
use crate::status::{RulesView, Status};

/// What can be asked of a running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Show everything.
    Status,
    /// Lease these ports and keep them.
    Listen(Vec<u16>),
    /// Do not keep these ports any more.
    Unlisten(Vec<u16>),
    /// Show the rules, or change them and show them.
    Rules(Change),
    /// End. Answered when the host is restored.
    Down,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// To `Status`.
    Status(Box<Status>),
    /// To `Listen` and `Unlisten`, in the order asked.
    Ports(Vec<PortAnswer>),
    /// To `Rules`.
    Rules(Box<RulesView>),
    /// To `Down`.
    Done,
}

/// What became of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAnswer {
    /// Which.
    pub port: u16,
    /// What.
    pub outcome: PortOutcome,
}

/// What became of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortOutcome {
    /// Leased at this address.
    Leased(Ipv4Addr),
    /// Not leased, and why.
    Refused(String),
    /// It was kept, and is let go.
    Released,
    /// It was not kept.
    Unknown,
}

impl PortAnswer {
    /// The line for people.
    pub fn line(&self) -> String {
        let port = self.port;
        match &self.outcome {
            PortOutcome::Leased(address) => format!("{port}: leased at {address}"),
            PortOutcome::Refused(why) => format!("{port}: refused: {why}"),
            PortOutcome::Released => format!("{port}: let go"),
            PortOutcome::Unknown => format!("{port}: was not kept by `listen`"),
        }
    }
}
