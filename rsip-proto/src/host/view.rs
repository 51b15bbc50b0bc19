//! What the status shows: values, taken at one moment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::host::binding::{Slot, State, Target};
use crate::host::link::Link;
use crate::host::registration::{Obstacle, Registration};
use crate::host::{BindingKind, Host, HostBinding, Mismatch};
use crate::ids::ClientId;
use crate::wire::{ErrorCode, FlowPolicy, Ports, RsipMethod, TunnelType};

/// How the host stands with its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayState {
    /// `start` was not called yet.
    Idle,
    /// The transport is being opened.
    Connecting,
    /// The transport is up; the registration is being asked for, or renewed after it was lost.
    Registering,
    /// Registered.
    Registered,
    /// The gateway refused the registration; it is asked again from time to time.
    Refused(ErrorCode),
    /// The gateway's terms do not fit this host's settings; asked again from time to time.
    Unsuitable(Mismatch),
    /// No answer, or no transport; tried again from time to time. Bindings live on until their leases end.
    Unreachable,
    /// `shutdown` was called.
    Stopping,
    /// `shutdown` is done.
    Stopped,
}

/// How far a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingState {
    /// From a previous run of the agent; the gateway is being asked whether it still holds.
    Resumed,
    /// Granted; the shell is taking it into use.
    Installing,
    /// In use.
    InUse,
    /// In use here, lost at the gateway; being asked for again.
    Renewing,
    /// Nobody uses it; it is given back with the next free turn.
    Releasing,
}

/// One binding that the gateway granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// What was granted.
    pub binding: HostBinding,
    /// How far it is.
    pub state: BindingState,
    /// The lease as granted or extended last.
    pub lease_time: Duration,
    /// What is left of it.
    pub lease_left: Duration,
}

/// Something that is wanted and not held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingView {
    /// What it is for.
    pub kind: BindingKind,
    /// What is asked for: one port by number, or so many of any. Of no meaning for a whole address.
    pub ports: Ports,
    /// The last refusal.
    pub refused: Option<ErrorCode>,
    /// When it is asked for again; `None`: it is being asked for now.
    pub retry_in: Option<Duration>,
}

/// The state of a [`super::Host`], for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// How the host stands with its gateway.
    pub gateway: GatewayState,
    /// The host's name at the gateway, while it is registered (or believes so).
    pub client_id: Option<ClientId>,
    /// The registration's lease as given or prolonged last.
    pub lease_time: Option<Duration>,
    /// What is left of it.
    pub lease_left: Option<Duration>,
    /// What the gateway demands of requests.
    pub flow_policy: Option<FlowPolicy>,
    /// Methods on offer; none stated means RSAP-IP (RFC 3103 section 9.3.3), and is shown so.
    pub methods: Vec<RsipMethod>,
    /// Tunnel types on offer; none stated means IP-IP (RFC 3103 section 9.3.3), and is shown so.
    pub tunnel_types: Vec<TunnelType>,
    /// Ports asked for in one block at present: smaller than configured after the gateway refused that many.
    pub block_size: u8,
    /// What the gateway calls local, as in `HostCommand::Local`.
    pub local: Vec<(Ipv4Addr, u8)>,
    /// How often the gateway complained of packets that this host sent (RFC 3103 section 10.4: 307 and 312 to 315).
    pub complaints: BTreeMap<ErrorCode, u64>,
    /// What is held, whole addresses and blocks first, then by port.
    pub bindings: Vec<BindingView>,
    /// What is wanted and not held.
    pub pending: Vec<PendingView>,
}

impl Host {
    /// The state, for people.
    #[must_use]
    pub fn view(&self, now: Instant) -> HostView {
        let held = match &self.registration {
            Registration::Held(held) => Some(held),
            Registration::None { .. } => None,
        };
        let mut bindings: Vec<BindingView> =
            self.table.iter().filter_map(|(_, slot)| binding_view(slot, now)).collect();
        bindings.sort_by_key(|view| {
            let by_number = matches!(view.binding.kind, BindingKind::Listen | BindingKind::StaticListen);
            (by_number, view.binding.leased.iter().next())
        });
        let block = self.table.iter().filter(|(_, slot)| slot.target == Target::Block);
        HostView {
            gateway: self.gateway_state(),
            client_id: self.client_id(),
            lease_time: held.map(|held| held.lease_time),
            lease_left: held.map(|held| held.expires_at.saturating_duration_since(now)),
            flow_policy: held.and_then(|held| held.flow_policy),
            methods: held.map(|held| held.methods.clone()).unwrap_or_default(),
            tunnel_types: held.map(|held| held.tunnel_types.clone()).unwrap_or_default(),
            block_size: block.map(|(_, slot)| slot.size).min().unwrap_or(self.config.block_size),
            local: self.locality.networks().to_vec(),
            complaints: self.complaints.clone(),
            bindings,
            pending: self.table.iter().filter_map(|(_, slot)| pending_view(slot, now)).collect(),
        }
    }

    fn gateway_state(&self) -> GatewayState {
        let confirmed = matches!(&self.registration, Registration::Held(held) if held.announced);
        match self.link {
            _ if self.stopped => GatewayState::Stopped,
            _ if self.leaving.is_some() => GatewayState::Stopping,
            Link::Closed => GatewayState::Idle,
            _ if self.unreachable => GatewayState::Unreachable,
            Link::Connecting { .. } | Link::Down { .. } | Link::Parting { .. } => GatewayState::Connecting,
            Link::Up { .. } if confirmed => GatewayState::Registered,
            Link::Up { .. } => match self.obstacle {
                None => GatewayState::Registering,
                Some(Obstacle::Refused(error)) => GatewayState::Refused(error),
                Some(Obstacle::Mismatch(mismatch)) => GatewayState::Unsuitable(mismatch),
            },
        }
    }
}

fn binding_view(slot: &Slot, now: Instant) -> Option<BindingView> {
    let lease = slot.lease()?;
    let state = match &slot.state {
        State::Resumed(_) => BindingState::Resumed,
        State::Installing { .. } => BindingState::Installing,
        State::InUse { lost: true, .. } => BindingState::Renewing,
        State::InUse { lost: false, .. } if slot.wanted() => BindingState::InUse,
        State::InUse { lost: false, .. } | State::Freeing { .. } => BindingState::Releasing,
        State::Asking | State::Waiting { .. } => return None,
    };
    Some(BindingView {
        binding: lease.binding.clone(),
        state,
        lease_time: lease.time,
        lease_left: lease.expires_at.saturating_duration_since(now),
    })
}

fn pending_view(slot: &Slot, now: Instant) -> Option<PendingView> {
    let retry_in = match &slot.state {
        State::Asking => None,
        State::Waiting { retry_at } => Some(retry_at.saturating_duration_since(now)),
        State::Resumed(_) | State::Installing { .. } | State::InUse { .. } | State::Freeing { .. } => {
            return None;
        }
    };
    let ports = match slot.target {
        Target::Port(port) => Ports::single(port),
        Target::Block => Ports::DontCare { count: slot.size },
        Target::Address => Ports::ANY,
        Target::Stray => return None,
    };
    slot.wanted().then(|| PendingView { kind: slot.kind(), ports, refused: slot.refused, retry_in })
}
