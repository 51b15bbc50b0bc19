//! Between a message and its parameters: every field that any message has, by name.

use crate::ids::{BindId, ClientId, MessageCounter};
use crate::wire::codec::Param;
use crate::wire::error::BadParam;
use crate::wire::error_code::ErrorCode;
use crate::wire::message::{
    AssignRequestRsaIp, AssignRequestRsapIp, AssignResponseRsaIp, Body, ListenRequest, Message, PortBinding,
};
use crate::wire::param::{Address, FlowPolicy, Ports, QueryTuple, RsipMethod, TunnelType};
use crate::wire::table::{Field, MessageType, grammar};

/// The fields of one message; which of them it has is the grammar's matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) error: Option<ErrorCode>,
    pub(super) client_id: Option<ClientId>,
    pub(super) bind_id: Option<BindId>,
    pub(super) lease_time: Option<u32>,
    pub(super) flow_policy: Option<FlowPolicy>,
    pub(super) local_address: Option<Address>,
    pub(super) local_ports: Option<Ports>,
    pub(super) remote_address: Option<Address>,
    pub(super) remote_ports: Option<Ports>,
    pub(super) tunnel_types: Vec<TunnelType>,
    pub(super) tunnel_endpoint: Option<Address>,
    pub(super) methods: Vec<RsipMethod>,
    pub(super) counter: Option<MessageCounter>,
    pub(super) tuples: Vec<QueryTuple>,
}

/// Whether an address can play a part. The same for both directions.
pub(super) const fn check_address(field: Field, address: &Address) -> Result<(), BadParam> {
    match (field, address) {
        (Field::LocalAddress, Address::Fqdn(_)) => Err(BadParam::LocalFqdn),
        (_, Address::Netmask(_)) => Err(BadParam::Netmask),
        _ => Ok(()),
    }
}

/// Whether a tuple holds the kinds of address that it needs. The same for both directions.
pub(super) const fn check_tuple(tuple: &QueryTuple) -> Result<(), BadParam> {
    match tuple {
        QueryTuple::Address { address: Address::Ipv4(_) | Address::Ipv6(_) | Address::Fqdn(_), .. }
        | QueryTuple::Network { network: Address::Ipv4(_), netmask: Address::Netmask(_), .. } => Ok(()),
        QueryTuple::Address { .. } => Err(BadParam::TupleAddress),
        QueryTuple::Network { network: Address::Ipv4(_), .. } => Err(BadParam::TupleNetmask),
        QueryTuple::Network { .. } => Err(BadParam::TupleNetwork),
    }
}

/// The values of an Indicator. A request knows only the first two and means no locality by them.
pub(super) mod indicator {
    pub(in crate::wire) const LOCAL_ADDRESS: u16 = 1;
    pub(in crate::wire) const LOCAL_NETWORK: u16 = 2;
    pub(in crate::wire) const REMOTE_ADDRESS: u16 = 3;
    pub(in crate::wire) const REMOTE_NETWORK: u16 = 4;
}

impl Fields {
    /// The fields of a message.
    pub(super) fn of(message: &Message) -> Self {
        let mut fields = Self { counter: message.counter, ..Self::default() };
        match message.body.clone() {
            Body::ErrorResponse { error, client_id, bind_id } => {
                fields.error = Some(error);
                fields.client_id = client_id;
                fields.bind_id = bind_id;
            }
            Body::RegisterRequest => {}
            Body::RegisterResponse { client_id, lease_time, flow_policy, methods, tunnel_types } => {
                fields.client_id = Some(client_id);
                fields.lease_time = Some(lease_time);
                fields.flow_policy = Some(flow_policy);
                fields.methods = methods;
                fields.tunnel_types = tunnel_types;
            }
            Body::DeRegisterRequest { client_id } | Body::DeRegisterResponse { client_id } => {
                fields.client_id = Some(client_id);
            }
            Body::AssignRequestRsaIp(request) => {
                fields.client_id = Some(request.client_id);
                fields.local_address = Some(request.local_address);
                fields.remote_address = Some(request.remote_address);
                fields.remote_ports = Some(request.remote_ports);
                fields.lease_time = request.lease_time;
                fields.tunnel_types = request.tunnel_type.into_iter().collect();
            }
            Body::AssignResponseRsaIp(response) => {
                fields.client_id = Some(response.client_id);
                fields.bind_id = Some(response.bind_id);
                fields.local_address = Some(response.local_address);
                fields.remote_address = Some(response.remote_address);
                fields.remote_ports = Some(response.remote_ports);
                fields.lease_time = Some(response.lease_time);
                fields.tunnel_types = vec![response.tunnel_type];
                fields.tunnel_endpoint = response.tunnel_endpoint;
            }
            Body::AssignRequestRsapIp(request) => {
                fields.client_id = Some(request.client_id);
                fields.local_address = Some(request.local_address);
                fields.local_ports = Some(request.local_ports);
                fields.remote_address = Some(request.remote_address);
                fields.remote_ports = Some(request.remote_ports);
                fields.lease_time = request.lease_time;
                fields.tunnel_types = request.tunnel_type.into_iter().collect();
            }
            Body::AssignResponseRsapIp(binding) | Body::ListenResponse(binding) => {
                fields.client_id = Some(binding.client_id);
                fields.bind_id = Some(binding.bind_id);
                fields.local_address = Some(binding.local_address);
                fields.local_ports = Some(binding.local_ports);
                fields.remote_address = Some(binding.remote_address);
                fields.remote_ports = Some(binding.remote_ports);
                fields.lease_time = Some(binding.lease_time);
                fields.tunnel_types = vec![binding.tunnel_type];
                fields.tunnel_endpoint = binding.tunnel_endpoint;
            }
            Body::ExtendRequest { client_id, bind_id, lease_time } => {
                fields.client_id = Some(client_id);
                fields.bind_id = Some(bind_id);
                fields.lease_time = lease_time;
            }
            Body::ExtendResponse { client_id, bind_id, lease_time } => {
                fields.client_id = Some(client_id);
                fields.bind_id = Some(bind_id);
                fields.lease_time = Some(lease_time);
            }
            Body::FreeRequest { client_id, bind_id } | Body::FreeResponse { client_id, bind_id } => {
                fields.client_id = Some(client_id);
                fields.bind_id = Some(bind_id);
            }
            Body::QueryRequest { client_id, tuples } | Body::QueryResponse { client_id, tuples } => {
                fields.client_id = Some(client_id);
                fields.tuples = tuples;
            }
            Body::ListenRequest(request) => {
                fields.client_id = Some(request.client_id);
                fields.local_address = Some(request.local_address);
                fields.local_ports = Some(request.local_ports);
                fields.remote_address = Some(request.remote_address);
                fields.remote_ports = Some(request.remote_ports);
                fields.lease_time = request.lease_time;
                fields.tunnel_types = request.tunnel_types;
            }
        }
        fields
    }

