//! `rsip-client doctor`: what can be wrong, one thing after the other.
//!
//! | module | what it looks at |
//! |---|---|
//! | [`args`] | the command line |
//! | [`finding`] | what a check says: what it saw, what it means, what to do |
//! | `kernel`, `machine` | features, capabilities, cgroup tree, clock |
//! | `agent` | whether one runs, its registration and leases |
//! | `gateway`, `trial` | the way there; whether it answers; whether it would register this host |
//! | `attachment`, `selftest` | the hooks: asked of the kernel, and tried |
//! | `tunnel`, `ports`, `mtu` | device, routes, port range, sizes of packets |
//! | `arp`, `icmp` | the means |
//!
//! A check asks the thing itself: the kernel for its programs, the network for its largest packet, the gateway whether it
//! answers. Nothing is changed but for a moment: a bind of a leased port, and where no agent runs a registration.

mod agent;
pub mod args;
pub(crate) mod arp;
mod attachment;
pub mod finding;
mod gateway;
mod icmp;
mod kernel;
mod machine;
mod mtu;
mod ports;
mod selftest;
mod trial;
mod tunnel;

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::Netlink;
use serde::Serialize;

use self::agent::Agent;
use self::args::Doctor;
use self::finding::{Finding, Verdict};
use crate::agent::start::run_directory;
use crate::calls::say;
use crate::discovery::Question;
use crate::tunnel::path::Path;

/// A search by SLP; longer than that nobody waits for a diagnosis.
const SEARCH: Duration = Duration::from_secs(12);

/// What was found, and how it is told: line by line while it is found, or all at the end.
#[derive(Debug)]
struct Findings {
    all: Vec<Finding>,
    aloud: bool,
}

impl Findings {
    fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            if self.aloud {
                say(&finding.to_string());
            }
            self.all.push(finding);
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.all.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

/// The whole in JSON.
#[derive(Serialize)]
struct Report<'a> {
    ok: usize,
    warnings: usize,
    failures: usize,
    findings: &'a [Finding],
}

/// Runs all checks and prints what they found.
///
/// # Errors
///
/// Something has failed: exit code 1.
pub fn doctor(arguments: &Doctor) -> anyhow::Result<()> {
    let findings = examine(arguments, !arguments.json)?;
    let failures = findings.count(Verdict::Fail);
    if arguments.json {
        let report = Report {
            ok: findings.count(Verdict::Ok),
            warnings: findings.count(Verdict::Warn),
            failures,
            findings: &findings.all,
        };
        say(&serde_json::to_string_pretty(&report)?);
    }
    if failures == 0 {
        return Ok(());
    }
    let why = format!("{failures} of {} checks failed", findings.all.len());
    Err(Failure::new(ExitCode::Failure, "doctor").why(why).hint("each says what to do").into())
}

/// The lines of all checks, for a report.
///
/// # Errors
///
/// They cannot be begun.
pub fn lines(arguments: &Doctor) -> anyhow::Result<String> {
    let findings = examine(arguments, false)?;
    let lines: Vec<String> = findings.all.iter().map(ToString::to_string).collect();
    Ok(lines.join("\n"))
}

fn examine(arguments: &Doctor, aloud: bool) -> anyhow::Result<Findings> {
    let mut findings = Findings { all: Vec::new(), aloud };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(look(arguments, &mut findings))?;
    Ok(findings)
}

async fn look(arguments: &Doctor, findings: &mut Findings) -> anyhow::Result<()> {
    let (may_load, of_machine) = machine::check();
    findings.add(kernel::check(may_load));
    findings.add(of_machine);
    let directory = run_directory(arguments.run_dir.path.as_deref())?;
    let netlink = Netlink::open().map_err(|error| Failure::new(ExitCode::Failure, error.to_string()))?;
    let agent = agent::ask(&directory);
    findings.add([agent::check(&agent, &directory)]);
    if let Some(status) = agent.status() {
        findings.add(agent::leases(status));
    }
    let (gateway, transport) = target(arguments, &agent, findings).await;
    let mut path = None;
    if let Some(gateway) = gateway {
        let (found, finding) = gateway::way(&netlink, *gateway.ip(), arguments.interface.as_deref()).await;
        findings.add([finding]);
        path = found;
    }
    if let (Some(gateway), Some(path)) = (gateway, &path) {
        to_gateway(arguments, findings, &agent, gateway, transport, path).await;
    }
    if let Some(status) = agent.status() {
        findings.add(attachment::check(status));
        findings.add(selftest::check(status, &directory));
        findings.add(tunnel::check(&netlink, status).await);
        findings.add(ports::check(status));
        if let (Some(public), Some(path)) = (status.tunnel.as_ref().and_then(|t| t.address), &path) {
            findings.add([gateway::claimed(public, path)]);
        }
    } else {
        findings.add(tunnel::absent(&netlink).await);
    }
    match (arguments.peer, agent.status().and_then(|status| status.tunnel.as_ref())) {
        (Some(peer), Some(tunnel)) => findings.add([mtu::inside(peer, tunnel)]),
        (Some(_), None) => findings.add([Finding::warn(
            "through the tunnel",
            "not tried: there is no tunnel",
            "--peer says where packets through the tunnel are to go",
            "start the agent first: rsip-client up",
        )]),
        (None, _) => {}
    }
    Ok(())
}

/// Which gateway, and by which transport.
async fn target(
    arguments: &Doctor,
    agent: &Agent,
    findings: &mut Findings,
) -> (Option<SocketAddrV4>, HostTransport) {
    let by_name = |name: &str| if name == "udp" { HostTransport::Udp } else { HostTransport::Tcp };
    let (known, transport) = match agent {
        Agent::Runs(status) => (Some(status.registration.gateway), by_name(&status.registration.transport)),
        Agent::Not(Some(state)) => (Some(state.gateway), by_name(&state.transport)),
        Agent::Not(None) | Agent::Odd(_) => (None, arguments.transport.into()),
    };
    if let Some(gateway) = arguments.gateway.or(known) {
        return (Some(gateway), transport);
    }
    let question = Question {
        scopes: arguments.search.scope.clone(),
        directory_agents: arguments.search.da.clone(),
        interface: arguments.interface.clone(),
        transport: None,
        tunnels: vec![rsip_proto::wire::TunnelType::IpIp, rsip_proto::wire::TunnelType::Gre],
        patience: SEARCH,
    };
    let (found, finding) = gateway::search(&question).await;
    findings.add([finding]);
    (found, transport)
}

async fn to_gateway(
    arguments: &Doctor,
    findings: &mut Findings,
    agent: &Agent,
    gateway: SocketAddrV4,
    transport: HostTransport,
    path: &Path,
) {
    findings.add([gateway::machine(*gateway.ip(), path)]);
    let spoken = gateway::rsip(gateway, transport).await;
    let answers = spoken.iter().any(|finding| finding.verdict == Verdict::Ok);
    findings.add(spoken);
    // A registration is one per host: where an agent has or had one, it is not touched.
    if answers && matches!(agent, Agent::Not(None)) && !arguments.no_trial {
        findings.add(trial::check(gateway, transport).await);
    }
    let tunnel = agent.status().and_then(|status| status.tunnel.as_ref());
    findings.add([mtu::outside(*gateway.ip(), path, tunnel)]);
}
