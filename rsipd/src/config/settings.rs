//! The keys of `rsipd.conf`: their defaults, how each is read, and how it is shown.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use rsip_ebpf_common::gateway::MAX_ADDRESSES;
use rsip_proto::gateway::RemoteDeny;
use rsip_proto::wire::{FlowPolicy, LocalPolicy, RemotePolicy, RsipMethod, TunnelType};
use rsip_slp::service::MAX_DIRECTORIES;
use rsip_slp::text::ScopeList;

use super::value::{self, Complaint, Value};
use super::{policy, words};

/// What the administrator decided. Field by field the keys of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `INT_IF`: towards the private hosts.
    pub int_if: String,
    /// `EXT_IF`: towards the public realm.
    pub ext_if: String,
    /// `POOL`: public addresses to lease; nothing: the first address of `EXT_IF`.
    pub pool: Option<Vec<Ipv4Addr>>,
    /// `RSA_POOL`: public addresses that one host may lease whole.
    pub rsa_pool: Vec<Ipv4Addr>,
    /// `PORT_RANGE`: where ports that the gateway chooses come from.
    pub port_range: RangeInclusive<u16>,
    /// `LISTEN_RANGE`: ports that a host may ask for by number.
    pub listen_range: RangeInclusive<u16>,
    /// `RESERVED_PORTS`: never leased. Sorted.
    pub reserved_ports: Vec<u16>,
    /// `MAX_CLIENTS`: hosts registered at the same time.
    pub max_clients: u32,
    /// `MAX_PORTS_PER_CLIENT`.
    pub max_ports_per_client: u32,
    /// `MAX_ADDRESSES_PER_CLIENT`: whole ones.
    pub max_addresses_per_client: u32,
    /// `MAX_CONNECTIONS`: TCP connections in all; nothing: 64 more than `max_clients`.
    pub max_connections: Option<u32>,
    /// `MAX_CONNECTIONS_PER_HOST`.
    pub max_connections_per_host: u32,
    /// `IDLE_TIMEOUT`: without a whole message on a connection that serves no registered host.
    pub idle_timeout: Duration,
    /// `MESSAGE_TIMEOUT`: for one message to get through a connection, in either direction.
    pub message_timeout: Duration,
    /// `LEASE_TIME`.
    pub lease_time: Duration,
    /// `MAX_LEASE_TIME`.
    pub max_lease_time: Duration,
    /// `REST_TIME`: a freed port rests so long before the gateway chooses it again.
    pub rest_time: Duration,
    /// `PORT`: of the RSIP service, TCP and UDP.
    pub port: u16,
    /// `MTU`: of the internal network; nothing: that of `INT_IF`.
    pub mtu: Option<u16>,
    /// `TUNNEL`: on offer, best first.
    pub tunnel: Vec<TunnelType>,
    /// `FLOW_POLICY`: local/remote.
    pub flow_policy: FlowPolicy,
    /// `REMOTE_DENY`: peers that no lease may be for, under a remote policy.
    pub remote_deny: Vec<RemoteDeny>,
    /// `PRIVATE_NETS`: what QUERY calls local; nothing: the networks of `INT_IF`.
    pub private_nets: Option<Vec<(Ipv4Addr, u8)>>,
    /// `LISTEN`: whether hosts may run public servers.
    pub listen: bool,
    /// `SLP`: whether hosts can find the gateway by the Service Location Protocol.
    pub slp: bool,
    /// `SLP_SCOPES`: in which scopes.
    pub slp_scopes: ScopeList,
    /// `SLP_DA`: directory agents to register with; none: those that are found.
    pub slp_da: Vec<Ipv4Addr>,
    /// `SLP_LIFETIME`: seconds that others may remember it.
    pub slp_lifetime: u16,
    /// `DATAPATH`.
    pub datapath: DatapathChoice,
    /// `LOG_LEVEL`.
    pub log_level: String,
    /// `STATUS_FILE`: written at SIGUSR1; nothing: `rsipd.status` in the run directory.
    pub status_file: Option<PathBuf>,
}

/// `DATAPATH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathChoice {
    /// The best one that works here; today that is `Ebpf`.
    Auto,
    /// eBPF programs on both interfaces.
    Ebpf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            int_if: String::new(),
            ext_if: String::new(),
            pool: None,
            rsa_pool: Vec::new(),
            port_range: 10000..=32767,
            listen_range: 1..=32767,
            reserved_ports: vec![22],
            max_clients: 256,
            max_ports_per_client: 4096,
            max_addresses_per_client: 1,
            max_connections: None,
            max_connections_per_host: 8,
            idle_timeout: Duration::from_secs(60),
            message_timeout: Duration::from_secs(30),
            lease_time: Duration::from_secs(600),
            max_lease_time: Duration::from_secs(3600),
            rest_time: Duration::from_secs(120),
            port: 4555,
            mtu: None,
            tunnel: vec![TunnelType::IpIp],
            flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None },
            remote_deny: Vec::new(),
            private_nets: None,
            listen: true,
            slp: true,
            slp_scopes: ScopeList::default_scope(),
            slp_da: Vec::new(),
            slp_lifetime: 3600,
            datapath: DatapathChoice::Auto,
            log_level: "info".to_owned(),
            status_file: None,
        }
    }
}

