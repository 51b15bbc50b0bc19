//! A bind of our own: do the hooks see it, and do they let pass what they must?

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;

use super::agent::{self, Agent};
use super::finding::{Finding, Trouble};
use crate::status::Status;
use crate::usage::diag::Snapshot;

/// Counted when a bind passes because its port is leased.
const GRANTED: &str = "bind_granted";

/// Loopback first: it must pass whatever else happens. Then a leased port.
pub(super) fn check(status: &Status, directory: &Path) -> Vec<Finding> {
    let mut findings = vec![loopback()];
    if !status.hooks.programs.is_empty() {
        findings.extend(leased(status, directory));
    }
    findings
}

fn loopback() -> Finding {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(_) => Finding::ok("loopback", "a bind to 127.0.0.1 passes"),
        Err(error) => Finding::fail(
            "loopback",
            format!("a bind to 127.0.0.1 fails: {error}"),
            "no ephemeral port is free, the loopback device is down, or another hook refuses it",
            "ip link set lo up; see `ephemeral` in rsip-client status, and the finding about other hooks",
        ),
    }
}

fn leased(status: &Status, directory: &Path) -> Option<Finding> {
    let used: BTreeSet<u16> = Snapshot::take().map(|sockets| sockets.ports().collect()).unwrap_or_default();
    let (address, ports) = status.leases.iter().find_map(|lease| {
        (lease.state == "in use").then_some(())?;
        let ports =
            super::ports::of_lease(lease).filter(|port| !used.contains(port)).take(3).collect::<Vec<_>>();
        (lease.kind == "block" && !ports.is_empty()).then_some((lease.address, ports))
    })?;
    // Somebody may take the first one before us.
    let (port, outcome) =
        ports.into_iter().fold(None, |known: Option<(u16, io::Result<_>)>, port| match known {
            Some((_, Ok(_))) => known,
            _ => Some((port, TcpListener::bind(SocketAddrV4::new(address, port)))),
        })?;
    Some(match outcome {
        Ok(_) => seen(status, directory, port),
        Err(error) => Finding::fail(
            "hook test",
            format!("a bind to {address}:{port}, which is leased and free, fails: {error}"),
            "programs are refused what the host holds",
            "see the findings about hooks and tunnel; rsip-client down and up",
        )
        .known_as(Trouble::PortConflict),
    })
}

fn seen(status: &Status, directory: &Path, port: u16) -> Finding {
    let Agent::Runs(after) = agent::ask(directory) else {
        return Finding::fail(
            "hook test",
            "the agent ended meanwhile",
            "it crashed, or somebody stopped it",
            "look at its log",
        );
    };
    let count = |status: &Status| {
        status.counters.iter().find(|counter| counter.name == GRANTED).map_or(0, |counter| counter.value)
    };
    if count(&after) > count(status) {
        return Finding::ok(
            "hook test",
            format!("a bind of port {port}, which is leased, was seen and let pass"),
        );
    }
    Finding::warn(
        "hook test",
        format!("a bind of port {port} passed, and no hook has seen it"),
        "this shell is not in a cgroup that the agent serves; binds of programs like it are not leased",
        "see the finding about cgroup attachment; rsip-client run -- COMMAND starts a program where it is served",
    )
}
