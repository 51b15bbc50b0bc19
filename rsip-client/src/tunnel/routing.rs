//! Rules and the route that send the leased address's traffic into the tunnel, and nothing else.
//!
//! | preference | rule | why |
//! |---|---|---|
//! | 4552 | to GATEWAY lookup main | the tunnel's own packets and RSIP itself never enter the tunnel |
//! | 4553 | lookup main, no default route | private networks keep their routes |
//! | 4554 | from PUBLIC lookup 4555 | whoever is bound to the leased address |
//! | 4555 | from 0.0.0.0 lookup 4555 | whoever has no address yet gets the leased one |
//!
//! Table 4555 holds `default dev rsip src PUBLIC`. Traffic with a private source keeps its routes. All of it carries
//! protocol number 155, by which it is known for ours.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rsip_sys::netlink::{MAIN_TABLE, Netlink, NetlinkError, Prefix, Route, RouteKind, Rule};

/// Our routing table.
pub const TABLE: u32 = 4555;
/// Who made it: no routing daemon has this number in iproute2's rt_protos.
const PROTOCOL: u8 = 155;
/// Preferences of our rules.
const PREFERENCES: std::ops::RangeInclusive<u32> = 4552..=4555;

/// The rules for one leased address.
fn rules(endpoints: &BTreeSet<Ipv4Addr>, public: Ipv4Addr) -> Vec<Rule> {
    let rule = |priority, table| Rule {
        priority,
        source: None,
        destination: None,
        table,
        suppress_prefix_length: None,
        protocol: PROTOCOL,
    };
    let unbound = Prefix::host(Ipv4Addr::UNSPECIFIED);
    endpoints
        .iter()
        .map(|endpoint| Rule { destination: Some(Prefix::host(*endpoint)), ..rule(4552, MAIN_TABLE) })
        .chain([
            Rule { suppress_prefix_length: Some(0), ..rule(4553, MAIN_TABLE) },
            Rule { source: Some(Prefix::host(public)), ..rule(4554, TABLE) },
            Rule { source: Some(unbound), ..rule(4555, TABLE) },
        ])
        .collect()
}

fn route(device: u32, public: Ipv4Addr) -> Route {
    Route {
        kind: RouteKind::Unicast,
        destination: Prefix::ALL,
        gateway: None,
        interface: Some(device),
        source: Some(public),
        table: TABLE,
        protocol: PROTOCOL,
    }
}

fn is_ours(rule: &Rule) -> bool {
    rule.protocol == PROTOCOL && PREFERENCES.contains(&rule.priority)
}

/// Makes the route and the rules of `public` hold, and no other of ours. Looks first, so that calling it again changes
/// nothing, and puts back what somebody else removed.
///
/// # Errors
///
/// The kernel refuses.
pub async fn apply(
    netlink: &Netlink,
    device: u32,
    endpoints: &BTreeSet<Ipv4Addr>,
    public: Ipv4Addr,
) -> Result<(), NetlinkError> {
    // The route first: a rule that leads to an empty table would let packets out with a wrong source.
    let wanted = route(device, public);
    let present = netlink.routes(TABLE).await?;
    if !present.contains(&wanted) {
        for stale in present.into_iter().filter(|route| route.protocol == PROTOCOL) {
            ignore_missing(netlink.delete_route(stale).await)?;
        }
        ignore_exists(netlink.add_route(wanted).await)?;
    }
    let wanted = rules(endpoints, public);
    let present: Vec<Rule> = netlink.rules().await?.into_iter().filter(is_ours).collect();
    for rule in wanted.iter().filter(|rule| !present.contains(rule)) {
        ignore_exists(netlink.add_rule(*rule).await)?;
    }
    for rule in present.iter().filter(|rule| !wanted.contains(rule)) {
        ignore_missing(netlink.delete_rule(*rule).await)?;
    }
    Ok(())
}

/// Removes our route and our rules, whoever made them: also those of a dead agent. Goes on after an error.
///
/// # Errors
///
/// The first that the kernel gave.
pub async fn remove(netlink: &Netlink) -> Result<(), NetlinkError> {
    let mut outcome = Ok(());
    for rule in netlink.rules().await?.into_iter().filter(is_ours) {
        outcome = outcome.and(ignore_missing(netlink.delete_rule(rule).await));
    }
    for route in netlink.routes(TABLE).await?.into_iter().filter(|route| route.protocol == PROTOCOL) {
        outcome = outcome.and(ignore_missing(netlink.delete_route(route).await));
    }
    outcome
}

fn ignore_missing(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    outcome.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })
}

fn ignore_exists(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    outcome.or_else(|error| if error.is_exists() { Ok(()) } else { Err(error) })
}