    /// The message of this type that the fields make; the first field that it needs and that is not there, otherwise.
    pub(super) fn into_message(self, message_type: MessageType) -> Result<Message, Field> {
        let counter = self.counter;
        let body = match message_type {
            MessageType::ErrorResponse => Body::ErrorResponse {
                error: self.error.ok_or(Field::Error)?,
                client_id: self.client_id,
                bind_id: self.bind_id,
            },
            MessageType::RegisterRequest => Body::RegisterRequest,
            MessageType::RegisterResponse => Body::RegisterResponse {
                client_id: self.client_id()?,
                lease_time: self.lease_time()?,
                flow_policy: self.flow_policy.ok_or(Field::FlowPolicy)?,
                methods: self.methods,
                tunnel_types: self.tunnel_types,
            },
            MessageType::DeRegisterRequest => Body::DeRegisterRequest { client_id: self.client_id()? },
            MessageType::DeRegisterResponse => Body::DeRegisterResponse { client_id: self.client_id()? },
            MessageType::AssignRequestRsaIp => Body::AssignRequestRsaIp(AssignRequestRsaIp {
                client_id: self.client_id()?,
                tunnel_type: self.tunnel_type().ok(),
                local_address: self.local_address.ok_or(Field::LocalAddress)?,
                remote_address: self.remote_address.ok_or(Field::RemoteAddress)?,
                remote_ports: self.remote_ports.ok_or(Field::RemotePorts)?,
                lease_time: self.lease_time,
            }),
            MessageType::AssignResponseRsaIp => Body::AssignResponseRsaIp(AssignResponseRsaIp {
                client_id: self.client_id()?,
                bind_id: self.bind_id()?,
                lease_time: self.lease_time()?,
                tunnel_type: self.tunnel_type()?,
                local_address: self.local_address.ok_or(Field::LocalAddress)?,
                remote_address: self.remote_address.ok_or(Field::RemoteAddress)?,
                remote_ports: self.remote_ports.ok_or(Field::RemotePorts)?,
                tunnel_endpoint: self.tunnel_endpoint,
            }),
            MessageType::AssignRequestRsapIp => Body::AssignRequestRsapIp(AssignRequestRsapIp {
                client_id: self.client_id()?,
                tunnel_type: self.tunnel_type().ok(),
                local_address: self.local_address.ok_or(Field::LocalAddress)?,
                local_ports: self.local_ports.ok_or(Field::LocalPorts)?,
                remote_address: self.remote_address.ok_or(Field::RemoteAddress)?,
                remote_ports: self.remote_ports.ok_or(Field::RemotePorts)?,
                lease_time: self.lease_time,
            }),
            MessageType::AssignResponseRsapIp => Body::AssignResponseRsapIp(self.into_binding()?),
            MessageType::ListenResponse => Body::ListenResponse(self.into_binding()?),
            MessageType::ExtendRequest => Body::ExtendRequest {
                client_id: self.client_id()?,
                bind_id: self.bind_id()?,
                lease_time: self.lease_time,
            },
            MessageType::ExtendResponse => Body::ExtendResponse {
                client_id: self.client_id()?,
                bind_id: self.bind_id()?,
                lease_time: self.lease_time()?,
            },
            MessageType::FreeRequest => {
                Body::FreeRequest { client_id: self.client_id()?, bind_id: self.bind_id()? }
            }
            MessageType::FreeResponse => {
                Body::FreeResponse { client_id: self.client_id()?, bind_id: self.bind_id()? }
            }
            MessageType::QueryRequest => {
                Body::QueryRequest { client_id: self.client_id()?, tuples: self.tuples }
            }
            MessageType::QueryResponse => {
                Body::QueryResponse { client_id: self.client_id()?, tuples: self.tuples }
            }
            MessageType::ListenRequest => Body::ListenRequest(ListenRequest {
                client_id: self.client_id()?,
                local_address: self.local_address.ok_or(Field::LocalAddress)?,
                local_ports: self.local_ports.ok_or(Field::LocalPorts)?,
                remote_address: self.remote_address.ok_or(Field::RemoteAddress)?,
                remote_ports: self.remote_ports.ok_or(Field::RemotePorts)?,
                lease_time: self.lease_time,
                tunnel_types: self.tunnel_types,
            }),
        };
        Ok(Message { counter, body })
    }

