//! The operator's rules: which binds are asked for at the gateway, which pass without a lease, which fail.
//!
//! | module | what it does |
//! |---|---|
//! | `text` | a rule as it is written and shown: `ignore 6010-6019 tcp program=sshd` |
//! | [`set`] | the ordered rules with the default policy, and how they are changed |
//! | [`compile`] | as the programs on bind() read them |
//! | [`args`], [`call`] | `rsip-client rules` |
//!
//! Rules are about bind() alone, on the public side: a bind to loopback or to a private address is never subject to them.

pub mod args;
pub mod call;
pub mod compile;
pub mod set;
mod text;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// What becomes of a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The gateway is asked for the port.
    Lease,
    /// The bind passes without a lease: the port is private.
    Ignore,
    /// The bind fails with EACCES.
    Deny,
}

/// What a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Who runs a program: by number, and by name where the rule was written so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// The real user ID.
    pub uid: u32,
    /// As it was written.
    pub name: String,
}

/// One rule. What it does not name fits every bind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What becomes of a bind that it fits.
    pub action: Action,
    /// Ports.
    pub ports: RangeInclusive<u16>,
    /// TCP or UDP.
    pub protocol: Option<Protocol>,
    /// The command name of the program, or of the thread that binds. The kernel keeps 15 bytes of it: longer ones fit by their
    /// first 15.
    pub program: Option<String>,
    /// Who runs it.
    pub user: Option<User>,
    /// A cgroup, by its path in the v2 tree: programs in it and anywhere below it.
    pub cgroup: Option<String>,
}

/// Every port.
pub const ALL_PORTS: RangeInclusive<u16> = 1..=u16::MAX;
/// Bytes of a command name that the kernel keeps.
pub const PROGRAM_LENGTH: usize = 15;

impl Rule {
    /// A rule for ports alone.
    #[must_use]
    pub const fn for_ports(action: Action, ports: RangeInclusive<u16>) -> Self {
        Self { action, ports, protocol: None, program: None, user: None, cgroup: None }
    }

    /// Whether nothing but the port counts.
    #[must_use]
    pub const fn is_by_port_alone(&self) -> bool {
        self.protocol.is_none() && self.program.is_none() && self.user.is_none() && self.cgroup.is_none()
    }
}

/// Why text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Nothing says what to do.
    #[error("a rule begins with ignore, lease or deny, or with I, A or D before its ports")]
    NoAction,
    /// A word that no rule has.
    #[error("{0:?} is no part of a rule: ACTION [PORTS] [tcp|udp] [program=NAME] [user=NAME] [cgroup=PATH]")]
    Unknown(String),
    /// Said twice.
    #[error("{0} is said twice")]
    Twice(&'static str),
    /// Not a port or a range of ports.
    #[error("{0:?} is neither a port nor a range of ports (1 to 65535)")]
    Ports(String),
    /// A range that is none.
    #[error("{0} ends before it begins")]
    Backwards(String),
    /// A program's name that no program can have.
    #[error("{0:?} cannot be the name of a program: a name without a folder, as `ps -o comm` shows it")]
    Program(String),
    /// Nobody of that name.
    #[error("this host has no user {0:?}")]
    User(String),
    /// Not a path in the cgroup tree.
    #[error("{0:?} is no path in the cgroup tree: it begins with / and has no ..")]
    Cgroup(String),
    /// Deeper in the tree than the programs look.
    #[error(
        "{path:?} is {depth} levels below the root of the cgroup tree: a rule can name {most} at most; name one above it"
    )]
    Deep {
        /// As it was written.
        path: String,
        /// Its level; the root's is 0.
        depth: usize,
        /// The deepest that can be named.
        most: u32,
    },
}
