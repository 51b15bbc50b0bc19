//! What a request for a lease must say, and what may be granted: tunnel type, flow policies (RFC 3103 section 7) and the
//! kinds of address. Knows the configuration and the request, no state.

use std::net::Ipv4Addr;

use super::GatewayConfig;
use super::remote::{self, Objection};
use crate::ids::{BindId, ClientId};
use crate::lease::Remote;
use crate::pool::Wish;
use crate::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};
use crate::wire::{Address, ErrorCode, LocalPolicy, Ports, TunnelType};

/// An error to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: ErrorCode,
    pub(super) client_id: Option<ClientId>,
    pub(super) bind_id: Option<BindId>,
    /// For the log.
    pub(super) detail: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorCode, client_id: Option<ClientId>, detail: impl Into<String>) -> Self {
        Self { error, client_id, bind_id: None, detail: detail.into() }
    }

    /// An error that concerns a binding: it must name it (RFC 3103 section 9.1.1).
    pub(super) fn of_bind(
        error: ErrorCode,
        client_id: ClientId,
        bind_id: BindId,
        detail: impl Into<String>,
    ) -> Self {
        Self { error, client_id: Some(client_id), bind_id: Some(bind_id), detail: detail.into() }
    }
}

/// What a host wants to lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// ASSIGN_REQUEST_RSA-IP: an address.
    Address,
    /// ASSIGN_REQUEST_RSAP-IP: an address and ports.
    Ports(Ports),
    /// LISTEN_REQUEST: an address and ports, for a server.
    Listener(Ports),
}

/// What ASSIGN_REQUEST_RSA-IP, ASSIGN_REQUEST_RSAP-IP and LISTEN_REQUEST have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseRequest {
    pub(super) wanted: Wanted,
    pub(super) client_id: ClientId,
    pub(super) local_address: Address,
    pub(super) remote_address: Address,
    pub(super) remote_ports: Ports,
    pub(super) lease_time: Option<u32>,
    /// Best first; none: as the gateway likes.
    pub(super) tunnel_types: Vec<TunnelType>,
}

impl From<AssignRequestRsaIp> for LeaseRequest {
    fn from(request: AssignRequestRsaIp) -> Self {
        Self {
            wanted: Wanted::Address,
            client_id: request.client_id,
            local_address: request.local_address,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_types: request.tunnel_type.into_iter().collect(),
        }
    }
}

impl From<AssignRequestRsapIp> for LeaseRequest {
    fn from(request: AssignRequestRsapIp) -> Self {
        Self {
            wanted: Wanted::Ports(request.local_ports),
            client_id: request.client_id,
            local_address: request.local_address,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_types: request.tunnel_type.into_iter().collect(),
        }
    }
}

impl From<ListenRequest> for LeaseRequest {
    fn from(request: ListenRequest) -> Self {
        Self {
            wanted: Wanted::Listener(request.local_ports),
            client_id: request.client_id,
            local_address: request.local_address,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_types: request.tunnel_types,
        }
    }
}

impl LeaseRequest {
    pub(super) const fn is_listen(&self) -> bool {
        matches!(self.wanted, Wanted::Listener(_))
    }
}

/// The local side as the pool takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Local {
    Whole,
    Any(u16),
    Named(Vec<u16>),
}

impl Local {
    fn of(wanted: &Wanted) -> Self {
        match wanted {
            Wanted::Address => Self::Whole,
            Wanted::Ports(Ports::DontCare { count }) | Wanted::Listener(Ports::DontCare { count }) => {
                Self::Any(u16::from(*count))
            }
            Wanted::Ports(named) | Wanted::Listener(named) => Self::Named(named.iter().collect()),
        }
    }

    pub(super) fn wish(&self) -> Wish<'_> {
        match self {
            Self::Whole => Wish::Whole,
            Self::Any(count) => Wish::Any(*count),
            Self::Named(ports) => Wish::Named(ports),
        }
    }

    /// How many ports are wanted; none for a whole address.
    fn count(&self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Any(count) => Some(usize::from(*count)),
            Self::Named(ports) => Some(ports.len()),
        }
    }
}

/// What the request comes to, if the pool has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) tunnel: TunnelType,
    pub(super) remote: Remote,
    /// The wanted public address; none: any.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) local: Local,
}

/// Judges a request: whether it can be read, then tunnel type, then detail, then the remote side. The local side is the
/// pool's. See the table in the documentation of [`super`].
pub(super) fn judge(config: &GatewayConfig, request: &LeaseRequest) -> Result<Terms, Refusal> {
    let refuse = |error, detail: &str| Refusal::new(error, Some(request.client_id), detail);
    let local = Local::of(&request.wanted);
    let address = match &request.local_address {
        Address::DontCare(_) => None,
        Address::Ipv4(address) => Some(*address),
        // No pool has the unspecified address either: the answer is the same, in the same place of the order.
        Address::Ipv6(_) => Some(Ipv4Addr::UNSPECIFIED),
        Address::Netmask(_) | Address::Fqdn(_) => {
            return Err(refuse(ErrorCode::BadParam, "not an address that a host can have"));
        }
    };
    let policy = config.flow_policy;
    if !remote::is_readable(policy.remote, &request.remote_address) {
        return Err(refuse(ErrorCode::BadParam, "a peer is an address: names are not resolved"));
    }
    let tunnel = tunnel(&config.tunnel_types, &request.tunnel_types)
        .ok_or_else(|| refuse(ErrorCode::BadTunnelType, "no tunnel type that this gateway has"))?;
    if policy.local == LocalPolicy::Micro && local.count() != Some(1) {
        return Err(refuse(ErrorCode::FlowPolicyViolation, "local micro-flow policy: one port per request"));
    }
    let object = |(error, detail): Objection| refuse(error, detail);
    let named =
        remote::named(policy.remote, &request.remote_address, &request.remote_ports).map_err(object)?;
    let remote = remote::approve(config, named).map_err(object)?;
    Ok(Terms { tunnel, remote, address, local })
}

/// The host's best tunnel type that we have; ours where the host does not care.
fn tunnel(ours: &[TunnelType], wanted: &[TunnelType]) -> Option<TunnelType> {
    if wanted.is_empty() {
        return ours.first().copied();
    }
    wanted.iter().copied().find(|tunnel| ours.contains(tunnel))
}
