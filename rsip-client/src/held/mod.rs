//! `rsip-client ports`: who holds which leased port.
//!
//! Three witnesses: the agent knows what is leased and which program asked for it; the kernel's socket tables know which sockets
//! have a port; `/proc/PID/fd` knows who has a socket.

pub mod owners;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use clap::Args;
use rsip_sys::exit::{ExitCode, Failure};
use serde::Serialize;

use self::owners::Process;
use crate::calls::{ask, say, unexpected};
use crate::cli::RunDir;
use crate::control::{Asked, Request, Response};
use crate::status::{Lease, Status, table};
use crate::usage::diag::{Snapshot, Socket};

/// Examples of `rsip-client ports --help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client ports
  rsip-client ports 80 443
  rsip-client ports --json | jq '.[] | select(.program == \"nginx\")'

Ports of a block or of a whole address are shown while a socket has them. SINCE is when the program asked for the port; where
it did not have to ask, when the program was started.";

/// `rsip-client ports`.
#[derive(Clone, Debug, Args)]
pub struct Ports {
    /// Show these only, whether they are leased or not [default: all that are leased and in use, or leased by number]
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Print data instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}

/// A port, and one process that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The port.
    pub port: u16,
    /// "tcp" or "udp"; absent: no socket has it.
    pub protocol: Option<&'static str>,
    /// "block", "address", "listen", "static"; absent: not leased.
    pub kind: Option<String>,
    /// The name of the lease.
    pub bind_id: Option<u32>,
    /// "listening", "connected", "closing" (no program has it any more), "unused".
    pub state: &'static str,
    /// How many sockets of this kind the process has there.
    pub sockets: usize,
    /// Process ID.
    pub pid: Option<u32>,
    /// Its name.
    pub program: Option<String>,
    /// User ID of the socket, or of who asked.
    pub uid: Option<u32>,
    /// Since when: seconds since 1970.
    pub since: Option<u64>,
    /// What `since` is: "asked" or "process".
    pub since_is: Option<&'static str>,
}

/// Prints who holds what.
///
/// # Errors
///
/// No agent runs here, or the kernel does not list sockets.
pub fn ports(arguments: &Ports) -> anyhow::Result<()> {
    let status = match ask(&arguments.run_dir, &Request::Status)? {
        Response::Status(status) => status,
        other => return Err(unexpected(other)),
    };
    let asked = match ask(&arguments.run_dir, &Request::Holders)? {
        Response::Holders(asked) => asked,
        other => return Err(unexpected(other)),
    };
    let sockets = Snapshot::take()
        .map_err(|error| Failure::new(ExitCode::Failure, "cannot list sockets").why(error.to_string()))?;
    let wanted: BTreeSet<u16> = arguments.ports.iter().copied().collect();
    let rows = rows(&status, &asked, &sockets, &wanted, owners::of_sockets);
    if arguments.json {
        say(&serde_json::to_string_pretty(&rows)?);
    } else {
        say(text(&rows).trim_end());
    }
    Ok(())
}

/// What is leased, and as what.
struct Leases<'a> {
    leases: Vec<(&'a Lease, Vec<RangeInclusive<u16>>)>,
}

impl<'a> Leases<'a> {
    fn new(status: &'a Status) -> Self {
        let all = |lease: &Lease| match lease.kind.as_str() {
            "address" => vec![1..=u16::MAX],
            _ => crate::ports::parse_list(&lease.ports),
        };
        Self { leases: status.leases.iter().map(|lease| (lease, all(lease))).collect() }
    }

    fn of(&self, port: u16) -> Option<&'a Lease> {
        let holds = |ranges: &[RangeInclusive<u16>]| ranges.iter().any(|range| range.contains(&port));
        self.leases.iter().find(|(_, ranges)| holds(ranges)).map(|(lease, _)| *lease)
    }

    /// Ports that are leased one by one.
    fn by_number(&self) -> impl Iterator<Item = u16> + '_ {
        let few = self.leases.iter().filter(|(lease, _)| matches!(lease.kind.as_str(), "listen" | "static"));
        few.flat_map(|(_, ranges)| ranges.iter().cloned().flatten())
    }
}

