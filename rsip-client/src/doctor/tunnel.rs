//! The tunnel device, what sends packets into it, and what leaves alone what is private.

use std::net::Ipv4Addr;

use aya::programs::{SchedClassifier, TcAttachType};
use rsip_ebpf_common::host::programs;
use rsip_sys::netlink::{MAIN_TABLE, Netlink, Prefix, Route, RouteKind, Rule};

use super::finding::{Finding, Trouble};
use crate::status::{Status, Tunnel};
use crate::tunnel::routing::{DIRECT_TABLE, PROTOCOL, TABLE};
use crate::tunnel::{device, routing};

/// An address of the public realm that is nobody's (TEST-NET-1, RFC 5737): where would a packet to it go?
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Where no agent runs: would one be able to make its device, and is something of a dead one left?
pub(super) async fn absent(netlink: &Netlink) -> Vec<Finding> {
    let mut findings = Vec::new();
    match device::owner(netlink).await {
        Ok(None) => findings.push(Finding::ok("tunnel device", format!("the name {} is free", device::NAME))),
        Ok(Some(true)) => findings.push(Finding::warn(
            "tunnel device",
            format!("{} is there, of an agent that is not known here", device::NAME),
            "the agent has another --run-dir, or is just ending",
            "give that --run-dir, or wait a moment",
        )),
        Ok(Some(false)) => findings.push(foreign()),
        Err(error) => findings.push(unknown("tunnel device", &error)),
    }
    match (netlink.rules().await, netlink.routes(TABLE).await) {
        (Ok(rules), Ok(routes)) => {
            let rules = rules.iter().filter(|rule| routing::is_ours(rule)).count();
            if rules + routes.len() > 0 {
                findings.push(Finding::warn(
                    "routes and rules",
                    format!("{rules} rules and {} routes of table {TABLE} are left", routes.len()),
                    "an agent was killed: packets go where no tunnel is",
                    "rsip-client down removes them, rsip-client up takes them over",
                ));
            }
        }
        (Err(error), _) | (_, Err(error)) => findings.push(unknown("routes and rules", &error)),
    }
    findings
}

fn foreign() -> Finding {
    Finding::fail(
        "tunnel device",
        format!("interface {} exists already and is not ours", device::NAME),
        "the agent needs that name, and does not touch what others made",
        format!("rename or remove it: ip link set {0} name OTHER, or ip link del {0}", device::NAME),
    )
    .known_as(Trouble::UnableToCreateTunnel)
}

fn unknown(check: &'static str, error: &dyn std::fmt::Display) -> Finding {
    Finding::warn(check, error.to_string(), "the kernel does not tell", "run as root")
}

/// Where an agent runs.
pub(super) async fn check(netlink: &Netlink, status: &Status) -> Vec<Finding> {
    let Some(tunnel) = &status.tunnel else {
        return vec![if status.leases.is_empty() {
            Finding::ok("tunnel device", "there is none, since nothing is leased")
        } else {
            Finding::fail(
                "tunnel device",
                "ports are leased, and the agent has no tunnel",
                "packets with the leased address go nowhere",
                "look at the agent's log for the reason; rsip-client down and up",
            )
            .known_as(Trouble::UnableToCreateTunnel)
        }];
    };
    let mut findings = vec![the_device(netlink, tunnel).await];
    findings.extend(programs_on(tunnel));
    if tunnel.address.is_some() {
        findings.push(rules(netlink, tunnel).await);
        if status.leases.iter().any(|lease| matches!(lease.kind.as_str(), "block" | "address")) {
            findings.push(decision(netlink, status, tunnel).await);
        }
        findings.push(private(netlink, status, tunnel).await);
    }
    findings.push(drops(status));
    findings
}

async fn the_device(netlink: &Netlink, tunnel: &Tunnel) -> Finding {
    let trouble = |saw: String, means: &str| {
        Finding::fail(
            "tunnel device",
            saw,
            means,
            "the agent puts back what it notices; else rsip-client down and up",
        )
        .known_as(Trouble::UnableToCreateTunnel)
    };
    let link = match netlink.link(&tunnel.device).await {
        Ok(link) => link,
        Err(error) => {
            return trouble(error.to_string(), "somebody removed it: no packet reaches the gateway");
        }
    };
    if !link.up {
        return trouble(
            format!("{} is down", link.name),
            "somebody set it down: no packet reaches the gateway",
        );
    }
    match netlink.addresses().await {
        Ok(addresses) => {
            let here = addresses.iter().any(|a| a.index == link.index && Some(a.address) == tunnel.address);
            if let (Some(address), false) = (tunnel.address, here) {
                return trouble(
                    format!("{} does not have the leased address {address}", link.name),
                    "somebody removed it: programs cannot bind it, and what arrives is nobody's",
                );
            }
        }
        Err(error) => return unknown("tunnel device", &error),
    }
    let address = tunnel.address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    Finding::ok(
        "tunnel device",
        format!(
            "{} is up with {address}, MTU {}, from {} to {}",
            link.name, link.mtu, tunnel.local, tunnel.remote
        ),
    )
}

