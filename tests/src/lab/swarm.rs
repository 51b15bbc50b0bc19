//! The helper program `swarm`: many ports at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::binaries;
use super::error::{LabError, Result};
use super::netns::Inside;
use super::process::Process;
use super::topology::Lab;
use super::wait::{self, Look};

/// What became of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Taken {
    /// Sockets that have their port.
    pub taken: usize,
    /// The others, by the name of the error.
    pub errors: BTreeMap<String, usize>,
    /// Their own ports.
    pub ports: BTreeSet<u16>,
    /// How long all of it took.
    pub millis: u64,
    /// How long the longest system call took.
    pub slowest_micros: u64,
}

/// A running `swarm`.
#[derive(Debug)]
pub struct Swarm {
    /// The program; its ports are held as long as it runs.
    pub process: Process,
}

impl Swarm {
    fn start(lab: &Lab, inside: &Inside, arguments: &[&str]) -> Result<Self> {
        static SWARMS: AtomicU32 = AtomicU32::new(0);
        let log = lab.folder().join(format!("swarm-{}.log", SWARMS.fetch_add(1, Ordering::Relaxed)));
        let mut command = inside.command(binaries::own("swarm")?);
        Ok(Self { process: Process::start("swarm", command.args(arguments), &log)? })
    }

    /// Listens at ports `first` to `last` of all addresses.
    ///
    /// # Errors
    /// Where it does not.
    pub fn listen(lab: &Lab, inside: &Inside, ports: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Listening {
            listening: usize,
        }
        // It counts when listen() is called, and is put back for whoever compares.
        let most = inside.setting("net/core/somaxconn")?;
        inside.sysctl("net/core/somaxconn", "65535")?;
        let mut swarm = Self::start(lab, inside, &["listen", "0.0.0.0", ports])?;
        let said = swarm.said(Duration::from_secs(20));
        inside.sysctl("net/core/somaxconn", &most)?;
        let Listening { listening } = said?;
        if listening == 0 {
            return Err(LabError::Unexpected {
                what: "swarm".into(),
                expected: "that it listens".into(),
                seen: "nothing".into(),
            });
        }
        Ok(swarm)
    }

    /// Takes ports; `more` begins with the way and how many.
    ///
    /// # Errors
    /// Where it does not end within `limit`.
    pub fn take(lab: &Lab, inside: &Inside, more: &[&str], limit: Duration) -> Result<(Self, Taken)> {
        let mut swarm = Self::begin(lab, inside, more)?;
        let taken = swarm.taken(limit)?;
        Ok((swarm, taken))
    }

    /// The same, and does not wait.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn begin(lab: &Lab, inside: &Inside, more: &[&str]) -> Result<Self> {
        Self::start(lab, inside, &[&["take"], more].concat())
    }

    /// What became of it.
    ///
    /// # Errors
    /// Where it does not end within `limit`.
    pub fn taken(&mut self, limit: Duration) -> Result<Taken> {
        self.said(limit)
    }

    fn said<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        wait::until("swarm to be done", limit, || {
            let output = self.process.output();
            let Some((line, _)) = output.split_once('\n') else {
                self.process.expect_running()?;
                return Ok(Look::NotYet("it takes".into()));
            };
            serde_json::from_str(line).map(Look::Ready).map_err(|error| LabError::Unexpected {
                what: "what swarm says".into(),
                expected: error.to_string(),
                seen: line.to_owned(),
            })
        })
    }
}

/// Adds addresses to the internet host.
///
/// # Errors
/// Where `ip` fails.
pub fn more_addresses(inside: &Inside, addresses: &[Ipv4Addr]) -> Result<()> {
    addresses.iter().try_for_each(|address| {
        inside.ip(&["address", "add", &format!("{address}/24"), "dev", super::topology::HOST_IF]).map(drop)
    })
}