    fn into_binding(self) -> Result<PortBinding, Field> {
        Ok(PortBinding {
            client_id: self.client_id()?,
            bind_id: self.bind_id()?,
            lease_time: self.lease_time()?,
            tunnel_type: self.tunnel_type()?,
            local_address: self.local_address.ok_or(Field::LocalAddress)?,
            local_ports: self.local_ports.ok_or(Field::LocalPorts)?,
            remote_address: self.remote_address.ok_or(Field::RemoteAddress)?,
            remote_ports: self.remote_ports.ok_or(Field::RemotePorts)?,
            tunnel_endpoint: self.tunnel_endpoint,
        })
    }

    fn client_id(&self) -> Result<ClientId, Field> {
        self.client_id.ok_or(Field::ClientId)
    }

    fn bind_id(&self) -> Result<BindId, Field> {
        self.bind_id.ok_or(Field::BindId)
    }

    fn lease_time(&self) -> Result<u32, Field> {
        self.lease_time.ok_or(Field::LeaseTime)
    }

    fn tunnel_type(&self) -> Result<TunnelType, Field> {
        self.tunnel_types.first().copied().ok_or(Field::TunnelType)
    }

    /// The parameters of a message of this type, in the order in which they are sent.
    pub(super) fn into_params(self, message_type: MessageType) -> Vec<(Field, Param)> {
        let grammar = grammar(message_type);
        let order = grammar.required.iter().chain(grammar.optional.iter().map(|(field, _)| field));
        order
            .flat_map(|field| self.params_of(*field, message_type).into_iter().map(|param| (*field, param)))
            .collect()
    }

    fn params_of(&self, field: Field, message_type: MessageType) -> Vec<Param> {
        let address = |address: &Option<Address>| address.clone().map(Param::Address);
        let ports = |ports: &Option<Ports>| ports.clone().map(Param::Ports);
        let one = match field {
            Field::Error => self.error.map(Param::Error),
            Field::ClientId => self.client_id.map(Param::ClientId),
            Field::BindId => self.bind_id.map(Param::BindId),
            Field::LeaseTime => self.lease_time.map(Param::LeaseTime),
            Field::FlowPolicy => self.flow_policy.map(Param::FlowPolicy),
            Field::LocalAddress => address(&self.local_address),
            Field::LocalPorts => ports(&self.local_ports),
            Field::RemoteAddress => address(&self.remote_address),
            Field::RemotePorts => ports(&self.remote_ports),
            Field::TunnelEndpoint => address(&self.tunnel_endpoint),
            Field::MessageCounter => self.counter.map(Param::MessageCounter),
            Field::TunnelType => return self.tunnel_types.iter().copied().map(Param::TunnelType).collect(),
            Field::RsipMethod => return self.methods.iter().copied().map(Param::RsipMethod).collect(),
            Field::QueryTuple => {
                return self.tuples.iter().flat_map(|tuple| tuple_params(tuple, message_type)).collect();
            }
        };
        one.into_iter().collect()
    }
}

fn tuple_params(tuple: &QueryTuple, message_type: MessageType) -> Vec<Param> {
    // A request has no local and remote.
    let first = |local: &bool| *local || !message_type.is_response();
    match tuple {
        QueryTuple::Address { local, address } => vec![
            Param::Indicator(if first(local) { indicator::LOCAL_ADDRESS } else { indicator::REMOTE_ADDRESS }),
            Param::Address(address.clone()),
        ],
        QueryTuple::Network { local, network, netmask } => vec![
            Param::Indicator(if first(local) { indicator::LOCAL_NETWORK } else { indicator::REMOTE_NETWORK }),
            Param::Address(network.clone()),
            Param::Address(netmask.clone()),
        ],
    }
}