/// The programs on the device and on the private interface, asked of the kernel where it can be asked.
fn programs_on(tunnel: &Tunnel) -> Option<Finding> {
    if tunnel.attachment != "tcx" {
        let saw = format!("held by {}, as the agent says", tunnel.attachment);
        return Some(Finding::ok("tunnel programs", saw));
    }
    let wanted = [
        (tunnel.device.as_str(), TcAttachType::Egress, programs::TUNNEL_OUT),
        (tunnel.interface.as_str(), TcAttachType::Ingress, programs::TUNNEL_IN),
    ];
    let mut missing = Vec::new();
    for (interface, direction, name) in wanted {
        match SchedClassifier::query_tcx(interface, direction) {
            Ok((_, found)) if found.iter().any(|program| program.name() == name.as_bytes()) => {}
            Ok(_) => missing.push(format!("{name} on {interface}")),
            Err(error) => return Some(unknown("tunnel programs", &error)),
        }
    }
    Some(if missing.is_empty() {
        Finding::ok(
            "tunnel programs",
            format!(
                "{} on {}, {} on {}",
                programs::TUNNEL_OUT,
                tunnel.device,
                programs::TUNNEL_IN,
                tunnel.interface
            ),
        )
    } else {
        Finding::fail(
            "tunnel programs",
            format!("the kernel does not run {}", missing.join(" and ")),
            "packets are not put into the tunnel, or not taken out of it",
            "somebody detached them: rsip-client down and up",
        )
        .known_as(Trouble::UnableToCreateTunnel)
    })
}

async fn rules(netlink: &Netlink, tunnel: &Tunnel) -> Finding {
    let (rules, routes) = match (netlink.rules().await, netlink.routes(TABLE).await) {
        (Ok(rules), Ok(routes)) => (rules, routes),
        (Err(error), _) | (_, Err(error)) => return unknown("routes and rules", &error),
    };
    let device = netlink.link(&tunnel.device).await.map(|link| link.index).ok();
    let is_default = |route: &&Route| route.destination.length == 0 && route.kind == RouteKind::Unicast;
    let trouble = |saw: String| {
        Finding::fail(
            "routes and rules",
            saw,
            "connections do not take the tunnel: they leave with the private address, or not at all",
            "find who changes routes and rules (NetworkManager, a VPN, a script); rsip-client down and up sets them again",
        )
        .known_as(Trouble::UnableToSetDefaultRoute)
    };
    match routes.iter().find(is_default) {
        None => return trouble(format!("table {TABLE} has no default route")),
        Some(route) if route.interface != device => {
            return trouble(format!(
                "the default route of table {TABLE} leads elsewhere than {}",
                tunnel.device
            ));
        }
        Some(route) if route.protocol != PROTOCOL => {
            return trouble(format!("the default route of table {TABLE} is somebody else's"));
        }
        Some(_) => {}
    }
    let ours =
        |wanted: &dyn Fn(&Rule) -> bool| rules.iter().any(|rule| routing::is_ours(rule) && wanted(rule));
    let needed: [(&str, bool); 3] = [
        (
            "to the gateway lookup main",
            ours(&|r| r.destination == Some(Prefix::host(tunnel.remote)) && r.table == MAIN_TABLE),
        ),
        (
            "lookup main without its default route",
            ours(&|r| r.table == MAIN_TABLE && r.suppress_prefix_length == Some(0)),
        ),
        (
            "from the leased address lookup 4555",
            ours(&|r| r.source == tunnel.address.map(Prefix::host) && r.table == TABLE),
        ),
    ];
    let missing: Vec<&str> = needed.iter().filter(|(_, is)| !is).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return trouble(format!("rules are missing: {}", missing.join("; ")));
    }
    let count = rules.iter().filter(|rule| routing::is_ours(rule)).count();
    Finding::ok(
        "routes and rules",
        format!("{count} rules of 4552 to 4556, default of table {TABLE} by {}", tunnel.device),
    )
}

