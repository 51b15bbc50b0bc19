//! Our own reading of a message, in the shape and the words in which tshark shows one.
//!
//! Written from RFC 3103 sections 8 and 9 on the public values of [`rsip_proto::wire`], not with the codec's own tables and
//! emitter: those are what is judged here. The order of the parameters is part of it. Words are tshark's; what they say is
//! ours.

use std::net::{Ipv4Addr, Ipv6Addr};

use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::message::{
    AssignRequestRsaIp, AssignRequestRsapIp, AssignResponseRsaIp, ListenRequest, PortBinding,
};
use rsip_proto::wire::{Address, Body, FlowPolicy, Message, Ports, QueryTuple, RsipMethod, TunnelType};

use crate::judge::decoded::{Decoded, Parameter, Shown};
use crate::judge::words;

/// The message as it should be shown.
#[must_use]
pub fn rendered(message: &Message) -> Decoded {
    let mut out = Renderer::default();
    let counter = message.counter;
    match &message.body {
        Body::ErrorResponse { error, client_id, bind_id } => {
            out.error(error.number());
            out.counter(counter);
            client_id.iter().for_each(|id| out.client(*id));
            bind_id.iter().for_each(|id| out.bind(*id));
        }
        Body::RegisterRequest => out.counter(counter),
        Body::RegisterResponse { client_id, lease_time, flow_policy, methods, tunnel_types } => {
            out.client(*client_id);
            out.lease(*lease_time);
            out.flow_policy(*flow_policy);
            out.counter(counter);
            methods.iter().for_each(|method| out.method(*method));
            tunnel_types.iter().for_each(|tunnel| out.tunnel(*tunnel));
        }
        Body::DeRegisterRequest { client_id } | Body::DeRegisterResponse { client_id } => {
            out.client(*client_id);
            out.counter(counter);
        }
        Body::AssignRequestRsaIp(request) => out.assign_request_rsa_ip(request, counter),
        Body::AssignResponseRsaIp(response) => out.assign_response_rsa_ip(response, counter),
        Body::AssignRequestRsapIp(request) => out.assign_request_rsap_ip(request, counter),
        Body::AssignResponseRsapIp(binding) => {
            out.binding(binding);
            out.lease(binding.lease_time);
            out.tunnel(binding.tunnel_type);
            binding.tunnel_endpoint.iter().for_each(|endpoint| out.address(endpoint));
            out.counter(counter);
        }
        // Tunnel Type before Lease Time: section 9.17, unlike 9.9.
        Body::ListenResponse(binding) => {
            out.binding(binding);
            out.tunnel(binding.tunnel_type);
            out.lease(binding.lease_time);
            binding.tunnel_endpoint.iter().for_each(|endpoint| out.address(endpoint));
            out.counter(counter);
        }
        Body::ExtendRequest { client_id, bind_id, lease_time } => {
            out.client(*client_id);
            out.bind(*bind_id);
            lease_time.iter().for_each(|seconds| out.lease(*seconds));
            out.counter(counter);
        }
        Body::ExtendResponse { client_id, bind_id, lease_time } => {
            out.client(*client_id);
            out.bind(*bind_id);
            out.lease(*lease_time);
            out.counter(counter);
        }
        Body::FreeRequest { client_id, bind_id } | Body::FreeResponse { client_id, bind_id } => {
            out.client(*client_id);
            out.bind(*bind_id);
            out.counter(counter);
        }
        Body::QueryRequest { client_id, tuples } => {
            out.client(*client_id);
            out.counter(counter);
            tuples.iter().for_each(|tuple| out.tuple(tuple, false));
        }
        Body::QueryResponse { client_id, tuples } => {
            out.client(*client_id);
            out.counter(counter);
            tuples.iter().for_each(|tuple| out.tuple(tuple, true));
        }
        Body::ListenRequest(request) => out.listen_request(request, counter),
    }
    out.finish(message)
}

#[derive(Default)]
struct Renderer {
    parameters: Vec<Parameter>,
}

impl Renderer {
    fn assign_request_rsa_ip(&mut self, request: &AssignRequestRsaIp, counter: Option<MessageCounter>) {
        self.client(request.client_id);
        self.address(&request.local_address);
        self.address(&request.remote_address);
        self.ports(&request.remote_ports);
        self.counter(counter);
        request.lease_time.iter().for_each(|seconds| self.lease(*seconds));
        request.tunnel_type.iter().for_each(|tunnel| self.tunnel(*tunnel));
    }

    fn assign_response_rsa_ip(&mut self, response: &AssignResponseRsaIp, counter: Option<MessageCounter>) {
        self.client(response.client_id);
        self.bind(response.bind_id);
        self.address(&response.local_address);
        self.address(&response.remote_address);
        self.ports(&response.remote_ports);
        self.lease(response.lease_time);
        self.tunnel(response.tunnel_type);
        response.tunnel_endpoint.iter().for_each(|endpoint| self.address(endpoint));
        self.counter(counter);
    }

