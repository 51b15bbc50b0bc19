//! What outlives a crash of the agent: `state.json` in the run directory.
//!
//! Written before each effect on the host, so that whatever happened, it says what has to be undone. Read by the next
//! start, which goes on with the registration, and by `down`, which restores the host where the agent is dead.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use rsip_proto::host::{BindingKind, HostBinding, Method, SavedBinding, SavedState};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::{FlowPolicy, LocalPolicy, Ports, RemotePolicy, TunnelType};
use rsip_sys::rundir::{self, RunDirError};
use serde::{Deserialize, Serialize};

use crate::ports::SavedSysctls;
use crate::rules::Action;
use crate::rules::set::RuleSet;

/// The file's name.
pub const FILE: &str = "state.json";
/// Changes with every change of meaning; another version's file is not read.
const VERSION: u32 = 1;

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// The network namespace that all of this is about (SO_NETNS_COOKIE): an inode may come again, a cookie does not.
    pub netns_cookie: u64,
    /// Gateway that the host is registered at.
    pub gateway: SocketAddrV4,
    /// "tcp" or "udp".
    pub transport: String,
    /// What else is settled for the life of the registration.
    #[serde(default)]
    pub terms: Terms,
    /// The registration and its bindings.
    pub registration: Registration,
    /// The sysctls as they were before us; absent: not changed.
    pub sysctls: Option<SavedSysctls>,
    /// How the private interface answered ARP requests before us; absent: not changed.
    #[serde(default)]
    pub arp: Option<SavedArp>,
    /// The interface towards the gateway, when something was put on it.
    pub private_interface: Option<String>,
    /// The host's address there: the registration belongs to it.
    #[serde(default)]
    pub private_address: Option<Ipv4Addr>,
    /// Ports that were served already when the agent started the first time: never asked for on their behalf.
    pub served_before: Vec<u16>,
    /// Rules as they were changed while the agent ran; absent: as the command line and the configuration say.
    #[serde(default)]
    pub rules: Option<Rules>,
    /// Cgroups of `rsip-client run`, by their paths in the v2 tree.
    #[serde(default)]
    pub runs: Vec<String>,
}

/// The operator's rules, in their order, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What no rule fits.
    pub policy: Action,
    /// The rules.
    pub rules: Vec<String>,
}

impl From<&RuleSet> for Rules {
    fn from(set: &RuleSet) -> Self {
        let rules = set.entries().iter().map(|entry| entry.rule.to_string()).collect();
        Self { policy: set.policy(), rules }
    }
}

/// `arp_ignore` of an interface, as it was before us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedArp {
    /// Which interface.
    pub interface: String,
    /// What it said.
    pub value: String,
}

/// What a registration's bindings were asked for; another one needs another registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// "RSA-IP" or "RSAP-IP".
    pub method: String,
    /// The only peer that the leases are for: "any", "ADDR" or "ADDR:PORT".
    pub remote: String,
    /// "any", "IP-IP" or "GRE".
    #[serde(default = "Terms::any_tunnel")]
    pub tunnel: String,
}

impl Terms {
    /// Whatever the gateway likes best.
    pub fn any_tunnel() -> String {
        "any".to_owned()
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            method: Method::RsapIp.to_string(),
            remote: Remote::Any.to_string(),
            tunnel: Self::any_tunnel(),
        }
    }
}

/// [`SavedState`] in a form that can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    client_id: Option<u32>,
    /// Local and remote, as the protocol numbers them.
    flow_policy: Option<(u8, u8)>,
    in_doubt: bool,
    bindings: Vec<Binding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    kind: Kind,
    client_id: u32,
    bind_id: u32,
    address: Ipv4Addr,
    /// Empty: the whole address.
    ports: Vec<u16>,
    /// The only peer that it is for.
    remote: Option<Peer>,
    tunnel: u8,
    tunnel_endpoint: Option<Ipv4Addr>,
    lease_seconds: u64,
    releasing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    address: Ipv4Addr,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Address,
    Block,
    Listen,
    Static,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is not what we wrote.
    #[error("{path} is damaged: {source}")]
    Damaged {
        /// Which file.
        path: String,
        /// Where.
        source: serde_json::Error,
    },
    /// Another version of the agent wrote it.
    #[error("{path} is of version {found}, this agent reads version {VERSION}")]
    Version {
        /// Which file.
        path: String,
        /// Its version.
        found: u64,
    },
}