/// One key of the file.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What may be written, with an example; ends every complaint about the key.
    pub(super) allowed: &'static str,
    pub(super) set: fn(&mut Settings, &Value<'_>) -> Result<(), Complaint>,
    /// The value as it would stand in the file; `None` where the default depends on the system.
    pub(super) show: fn(&Settings) -> Option<String>,
}

macro_rules! keys {
    ($($name:literal, $allowed:literal, $set:expr, $show:expr;)+) => {
        /// Every key, in the order of the sample file.
        pub(super) const KEYS: &[Key] = &[$(Key { name: $name, allowed: $allowed, set: $set, show: $show }),+];
    };
}

keys! {
    "INT_IF", "the name of the internal interface, for example \"eth1\"",
        |s, v| value::interface(v).map(|x| s.int_if = x), |s| Some(quote(&s.int_if));
    "EXT_IF", "the name of the external interface, for example \"eth0\"",
        |s, v| value::interface(v).map(|x| s.ext_if = x), |s| Some(quote(&s.ext_if));
    "POOL", "a list of up to 256 public IPv4 addresses, for example [\"192.0.2.1\"]",
        |s, v| value::addresses(v, 1..=MAX_ADDRESSES as usize).map(|x| s.pool = Some(x)),
        |s| s.pool.as_ref().map(|pool| texts(pool));
    "RSA_POOL", "a list of public IPv4 addresses, up to 256 together with POOL, for example [\"192.0.2.9\"]",
        |s, v| value::addresses(v, 0..=MAX_ADDRESSES as usize).map(|x| s.rsa_pool = x),
        |s| Some(texts(&s.rsa_pool));
    "PORT_RANGE", "\"FIRST-LAST\" within 1 to 65535, for example \"10000-32767\"",
        |s, v| value::port_range(v).map(|x| s.port_range = x), |s| Some(range(&s.port_range));
    "LISTEN_RANGE", "\"FIRST-LAST\" within 1 to 65535, for example \"1-32767\"",
        |s, v| value::port_range(v).map(|x| s.listen_range = x), |s| Some(range(&s.listen_range));
    "RESERVED_PORTS", "a list of ports and of ranges in quotes, for example [22, \"6000-6063\"]",
        |s, v| value::ports(v).map(|x| s.reserved_ports = x),
        |s| Some(list(s.reserved_ports.iter().map(ToString::to_string)));
    "MAX_CLIENTS", "1 to 1000000, for example 256",
        |s, v| value::integer(v, 1..=1_000_000).map(|x| s.max_clients = x), |s| Some(s.max_clients.to_string());
    "MAX_PORTS_PER_CLIENT", "1 to 65535, for example 4096",
        |s, v| value::integer(v, 1..=65535).map(|x| s.max_ports_per_client = x),
        |s| Some(s.max_ports_per_client.to_string());
    "MAX_ADDRESSES_PER_CLIENT", "1 to 256, for example 1",
        |s, v| value::integer(v, 1..=MAX_ADDRESSES).map(|x| s.max_addresses_per_client = x),
        |s| Some(s.max_addresses_per_client.to_string());
    "MAX_CONNECTIONS", "1 to 1000000, for example 320",
        |s, v| value::integer(v, 1..=1_000_000).map(|x| s.max_connections = Some(x)),
        |s| s.max_connections.map(|most| most.to_string());
    "MAX_CONNECTIONS_PER_HOST", "1 to 65535, for example 8",
        |s, v| value::integer(v, 1..=65535).map(|x| s.max_connections_per_host = x),
        |s| Some(s.max_connections_per_host.to_string());
    "IDLE_TIMEOUT", "seconds, 1 to 31536000, for example 60",
        |s, v| seconds(v, 1).map(|x| s.idle_timeout = x), |s| Some(s.idle_timeout.as_secs().to_string());
    "MESSAGE_TIMEOUT", "seconds, 1 to 31536000, for example 30",
        |s, v| seconds(v, 1).map(|x| s.message_timeout = x), |s| Some(s.message_timeout.as_secs().to_string());
    "LEASE_TIME", "seconds, 1 to 31536000, for example 600",
        |s, v| seconds(v, 1).map(|x| s.lease_time = x), |s| Some(s.lease_time.as_secs().to_string());
    "MAX_LEASE_TIME", "seconds, 1 to 31536000, for example 3600",
        |s, v| seconds(v, 1).map(|x| s.max_lease_time = x), |s| Some(s.max_lease_time.as_secs().to_string());
    "REST_TIME", "seconds, 0 to 31536000, for example 120",
        |s, v| seconds(v, 0).map(|x| s.rest_time = x), |s| Some(s.rest_time.as_secs().to_string());
    "PORT", "1 to 65535; RSIP's own is 4555",
        |s, v| value::integer(v, 1..=65535).map(|x| s.port = u16::try_from(x).unwrap_or(4555)),
        |s| Some(s.port.to_string());
    "MTU", "bytes, 576 to 65535, for example 1500",
        |s, v| value::integer(v, 576..=65535).map(|x| s.mtu = u16::try_from(x).ok()),
        |s| s.mtu.map(|mtu| mtu.to_string());
    "TUNNEL", "\"IP-IP\", \"GRE\" or a list of them, best first, for example [\"IP-IP\", \"GRE\"]",
        |s, v| words::tunnels(v).map(|x| s.tunnel = x),
        |s| Some(list(s.tunnel.iter().map(|tunnel| quote(&tunnel.to_string()))));
    "FLOW_POLICY", "LOCAL/REMOTE, LOCAL one of macro and micro, REMOTE one of none, macro and micro, for example \"macro/none\"",
        |s, v| policy::flow_policy(v).map(|x| s.flow_policy = x),
        |s| Some(quote(policy::flow_policy_name(s.flow_policy)));
    "REMOTE_DENY", "a list of NETWORK, NETWORK:PORT or NETWORK:FIRST-LAST, for example [\"192.0.2.0/24\", \"0.0.0.0/0:25\"]",
        |s, v| policy::remote_deny(v).map(|x| s.remote_deny = x),
        |s| Some(list(s.remote_deny.iter().map(|deny| quote(&policy::remote_deny_text(deny)))));
    "PRIVATE_NETS", "a list of IPv4 networks, for example [\"10.0.0.0/24\"]",
        |s, v| value::items(v, true)?.into_iter().map(value::network).collect::<Result<_, _>>()
            .map(|x| s.private_nets = Some(x)),
        |s| s.private_nets.as_ref()
            .map(|nets| list(nets.iter().map(|(network, length)| quote(&format!("{network}/{length}")))));
    "LISTEN", "true or false",
        |s, v| value::boolean(v).map(|x| s.listen = x), |s| Some(s.listen.to_string());
    "SLP", "true or false",
        |s, v| value::boolean(v).map(|x| s.slp = x), |s| Some(s.slp.to_string());
    "SLP_SCOPES", "a list of scopes, for example [\"DEFAULT\"]",
        |s, v| words::scopes(v).map(|x| s.slp_scopes = x), |s| Some(list(s.slp_scopes.iter().map(quote)));
    "SLP_DA", "a list of up to 16 IPv4 addresses, for example [\"10.0.0.9\"]",
        |s, v| value::addresses(v, 0..=MAX_DIRECTORIES).map(|x| s.slp_da = x), |s| Some(texts(&s.slp_da));
    "SLP_LIFETIME", "seconds, 10 to 65535, for example 3600",
        |s, v| value::integer(v, 10..=65535).map(|x| s.slp_lifetime = u16::try_from(x).unwrap_or(u16::MAX)),
        |s| Some(s.slp_lifetime.to_string());
    "DATAPATH", "\"auto\" or \"ebpf\"",
        |s, v| words::datapath(v).map(|x| s.datapath = x),
        |s| Some(quote(match s.datapath { DatapathChoice::Auto => "auto", DatapathChoice::Ebpf => "ebpf" }));
    "LOG_LEVEL", "\"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        |s, v| words::log_level(v).map(|x| s.log_level = x), |s| Some(quote(&s.log_level));
    "STATUS_FILE", "an absolute path, for example \"/run/rsipd/rsipd.status\"",
        |s, v| words::absolute_path(v).map(|x| s.status_file = Some(x)),
        |s| s.status_file.as_ref().map(|path| quote(&path.to_string_lossy()));
}

