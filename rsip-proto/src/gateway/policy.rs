//! What a request for ports must say, and what may be granted: tunnel type, flow policies (RFC 3103 section 7) and the
//! kinds of address. Knows the configuration and the request, no state.

use std::net::Ipv4Addr;

use super::GatewayConfig;
use crate::ids::{BindId, ClientId};
use crate::wire::message::{AssignRequestRsapIp, ListenRequest};
use crate::wire::{Address, ErrorCode, LocalPolicy, Ports, RemotePolicy, TunnelType};

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

/// What ASSIGN_REQUEST_RSAP-IP and LISTEN_REQUEST have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortRequest {
    pub(super) listen: bool,
    pub(super) client_id: ClientId,
    pub(super) local_address: Address,
    pub(super) local_ports: Ports,
    pub(super) remote_address: Address,
    pub(super) remote_ports: Ports,
    pub(super) lease_time: Option<u32>,
    /// Best first; none: as the gateway likes.
    pub(super) tunnel_types: Vec<TunnelType>,
}

impl From<AssignRequestRsapIp> for PortRequest {
    fn from(request: AssignRequestRsapIp) -> Self {
        Self {
            listen: false,
            client_id: request.client_id,
            local_address: request.local_address,
            local_ports: request.local_ports,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_types: request.tunnel_type.into_iter().collect(),
        }
    }
}

impl From<ListenRequest> for PortRequest {
    fn from(request: ListenRequest) -> Self {
        Self {
            listen: true,
            client_id: request.client_id,
            local_address: request.local_address,
            local_ports: request.local_ports,
            remote_address: request.remote_address,
            remote_ports: request.remote_ports,
            lease_time: request.lease_time,
            tunnel_types: request.tunnel_types,
        }
    }
}

/// Local ports as the pool takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LocalPorts {
    Any(u16),
    Named(Vec<u16>),
}

/// What the request comes to, if the pool has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) tunnel: TunnelType,
    /// As the response has to state it (RFC 3103 sections 9.9.3 and 9.17.3).
    pub(super) remote_address: Address,
    pub(super) remote_ports: Ports,
    /// The wanted public address; none: any.
    pub(super) address: Option<Ipv4Addr>,
    pub(super) ports: LocalPorts,
}

/// Judges a request: tunnel type, then detail, then the remote side, then the local side.
pub(super) fn judge(config: &GatewayConfig, request: &PortRequest) -> Result<Terms, Refusal> {
    let refuse = |error, detail: &str| Refusal::new(error, Some(request.client_id), detail);
    let tunnel = tunnel(&config.tunnel_types, &request.tunnel_types)
        .ok_or_else(|| refuse(ErrorCode::BadTunnelType, "no tunnel type that this gateway has"))?;
    let ports = match &request.local_ports {
        Ports::DontCare { count } => LocalPorts::Any(u16::from(*count)),
        named @ (Ports::Range { .. } | Ports::List(_)) => LocalPorts::Named(named.iter().collect()),
    };
    let wanted = match &ports {
        LocalPorts::Any(count) => usize::from(*count),
        LocalPorts::Named(named) => named.len(),
    };
    if config.flow_policy.local == LocalPolicy::Micro && wanted != 1 {
        return Err(refuse(ErrorCode::FlowPolicyViolation, "local micro-flow policy: one port per request"));
    }
    let (remote_address, remote_ports) =
        remote(config.flow_policy.remote, request).map_err(|(error, detail)| refuse(error, detail))?;
    let address = match &request.local_address {
        Address::DontCare(_) => None,
        Address::Ipv4(address) => Some(*address),
        Address::Ipv6(_) => {
            return Err(refuse(ErrorCode::LocalAddrUnallowed, "an IPv6 address is not in the pool"));
        }
        Address::Netmask(_) | Address::Fqdn(_) => {
            return Err(refuse(ErrorCode::BadParam, "not an address that a host can have"));
        }
    };
    Ok(Terms { tunnel, remote_address, remote_ports, address, ports })
}

/// The host's best tunnel type that we have; ours where the host does not care.
fn tunnel(ours: &[TunnelType], wanted: &[TunnelType]) -> Option<TunnelType> {
    if wanted.is_empty() {
        return ours.first().copied();
    }
    wanted.iter().copied().find(|tunnel| ours.contains(tunnel))
}

/// The remote parameters of the response, or what is wrong with those of the request.
///
/// Without a remote policy a host "MUST" leave them open in LISTEN and may in ASSIGN. What it says there all the same
/// restricts nothing, and the response says so: both come back as don't care.
fn remote(
    policy: RemotePolicy,
    request: &PortRequest,
) -> Result<(Address, Ports), (ErrorCode, &'static str)> {
    if policy == RemotePolicy::None {
        return Ok((Address::ANY, Ports::ANY));
    }
    match &request.remote_address {
        Address::DontCare(_) | Address::Ipv4(Ipv4Addr::UNSPECIFIED) => {
            return Err((
                ErrorCode::FlowPolicyViolation,
                "remote flow policy: the remote address must be named",
            ));
        }
        Address::Ipv4(_) => {}
        Address::Ipv6(_) => {
            return Err((ErrorCode::RemoteAddrUnallowed, "an IPv6 peer cannot be reached"));
        }
        Address::Netmask(_) | Address::Fqdn(_) => {
            return Err((ErrorCode::BadParam, "the remote address must be an IPv4 address"));
        }
    }
    match (policy, &request.remote_ports) {
        (RemotePolicy::Micro, Ports::Range { first: 1.., count: 1 }) => {
            Ok((request.remote_address.clone(), request.remote_ports.clone()))
        }
        (RemotePolicy::Micro, _) => Err((
            ErrorCode::FlowPolicyViolation,
            "remote micro-flow policy: exactly one remote port must be named",
        )),
        (RemotePolicy::Macro | RemotePolicy::None, _) => Ok((request.remote_address.clone(), Ports::ANY)),
    }
}
