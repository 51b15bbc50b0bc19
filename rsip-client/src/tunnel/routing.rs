//! Rules and routes that send the leased address's traffic into the tunnel, and nothing else.
//!
//! | preference | rule | why |
//! |---|---|---|
//! | 4552 | to GATEWAY lookup main | the tunnel's own packets and RSIP itself never enter the tunnel |
//! | 4552 | from 0.0.0.0 to DIRECT lookup main | a private network without a route of its own; one rule for each |
//! | 4553 | lookup main, no default route | private networks keep their routes |
//! | 4554 | from PUBLIC lookup 4555 | whoever is bound to the leased address |
//! | 4554 | from 0.0.0.0 lookup 4554 | as 4556 |
//! | 4555 | from 0.0.0.0 lookup 4555 | whoever has no address yet gets the leased one |
//! | 4556 | lookup 4554 | DIRECT on a host whose main table has no default route |
//!
//! Table 4555 holds `default dev rsip src PUBLIC`; table 4554, where it is needed, `DIRECT via GATEWAY src PRIVATE`: what the
//! gateway calls local it can reach. Traffic with a private source keeps its routes, and an answer from the leased address
//! takes the tunnel, wherever it goes. All of it carries protocol number 155, by which it is known for ours.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rsip_sys::netlink::{MAIN_TABLE, Netlink, NetlinkError, Prefix, Route, RouteKind, Rule};

/// Our routing table.
pub const TABLE: u32 = 4555;
/// Our routing table for networks that are reached by way of the gateway, but not through the tunnel.
pub const DIRECT_TABLE: u32 = 4554;
/// Who made it: no routing daemon has this number in iproute2's rt_protos.
pub(crate) const PROTOCOL: u8 = 155;
/// Preferences of our rules.
const PREFERENCES: std::ops::RangeInclusive<u32> = 4552..=4556;

/// What is to be routed how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The tunnel device.
    pub device: u32,
    /// Far ends of the tunnel.
    pub endpoints: BTreeSet<Ipv4Addr>,
    /// The leased address.
    pub public: Ipv4Addr,
    /// Networks that are reached without the tunnel.
    pub direct: BTreeSet<Prefix>,
    /// The way to them where the main table has none.
    pub hop: Hop,
}

/// The first step on the way to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The private interface.
    pub interface: u32,
    /// Who takes the packet there.
    pub router: Ipv4Addr,
    /// The host's private address.
    pub source: Ipv4Addr,
}

impl Plan {
    /// `detour`: the main table has no default route.
    fn rules(&self, detour: bool) -> Vec<Rule> {
        let rule = |priority, table| Rule {
            priority,
            source: None,
            destination: None,
            table,
            suppress_prefix_length: None,
            protocol: PROTOCOL,
        };
        let unbound = Some(Prefix::host(Ipv4Addr::UNSPECIFIED));
        let to =
            |destination, source| Rule { destination: Some(destination), source, ..rule(4552, MAIN_TABLE) };
        let endpoints = self.endpoints.iter().map(|endpoint| to(Prefix::host(*endpoint), None));
        let direct = self.direct.iter().map(|network| to(*network, unbound));
        let around = [Rule { source: unbound, ..rule(4554, DIRECT_TABLE) }, rule(4556, DIRECT_TABLE)];
        endpoints
            .chain(direct)
            .chain([
                Rule { suppress_prefix_length: Some(0), ..rule(4553, MAIN_TABLE) },
                Rule { source: Some(Prefix::host(self.public)), ..rule(4554, TABLE) },
                Rule { source: unbound, ..rule(4555, TABLE) },
            ])
            .chain(around.into_iter().filter(|_| detour && !self.direct.is_empty()))
            .collect()
    }

    fn tunnel_route(&self) -> Route {
        Route {
            kind: RouteKind::Unicast,
            destination: Prefix::ALL,
            gateway: None,
            interface: Some(self.device),
            source: Some(self.public),
            table: TABLE,
            protocol: PROTOCOL,
        }
    }

    fn direct_routes(&self) -> Vec<Route> {
        let route = |network: &Prefix| Route {
            kind: RouteKind::Unicast,
            destination: *network,
            gateway: Some(self.hop.router),
            interface: Some(self.hop.interface),
            source: Some(self.hop.source),
            table: DIRECT_TABLE,
            protocol: PROTOCOL,
        };
        self.direct.iter().map(route).collect()
    }
}

pub(crate) fn is_ours(rule: &Rule) -> bool {
    rule.protocol == PROTOCOL && PREFERENCES.contains(&rule.priority)
}

/// Makes the plan hold, and nothing else of ours. Looks first, so that calling it again changes nothing, and puts back what
/// somebody else removed.
///
/// # Errors
///
/// The kernel refuses.
pub async fn apply(netlink: &Netlink, plan: &Plan) -> Result<(), NetlinkError> {
    let main = netlink.routes(MAIN_TABLE).await?;
    let detour = !main.iter().any(|route| route.kind == RouteKind::Unicast && route.destination.length == 0);
    // The routes first: a rule that leads to an empty table would let packets out with a wrong source.
    make_routes(netlink, TABLE, &[plan.tunnel_route()]).await?;
    make_routes(netlink, DIRECT_TABLE, &if detour { plan.direct_routes() } else { Vec::new() }).await?;
    let wanted = plan.rules(detour);
    let present: Vec<Rule> = netlink.rules().await?.into_iter().filter(is_ours).collect();
    for rule in wanted.iter().filter(|rule| !present.contains(rule)) {
        ignore_exists(netlink.add_rule(*rule).await)?;
    }
    for rule in present.iter().filter(|rule| !wanted.contains(rule)) {
        ignore_missing(netlink.delete_rule(*rule).await)?;
    }
    Ok(())
}

/// Whether the default route of our table leads to another device.
///
/// # Errors
///
/// The kernel does not tell.
pub async fn leads_elsewhere(netlink: &Netlink, device: u32) -> Result<bool, NetlinkError> {
    let routes = netlink.routes(TABLE).await?;
    let mut defaults = routes.iter().filter(|route| route.destination.length == 0);
    Ok(defaults.next().is_some_and(|route| route.interface != Some(device)))
}

/// Makes our routes in one of our tables exactly these.
async fn make_routes(netlink: &Netlink, table: u32, wanted: &[Route]) -> Result<(), NetlinkError> {
    let present = netlink.routes(table).await?;
    let stale = present.iter().filter(|route| route.protocol == PROTOCOL && !wanted.contains(route));
    for route in stale {
        ignore_missing(netlink.delete_route(*route).await)?;
    }
    for route in wanted.iter().filter(|route| !present.contains(route)) {
        ignore_exists(netlink.add_route(*route).await)?;
    }
    Ok(())
}

/// Removes our routes and our rules, whoever made them: also those of a dead agent. Goes on after an error.
///
/// # Errors
///
/// The first that the kernel gave.
pub async fn remove(netlink: &Netlink) -> Result<(), NetlinkError> {
    let mut outcome = Ok(());
    for rule in netlink.rules().await?.into_iter().filter(is_ours) {
        outcome = outcome.and(ignore_missing(netlink.delete_rule(rule).await));
    }
    for table in [TABLE, DIRECT_TABLE] {
        for route in netlink.routes(table).await?.into_iter().filter(|route| route.protocol == PROTOCOL) {
            outcome = outcome.and(ignore_missing(netlink.delete_route(route).await));
        }
    }
    outcome
}

fn ignore_missing(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    outcome.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })
}

fn ignore_exists(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    outcome.or_else(|error| if error.is_exists() { Ok(()) } else { Err(error) })
}
