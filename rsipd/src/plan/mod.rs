//! What the configuration means on this system: names become interfaces, defaults become addresses. A value computed
//! from two values, so that it is tested without interfaces.

mod warnings;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

use rsip_ebpf_common::gateway::MAX_ADDRESSES;
use rsip_proto::gateway::GatewayConfig;
use rsip_proto::pool::PoolConfig;
use rsip_sys::netlink::{InterfaceAddress, Link, Netlink, NetlinkError};
use rsip_sys::sysctl;

use crate::config::{Config, ConfigError, Problem, Settings, network_of};
use crate::datapath::ebpf::Site;
use crate::discovery::Setup;

/// The sysctl that names the gateway's own ephemeral ports.
const LOCAL_PORTS: &str = "net.ipv4.ip_local_port_range";
/// The sysctl that takes ports out of it.
const LOCAL_RESERVED: &str = "net.ipv4.ip_local_reserved_ports";

/// What was looked up.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All IPv4 addresses.
    pub addresses: Vec<InterfaceAddress>,
    /// Ports that the kernel chooses for the gateway's own sockets; nothing when it does not tell.
    pub local_ports: Option<RangeInclusive<u16>>,
    /// Ports that it does not choose all the same.
    pub local_reserved: Vec<RangeInclusive<u16>>,
}

impl System {
    /// Looks at the network namespace of `netlink`.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn observe(netlink: &Netlink) -> Result<Self, NetlinkError> {
        let local_ports = sysctl::read(LOCAL_PORTS).ok().and_then(|text| {
            let (first, last) = text.split_once(|c: char| c.is_whitespace())?;
            Some(first.parse().ok()?..=last.trim().parse().ok()?)
        });
        let local_reserved = sysctl::read(LOCAL_RESERVED).unwrap_or_default();
        let local_reserved = local_reserved.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        });
        Ok(Self {
            links: netlink.links().await?,
            addresses: netlink.addresses().await?,
            local_ports,
            local_reserved: local_reserved.collect(),
        })
    }

    fn addresses_of(&self, link: &Link) -> impl Iterator<Item = &InterfaceAddress> {
        self.addresses.iter().filter(move |address| address.index == link.index)
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where packets are forwarded.
    pub site: Site,
    /// What the protocol machine is told.
    pub gateway: GatewayConfig,
    /// Where hosts find the service.
    pub listen: SocketAddrV4,
    /// Who cannot be a host: the gateway itself, by any of its addresses, and addresses that are leased.
    pub strangers: Vec<Ipv4Addr>,
    /// How hosts find it; nothing: they have to know it.
    pub discovery: Option<Setup>,
    /// What will probably not work as meant, each with its cure.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Puts both together.
    ///
    /// # Errors
    /// What of the configuration cannot be on this system.
    pub fn new(config: &Config, system: &System) -> Result<Self, ConfigError> {
        let settings = &config.settings;
        let mut problems = Vec::new();
        let internal = interface(config, system, "INT_IF", &settings.int_if, &mut problems);
        let external = interface(config, system, "EXT_IF", &settings.ext_if, &mut problems);
        let own = internal.and_then(|link| {
            let own = system.addresses_of(link).next();
            if own.is_none() {
                problems.push(config.problem(
                    "INT_IF",
                    format!("{} has no IPv4 address", link.name),
                    format!(
                        "give it the one that hosts know as their gateway: `ip addr add ADDRESS/24 dev {}`",
                        link.name
                    ),
                ));
            }
            own
        });
        let pool = external.and_then(|link| match &settings.pool {
            Some(pool) => Some(pool.clone()),
            None => match system.addresses_of(link).next() {
                Some(first) => Some(vec![first.address]),
                None => {
                    problems.push(config.problem(
                        "EXT_IF",
                        format!("{} has no IPv4 address, and POOL is not set", link.name),
                        format!(
                            "give it a public address (`ip addr add ADDRESS/24 dev {}`), or set POOL",
                            link.name
                        ),
                    ));
                    None
                }
            },
        });
        if let (Some(own), Some(pool)) = (own, &pool) {
            problems.extend(internal_address_leased(config, own.address, pool));
        }
        let leased = pool.as_ref().map(|pool| every_address(pool, &settings.rsa_pool));
        if let Some(leased) = &leased
            && problems.is_empty()
            && leased.len() > MAX_ADDRESSES as usize
        {
            let what =
                format!("with POOL these are {} addresses; {MAX_ADDRESSES} can be served", leased.len());
            problems.push(config.problem("RSA_POOL", what, "lease fewer addresses".to_owned()));
        }
        let (Some(internal), Some(external), Some(own), Some(pool), Some(leased), true) =
            (internal, external, own, pool, leased, problems.is_empty())
        else {
            return Err(ConfigError::new(&config.file, problems, crate::config::CHECKER));
        };
        let private_nets = settings.private_nets.clone().unwrap_or_else(|| {
            let network = |a: &InterfaceAddress| (network_of(a.address, a.prefix_length), a.prefix_length);
            system.addresses_of(internal).map(network).collect()
        });
        let warnings = warnings::all(config, system, &pool, internal, external);
        let gateways = system.addresses.iter().map(|own| own.address);
        let strangers = gateways.chain(leased.iter().copied()).collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Self {
            strangers,
            site: Site {
                internal: internal.clone(),
                external: external.clone(),
                internal_address: own.address,
                internal_mtu: settings.mtu.map_or(internal.mtu, u32::from),
                pool: leased,
                remote_policy: settings.flow_policy.remote,
                tunnels: settings.tunnel.clone(),
            },
            gateway: gateway_config(settings, pool, private_nets),
            listen: SocketAddrV4::new(own.address, settings.port),
            discovery: settings.slp.then(|| discovery(settings, system, internal, own)),
            warnings,
        })
    }
}

