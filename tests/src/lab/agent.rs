//! `rsip-client` on a private host.

use std::time::Duration;

use serde_json::Value;

use super::binaries;
use super::error::{LabError, Result};
use super::exec::{self, Output};
use super::gateway;
use super::process::Process;
use super::topology::{GATEWAY, Host, Lab, PUBLIC};
use super::wait::{self, Look};

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
        wait::until(&format!("the agent of {} to be ready", host.name()), READY, || {
            agent.process.expect_running()?;
            Ok(match missing(lab, host)? {
                None => Look::Ready(()),
                Some(what) => Look::NotYet(what),
            })
        })?;
        Ok(agent)
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch(lab: &Lab, host: Host, more: &[String]) -> Result<Self> {
        let mut command = lab.host(host).command(binaries::under_test("rsip-client")?);
        command
            .args(["up", "--gateway", &GATEWAY.to_string(), "--linger", &LINGER.as_secs().to_string()])
            .args(more);
        let log = lab.folder().join(format!("rsip-client-{}.log", host.name()));
        Ok(Self { process: Process::start("rsip-client", &mut command, &log)? })
    }
}

/// What a host still lacks: a block of ports at the gateway, the tunnel, an agent that answers.
fn missing(lab: &Lab, host: Host) -> Result<Option<String>> {
    if gateway::state(lab)?.block(host).is_empty() {
        return Ok(Some("it has no block of ports".into()));
    }
    let address = PUBLIC.to_string();
    if !exec::run(lab.host(host).command("ip").args(["address", "show", "dev", TUNNEL]), exec::SHORT)?
        .stdout
        .contains(&address)
    {
        return Ok(Some(format!("{address} is not on the tunnel")));
    }
    let status = client(lab, host, &["status"])?;
    Ok((!status.status.success()).then_some(status.stderr))
}

/// Runs `rsip-client` on a host; how it ended is for the caller to judge.
///
/// # Errors
/// Where it does not end in time.
pub fn client(lab: &Lab, host: Host, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.host(host).command(binaries::under_test("rsip-client")?);
    exec::run(command.args(arguments), exec::SHORT)
}

/// What the agent says about itself.
///
/// # Errors
/// Where it does not answer.
pub fn status(lab: &Lab, host: Host) -> Result<Value> {
    let text = client(lab, host, &["status", "--json"])?.success()?;
    serde_json::from_str(&text).map_err(|error| LabError::Unexpected {
        what: "rsip-client status --json".into(),
        expected: error.to_string(),
        seen: text,
    })
}