/// What the kernel says of a packet that has no source yet.
async fn decision(netlink: &Netlink, status: &Status, tunnel: &Tunnel) -> Finding {
    let peer = status.registration.remote.as_deref().and_then(|remote| {
        let address = remote.split(':').next()?;
        address.parse().ok()
    });
    let target = peer.unwrap_or(ANYWHERE);
    let trouble = |saw: String, todo: String| {
        Finding::fail(
            "way of connections",
            saw,
            "programs connect to the internet past the tunnel, from the private address, and get no answer",
            todo,
        )
        .known_as(Trouble::UnableToSetDefaultRoute)
    };
    let route = match netlink.route_to(target).await {
        Ok(route) => route,
        Err(error) => {
            return trouble(error.to_string(), "see `ip rule` and `ip route show table 4555`".to_owned());
        }
    };
    let name = match route.interface {
        Some(index) => {
            netlink.link_by_index(index).await.map_or_else(|_| index.to_string(), |link| link.name)
        }
        None => "nothing".to_owned(),
    };
    if name == tunnel.device {
        return Finding::ok("way of connections", format!("a connection to {target} takes {name}"));
    }
    let others: Vec<String> = netlink
        .rules()
        .await
        .unwrap_or_default()
        .iter()
        .filter(|rule| rule.priority > 0 && rule.priority < 4556 && !routing::is_ours(rule))
        .map(|rule| format!("{} (lookup {})", rule.priority, rule.table))
        .collect();
    let todo = if others.is_empty() {
        "see `ip rule` and `ip route get 192.0.2.1`: a route of table main may cover the whole internet (0.0.0.0/1 of a VPN)".to_owned()
    } else {
        format!(
            "rules of others stand before ours: {}; move or remove them (ip rule del pref N)",
            others.join(", ")
        )
    };
    trouble(format!("a connection to {target} takes {name}, not {}", tunnel.device), todo)
}

/// The gateway and private networks are reached without the tunnel.
async fn private(netlink: &Netlink, status: &Status, tunnel: &Tunnel) -> Finding {
    let Ok(device) = netlink.link(&tunnel.device).await else {
        return Finding::ok("private networks", "no tunnel, so nothing takes it");
    };
    let mut networks = vec![Prefix::host(tunnel.remote)];
    for table in [MAIN_TABLE, DIRECT_TABLE] {
        let routes = netlink.routes(table).await.unwrap_or_default();
        let private = |r: &&Route| {
            r.kind == RouteKind::Unicast && r.destination.length > 0 && r.interface != Some(device.index)
        };
        networks.extend(routes.iter().filter(private).map(|route| route.destination));
    }
    let direct = status.direct.iter().filter(|network| network.refused.is_none());
    networks.extend(direct.filter_map(|network| network.network.parse::<Prefix>().ok()));
    let mut swallowed = Vec::new();
    for network in &networks {
        if let Ok(route) = netlink.route_to(some_host(*network)).await
            && route.interface == Some(device.index)
        {
            swallowed.push(network.to_string());
        }
    }
    if swallowed.is_empty() {
        return Finding::ok(
            "private networks",
            format!("{} of them are reached without the tunnel", networks.len()),
        );
    }
    Finding::fail(
        "private networks",
        format!("{} would take the tunnel", swallowed.join(", ")),
        "private machines are not reached, or see the public address",
        "name the network with --private-net, or mend the rules: rsip-client down and up",
    )
    .known_as(Trouble::UnableToSetDefaultRoute)
}

/// An address in a network that is not the network's own.
fn some_host(network: Prefix) -> Ipv4Addr {
    let first = u32::from(network.address);
    Ipv4Addr::from(if network.length < 31 { first.saturating_add(1) } else { first })
}

/// What the programs dropped since the agent started.
fn drops(status: &Status) -> Finding {
    let reasons = [
        (
            "tunnel_dropped",
            "could not be put into the tunnel or taken out of it (too big, cut short, or no tunnel)",
        ),
        ("tunnel_bad_source", "had another source than the leased address"),
        ("tunnel_bad_remote", "were not with the peer of --remote"),
        ("connect_refused", "were calls refused because no ephemeral port was leased"),
        ("bind_timeout", "were binds to which the gateway did not answer in time"),
    ];
    let seen: Vec<String> = reasons
        .iter()
        .filter_map(|(name, what)| {
            let counter =
                status.counters.iter().find(|counter| counter.name == *name && counter.value > 0)?;
            Some(format!("{} {what} ({name})", counter.value))
        })
        .collect();
    if seen.is_empty() {
        return Finding::ok("dropped packets", "none since the agent started");
    }
    Finding::warn(
        "dropped packets",
        format!("since the agent started {}", seen.join("; ")),
        "some packets or calls of programs had no effect",
        "if a number grows while something does not work, it is the reason; `dropped` in rsipdctl status has the gateway's side",
    )
    .known_as(Trouble::VanishingPackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_a_host_of_a_network() {
        let host = |text: &str| some_host(text.parse().expect("a network"));
        assert_eq!(host("10.0.0.0/24"), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(host("10.0.0.7/32"), Ipv4Addr::new(10, 0, 0, 7));
        assert_eq!(host("10.0.0.6/31"), Ipv4Addr::new(10, 0, 0, 6));
    }
}
