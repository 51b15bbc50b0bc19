//! The tables for people. Columns are aligned, rows are in the order of client and bind ID, and the first line names
//! the columns: what a script cuts by column today it can cut tomorrow.

use std::collections::BTreeMap;

use super::view::{Binding, Client, Counters, State, Whole};

/// Stands where there is nothing to say.
const NOTHING: &str = "-";

/// The historical table: one row for each binding, and one for each host without any.
#[must_use]
pub fn dump(state: &State) -> String {
    let mut rows = vec![header(&[
        "Client",
        "Leased Address",
        "STATE",
        "ID",
        "BID",
        "LT",
        "RLT",
        "TUNNEL",
        "PROTO",
        "PORTS",
        "REMOTE",
    ])];
    for client in &state.clients {
        let start = [client.host.to_string()];
        let id = [client.state.to_uppercase(), client.client_id.to_string()];
        if client.bindings.is_empty() {
            let nothing = || NOTHING.to_owned();
            let rest = std::iter::repeat_with(nothing).take(7);
            rows.push(start.into_iter().chain([nothing()]).chain(id).chain(rest).collect());
            continue;
        }
        for binding in &client.bindings {
            let rest = [
                binding.bind_id.to_string(),
                binding.lease_time.to_string(),
                binding.lease_left.to_string(),
                binding.tunnel.clone(),
                // RSIP leases a port for both, and a whole address for everything.
                if binding.whole { "all" } else { "tcp,udp" }.to_owned(),
                ports(binding),
                binding.remote.clone(),
            ];
            let address = [binding.address.to_string()];
            rows.push(start.clone().into_iter().chain(address).chain(id.clone()).chain(rest).collect());
        }
    }
    aligned(&rows)
}

/// The registered hosts.
#[must_use]
pub fn clients(state: &State) -> String {
    let mut rows = vec![header(&[
        "ID",
        "Client",
        "STATE",
        "TRANSPORT",
        "REGISTERED",
        "RLT",
        "BINDS",
        "PORTS",
        "ADDRESSES",
    ])];
    rows.extend(state.clients.iter().map(|client| {
        vec![
            client.client_id.to_string(),
            client.host.to_string(),
            client.state.to_uppercase(),
            client.transport.clone(),
            client.registered_for.to_string(),
            client.lease_left.to_string(),
            client.bindings.len().to_string(),
            ports_leased(client).to_string(),
            addresses_leased(client).to_string(),
        ]
    }));
    aligned(&rows)
}

/// The bindings.
#[must_use]
pub fn binds(state: &State) -> String {
    let names = [
        "ID",
        "BID",
        "Client",
        "Leased Address",
        "KIND",
        "STATE",
        "DATAPATH",
        "LT",
        "RLT",
        "TUNNEL",
        "PORTS",
        "REMOTE",
    ];
    let mut rows = vec![header(&names)];
    let row = |client: &Client, binding: &Binding| {
        vec![
            client.client_id.to_string(),
            binding.bind_id.to_string(),
            client.host.to_string(),
            binding.address.to_string(),
            if binding.listen { "LISTEN" } else { "ASSIGN" }.to_owned(),
            binding.state.to_uppercase(),
            match binding.installed {
                Some(true) => "holds",
                Some(false) => "MISSING",
                None => "unknown",
            }
            .to_owned(),
            binding.lease_time.to_string(),
            binding.lease_left.to_string(),
            binding.tunnel.clone(),
            ports(binding),
            binding.remote.clone(),
        ]
    };
    rows.extend(state.clients.iter().flat_map(|client| client.bindings.iter().map(move |b| row(client, b))));
    aligned(&rows)
}

/// Use of the public addresses.
#[must_use]
pub fn pool(state: &State) -> String {
    let mut rows = vec![header(&["Address", "LEASED", "RESTING", "FREE", "WHOLE"])];
    rows.extend(state.pool.iter().map(|pool| {
        vec![
            pool.address.to_string(),
            pool.leased.to_string(),
            pool.resting.to_string(),
            pool.free.to_string(),
            match pool.whole {
                Whole::Never => NOTHING,
                Whole::Free => "free",
                Whole::Resting => "resting",
                Whole::Shared => "shared",
                Whole::Leased => "leased",
            }
            .to_owned(),
        ]
    }));
    aligned(&rows)
}

/// The daemon, and what it counted.
#[must_use]
pub fn status(state: &State) -> String {
    let daemon = &state.daemon;
    let mut lines = vec![
        ("rsipd", format!("version {}, process {}, up {} s", daemon.version, daemon.pid, daemon.uptime)),
        (
            "interfaces",
            format!("{} (internal), {} (external)", daemon.internal_interface, daemon.external_interface),
        ),
        ("listening", format!("{} (udp, tcp), {} connections", daemon.listening, daemon.connections)),
        ("discovery", state.discovery.to_string()),
        ("datapath", daemon.datapath.clone()),
        ("methods", daemon.methods.join(", ")),
        ("flow policy", daemon.flow_policy.clone()),
        ("clients", state.clients.len().to_string()),
        ("bindings", state.clients.iter().map(|client| client.bindings.len()).sum::<usize>().to_string()),
        ("ports leased", state.clients.iter().map(ports_leased).sum::<usize>().to_string()),
        ("addresses leased", state.clients.iter().map(addresses_leased).sum::<usize>().to_string()),
    ];
    lines.extend(counters(&state.counters));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.into_iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn counters(counters: &Counters) -> Vec<(&'static str, String)> {
    let events = &counters.events;
    let mut lines = vec![
        ("messages", format!("{} received, {} sent", events.received, events.sent)),
        ("registrations", format!("{} begun, {} ended", events.registered, events.unregistered)),
        ("leases", format!("{} given, {} extended, {} ended", events.bound, events.extended, events.unbound)),
        ("refused", by_name(&events.refused)),
        ("misused", by_name(&events.misused)),
    ];
    if let Some(stats) = &counters.datapath {
        lines.push(("to hosts", format!("{} packets, {} bytes", stats.inward_packets, stats.inward_bytes)));
        lines.push((
            "from hosts",
            format!("{} packets, {} bytes", stats.outward_packets, stats.outward_bytes),
        ));
        let dropped = [
            ("not leased", stats.bad_source),
            ("malformed", stats.malformed),
            ("ttl", stats.ttl_exceeded),
            ("unsupported", stats.unsupported),
            ("too big", stats.too_big),
            ("martian", stats.martian),
            ("bad remote", stats.bad_remote),
            ("bad tunnel", stats.bad_tunnel),
            ("bad gre", stats.bad_gre),
            ("failed", stats.failed),
        ];
        let dropped: Vec<_> = dropped.iter().map(|(why, count)| format!("{count} {why}")).collect();
        lines.push(("dropped", dropped.join(", ")));
    }
    lines
}

/// `NAME 2, OTHER_NAME 1`.
fn by_name(counted: &BTreeMap<String, u64>) -> String {
    if counted.is_empty() {
        return "0".to_owned();
    }
    counted.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn ports_leased(client: &Client) -> usize {
    client.bindings.iter().map(|binding| binding.ports.len()).sum()
}

fn addresses_leased(client: &Client) -> usize {
    client.bindings.iter().filter(|binding| binding.whole).count()
}

/// `5000-5003,5010`, or `all`.
fn ports(binding: &Binding) -> String {
    if binding.whole {
        return "all".to_owned();
    }
    let mut text = String::new();
    for run in binding.ports.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if first != last {
            text.push_str(&format!("-{last}"));
        }
    }
    text
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Pads all columns but the last; two blanks between.
fn aligned(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    rows.iter()
        .map(|row| {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}
