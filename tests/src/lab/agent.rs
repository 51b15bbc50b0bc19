//! `rsip-client` on a private host.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::binaries;
use super::error::{LabError, Result};
use super::exec::{self, Output};
use super::netns::Inside;
use super::process::Process;
use super::topology::{GATEWAY, Host, Lab};
use super::wait::{self, Look};
use crate::bpf::program::WAY_VARIABLE;

/// How long it may take until the host is ready.
const READY: Duration = Duration::from_secs(20);
/// How long the agent keeps a port that nobody uses: short, so that tests need not wait.
pub const LINGER: Duration = Duration::from_secs(2);

/// The tunnel device.
pub const TUNNEL: &str = "rsip";

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The agent.
    pub process: Process,
}

impl Agent {
    /// Starts `rsip-client up` on a host and waits until it is registered and has its tunnel; `more` are further
    /// arguments.
    ///
    /// # Errors
    /// Where it ends or is not ready in time.
    pub fn start(lab: &Lab, host: Host, more: &[String]) -> Result<Self> {
        let mut agent = Self::launch(lab, host, more)?;
        agent.becomes_ready(lab, host, READY)?;
        Ok(agent)
    }

    /// Waits until it is registered and has its tunnel.
    ///
    /// # Errors
    /// Where it ends or is not ready in time.
    pub fn becomes_ready(&mut self, lab: &Lab, host: Host, limit: Duration) -> Result<()> {
        wait::until(&format!("the agent of {} to be ready", host.name()), limit, || {
            self.process.expect_running()?;
            Ok(match missing(lab, host)? {
                None => Look::Ready(()),
                Some(what) => Look::NotYet(what),
            })
        })
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch(lab: &Lab, host: Host, more: &[String]) -> Result<Self> {
        let gateway = ["--gateway".to_owned(), GATEWAY.to_string()];
        Self::launch_bare(lab, host, &[&gateway[..], more].concat())
    }

    /// The same without a gateway's address.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch_bare(lab: &Lab, host: Host, more: &[String]) -> Result<Self> {
        Self::launch_with(lab, host, more, &[])
    }

    /// Starts `rsip-client up` with variables of the environment and waits until it is ready.
    ///
    /// # Errors
    /// Where it ends or is not ready in time.
    pub fn start_with(lab: &Lab, host: Host, more: &[String], environment: &[(&str, &str)]) -> Result<Self> {
        let gateway = ["--gateway".to_owned(), GATEWAY.to_string()];
        let mut agent = Self::launch_with(lab, host, &[&gateway[..], more].concat(), environment)?;
        agent.becomes_ready(lab, host, READY)?;
        Ok(agent)
    }

    fn launch_with(lab: &Lab, host: Host, more: &[String], environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = lab.host(host).command(binaries::under_test("rsip-client")?);
        command
            .envs(environment.iter().copied())
            .args(["up", "--linger", &LINGER.as_secs().to_string()])
            .args(way_of_waiting(more))
            .args(more)
            // Of whoever runs the tests.
            .env_remove("RSIP_GATEWAY");
        let log = lab.folder().join(format!("rsip-client-{}.log", host.name()));
        Ok(Self { process: Process::start("rsip-client", &mut command, &log)? })
    }
}

/// As the variable says, where the test has no wish of its own.
fn way_of_waiting(more: &[String]) -> Vec<String> {
    match std::env::var(WAY_VARIABLE) {
        Ok(way) if !way.is_empty() && !more.iter().any(|word| word == "--wait" || word == "--no-hooks") => {
            vec!["--wait".to_owned(), way]
        }
        _ => Vec::new(),
    }
}

/// The part of `rsip-client status --json` that tests look at.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// How the host stands with its gateway.
    pub registration: Registration,
    /// What is leased.
    pub leases: Vec<Lease>,
    /// How bind() waits.
    pub waiting: Waiting,
    /// The programs on the cgroup.
    pub hooks: Hooks,
    /// The tunnel, where it is up.
    pub tunnel: Option<Tunnel>,
    /// Networks that are reached without the tunnel.
    pub direct: Vec<Network>,
    /// The kernel's own choice of ports.
    pub ephemeral: Ephemeral,
    /// What the programs counted.
    pub counters: Vec<Counter>,
}

impl Status {
    /// What was counted under a name.
    #[must_use]
    pub fn counter(&self, name: &str) -> Option<u64> {
        self.counters.iter().find(|counter| counter.name == name).map(|counter| counter.value)
    }
}

