//! `rsipd` in the gateway's namespace, and what `rsipdctl` says about it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::binaries;
use super::error::{IoContext, LabError, Result};
use super::exec::{self, Output};
use super::process::Process;
use super::topology::{EXTERNAL_IF, Host, INTERNAL_IF, Lab};
use super::wait::{self, Look};

/// How long it may take until it serves.
const READY: Duration = Duration::from_secs(20);

/// A running `rsipd`.
#[derive(Debug)]
pub struct Gateway {
    /// The daemon.
    pub process: Process,
}

/// The part of `rsipdctl dump --json` that tests look at.
#[derive(Clone, Debug, Deserialize)]
pub struct State {
    /// Registered hosts.
    pub clients: Vec<Client>,
    /// Use of the public addresses.
    pub pool: Vec<Pool>,
    /// What was counted.
    pub counters: Counters,
}

/// A registered host.
#[derive(Clone, Debug, Deserialize)]
pub struct Client {
    /// Its ID.
    pub client_id: u32,
    /// Its private address.
    pub host: Ipv4Addr,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Its bindings.
    pub bindings: Vec<Binding>,
}

/// A binding.
#[derive(Clone, Deserialize)]
pub struct Binding {
    /// Its ID.
    pub bind_id: u32,
    /// The leased public address.
    pub address: Ipv4Addr,
    /// A whole address (RSA-IP): no ports are named.
    pub whole: bool,
    /// The leased ports.
    pub ports: Vec<u16>,
    /// With whom it may be used: `any`, an address, or `ADDRESS:PORT`.
    pub remote: String,
    /// Asked for by number.
    pub listen: bool,
    /// `installing`, `active` or `removing`.
    pub state: String,
    /// Seconds until it ends.
    pub lease_left: u64,
    /// Whether the data path holds it.
    pub installed: Option<bool>,
}

/// Blocks are long: their ends say enough.
impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<_> = self
            .ports
            .chunk_by(|one, next| one.checked_add(1) == Some(*next))
            .filter_map(|run| Some(format!("{}-{}", run.first()?, run.last()?)))
            .collect();
        write!(f, "{} {} of {}", self.state, ports.join(","), self.bind_id)?;
        write!(f, "{}, {} s", if self.listen { " (listen)" } else { "" }, self.lease_left)?;
        f.write_str(if self.installed == Some(true) { "" } else { ", NOT installed" })
    }
}

/// Use of a public address, in ports.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Pool {
    /// Held by hosts.
    pub leased: u32,
    /// Freed a short time ago.
    pub resting: u32,
}

/// What was counted.
#[derive(Clone, Debug, Deserialize)]
pub struct Counters {
    /// The data path, by name.
    pub datapath: Option<BTreeMap<String, Value>>,
}

impl Counters {
    /// One of the data path's counters; 0 where there is none.
    #[must_use]
    pub fn datapath(&self, name: &str) -> u64 {
        self.datapath.as_ref().and_then(|all| all.get(name)).and_then(Value::as_u64).unwrap_or(0)
    }
}

impl State {
    /// The registration of a host.
    #[must_use]
    pub fn client(&self, host: Host) -> Option<&Client> {
        self.clients.iter().find(|client| client.host == host.address())
    }

    /// Who holds a port.
    #[must_use]
    pub fn holder(&self, port: u16) -> Option<Ipv4Addr> {
        let holds = |client: &&Client| client.bindings.iter().any(|binding| binding.ports.contains(&port));
        self.clients.iter().find(holds).map(|client| client.host)
    }

    /// The ephemeral ports of a host, over all its blocks.
    #[must_use]
    pub fn block(&self, host: Host) -> Vec<u16> {
        let bindings = self.client(host).into_iter().flat_map(|client| &client.bindings);
        bindings.filter(|binding| !binding.listen).flat_map(|binding| binding.ports.clone()).collect()
    }

    /// The ports that a host asked for by number, ascending.
    #[must_use]
    pub fn listening(&self, host: Host) -> Vec<u16> {
        let bindings = self.client(host).into_iter().flat_map(|client| &client.bindings);
        let mut ports: Vec<u16> =
            bindings.filter(|binding| binding.listen).flat_map(|binding| binding.ports.clone()).collect();
        ports.sort_unstable();
        ports
    }
}

/// The settings of the lab's gateway: only what has no default, and whatever else a test wants (lines of TOML).
#[must_use]
pub fn configuration(more: &str) -> String {
    format!("INT_IF = \"{INTERNAL_IF}\"\nEXT_IF = \"{EXTERNAL_IF}\"\n{more}\n")
}

/// Writes a configuration file into the lab's folder.
///
/// # Errors
/// Where it cannot be written.
pub fn write_configuration(lab: &Lab, text: &str) -> Result<PathBuf> {
    let path = lab.folder().join("rsipd.conf");
    fs::write(&path, text).cannot(|| format!("write {}", path.display()))?;
    Ok(path)
}

impl Gateway {
    /// Starts `rsipd` with a configuration and waits until it answers `rsipdctl`.
    ///
    /// # Errors
    /// Where it ends or does not answer in time.
    pub fn start(lab: &Lab, configuration: &str) -> Result<Self> {
        Self::start_with(lab, configuration, &[])
    }

    /// The same with variables of the environment.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(lab: &Lab, configuration: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let path = write_configuration(lab, configuration)?;
        let mut command = lab.gateway.command(binaries::under_test("rsipd")?);
        command.envs(environment.iter().copied()).args(["run", "--config"]).arg(path);
        let mut process = Process::start("rsipd", &mut command, &lab.folder().join("rsipd.log"))?;
        wait::until("rsipd to answer", READY, || {
            process.expect_running()?;
            let output = ctl(lab, &["dump"])?;
            Ok(if output.status.success() { Look::Ready(()) } else { Look::NotYet(output.stderr) })
        })?;
        Ok(Self { process })
    }
}

/// Runs `rsipdctl` on the gateway; how it ended is for the caller to judge.
///
/// # Errors
/// Where it does not end in time.
pub fn ctl(lab: &Lab, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.gateway.command(binaries::under_test("rsipdctl")?);
    exec::run(command.args(arguments), exec::SHORT)
}

/// What the gateway knows.
///
/// # Errors
/// Where `rsipdctl` fails, or says something else than expected.
pub fn state(lab: &Lab) -> Result<State> {
    let text = ctl(lab, &["dump", "--json"])?.success()?;
    serde_json::from_str(&text).map_err(|error| LabError::Unexpected {
        what: "rsipdctl dump --json".into(),
        expected: error.to_string(),
        seen: text,
    })
}
