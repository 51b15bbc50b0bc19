//! `rsip-client discover` on a host.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::super::binaries;
use super::super::error::{IoContext, LabError, Result};
use super::super::exec::{self, Output};
use super::super::topology::{Host, Lab};

/// A search takes 15 seconds at most, and the machine is busy.
const SEARCH: Duration = Duration::from_secs(60);

/// A gateway, as `--json` has it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The service: URL.
    pub url: String,
    /// ADDRESS:PORT, as the resolver says.
    pub addresses: Vec<String>,
    /// Tunnels on offer.
    pub tunnel_types: Vec<String>,
    /// What carries RSIP.
    pub transports: Vec<String>,
    /// 0 to 100.
    pub load: Option<u8>,
    /// Seconds.
    pub lifetime: u64,
    /// RFC 3104.
    pub ipsec_support: bool,
    /// RFC 3104.
    pub ike_support: bool,
}

/// Runs it; how it ended is for the caller to judge.
///
/// # Errors
/// Where it does not end in time.
pub fn discover(lab: &Lab, host: Host, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.host(host).command(binaries::under_test("rsip-client")?);
    exec::run(command.arg("discover").args(arguments), SEARCH)
}

/// What it finds, the best first.
///
/// # Errors
/// Where it finds nothing, or says it in another way.
pub fn discovered(lab: &Lab, host: Host, arguments: &[&str]) -> Result<Vec<Found>> {
    let text = discover(lab, host, &[&["--json"], arguments].concat())?.success()?;
    serde_json::from_str(&text).cannot(|| format!("read {text}"))
}

/// Fails unless it says that there is no gateway: exit code 3, the line on standard error, nothing else.
///
/// # Errors
/// [`LabError::Unexpected`], or as [`discover`].
pub fn expect_none(lab: &Lab, host: Host, arguments: &[&str]) -> Result<()> {
    let output = discover(lab, host, arguments)?;
    let json = arguments.contains(&"--json");
    let silent = if json {
        serde_json::from_str::<Value>(&output.stdout).is_ok_and(|found| found == Value::Array(Vec::new()))
    } else {
        output.stdout.is_empty()
    };
    let said = output.stderr.lines().count() == 1 && output.stderr.contains("No service:rsip defined!");
    if output.code() == 3 && silent && said {
        return Ok(());
    }
    Err(LabError::Unexpected {
        what: output.command.clone(),
        expected: "exit code 3 and \"No service:rsip defined!\" on standard error".into(),
        seen: format!("code {}, {:?}, {:?}", output.code(), output.stdout, output.stderr),
    })
}
