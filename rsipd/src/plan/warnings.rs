//! What will probably not work as meant, each with its cure.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use rsip_proto::wire::{LocalPolicy, RemotePolicy, TunnelType};
use rsip_sys::netlink::Link;

use super::{LOCAL_PORTS, LOCAL_RESERVED, System};
use crate::config::{Config, Settings, denies_all_ports, remote_deny_text};

pub(super) fn all(
    config: &Config,
    system: &System,
    pool: &[Ipv4Addr],
    internal: &Link,
    external: &Link,
) -> Vec<String> {
    let settings = &config.settings;
    let mut warnings = interface_warnings(&[internal, external]);
    warnings.extend(mtu_warnings(settings, internal));
    warnings.extend(pool_warnings(pool, &settings.rsa_pool, external, system));
    warnings.extend(masked_warnings(&settings.rsa_pool, external, system));
    warnings.extend(port_warning(settings, pool, system));
    warnings.extend(policy_warnings(config));
    warnings.extend(connection_warning(settings));
    warnings
}

fn interface_warnings(links: &[&Link]) -> Vec<String> {
    let down = links.iter().filter(|link| !link.up);
    down.map(|link| format!("interface {name} is down: `ip link set {name} up`", name = link.name)).collect()
}

fn mtu_warnings(settings: &Settings, internal: &Link) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(mtu) = settings.mtu
        && u32::from(mtu) > internal.mtu
    {
        warnings.push(format!(
            "MTU {mtu} is larger than that of {name}, {has}: packets to hosts will be lost; leave MTU out, or `ip link \
             set {name} mtu {mtu}`",
            name = internal.name,
            has = internal.mtu
        ));
    }
    let mtu = settings.mtu.map_or(internal.mtu, u32::from);
    if mtu < 1280 {
        warnings.push(format!(
            "an MTU of {mtu} leaves {} bytes in the tunnel, which some programs cannot live with: use 1280 or more",
            mtu.saturating_sub(if settings.tunnel == [TunnelType::Gre] { 24 } else { 20 })
        ));
    }
    warnings
}

fn pool_warnings(pool: &[Ipv4Addr], whole: &[Ipv4Addr], external: &Link, system: &System) -> Vec<String> {
    let only_whole =
        whole.iter().filter(|address| !pool.contains(address)).map(|address| ("RSA_POOL", address));
    let named = pool.iter().map(|address| ("POOL", address)).chain(only_whole);
    let foreign = named.filter(|(_, address)| !system.addresses.iter().any(|own| own.address == **address));
    foreign
        .map(|(key, address)| {
            format!(
                "{key} address {address} is on no interface of this gateway: unless it is routed here nobody outside \
                 will find it; `ip addr add {address}/32 dev {}`",
                external.name
            )
        })
        .collect()
}

/// An address by which the gateway itself is known belongs, while it is leased whole, to a host alone. One that was
/// added to the external interface beside the first is taken to be there for its lease.
fn masked_warnings(whole: &[Ipv4Addr], external: &Link, system: &System) -> Vec<String> {
    let first = system.addresses_of(external).next();
    let masked = whole.iter().filter_map(|address| {
        let own = system.addresses.iter().find(|own| own.address == *address)?;
        let added = own.index == external.index && first.is_some_and(|first| first.address != *address);
        let link = system.links.iter().find(|link| link.index == own.index);
        (!added).then(|| (address, link.map_or("an interface", |link| link.name.as_str())))
    });
    masked
        .map(|(address, interface)| {
            format!(
                "RSA_POOL address {address} is the gateway's own, on {interface}: while a host leases it whole, nobody \
                 outside reaches the gateway's services there, and the gateway reaches nobody from it; lease an \
                 address that is only for that: `ip addr add ADDRESS/32 dev {}`",
                external.name
            )
        })
        .collect()
}

fn policy_warnings(config: &Config) -> Vec<String> {
    let settings = &config.settings;
    let policy = settings.flow_policy;
    let mut warnings = Vec::new();
    if policy.local == LocalPolicy::Micro && !settings.rsa_pool.is_empty() {
        warnings.push(
            "RSA_POOL: nobody gets a whole address while the local FLOW_POLICY is micro (RFC 3103 section 7.1): set it \
             to macro, or take RSA_POOL away"
                .to_owned(),
        );
    }
    if policy.remote == RemotePolicy::Macro {
        let without_effect = settings.remote_deny.iter().filter(|deny| !denies_all_ports(deny));
        warnings.extend(without_effect.map(|deny| {
            format!(
                "REMOTE_DENY {:?}: no effect while the remote FLOW_POLICY is macro, which knows no ports: deny the \
                 whole address, or set the policy to micro",
                remote_deny_text(deny)
            )
        }));
    }
    if policy.remote == RemotePolicy::Micro && settings.listen && !config.sets("LISTEN") {
        warnings.push(
            "LISTEN: under a remote FLOW_POLICY of micro, hosts should run public servers only where the administrator \
             says so (RFC 3103 section 10.6): set LISTEN to true or false"
                .to_owned(),
        );
    }
    warnings
}

fn connection_warning(settings: &Settings) -> Option<String> {
    let most = settings.max_connections.filter(|most| *most < settings.max_clients)?;
    Some(format!(
        "MAX_CONNECTIONS {most} is less than MAX_CLIENTS {}: hosts that are registered over TCP may find no place to \
         extend their leases; raise it, or lower MAX_CLIENTS",
        settings.max_clients
    ))
}

/// The gateway's own connections from an address that it leases may get a leased port as source port.
fn port_warning(settings: &Settings, pool: &[Ipv4Addr], system: &System) -> Option<String> {
    let local = system.local_ports.clone()?;
    if !system.addresses.iter().any(|own| pool.contains(&own.address)) {
        return None;
    }
    let ranges = [("PORT_RANGE", &settings.port_range), ("LISTEN_RANGE", &settings.listen_range)];
    let conflicts = |range: &RangeInclusive<u16>| {
        local.clone().any(|port| {
            range.contains(&port)
                && settings.reserved_ports.binary_search(&port).is_err()
                && !system.local_reserved.iter().any(|reserved| reserved.contains(&port))
        })
    };
    let overlapping: Vec<_> = ranges.iter().filter(|(_, range)| conflicts(range)).collect();
    let highest = overlapping.iter().map(|(_, range)| *range.end()).max()?;
    let names: Vec<_> =
        overlapping.iter().map(|(name, range)| format!("{name} {}-{}", range.start(), range.end())).collect();
    let lowest = overlapping.iter().map(|(_, range)| *range.start()).min().unwrap_or(highest);
    // Some thousands have to be left for the gateway itself.
    let cure = if highest <= 60000 {
        format!("`sysctl -w {LOCAL_PORTS}=\"{} 65535\"`", highest + 1)
    } else {
        format!("lease fewer ports, or `sysctl -w {LOCAL_RESERVED}={lowest}-{highest}`")
    };
    Some(format!(
        "Conflict with the local ports: {LOCAL_PORTS} {}-{} overlaps {}: the gateway's own connections may lose to \
         leases; {cure}",
        local.start(),
        local.end(),
        names.join(" and ")
    ))
}
