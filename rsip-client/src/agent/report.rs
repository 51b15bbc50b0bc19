//! The status, gathered from the state machine, the maps and the kernel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rsip_ebpf_common::host::Counter as Counted;
use rsip_proto::host::{BindingKind, BindingState, BindingView, GatewayState, HostTransport, HostView};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::{FlowPolicy, LocalPolicy, RemotePolicy};

use super::Agent;

use crate::ports;
use crate::status::{
    Counter, Hooks, Lease, ManagedCgroup, Program, Registration, Status, Tunnel, Waiting, Wanted,
};

/// Why nothing is hooked.
const NO_HOOKS: &str = "--no-hooks";
/// Counters by name, in the order of the programs.
const COUNTERS: [(&str, Counted); 19] = [
    ("bind_granted", Counted::BindGranted),
    ("bind_denied", Counted::BindDenied),
    ("bind_timeout", Counted::BindTimeout),
    ("parked", Counted::Parked),
    ("park_failed", Counted::ParkFailed),
    ("event_lost", Counted::EventLost),
    ("connect_refused", Counted::ConnectRefused),
    ("tunnel_out", Counted::TunnelOut),
    ("tunnel_in", Counted::TunnelIn),
    ("tunnel_dropped", Counted::TunnelDropped),
    ("tunnel_bad_source", Counted::TunnelBadSource),
    ("count_lost", Counted::CountLost),
    ("remote_refused", Counted::RemoteRefused),
    ("tunnel_bad_remote", Counted::TunnelBadRemote),
    ("arp_silenced", Counted::ArpSilenced),
    ("bind_abandoned", Counted::BindAbandoned),
    ("held", Counted::Held),
    ("room_refused", Counted::RoomRefused),
    ("room_awaited", Counted::RoomAwaited),
];