/// What tells apart sockets of a port: protocol, state, process.
type Key = (u16, bool, &'static str, Option<u32>);

fn rows(
    status: &Status,
    asked: &[Asked],
    sockets: &Snapshot,
    wanted: &BTreeSet<u16>,
    owners: impl Fn(&BTreeSet<u32>) -> BTreeMap<u32, Vec<Process>>,
) -> Vec<Row> {
    let leases = Leases::new(status);
    let public = status.leases.first().map(|lease| lease.address);
    let is_shown = |socket: &&Socket| {
        let leased = leases.of(socket.port).is_some() && public.is_some_and(|public| serves(socket, public));
        if wanted.is_empty() { leased } else { wanted.contains(&socket.port) }
    };
    let shown: Vec<&Socket> = sockets.all().filter(is_shown).collect();
    let owners = owners(&shown.iter().map(|socket| socket.inode).filter(|inode| *inode != 0).collect());
    let nobody = Vec::new();
    let mut groups: BTreeMap<Key, (usize, u32, Option<&Process>)> = BTreeMap::new();
    for socket in shown {
        let processes = owners.get(&socket.inode).unwrap_or(&nobody);
        let process = processes.first();
        let state = match (socket.time_wait || socket.inode == 0, socket.is_server) {
            (true, _) => "closing",
            (false, true) => "listening",
            (false, false) => "connected",
        };
        let key = (socket.port, socket.tcp, state, process.map(|process| process.pid));
        groups.entry(key).or_insert((0, socket.uid, process)).0 += 1;
    }
    let mut rows: Vec<Row> = groups
        .into_iter()
        .map(|((port, tcp, state, pid), (sockets, uid, process))| {
            let lease = leases.of(port);
            let (since, since_is) = since(asked.iter().find(|asked| asked.port == port), process);
            Row {
                port,
                protocol: Some(if tcp { "tcp" } else { "udp" }),
                kind: lease.map(|lease| lease.kind.clone()),
                bind_id: lease.map(|lease| lease.bind_id),
                state,
                sockets,
                pid,
                program: process.map(|process| process.program.clone()),
                uid: Some(uid),
                since,
                since_is,
            }
        })
        .collect();
    let used: BTreeSet<u16> = rows.iter().map(|row| row.port).collect();
    let unused: BTreeSet<u16> = if wanted.is_empty() { leases.by_number().collect() } else { wanted.clone() };
    rows.extend(unused.difference(&used).map(|port| {
        let lease = leases.of(*port);
        let asker = asked.iter().find(|asked| asked.port == *port);
        Row {
            port: *port,
            protocol: None,
            kind: lease.map(|lease| lease.kind.clone()),
            bind_id: lease.map(|lease| lease.bind_id),
            state: "unused",
            sockets: 0,
            pid: None,
            program: None,
            uid: None,
            since: asker.map(|asked| asked.since),
            since_is: asker.map(|_| "asked"),
        }
    }));
    rows.sort_by_key(|row| (row.port, row.protocol, row.pid));
    rows
}

/// A port that is leased may be used with other addresses, by others.
fn serves(socket: &Socket, public: Ipv4Addr) -> bool {
    socket.serves(public)
}

/// A process that is older than the question has asked itself, or has the socket from who asked; a younger one found the port
/// leased.
fn since(asked: Option<&Asked>, process: Option<&Process>) -> (Option<u64>, Option<&'static str>) {
    match (asked, process) {
        (Some(asked), Some(process)) if process.started <= asked.since.saturating_add(1) => {
            (Some(asked.since), Some("asked"))
        }
        (_, Some(process)) => (Some(process.started), Some("process")),
        (Some(asked), None) => (Some(asked.since), Some("asked")),
        (None, None) => (None, None),
    }
}

fn text(rows: &[Row]) -> String {
    fn cell<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    table(
        ["PORT", "PROTO", "KIND", "STATE", "SOCKETS", "PID", "PROGRAM", "UID", "SINCE"],
        rows.iter().map(|row| {
            [
                row.port.to_string(),
                cell(row.protocol),
                row.kind.clone().unwrap_or_else(|| "not leased".to_owned()),
                row.state.to_owned(),
                row.sockets.to_string(),
                cell(row.pid),
                cell(row.program.as_ref()),
                cell(row.uid),
                cell(row.since.map(time)),
            ]
        }),
    )
}

/// The local time: `2026-03-01 12:00:07`.
fn time(seconds: u64) -> String {
    let Ok(seconds) = libc::time_t::try_from(seconds) else { return "-".to_owned() };
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are good for the call; localtime_r writes one `tm` and returns null where it cannot.
    let parts = unsafe {
        if libc::localtime_r(&raw const seconds, parts.as_mut_ptr()).is_null() {
            return "-".to_owned();
        }
        parts.assume_init()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        i64::from(parts.tm_year) + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(started: u64) -> Process {
        Process { pid: 7, program: "apache2".to_owned(), started }
    }

    #[test]
    fn since_is_when_it_asked_or_when_it_began() {
        let asked = Asked { port: 80, pid: 7, program: "apache2".to_owned(), uid: 0, since: 1000 };
        assert_eq!(since(Some(&asked), Some(&process(900))), (Some(1000), Some("asked")));
        assert_eq!(
            since(Some(&asked), Some(&process(2000))),
            (Some(2000), Some("process")),
            "found it leased"
        );
        assert_eq!(since(None, Some(&process(900))), (Some(900), Some("process")));
        assert_eq!(since(Some(&asked), None), (Some(1000), Some("asked")));
        assert_eq!(since(None, None), (None, None));
    }

    #[test]
    fn says_the_time_as_people_do() {
        let text = time(1_000_000_000);
        assert_eq!(text.len(), "2001-09-09 01:46:40".len(), "{text}");
        assert!(text.starts_with("2001-09-"), "{text}");
        assert_eq!(time(u64::MAX), "-");
    }
}
