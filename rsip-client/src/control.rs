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
    /// Say who asked for the leased ports.
    Holders,
    /// Give leases back at once.
    Free {
        /// Which.
        targets: Vec<FreeTarget>,
        /// Also those that programs use.
        force: bool,
    },
    /// Serve the programs of the cgroup at this path of the v2 tree as long as there are any.
    Run(String),
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
    /// To `Holders`.
    Holders(Vec<Asked>),
    /// To `Free`, in the order asked.
    Freed(Vec<FreeAnswer>),
    /// To `Down` and `Run`.
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

/// Which program asked for a leased port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The port.
    pub port: u16,
    /// Its process ID, as it was in the first PID namespace.
    pub pid: u32,
    /// Its name.
    pub program: String,
    /// Its user.
    pub uid: u32,
    /// When: seconds since 1970.
    pub since: u64,
}

/// What to give back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreeTarget {
    /// The binding that holds this port by number.
    Port(u16),
    /// The binding of this name.
    Bind(u32),
}

/// What became of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeAnswer {
    /// Which.
    pub target: FreeTarget,
    /// What.
    pub outcome: FreeOutcome,
}

/// What became of a lease that was to be given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreeOutcome {
    /// The gateway is being told; the bind ID.
    Freed(u32),
    /// So many sockets use it.
    InUse(usize),
    /// It is not leased.
    NotLeased,
    /// The port belongs to the block of this bind ID.
    OfBlock(u32),
    /// The whole address is leased as one.
    Whole,
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
