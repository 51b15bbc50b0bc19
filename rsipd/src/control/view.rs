//! What `rsipdctl` asks and gets: plain values, as JSON on the control socket. The names are for scripts: they stay.

use std::net::Ipv4Addr;
use std::time::Duration;

use rsip_proto::gateway as machine;
use rsip_proto::lease::Leased;
use rsip_proto::pool::WholeUse;
use rsip_proto::wire::Ports;
use serde::{Deserialize, Serialize};

use crate::datapath::Stats;
use crate::discovery::status::Status;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The whole state.
    Dump,
    /// End a registration, or one binding of it.
    Release {
        /// The host.
        client: u32,
        /// The binding; nothing: all, and the registration.
        bind: Option<u32>,
    },
    /// End the daemon.
    Stop,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Dump`].
    State(Box<State>),
    /// Done, or begun.
    Done,
}

/// The whole state at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The daemon.
    pub daemon: Daemon,
    /// How hosts find it.
    pub discovery: Status,
    /// Registered hosts, by client ID.
    pub clients: Vec<Client>,
    /// Use of the public addresses.
    pub pool: Vec<Pool>,
    /// What was counted since the start.
    pub counters: Counters,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Of the program.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime: u64,
    /// `INT_IF`.
    pub internal_interface: String,
    /// `EXT_IF`.
    pub external_interface: String,
    /// Where hosts find the RSIP service.
    pub listening: String,
    /// Which data path forwards.
    pub datapath: String,
    /// What hosts may ask for: `RSAP-IP`, and `RSA-IP` where whole addresses are leased.
    pub methods: Vec<String>,
    /// `FLOW_POLICY`: local/remote.
    pub flow_policy: String,
    /// Connections that are open.
    pub connections: usize,
}

/// A registered host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Client ID.
    pub client_id: u32,
    /// Its private address.
    pub host: Ipv4Addr,
    /// `udp` or `tcp`.
    pub transport: String,
    /// `registered` or `assigned`.
    pub state: String,
    /// Seconds until the registration ends.
    pub lease_left: u64,
    /// Seconds since it registered.
    pub registered_for: u64,
    /// By bind ID.
    pub bindings: Vec<Binding>,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Bind ID.
    pub bind_id: u32,
    /// The leased public address.
    pub address: Ipv4Addr,
    /// Leased whole (RSA-IP): every port and every protocol.
    pub whole: bool,
    /// The leased ports, ascending; none if `whole`.
    pub ports: Vec<u16>,
    /// With whom it may be used: `any`, an address, or `ADDRESS:PORT`.
    pub remote: String,
    /// `IP-IP`.
    pub tunnel: String,
    /// Granted by LISTEN, not by ASSIGN.
    pub listen: bool,
    /// `installing`, `active` or `removing`.
    pub state: String,
    /// Seconds, as last granted.
    pub lease_time: u64,
    /// Seconds until it ends.
    pub lease_left: u64,
    /// Whether the data path was found to hold it; nothing when it could not be asked.
    pub installed: Option<bool>,
}

/// Use of a public address, in ports. Leased whole, all that may be leased count as leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The public address.
    pub address: Ipv4Addr,
    /// May be leased.
    pub leasable: u32,
    /// Held by hosts.
    pub leased: u32,
    /// Freed a short time ago.
    pub resting: u32,
    /// Free.
    pub free: u32,
    /// What it is to those who want it whole.
    pub whole: Whole,
}

/// What a public address is to those who want it whole (RSA-IP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whole {
    /// Never leased whole: not in `RSA_POOL`.
    Never,
    /// May be leased whole now.
    Free,
    /// May be, but was given back a short while ago.
    Resting,
    /// Hosts hold ports of it.
    Shared,
    /// Leased whole.
    Leased,
}

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The protocol's events.
    pub events: Events,
    /// The data path; nothing when it could not be asked.
    pub datapath: Option<Stats>,
}

/// The protocol's events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Messages that came, whatever was in them.
    pub received: u64,
    /// Messages sent.
    pub sent: u64,
    /// Hosts registered.
    pub registered: u64,
    /// Registrations ended.
    pub unregistered: u64,
    /// Bindings granted.
    pub bound: u64,
    /// Leases extended.
    pub extended: u64,
    /// Bindings ended.
    pub unbound: u64,
    /// Requests refused, by the name of the error.
    pub refused: std::collections::BTreeMap<String, u64>,
    /// Hosts told of data that they may not send, by the name of the error.
    #[serde(default)]
    pub misused: std::collections::BTreeMap<String, u64>,
    /// Changes that the data path did not do.
    pub datapath_failures: u64,
}

impl From<&machine::PoolView> for Pool {
    fn from(view: &machine::PoolView) -> Self {
        Self {
            address: view.address,
            leasable: view.leasable,
            leased: view.leased,
            resting: view.resting,
            free: view.free,
            whole: match view.whole {
                WholeUse::Never => Whole::Never,
                WholeUse::Free => Whole::Free,
                WholeUse::Resting => Whole::Resting,
                WholeUse::Shared => Whole::Shared,
                WholeUse::Leased => Whole::Leased,
            },
        }
    }
}

impl Client {
    /// As the machine sees it; `installed` asks the data path.
    pub(crate) fn new(
        view: &machine::ClientView,
        installed: impl Fn(&machine::Rule) -> Option<bool>,
    ) -> Self {
        let binding = |binding: &machine::BindingView| {
            let rule = machine::Rule {
                client_id: view.client_id,
                bind_id: binding.bind_id,
                host: view.host,
                address: binding.address,
                leased: binding.leased.clone(),
                remote: binding.remote,
                tunnel: binding.tunnel,
            };
            Binding {
                bind_id: binding.bind_id.0,
                address: binding.address,
                whole: binding.leased == Leased::Address,
                remote: binding.remote.to_string(),
                ports: binding.leased.ports().map(ascending).unwrap_or_default(),
                tunnel: binding.tunnel.to_string(),
                listen: binding.listen,
                state: match binding.state {
                    machine::BindingState::Installing => "installing",
                    machine::BindingState::Active => "active",
                    machine::BindingState::Removing => "removing",
                }
                .to_owned(),
                lease_time: seconds(binding.lease_time),
                lease_left: seconds(binding.lease_left),
                installed: installed(&rule),
            }
        };
        Self {
            client_id: view.client_id.0,
            host: view.host,
            transport: match view.transport {
                machine::TransportKind::Udp => "udp",
                machine::TransportKind::Tcp => "tcp",
            }
            .to_owned(),
            state: match view.state {
                machine::ClientState::Registered => "registered",
                machine::ClientState::Assigned => "assigned",
            }
            .to_owned(),
            lease_left: seconds(view.lease_left),
            registered_for: view.registered_for.as_secs(),
            bindings: view.bindings.iter().map(binding).collect(),
        }
    }
}

/// To the nearest second: a lease of 600 that was just given has 600 left, not 599.
fn seconds(duration: Duration) -> u64 {
    duration.saturating_add(Duration::from_millis(500)).as_secs()
}

fn ascending(ports: &Ports) -> Vec<u16> {
    let mut ports: Vec<u16> = ports.iter().collect();
    ports.sort_unstable();
    ports
}