impl Agent {
    /// Everything, as it is now.
    pub(super) fn report(&self, now: Instant) -> Status {
        let view = self.host.view(now);
        let effects = &self.effects;
        let sockets = effects.sockets().unwrap_or_default();
        let way = effects.hooks.waiting_way();
        let counted = |counter| effects.hooks.counter(counter).unwrap_or_default();
        let rules = self.rules();
        Status {
            registration: self.registration(&view),
            leases: view.bindings.iter().map(|binding| self.lease(binding, &sockets)).collect(),
            wanted: view
                .pending
                .iter()
                .map(|pending| Wanted {
                    ports: pending.ports.to_string(),
                    kind: kind(pending.kind).to_owned(),
                    refused: pending.refused.map(|error| error.to_string()),
                    retry_in: pending.retry_in.map(|left| left.as_secs()),
                })
                .collect(),
            policy: rules.policy,
            policy_hits: rules.policy_hits,
            rules: rules.rules,
            waiting: Waiting {
                way: way.map_or_else(|| "none".to_owned(), |chosen| chosen.way.to_string()),
                why: way.map_or_else(|| NO_HOOKS.to_owned(), |chosen| chosen.why.clone()),
                deadline_ms: u64::try_from(self.settings.bind_timeout.as_millis()).unwrap_or(u64::MAX),
                ports: self.wants.asked().collect(),
                restarts: counted(Counted::Parked),
                failed: counted(Counted::ParkFailed),
                held: counted(Counted::Held),
                timeouts: counted(Counted::BindTimeout),
            },
            hooks: self.hooks(),
            tunnel: effects.tunnel.as_ref().map(|tunnel| Tunnel {
                device: tunnel.link().name.clone(),
                kind: tunnel.kind().to_string(),
                mtu: tunnel.link().mtu,
                address: tunnel.public(),
                local: effects.path.source,
                remote: *self.settings.gateway.ip(),
                interface: effects.path.interface.name.clone(),
                attachment: tunnel
                    .method()
                    .map_or_else(|| "no programs".to_owned(), |method| method.to_string()),
            }),
            direct: effects.networks(),
            ephemeral: self.ephemeral_status(&view),
            counters: COUNTERS
                .iter()
                .map(|(name, counter)| Counter {
                    name: (*name).to_owned(),
                    value: effects.hooks.counter(*counter).unwrap_or_default(),
                })
                .collect(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    fn hooks(&self) -> Hooks {
        let effects = &self.effects;
        let mut programs: Vec<Program> = Vec::new();
        let mut cgroups = Vec::new();
        for managed in &effects.cgroups {
            // Asked of the kernel for each cgroup; a program is attached where it is so everywhere.
            let found = effects.hooks.program_status(managed.attached.unwrap_or_default());
            cgroups.push(ManagedCgroup {
                cgroup: managed.place.to_string(),
                programs: found.iter().filter(|program| program.attached).count(),
                inside: managed.inside,
            });
            if managed.inside {
                continue;
            }
            for program in found {
                match programs.iter_mut().find(|known| known.name == program.name) {
                    Some(known) => known.attached &= program.attached,
                    None => programs.push(Program {
                        name: program.name.to_owned(),
                        id: program.id,
                        attached: program.attached,
                    }),
                }
            }
        }
        Hooks {
            off: (!effects.hooks.are_on()).then(|| NO_HOOKS.to_owned()),
            cgroup: effects.cgroup_names(),
            cgroups,
            programs,
        }
    }

    fn registration(&self, view: &HostView) -> Registration {
        Registration {
            gateway: self.settings.gateway,
            client_id: view.client_id.map(|id| id.0),
            state: match view.gateway {
                GatewayState::Idle => "idle".to_owned(),
                GatewayState::Connecting => "connecting".to_owned(),
                GatewayState::Registering => "registering".to_owned(),
                GatewayState::Registered => "registered".to_owned(),
                GatewayState::Refused(error) => format!("refused: {error}"),
                GatewayState::Unsuitable(mismatch) => format!("unsuitable: {mismatch}"),
                GatewayState::Unreachable => "unreachable".to_owned(),
                GatewayState::Stopping => "stopping".to_owned(),
                GatewayState::Stopped => "stopped".to_owned(),
            },
            lease: view.lease_time.map(|time| time.as_secs()),
            remaining: view.lease_left.map(seconds_left),
            transport: transport_name(self.settings.transport).to_owned(),
            tunnels: view.tunnel_types.iter().map(ToString::to_string).collect(),
            flow_policy: view.flow_policy.map(flow_policy),
            method: self.settings.method.to_string(),
            remote: (self.settings.remote != Remote::Any).then(|| self.settings.remote.to_string()),
            complaints: view
                .complaints
                .iter()
                .map(|(error, number)| Counter { name: error.to_string(), value: *number })
                .collect(),
        }
    }

    fn lease(&self, view: &BindingView, sockets: &BTreeMap<u16, usize>) -> Lease {
        let binding = &view.binding;
        if binding.leased == Leased::Address {
            return Self::whole(view, sockets);
        }
        let uses: Vec<usize> = binding.leased.iter().map(|port| self.effects.uses(port, sockets)).collect();
        let used = uses.iter().filter(|sockets| **sockets > 0).count();
        describe_lease(view, uses.len(), used, uses.iter().sum())
    }

    /// Ports of a whole address are too many to ask for one by one: the kernel's tables say which are used.
    fn whole(view: &BindingView, sockets: &BTreeMap<u16, usize>) -> Lease {
        describe_lease(view, usize::from(u16::MAX), sockets.len(), sockets.values().sum())
    }

    /// The one line that says that the host is ready.
    pub(super) fn announce(&self, view: &HostView) {
        let client_id = view.client_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let book = &self.effects.book;
        let leased = match book.public() {
            Some(address) if book.is_whole() => format!("{address} whole"),
            Some(address) if book.has_ephemeral() => {
                format!("{address} ports {}", ports::as_text(&book.block_ports()))
            }
            _ => "no ephemeral ports".to_owned(),
        };
        let waiting = match self.effects.hooks.waiting_way() {
            Some(chosen) => format!("waiting by {}", chosen.way),
            None => "no hooks".to_owned(),
        };
        crate::calls::say(&format!(
            "rsip-client: up: registered as client {client_id} at {}, leased {leased}, {waiting}",
            self.settings.gateway,
        ));
    }
}

fn describe_lease(view: &BindingView, count: usize, ports_used: usize, sockets: usize) -> Lease {
    let binding = &view.binding;
    Lease {
        address: binding.address,
        ports: binding.leased.to_string(),
        count,
        bind_id: binding.bind_id.0,
        lease: view.lease_time.as_secs(),
        remaining: seconds_left(view.lease_left),
        kind: kind(binding.kind).to_owned(),
        state: match view.state {
            BindingState::Resumed => "being confirmed",
            BindingState::Installing => "being set up",
            BindingState::InUse => "in use",
            BindingState::Renewing => "being renewed",
            BindingState::Releasing => "releasing",
        }
        .to_owned(),
        ports_used,
        sockets,
    }
}

/// Rounded up: a lease with half a second left is not over.
const fn seconds_left(left: Duration) -> u64 {
    left.as_secs() + if left.subsec_nanos() > 0 { 1 } else { 0 }
}

const fn kind(kind: BindingKind) -> &'static str {
    match kind {
        BindingKind::Address => "address",
        BindingKind::Block => "block",
        BindingKind::Listen => "listen",
        BindingKind::StaticListen => "static",
    }
}

pub(super) const fn transport_name(transport: HostTransport) -> &'static str {
    match transport {
        HostTransport::Tcp => "tcp",
        HostTransport::Udp => "udp",
    }
}

fn flow_policy(policy: FlowPolicy) -> String {
    let local = match policy.local {
        LocalPolicy::Macro => "macro",
        LocalPolicy::Micro => "micro",
    };
    let remote = match policy.remote {
        RemotePolicy::Macro => "macro",
        RemotePolicy::Micro => "micro",
        RemotePolicy::None => "none",
    };
    format!("local {local}, remote {remote}")
}
