//! What hosts may do with their leases: `FLOW_POLICY` and `REMOTE_DENY`.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use rsip_proto::gateway::RemoteDeny;
use rsip_proto::wire::{FlowPolicy, LocalPolicy, RemotePolicy};

use super::value::{self, Complaint, Value};

/// All of them.
const ALL_PORTS: RangeInclusive<u16> = 0..=65535;

pub(super) fn flow_policy_name(policy: FlowPolicy) -> &'static str {
    match (policy.local, policy.remote) {
        (LocalPolicy::Macro, RemotePolicy::Macro) => "macro/macro",
        (LocalPolicy::Macro, RemotePolicy::Micro) => "macro/micro",
        (LocalPolicy::Macro, RemotePolicy::None) => "macro/none",
        (LocalPolicy::Micro, RemotePolicy::Macro) => "micro/macro",
        (LocalPolicy::Micro, RemotePolicy::Micro) => "micro/micro",
        (LocalPolicy::Micro, RemotePolicy::None) => "micro/none",
    }
}

pub(super) fn flow_policy(value: &Value<'_>) -> Result<FlowPolicy, Complaint> {
    let text = value::string(value)?;
    let parts = text.split_once('/').and_then(|(local, remote)| {
        let local = match local {
            "macro" => LocalPolicy::Macro,
            "micro" => LocalPolicy::Micro,
            _ => return None,
        };
        let remote = match remote {
            "none" => RemotePolicy::None,
            "macro" => RemotePolicy::Macro,
            "micro" => RemotePolicy::Micro,
            _ => return None,
        };
        Some(FlowPolicy { local, remote })
    });
    parts.ok_or_else(|| Complaint { span: value.span(), what: format!("{text:?} is not a flow policy") })
}

/// Entries as `NETWORK`, `NETWORK:PORT` or `NETWORK:FIRST-LAST`; without ports: all of them.
pub(super) fn remote_deny(value: &Value<'_>) -> Result<Vec<RemoteDeny>, Complaint> {
    value::items(value, true)?.into_iter().map(denied).collect()
}

fn denied(item: &Value<'_>) -> Result<RemoteDeny, Complaint> {
    let text = value::string(item)?;
    let complain = |what| Complaint { span: item.span(), what };
    let (network, ports) = match text.split_once(':') {
        None => (text, ALL_PORTS),
        Some((network, ports)) => {
            let not_ports = || complain(format!("{ports:?} is neither a port nor a range of ports"));
            let range = value::range(ports).filter(|range| !range.is_empty()).ok_or_else(not_ports)?;
            // Port 0 is nobody's.
            (network, if range == (1..=u16::MAX) { ALL_PORTS } else { range })
        }
    };
    let network = match network.parse::<Ipv4Addr>() {
        Ok(address) => (address, 32),
        Err(_) => value::network_text(network).map_err(complain)?,
    };
    Ok(RemoteDeny { network, ports })
}

/// The entry as it would stand in the file.
pub(crate) fn remote_deny_text(deny: &RemoteDeny) -> String {
    let (network, length) = deny.network;
    let (first, last) = (deny.ports.start(), deny.ports.end());
    match (first, last) {
        _ if deny.ports == ALL_PORTS => format!("{network}/{length}"),
        _ if first == last => format!("{network}/{length}:{first}"),
        _ => format!("{network}/{length}:{first}-{last}"),
    }
}

/// Whether the entry is for all ports of its peers.
pub(crate) fn denies_all_ports(deny: &RemoteDeny) -> bool {
    deny.ports == ALL_PORTS
}