impl State {
    /// Nothing is registered and nothing is changed.
    pub fn new(netns_cookie: u64, gateway: SocketAddrV4, transport: String) -> Self {
        Self {
            version: VERSION,
            netns_cookie,
            gateway,
            transport,
            terms: Terms::default(),
            registration: Registration::default(),
            sysctls: None,
            arp: None,
            private_interface: None,
            private_address: None,
            served_before: Vec::new(),
            rules: None,
            runs: Vec::new(),
        }
    }

    /// Reads the file of a run directory; `None`: there is none.
    ///
    /// # Errors
    ///
    /// It is there and cannot be used.
    pub fn load(directory: &Path) -> Result<Option<Self>, StateError> {
        let path = directory.join(FILE);
        let name = || path.display().to_string();
        let text = match std::fs::read(&path) {
            // The machine went down before the file reached a disk: nothing of the host is as it was then.
            Ok(text) if text.is_empty() => return Ok(None),
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { path: name(), source }),
        };
        let damaged = |source| StateError::Damaged { path: name(), source };
        // The version first: what else the file holds is only known then.
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        let found = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if found != u64::from(VERSION) {
            return Err(StateError::Version { path: name(), found });
        }
        serde_json::from_value(value).map(Some).map_err(damaged)
    }

    /// The settings of the kernel as they were before us, out of a file of which the rest cannot be used.
    pub fn salvage_sysctls(directory: &Path) -> Option<SavedSysctls> {
        let value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(directory.join(FILE)).ok()?).ok()?;
        serde_json::from_value(value.get("sysctls")?.clone()).ok()
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn store(&self, directory: &Path) -> Result<(), RunDirError> {
        let path = directory.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| RunDirError::Io {
            action: "write",
            path: path.clone(),
            source: error.into(),
        })?;
        rundir::write_volatile(&path, &text)
    }

    /// Removes the file; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn remove(directory: &Path) -> Result<(), RunDirError> {
        // The second one is what a crash in the middle of writing leaves.
        for path in [directory.join(FILE), directory.join(FILE.to_owned() + ".new")] {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RunDirError::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Registration {
    /// The leased address; all bindings have the same.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.bindings.first().map(|binding| binding.address)
    }

    /// Whether the gateway may hold anything of ours.
    pub fn is_worth_keeping(&self) -> bool {
        self.client_id.is_some() || self.in_doubt || !self.bindings.is_empty()
    }

    /// The host's name at the gateway.
    pub fn client_id(&self) -> Option<ClientId> {
        self.client_id.map(ClientId)
    }
}

impl From<&SavedState> for Registration {
    fn from(saved: &SavedState) -> Self {
        Self {
            client_id: saved.client_id.map(|id| id.0),
            flow_policy: saved.flow_policy.map(|policy| (policy.local.number(), policy.remote.number())),
            in_doubt: saved.in_doubt,
            bindings: saved.bindings.iter().map(Binding::from).collect(),
        }
    }
}

impl From<&Registration> for SavedState {
    fn from(registration: &Registration) -> Self {
        Self {
            client_id: registration.client_id.map(ClientId),
            flow_policy: registration.flow_policy.and_then(|(local, remote)| {
                let local = LocalPolicy::from_number(local)?;
                RemotePolicy::from_number(remote).map(|remote| FlowPolicy { local, remote })
            }),
            in_doubt: registration.in_doubt,
            bindings: registration.bindings.iter().filter_map(Binding::restore).collect(),
        }
    }
}

impl From<&SavedBinding> for Binding {
    fn from(saved: &SavedBinding) -> Self {
        let binding = &saved.binding;
        Self {
            kind: match binding.kind {
                BindingKind::Address => Kind::Address,
                BindingKind::Block => Kind::Block,
                BindingKind::Listen => Kind::Listen,
                BindingKind::StaticListen => Kind::Static,
            },
            client_id: binding.client_id.0,
            bind_id: binding.bind_id.0,
            address: binding.address,
            ports: binding.leased.iter().collect(),
            remote: binding.remote.address().map(|address| Peer { address, port: binding.remote.port() }),
            tunnel: match binding.tunnel {
                TunnelType::IpIp => 1,
                TunnelType::Gre => 2,
                TunnelType::L2tp => 3,
                TunnelType::Other(other) => other,
            },
            tunnel_endpoint: binding.tunnel_endpoint,
            lease_seconds: saved.lease_time.as_secs(),
            releasing: saved.releasing,
        }
    }
}