/// A network that is reached without the tunnel, or that the gateway would have so.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Network {
    /// Which.
    pub network: String,
    /// "--private-net" or "gateway".
    pub from: String,
    /// Why it is not believed.
    pub refused: Option<String>,
}

/// The kernel's own choice of ports.
#[derive(Clone, Debug, Deserialize)]
pub struct Ephemeral {
    /// Whether it is confined to what is leased.
    pub confined: bool,
    /// What it may choose.
    pub choice: String,
    /// Blocks that are leased.
    pub blocks: usize,
    /// Of these: out of the kernel's choice.
    pub returning: usize,
    /// Ports of all blocks.
    pub leased: usize,
    /// Ports that were needed when it was looked last.
    pub need: usize,
    /// "enough", "scarce", "plenty".
    pub level: String,
    /// Why the gateway gives no more.
    pub refused: Option<String>,
}

/// A counter.
#[derive(Clone, Debug, Deserialize)]
pub struct Counter {
    /// What is counted.
    pub name: String,
    /// How often.
    pub value: u64,
}

/// How the host stands with its gateway.
#[derive(Clone, Debug, Deserialize)]
pub struct Registration {
    /// "registered", "unreachable", ….
    pub state: String,
    /// "tcp" or "udp".
    pub transport: String,
    /// "RSAP-IP" or "RSA-IP".
    pub method: String,
    /// The only peer, where one is named.
    pub remote: Option<String>,
    /// What the gateway complained of.
    pub complaints: Vec<Counter>,
}

/// A binding.
#[derive(Clone, Debug, Deserialize)]
pub struct Lease {
    /// The leased address.
    pub address: Ipv4Addr,
    /// Which ports.
    pub ports: String,
    /// How many.
    pub count: usize,
    /// "block", "address", "listen" or "static".
    pub kind: String,
    /// Sockets that use them.
    pub sockets: usize,
}

/// How bind() waits.
#[derive(Clone, Debug, Deserialize)]
pub struct Waiting {
    /// Ports that are asked for and not answered yet.
    pub ports: Vec<u16>,
    /// "park (fexit)", "park (raw tracepoint)" or "poll".
    pub way: String,
    /// Why not a better one.
    pub why: String,
    /// How often a call was restarted.
    pub restarts: u64,
    /// How often the time was over.
    pub timeouts: u64,
}

/// The programs on the cgroup.
#[derive(Clone, Debug, Deserialize)]
pub struct Hooks {
    /// Each of them.
    pub programs: Vec<Program>,
}

/// A program.
#[derive(Clone, Debug, Deserialize)]
pub struct Program {
    /// Number of the program; 0: none.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// As the kernel says.
    pub attached: bool,
}

/// The tunnel.
#[derive(Clone, Debug, Deserialize)]
pub struct Tunnel {
    /// The leased address on it.
    pub address: Option<Ipv4Addr>,
}

/// What a host still lacks: a registration, the tunnel with the leased address, hooks.
fn missing(lab: &Lab, host: Host) -> Result<Option<String>> {
    let output = client(lab, host, &["status", "--json"])?;
    if !output.status.success() {
        return Ok(Some(output.stderr));
    }
    let status = parse(&output.stdout)?;
    let tunnel = status.tunnel.as_ref().is_some_and(|tunnel| tunnel.address.is_some());
    let hooks = status.hooks.programs.iter().all(|program| program.attached);
    let ready = status.registration.state == "registered" && tunnel && hooks;
    Ok((!ready).then(|| format!("{status:?}")))
}

/// Runs `rsip-client` on a host; how it ended is for the caller to judge.
///
/// # Errors
/// Where it does not end in time.
pub fn client(lab: &Lab, host: Host, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.host(host).command(binaries::under_test("rsip-client")?);
    exec::run(command.args(arguments), exec::SHORT)
}

/// Where the agent of a host keeps its files.
///
/// # Errors
/// Where the namespace cannot be asked.
pub fn run_folder(inside: &Inside) -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/run/rsip-client/netns-{}", inside.inode()?)))
}

/// What the agent says about itself.
///
/// # Errors
/// Where it does not answer.
pub fn status(lab: &Lab, host: Host) -> Result<Status> {
    parse(&client(lab, host, &["status", "--json"])?.success()?)
}

fn parse(text: &str) -> Result<Status> {
    serde_json::from_str(text).map_err(|error| LabError::Unexpected {
        what: "rsip-client status --json".into(),
        expected: error.to_string(),
        seen: text.to_owned(),
    })
}