fn discovery(settings: &Settings, system: &System, internal: &Link, own: &InterfaceAddress) -> Setup {
    let service = SocketAddrV4::new(own.address, settings.port);
    let tunnels = settings.tunnel.iter().map(ToString::to_string).collect();
    Setup {
        broadcast: broadcast_of(own.address, own.prefix_length),
        own: system.addresses.iter().map(|own| own.address).collect(),
        scopes: settings.slp_scopes.clone(),
        directories: settings.slp_da.clone(),
        lifetime: settings.slp_lifetime,
        ..Setup::new(&internal.name, service, tunnels)
    }
}

/// The broadcast address of a network; networks of one or two addresses have none.
fn broadcast_of(address: Ipv4Addr, length: u8) -> Option<Ipv4Addr> {
    let hosts = u32::MAX.checked_shr(u32::from(length))?;
    (hosts > 1).then(|| Ipv4Addr::from_bits(address.to_bits() | hosts))
}

/// Each address of both lists once: those that are shared first, in their order.
fn every_address(pool: &[Ipv4Addr], whole: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
    let mut seen = BTreeSet::new();
    pool.iter().chain(whole).filter(|address| seen.insert(**address)).copied().collect()
}

/// Whoever leases it takes the RSIP service away from everybody.
fn internal_address_leased(config: &Config, internal: Ipv4Addr, pool: &[Ipv4Addr]) -> Vec<Problem> {
    let settings = &config.settings;
    let shared = if settings.pool.is_some() { "POOL" } else { "EXT_IF" };
    let lists = [(shared, pool), ("RSA_POOL", settings.rsa_pool.as_slice())];
    let wrong = lists.iter().filter(|(_, addresses)| addresses.contains(&internal));
    wrong
        .map(|(key, _)| {
            let what = format!("{internal} is the gateway's own address on the internal network");
            config.problem(key, what, "lease public addresses only".to_owned())
        })
        .collect()
}

fn gateway_config(
    settings: &Settings,
    pool: Vec<Ipv4Addr>,
    private_nets: Vec<(Ipv4Addr, u8)>,
) -> GatewayConfig {
    let pool = PoolConfig {
        addresses: pool,
        whole: settings.rsa_pool.clone(),
        port_range: settings.port_range.clone(),
        listen_range: settings.listen_range.clone(),
        reserved: settings.reserved_ports.clone(),
        rest: settings.rest_time,
    };
    GatewayConfig {
        max_clients: settings.max_clients,
        max_ports_per_client: settings.max_ports_per_client,
        max_addresses_per_client: settings.max_addresses_per_client,
        lease_time: settings.lease_time,
        max_lease_time: settings.max_lease_time,
        flow_policy: settings.flow_policy,
        remote_deny: settings.remote_deny.clone(),
        tunnel_types: settings.tunnel.clone(),
        private_nets,
        listen: settings.listen,
        ..GatewayConfig::new(pool)
    }
}

fn interface<'a>(
    config: &Config,
    system: &'a System,
    key: &'static str,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<&'a Link> {
    let found = system.links.iter().find(|link| link.name == name);
    match found {
        None => {
            let names: Vec<_> = system.links.iter().map(|link| link.name.as_str()).collect();
            problems.push(config.problem(
                key,
                format!("there is no interface {name:?} in this network namespace"),
                format!("there are {}", names.join(", ")),
            ));
            None
        }
        Some(link) if link.loopback => {
            problems.push(config.problem(
                key,
                format!("{name} is the loopback interface, and nobody is behind it"),
                "name the interface that leads to the hosts".to_owned(),
            ));
            None
        }
        found => found,
    }
}
