//! The running agent, as it describes itself; and what a dead one left.

use std::path::Path;
use std::time::Duration;

use rsip_sys::control::{self, CallError};
use rsip_sys::rundir::CONTROL_SOCKET;

use super::finding::{Finding, Trouble};
use crate::control::{Request, Response};
use crate::state::State;
use crate::status::{Lease, Status};

/// An agent answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A lease is extended at half of its life: one that is nearer to its end than this share is not being extended.
const LATE: u64 = 8;

/// How it is with the agent.
#[derive(Debug)]
pub(super) enum Agent {
    /// It answers.
    Runs(Box<Status>),
    /// It does not run; what a dead one left.
    Not(Option<Box<State>>),
    /// Something is there that does not answer as it should.
    Odd(String),
}

impl Agent {
    /// What the agent says.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Runs(status) => Some(status),
            Self::Not(_) | Self::Odd(_) => None,
        }
    }
}

/// Asks the agent of a run directory.
pub(super) fn ask(directory: &Path) -> Agent {
    match control::call(&directory.join(CONTROL_SOCKET), &Request::Status, PATIENCE) {
        Ok(Response::Status(status)) => Agent::Runs(status),
        Ok(_) => Agent::Odd("the agent's answer is not the one to the question".to_owned()),
        Err(CallError::NotRunning { .. }) => match State::load(directory) {
            Ok(state) => Agent::Not(state.map(Box::new)),
            Err(error) => Agent::Odd(error.to_string()),
        },
        Err(error) => Agent::Odd(error.to_string()),
    }
}

/// Whether one runs.
pub(super) fn check(agent: &Agent, directory: &Path) -> Finding {
    match agent {
        Agent::Runs(status) => {
            let waiting = match (status.waiting.way.as_str(), status.waiting.why.as_str()) {
                ("none", why) => why.to_owned(),
                (way, "") => format!("binds wait by {way}"),
                (way, why) => format!("binds wait by {way}: {why}"),
            };
            let saw = format!("runs as process {}, version {}; {waiting}", status.pid, status.version);
            Finding::ok("agent", saw)
        }
        Agent::Not(None) => Finding::warn(
            "agent",
            format!("none runs in this network namespace (nothing answers in {})", directory.display()),
            "programs of this host are not served",
            "start it: rsip-client up, or systemctl start rsip-client",
        ),
        Agent::Not(Some(state)) => Finding::fail(
            "agent",
            format!("none runs, but one that was killed left its state (gateway {})", state.gateway),
            "routes, rules and port settings of the dead agent are still in force",
            "go on where it was with rsip-client up, or restore the host with rsip-client down",
        ),
        Agent::Odd(why) => Finding::fail(
            "agent",
            why.clone(),
            "it hangs, you may not ask it, or it is of another version",
            "run as root; look at its log; rsip-client down and up if it hangs",
        ),
    }
}

/// Registration and leases.
pub(super) fn leases(status: &Status) -> Vec<Finding> {
    let mut findings = vec![registration(status)];
    if status.registration.state == "registered" {
        findings.push(ports(status));
    }
    findings.extend(refusals(status));
    for complaint in &status.registration.complaints {
        findings.push(
            Finding::warn(
                "complaints",
                format!("the gateway complained {} times: {}", complaint.value, complaint.name),
                "it dropped packets of this host: a program uses an address, port or peer that is not leased",
                "see `wanted` and `counters` in rsip-client status, and `dropped` in rsipdctl status at the gateway",
            )
            .known_as(Trouble::VanishingPackets),
        );
    }
    findings
}

fn registration(status: &Status) -> Finding {
    let registration = &status.registration;
    let gateway = registration.gateway;
    match registration.state.as_str() {
        "registered" => {
            let id = registration.client_id.map_or_else(String::new, |id| format!(" as client {id}"));
            let left = registration.remaining.map_or_else(String::new, |left| format!(", {left} s left"));
            Finding::ok("registration", format!("registered at {gateway}{id}{left}"))
        }
        state if state.starts_with("refused") || state.starts_with("unsuitable") => Finding::fail(
            "registration",
            format!("{gateway}: {state}"),
            "the gateway answers, and takes no registration of this host as it was asked for",
            "see the gateway's log; its MAX_CLIENTS, FLOW_POLICY and methods decide, and --method and --remote here",
        )
        .known_as(Trouble::UnableToRegister),
        state => Finding::fail(
            "registration",
            format!("{gateway}: {state}"),
            "the host holds no lease, or cannot renew the ones that it holds",
            "see the findings about the gateway below",
        )
        .known_as(Trouble::UnableToRegister),
    }
}

fn ports(status: &Status) -> Finding {
    let ephemeral = |lease: &&Lease| matches!(lease.kind.as_str(), "block" | "address");
    let Some(first) = status.leases.iter().find(ephemeral) else {
        let wanted = status.wanted.iter().find(|wanted| matches!(wanted.kind.as_str(), "block" | "address"));
        let means = "programs of this host cannot connect to the public realm";
        let Some(wanted) = wanted else {
            let todo = "that is well if it was started with --block 0 and without --ports";
            return Finding::warn(
                "leases",
                "no ephemeral ports are leased, and none are asked for",
                means,
                todo,
            );
        };
        let why = wanted.refused.as_deref().unwrap_or("not answered yet");
        return Finding::fail(
            "leases",
            format!("no ephemeral ports: {why}"),
            means,
            "ask for fewer with --block, or widen PORT_RANGE at the gateway; rsipdctl pool shows how many it has, rsipdctl dump who has them",
        )
        .known_as(Trouble::UnableToGetPorts);
    };
    let late: Vec<String> = status
        .leases
        .iter()
        .filter(|lease| lease.remaining.saturating_mul(LATE) < lease.lease)
        .map(|lease| format!("{} ({} of {} s left)", lease.ports, lease.remaining, lease.lease))
        .collect();
    if !late.is_empty() {
        return Finding::warn(
            "leases",
            format!("near their end: {}", late.join(", ")),
            "the gateway does not extend them, or is out of reach",
            "see the agent's log and the findings about the gateway",
        );
    }
    let total: usize = status.leases.iter().map(|lease| lease.count).sum();
    let used: usize = status.leases.iter().map(|lease| lease.ports_used).sum();
    Finding::ok(
        "leases",
        format!("{} leases at {}, {used} of {total} ports in use", status.leases.len(), first.address),
    )
}

/// Ports by number that others have, or that the gateway keeps.
fn refusals(status: &Status) -> Option<Finding> {
    let refused: Vec<String> = status
        .wanted
        .iter()
        .filter(|wanted| !matches!(wanted.kind.as_str(), "block" | "address"))
        .filter_map(|wanted| Some(format!("{} ({})", wanted.ports, wanted.refused.as_ref()?)))
        .collect();
    (!refused.is_empty()).then(|| {
        Finding::fail(
            "wanted ports",
            format!("refused: {}", refused.join(", ")),
            "another host has the port, or the gateway reserves it",
            "rsipdctl dump at the gateway shows who has it; see its LISTEN_RANGE and RESERVED_PORTS",
        )
        .known_as(Trouble::UnableToGetPorts)
    })
}