impl Settings {
    /// The file that would give these settings; keys whose default depends on the system are comments in it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        KEYS.iter()
            .map(|key| match (key.show)(self) {
                Some(value) => format!("{} = {value}\n", key.name),
                None => format!("# {}: not set\n", key.name),
            })
            .collect()
    }

    /// What hosts may ask for.
    #[must_use]
    pub fn methods(&self) -> &'static [RsipMethod] {
        if self.rsa_pool.is_empty() {
            &[RsipMethod::RsapIp]
        } else {
            &[RsipMethod::RsapIp, RsipMethod::RsaIp]
        }
    }

    /// The flow policy as it stands in the file.
    #[must_use]
    pub fn flow_policy_name(&self) -> &'static str {
        policy::flow_policy_name(self.flow_policy)
    }

    /// The keys whose values differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        KEYS.iter().filter(|key| (key.show)(self) != (key.show)(other)).map(|key| key.name).collect()
    }
}

fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn range(range: &RangeInclusive<u16>) -> String {
    quote(&format!("{}-{}", range.start(), range.end()))
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn texts(addresses: &[Ipv4Addr]) -> String {
    list(addresses.iter().map(|address| quote(&address.to_string())))
}

fn seconds(value: &Value<'_>, least: u32) -> Result<Duration, Complaint> {
    value::integer(value, least..=31_536_000).map(|seconds| Duration::from_secs(seconds.into()))
}
