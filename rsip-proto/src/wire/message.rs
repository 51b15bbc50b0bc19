//! The messages of RFC 3103 section 9 as values.

use crate::ids::{BindId, ClientId, MessageCounter};
use crate::wire::error_code::ErrorCode;
use crate::wire::param::{Address, FlowPolicy, Ports, QueryTuple, RsipMethod, TunnelType};

/// One RSIP message: what every message may carry, and the rest by type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message Counter: required over UDP, optional over TCP.
    pub counter: Option<MessageCounter>,
    /// What the message says.
    pub body: Body,
}

impl Message {
    /// A message with a counter.
    #[must_use]
    pub const fn new(counter: MessageCounter, body: Body) -> Self {
        Self { counter: Some(counter), body }
    }
}

/// A message without its counter; the variant is the message type. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// 1, gateway to host.
    ErrorResponse {
        /// What went wrong.
        error: ErrorCode,
        /// Present when the error concerns a client ID.
        client_id: Option<ClientId>,
        /// Present when the error concerns a bind ID.
        bind_id: Option<BindId>,
    },
    /// 2, host to gateway.
    RegisterRequest,
    /// 3, gateway to host.
    RegisterResponse {
        /// The host's name at this gateway.
        client_id: ClientId,
        /// Seconds until the registration ends.
        lease_time: u32,
        /// What detail requests must have, and what traffic is let through.
        flow_policy: FlowPolicy,
        /// Methods on offer; none means RSAP-IP.
        methods: Vec<RsipMethod>,
        /// Tunnel types on offer; none means IP-IP.
        tunnel_types: Vec<TunnelType>,
    },
    /// 4, host to gateway.
    DeRegisterRequest {
        /// Who leaves.
        client_id: ClientId,
    },
    /// 5, gateway to host; with counter 0 the gateway ends the registration.
    DeRegisterResponse {
        /// Who is no longer registered.
        client_id: ClientId,
    },
    /// 6, host to gateway: a whole address.
    AssignRequestRsaIp(AssignRequestRsaIp),
    /// 7, gateway to host.
    AssignResponseRsaIp(AssignResponseRsaIp),
    /// 8, host to gateway: an address and ports.
    AssignRequestRsapIp(AssignRequestRsapIp),
    /// 9, gateway to host.
    AssignResponseRsapIp(PortBinding),
    /// 10, host to gateway.
    ExtendRequest {
        /// Who asks.
        client_id: ClientId,
        /// The binding to extend.
        bind_id: BindId,
        /// The wish, in seconds.
        lease_time: Option<u32>,
    },
    /// 11, gateway to host.
    ExtendResponse {
        /// Who asked.
        client_id: ClientId,
        /// The binding that was extended.
        bind_id: BindId,
        /// Seconds from now.
        lease_time: u32,
    },
    /// 12, host to gateway.
    FreeRequest {
        /// Who asks.
        client_id: ClientId,
        /// The binding given back.
        bind_id: BindId,
    },
    /// 13, gateway to host; with counter 0 the gateway takes the binding back.
    FreeResponse {
        /// Whose binding it was.
        client_id: ClientId,
        /// The binding that is no more.
        bind_id: BindId,
    },
    /// 14, host to gateway: is this local (direct) or remote (through RSIP)?
    QueryRequest {
        /// Who asks.
        client_id: ClientId,
        /// Questions; none means "all you are willing to tell". `local` in the tuples has no meaning here.
        tuples: Vec<QueryTuple>,
    },
    /// 15, gateway to host.
    QueryResponse {
        /// Who asked.
        client_id: ClientId,
        /// What the gateway knows.
        tuples: Vec<QueryTuple>,
    },
    /// 16, host to gateway: forward all that comes to this address and port, also from strangers.
    ListenRequest(ListenRequest),
    /// 17, gateway to host. On the wire Tunnel Type stands before Lease Time, unlike in the ASSIGN responses.
    ListenResponse(PortBinding),
}

/// ASSIGN_REQUEST_RSA-IP (RFC 3103 section 9.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignRequestRsaIp {
    /// Who asks.
    pub client_id: ClientId,
    /// The wanted public address, or don't care.
    pub local_address: Address,
    /// The peer, or don't care.
    pub remote_address: Address,
    /// The peer's ports, or don't care.
    pub remote_ports: Ports,
    /// The wish, in seconds.
    pub lease_time: Option<u32>,
    /// The wanted tunnel.
    pub tunnel_type: Option<TunnelType>,
}

/// ASSIGN_RESPONSE_RSA-IP (RFC 3103 section 9.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignResponseRsaIp {
    /// Who asked.
    pub client_id: ClientId,
    /// The name of the new binding.
    pub bind_id: BindId,
    /// The leased public address.
    pub local_address: Address,
    /// The peer, as the flow policy says.
    pub remote_address: Address,
    /// The peer's ports, as the flow policy says.
    pub remote_ports: Ports,
    /// Seconds from now.
    pub lease_time: u32,
    /// The tunnel to use.
    pub tunnel_type: TunnelType,
    /// The tunnel's far end, where it is not the gateway.
    pub tunnel_endpoint: Option<Address>,
}

/// ASSIGN_REQUEST_RSAP-IP (RFC 3103 section 9.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignRequestRsapIp {
    /// Who asks.
    pub client_id: ClientId,
    /// The wanted public address, or don't care.
    pub local_address: Address,
    /// The wanted ports, or how many.
    pub local_ports: Ports,
    /// The peer, or don't care.
    pub remote_address: Address,
    /// The peer's ports, or don't care.
    pub remote_ports: Ports,
    /// The wish, in seconds.
    pub lease_time: Option<u32>,
    /// The wanted tunnel.
    pub tunnel_type: Option<TunnelType>,
}

/// LISTEN_REQUEST (RFC 3103 section 9.16).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenRequest {
    /// Who asks.
    pub client_id: ClientId,
    /// The wanted public address, or don't care.
    pub local_address: Address,
    /// The wanted ports, or how many.
    pub local_ports: Ports,
    /// The peer, or don't care.
    pub remote_address: Address,
    /// The peer's ports, or don't care.
    pub remote_ports: Ports,
    /// The wish, in seconds.
    pub lease_time: Option<u32>,
    /// The tunnels that the host can use, best first.
    pub tunnel_types: Vec<TunnelType>,
}

/// What ASSIGN_RESPONSE_RSAP-IP and LISTEN_RESPONSE grant (RFC 3103 sections 9.9 and 9.17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBinding {
    /// Who asked.
    pub client_id: ClientId,
    /// The name of the new binding.
    pub bind_id: BindId,
    /// The leased public address.
    pub local_address: Address,
    /// The leased ports.
    pub local_ports: Ports,
    /// The peer, as the flow policy says.
    pub remote_address: Address,
    /// The peer's ports, as the flow policy says.
    pub remote_ports: Ports,
    /// Seconds from now.
    pub lease_time: u32,
    /// The tunnel to use.
    pub tunnel_type: TunnelType,
    /// The tunnel's far end, where it is not the gateway.
    pub tunnel_endpoint: Option<Address>,
}