    fn assign_request_rsap_ip(&mut self, request: &AssignRequestRsapIp, counter: Option<MessageCounter>) {
        self.client(request.client_id);
        self.address(&request.local_address);
        self.ports(&request.local_ports);
        self.address(&request.remote_address);
        self.ports(&request.remote_ports);
        self.counter(counter);
        request.lease_time.iter().for_each(|seconds| self.lease(*seconds));
        request.tunnel_type.iter().for_each(|tunnel| self.tunnel(*tunnel));
    }

    fn listen_request(&mut self, request: &ListenRequest, counter: Option<MessageCounter>) {
        self.client(request.client_id);
        self.address(&request.local_address);
        self.ports(&request.local_ports);
        self.address(&request.remote_address);
        self.ports(&request.remote_ports);
        self.counter(counter);
        request.lease_time.iter().for_each(|seconds| self.lease(*seconds));
        request.tunnel_types.iter().for_each(|tunnel| self.tunnel(*tunnel));
    }

    /// The part that ASSIGN_RESPONSE_RSAP-IP and LISTEN_RESPONSE have in common.
    fn binding(&mut self, binding: &PortBinding) {
        self.client(binding.client_id);
        self.bind(binding.bind_id);
        self.address(&binding.local_address);
        self.ports(&binding.local_ports);
        self.address(&binding.remote_address);
        self.ports(&binding.remote_ports);
    }

    fn tuple(&mut self, tuple: &QueryTuple, response: bool) {
        // Section 9.14 knows "address" 1 and "network" 2; 9.15 local 1 and 2, remote 3 and 4.
        match tuple {
            QueryTuple::Address { local, address } => {
                self.indicator(if response && !local { 3 } else { 1 });
                self.address(address);
            }
            QueryTuple::Network { local, network, netmask } => {
                self.indicator(if response && !local { 4 } else { 2 });
                self.address(network);
                self.address(netmask);
            }
        }
    }

    fn client(&mut self, id: ClientId) {
        self.number(4, "Client ID", "rsip.parameter.client_id", "Client ID", id.0, "");
    }

    fn bind(&mut self, id: BindId) {
        self.number(5, "Bind ID", "rsip.parameter.bind_id", "Bind ID", id.0, "");
    }

    fn lease(&mut self, seconds: u32) {
        self.number(3, "Lease Time", "rsip.parameter.lease_time", "Lease time", seconds, " seconds");
    }

    fn counter(&mut self, counter: Option<MessageCounter>) {
        if let Some(MessageCounter(counter)) = counter {
            self.number(11, "Message Counter", "rsip.parameter.message_counter", "Counter", counter, "");
        }
    }

    /// A parameter of four bytes that is one number.
    fn number(&mut self, number: u8, word: &str, name: &str, line: &str, value: u32, unit: &str) {
        let field = Shown::new(name, value.to_string(), format!("{line}: {value}"));
        self.push(number, word, format!("{word}: {value}{unit}"), &value.to_be_bytes(), vec![field]);
    }

    fn tunnel(&mut self, tunnel: TunnelType) {
        let number = tunnel.number();
        let word = words::tunnel(tunnel);
        let label = word.map_or_else(|| format!("Unknown Tunnel Type ({number})"), str::to_owned);
        let field = named("rsip.parameter.tunnel_type", "Tunnel type", number.into(), word);
        self.push(6, "Tunnel Type", format!("Tunnel Type: {label}"), &[number], vec![field]);
    }

    fn method(&mut self, method: RsipMethod) {
        let number = method.number();
        let word = words::method(method);
        let label = word.map_or_else(|| format!("Unknown RSIP Method ({number})"), str::to_owned);
        let field = named("rsip.method_param.method", "Method", number.into(), word);
        self.push(7, "RSIP Method", format!("RSIP Method: {label}"), &[number], vec![field]);
    }

    fn error(&mut self, number: u16) {
        let word = words::error(number);
        let label = word.map_or_else(|| format!("Undefined Error ({number})"), str::to_owned);
        let field = named("rsip.parameter.error", "Error", number, word);
        self.push(8, "Error", format!("Error: {label}"), &number.to_be_bytes(), vec![field]);
    }

    fn flow_policy(&mut self, policy: FlowPolicy) {
        let (local, remote) = (words::local_policy(policy.local), words::remote_policy(policy.remote));
        let fields = vec![
            named(
                "rsip.parameter.local_flow_policy",
                "Local Flow Policy",
                policy.local.number().into(),
                Some(local),
            ),
            named(
                "rsip.parameter.remote_flow_policy",
                "Remote Flow Policy",
                policy.remote.number().into(),
                Some(remote),
            ),
        ];
        let value = [policy.local.number(), policy.remote.number()];
        self.push(9, "Flow Policy", format!("Flow Policy: {local}/{remote}"), &value, fields);
    }

    fn indicator(&mut self, value: u16) {
        let shown = format!("0x{value:04x}");
        let field = Shown::new("rsip.parameter.indicator", &shown, format!("Value: {shown}"));
        self.push(10, "Indicator", format!("Indicator: {value}"), &value.to_be_bytes(), vec![field]);
    }