impl Binding {
    /// `None`: without ports, which no binding but that of a whole address is.
    fn restore(&self) -> Option<SavedBinding> {
        let binding = HostBinding {
            kind: match self.kind {
                Kind::Address => BindingKind::Address,
                Kind::Block => BindingKind::Block,
                Kind::Listen => BindingKind::Listen,
                Kind::Static => BindingKind::StaticListen,
            },
            client_id: ClientId(self.client_id),
            bind_id: BindId(self.bind_id),
            address: self.address,
            leased: match self.kind {
                Kind::Address => Leased::Address,
                Kind::Block | Kind::Listen | Kind::Static => Ports::from_ports(&self.ports)?.into(),
            },
            remote: match self.remote {
                None => Remote::Any,
                Some(Peer { address, port: None }) => Remote::Address(address),
                Some(Peer { address, port: Some(port) }) => Remote::Port(SocketAddrV4::new(address, port)),
            },
            tunnel: match self.tunnel {
                1 => TunnelType::IpIp,
                2 => TunnelType::Gre,
                3 => TunnelType::L2tp,
                other => TunnelType::Other(other),
            },
            tunnel_endpoint: self.tunnel_endpoint,
        };
        let lease_time = Duration::from_secs(self.lease_seconds);
        Some(SavedBinding { binding, lease_time, releasing: self.releasing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        let gateway = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 4555);
        let mut state = State::new(7, gateway, "tcp".to_owned());
        state.terms = Terms {
            method: "RSA-IP".to_owned(),
            remote: "198.51.100.7:443".to_owned(),
            tunnel: "GRE".to_owned(),
        };
        state.sysctls = Some(SavedSysctls { range: "32768\t60999".to_owned(), reserved: String::new() });
        state
    }

    fn saved() -> SavedState {
        let peer = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 443);
        let binding = |kind, bind_id, leased, remote| SavedBinding {
            binding: HostBinding {
                kind,
                client_id: ClientId(3_000_000_000),
                bind_id: BindId(bind_id),
                address: Ipv4Addr::new(203, 0, 113, 9),
                leased,
                remote,
                tunnel: TunnelType::IpIp,
                tunnel_endpoint: None,
            },
            lease_time: Duration::from_secs(3600),
            releasing: false,
        };
        SavedState {
            client_id: Some(ClientId(3_000_000_000)),
            flow_policy: Some(FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None }),
            in_doubt: true,
            bindings: vec![
                binding(
                    BindingKind::Block,
                    1,
                    Ports::Range { first: 10_000, count: 255 }.into(),
                    Remote::Any,
                ),
                binding(BindingKind::Block, 2, Ports::List(vec![20_000, 20_007]).into(), Remote::Any),
                binding(BindingKind::Listen, 3, Ports::single(80).into(), Remote::Address(*peer.ip())),
                binding(BindingKind::StaticListen, 4, Ports::single(22).into(), Remote::Port(peer)),
                binding(BindingKind::Address, 5, Leased::Address, Remote::Any),
            ],
        }
    }

    #[test]
    fn a_registration_comes_back_as_it_was() {
        assert_eq!(SavedState::from(&Registration::from(&saved())), saved());
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let directory = tempfile::tempdir().expect("a folder");
        assert_eq!(State::load(directory.path()).expect("no file is fine"), None);
        let mut state = example();
        state.registration = Registration::from(&saved());
        state.store(directory.path()).expect("writable");
        assert_eq!(State::load(directory.path()).expect("readable"), Some(state));
        State::remove(directory.path()).expect("removable");
        State::remove(directory.path()).expect("gone is fine");
    }

    #[test]
    fn refuses_damage_and_other_versions() {
        let directory = tempfile::tempdir().expect("a folder");
        let write = |text: &str| std::fs::write(directory.path().join(FILE), text).expect("writable");
        write("{\"version\": 1");
        assert!(matches!(State::load(directory.path()), Err(StateError::Damaged { .. })));
        write("");
        assert_eq!(State::load(directory.path()).expect("as if it were not there"), None);
        write("{\"version\": 2, \"new\": true}");
        assert!(matches!(State::load(directory.path()), Err(StateError::Version { found: 2, .. })));
        write("{\"version\": 1, \"new\": true}");
        assert!(matches!(State::load(directory.path()), Err(StateError::Damaged { .. })));
    }
}