    fn address(&mut self, address: &Address) {
        let (addrtype, bytes, label, field) = match address {
            Address::Ipv4(ip) => (1, ip.octets().to_vec(), format!(": {ip}"), Some(ipv4(*ip))),
            Address::Netmask(mask) => {
                (2, mask.octets().to_vec(), format!("(netmask): {mask}"), Some(netmask(*mask)))
            }
            Address::Ipv6(ip) => (3, ip.octets().to_vec(), format!(": {ip}"), Some(ipv6(*ip))),
            Address::Fqdn(name) => (4, name.as_bytes().to_vec(), format!(": {name}"), Some(fqdn(name))),
            Address::DontCare(addrtype) => {
                (*addrtype, Vec::new(), words::any_address(*addrtype).to_owned(), None)
            }
        };
        let mut fields = vec![named(
            "rsip.parameter.address_type",
            "Address type",
            addrtype.into(),
            words::address_type(addrtype),
        )];
        fields.extend(field);
        let value = [vec![addrtype], bytes].concat();
        self.push(1, "Address", format!("Address{label}"), &value, fields);
    }

    fn ports(&mut self, ports: &Ports) {
        let port = |port: u16| Shown::new(PORT, port.to_string(), format!("Port: {port}"));
        let (number, named_ports, label, shown) = match ports {
            Ports::DontCare { count: 1 } => (1, vec![], ": Any port".to_owned(), vec![]),
            Ports::DontCare { count } => (*count, vec![], format!(": Any {count} ports"), vec![]),
            Ports::Range { first, count: 1 } => (1, vec![*first], String::new(), vec![port(*first)]),
            Ports::Range { first, count } => {
                let span = format!("{first} - {}", u32::from(*first) + u32::from(*count) - 1);
                let shown = Shown::new(PORT, first.to_string(), format!("Port: {span}"));
                (*count, vec![*first], format!(": {span}"), vec![shown])
            }
            Ports::List(list) => {
                let number = u8::try_from(list.len()).unwrap_or(u8::MAX);
                let shown = list.iter().map(|it| port(*it)).collect();
                (number, list.clone(), format!(": List of {number} Ports"), shown)
            }
        };
        let mut fields =
            vec![Shown::new("rsip.parameter.ports.number", number.to_string(), format!("Number: {number}"))];
        fields.extend(shown);
        let mut value = vec![number];
        value.extend(named_ports.iter().flat_map(|port| port.to_be_bytes()));
        self.push(2, "Port", format!("Port{label}"), &value, fields);
    }

    /// Type, length and value of a parameter, then what is in the value.
    fn push(&mut self, number: u8, word: &str, label: String, value: &[u8], inside: Vec<Shown>) {
        let length = value.len();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut fields = vec![
            named("rsip.parameter.type", "Type", number.into(), Some(word)),
            Shown::new("rsip.parameter.length", length.to_string(), format!("Length: {length}")),
            Shown::new(VALUE, hex, ""),
        ];
        fields.extend(inside);
        let offset = self.end();
        self.parameters.push(Parameter { label, offset, size: 3 + length, fields });
    }

    /// Where the next parameter begins: after the header and those that are there.
    fn end(&self) -> usize {
        4 + self.parameters.iter().map(|parameter| parameter.size).sum::<usize>()
    }

    fn finish(self, message: &Message) -> Decoded {
        let message_type = message.message_type();
        let length = self.end();
        let header = vec![
            Shown::new("rsip.version", "1", "Protocol version: 1"),
            named(
                "rsip.message_type",
                "Message type",
                message_type.number().into(),
                Some(message_type.name()),
            ),
            Shown::new("rsip.message_length", length.to_string(), format!("Message length: {length}")),
        ];
        Decoded { header, parameters: self.parameters, complaints: Vec::new() }
    }
}

/// A parameter's bytes: their text is only a shortened form of them, and is left out.
pub(super) const VALUE: &str = "rsip.parameter.value";
pub(super) const VENDOR_VALUE: &str = "rsip.parameter.vendor_specific.value";
pub(super) const PORT: &str = "rsip.parameter.ports.port_number";

/// A number that has a name.
pub(super) fn named(name: &str, line: &str, number: u16, word: Option<&str>) -> Shown {
    Shown::new(name, number.to_string(), format!("{line}: {} ({number})", word.unwrap_or("Unknown")))
}

fn ipv4(ip: Ipv4Addr) -> Shown {
    Shown::new("rsip.parameter.address", ip.to_string(), format!("IPv4 Address: {ip}"))
}

fn netmask(mask: Ipv4Addr) -> Shown {
    Shown::new("rsip.parameter.netmask", mask.to_string(), format!("IPv4 Netmask: {mask}"))
}

fn ipv6(ip: Ipv6Addr) -> Shown {
    Shown::new("rsip.parameter.address.ipv6", ip.to_string(), format!("IPv6 Address: {ip}"))
}

fn fqdn(name: &str) -> Shown {
    Shown::new("rsip.parameter.fqdn", name, format!("Fully Qualified Domain Name: {name}"))
}
