//! Which forms of parameters a message has, and all that there are: so that a form which no test ever wrote is noticed.

use std::collections::BTreeSet;

use rsip_proto::wire::{
    Address, Body, ErrorCode, LocalPolicy, Message, MessageType, Ports, QueryTuple, RemotePolicy, RsipMethod,
    TunnelType,
};

/// The forms in a message.
#[must_use]
pub fn of(message: &Message) -> BTreeSet<String> {
    let mut forms = Forms::default();
    forms.add(message.message_type().name().to_owned());
    forms.add(match message.counter.map(|counter| counter.0) {
        None => "Message Counter: none".to_owned(),
        Some(0) => "Message Counter: 0".to_owned(),
        Some(1) => "Message Counter: 1".to_owned(),
        Some(u32::MAX) => "Message Counter: 4294967295".to_owned(),
        Some(_) => "Message Counter: another".to_owned(),
    });
    match &message.body {
        Body::ErrorResponse { error, client_id, bind_id } => {
            forms.add(match error {
                ErrorCode::Other(_) => "Error: undefined".to_owned(),
                known => format!("Error: {}", known.number()),
            });
            forms.optional("Error with Client ID", client_id.is_some());
            forms.optional("Error with Bind ID", bind_id.is_some());
            client_id.iter().for_each(|id| forms.number("Client ID", id.0));
            bind_id.iter().for_each(|id| forms.number("Bind ID", id.0));
        }
        Body::RegisterRequest => {}
        Body::RegisterResponse { client_id, lease_time, flow_policy, methods, tunnel_types } => {
            forms.number("Client ID", client_id.0);
            forms.number("Lease Time", *lease_time);
            forms.add(format!("Flow Policy: {flow_policy}"));
            forms.count("RSIP Methods", methods.len());
            methods.iter().for_each(|it| forms.add(method(*it)));
            forms.count("Tunnel Types", tunnel_types.len());
            tunnel_types.iter().for_each(|it| forms.add(tunnel(*it)));
        }
        Body::DeRegisterRequest { client_id } | Body::DeRegisterResponse { client_id } => {
            forms.number("Client ID", client_id.0);
        }
        Body::AssignRequestRsaIp(it) => {
            forms.number("Client ID", it.client_id.0);
            forms.address("local", &it.local_address);
            forms.address("remote", &it.remote_address);
            forms.ports("remote", &it.remote_ports);
            forms.wish(it.lease_time);
            forms.count("Tunnel Types", usize::from(it.tunnel_type.is_some()));
            it.tunnel_type.iter().for_each(|it| forms.add(tunnel(*it)));
        }
        Body::AssignResponseRsaIp(it) => {
            forms.number("Client ID", it.client_id.0);
            forms.number("Bind ID", it.bind_id.0);
            forms.address("local", &it.local_address);
            forms.address("remote", &it.remote_address);
            forms.ports("remote", &it.remote_ports);
            forms.number("Lease Time", it.lease_time);
            forms.add(tunnel(it.tunnel_type));
            it.tunnel_endpoint.iter().for_each(|it| forms.address("tunnel endpoint", it));
        }
        Body::AssignRequestRsapIp(it) => {
            forms.number("Client ID", it.client_id.0);
            forms.address("local", &it.local_address);
            forms.ports("local", &it.local_ports);
            forms.address("remote", &it.remote_address);
            forms.ports("remote", &it.remote_ports);
            forms.wish(it.lease_time);
            forms.count("Tunnel Types", usize::from(it.tunnel_type.is_some()));
            it.tunnel_type.iter().for_each(|it| forms.add(tunnel(*it)));
        }
        Body::AssignResponseRsapIp(it) | Body::ListenResponse(it) => {
            forms.number("Client ID", it.client_id.0);
            forms.number("Bind ID", it.bind_id.0);
            forms.address("local", &it.local_address);
            forms.ports("local", &it.local_ports);
            forms.address("remote", &it.remote_address);
            forms.ports("remote", &it.remote_ports);
            forms.number("Lease Time", it.lease_time);
            forms.add(tunnel(it.tunnel_type));
            it.tunnel_endpoint.iter().for_each(|it| forms.address("tunnel endpoint", it));
        }
        Body::ExtendRequest { client_id, bind_id, lease_time } => {
            forms.number("Client ID", client_id.0);
            forms.number("Bind ID", bind_id.0);
            forms.wish(*lease_time);
        }
        Body::ExtendResponse { client_id, bind_id, lease_time } => {
            forms.number("Client ID", client_id.0);
            forms.number("Bind ID", bind_id.0);
            forms.number("Lease Time", *lease_time);
        }
        Body::FreeRequest { client_id, bind_id } | Body::FreeResponse { client_id, bind_id } => {
            forms.number("Client ID", client_id.0);
            forms.number("Bind ID", bind_id.0);
        }
        Body::QueryRequest { client_id, tuples } | Body::QueryResponse { client_id, tuples } => {
            forms.number("Client ID", client_id.0);
            let response = message.message_type().is_response();
            forms.count(if response { "answered tuples" } else { "asked tuples" }, tuples.len());
            tuples.iter().for_each(|it| forms.tuple(it, response));
        }
        Body::ListenRequest(it) => {
            forms.number("Client ID", it.client_id.0);
            forms.address("local", &it.local_address);
            forms.ports("local", &it.local_ports);
            forms.address("remote", &it.remote_address);
            forms.ports("remote", &it.remote_ports);
            forms.wish(it.lease_time);
            forms.count("Tunnel Types", it.tunnel_types.len());
            it.tunnel_types.iter().for_each(|it| forms.add(tunnel(*it)));
        }
    }
    forms.0
}

/// Every form that there is.
#[must_use]
pub fn all() -> BTreeSet<String> {
    let mut all = Forms::default();
    let mut each =
        |what: &str, forms: &[&str]| forms.iter().for_each(|form| all.add(format!("{what}: {form}")));
    each("Message Counter", &["none", "0", "1", "4294967295", "another"]);
    each("Error", &["undefined"]);
    each("Error with Client ID", &["yes", "no"]);
    each("Error with Bind ID", &["yes", "no"]);
    for number in ["Client ID", "Bind ID", "Lease Time"] {
        each(number, &["below 2147483648", "2147483648 and above"]);
    }
    each("Lease Time wish", &["none", "some"]);
    for many in ["RSIP Methods", "Tunnel Types", "asked tuples", "answered tuples"] {
        each(many, &["none", "one", "several"]);
    }
    each("RSIP Method", &["RSA-IP", "RSAP-IP", "another"]);
    each("Tunnel Type", &["IP-IP", "GRE", "L2TP", "another"]);
    each("Address (local)", &["IPv4", "IPv6", "don't care", "don't care of another type"]);
    each("Address (remote)", &["IPv4", "IPv6", "FQDN", "don't care", "don't care of another type"]);
    each("Address (tunnel endpoint)", &["IPv4", "IPv6", "FQDN", "don't care", "don't care of another type"]);
    for end in ["Ports (local)", "Ports (remote)"] {
        each(end, &["single", "range", "list", "don't care, one", "don't care, several"]);
    }
    for part in ["asked", "local", "remote"] {
        each(&format!("{part} address"), &["IPv4", "IPv6", "FQDN"]);
        each(&format!("{part} network"), &["IPv4"]);
    }
    MessageType::ALL.iter().for_each(|it| all.add(it.name().to_owned()));
    ErrorCode::ALL.iter().for_each(|it| all.add(format!("Error: {}", it.number())));
    for local in LocalPolicy::ALL {
        RemotePolicy::ALL.iter().for_each(|remote| all.add(format!("Flow Policy: {local}/{remote}")));
    }
    all.0
}

#[derive(Default)]
struct Forms(BTreeSet<String>);

impl Forms {
    fn add(&mut self, form: String) {
        self.0.insert(form);
    }

    fn optional(&mut self, what: &str, is_there: bool) {
        self.add(format!("{what}: {}", if is_there { "yes" } else { "no" }));
    }

    fn number(&mut self, what: &str, value: u32) {
        let half = if value < 1 << 31 { "below 2147483648" } else { "2147483648 and above" };
        self.add(format!("{what}: {half}"));
    }

    fn wish(&mut self, lease_time: Option<u32>) {
        self.add(format!("Lease Time wish: {}", if lease_time.is_some() { "some" } else { "none" }));
    }

    fn count(&mut self, what: &str, count: usize) {
        let how_many = match count {
            0 => "none",
            1 => "one",
            _ => "several",
        };
        self.add(format!("{what}: {how_many}"));
    }

    fn address(&mut self, part: &str, address: &Address) {
        self.add(format!("Address ({part}): {}", kind(address)));
    }

    fn ports(&mut self, part: &str, ports: &Ports) {
        let form = match ports {
            Ports::Range { count: 1, .. } => "single",
            Ports::Range { .. } => "range",
            Ports::List(_) => "list",
            Ports::DontCare { count: 1 } => "don't care, one",
            Ports::DontCare { .. } => "don't care, several",
        };
        self.add(format!("Ports ({part}): {form}"));
    }

    fn tuple(&mut self, tuple: &QueryTuple, response: bool) {
        let part = |local: &bool| match (response, local) {
            (false, _) => "asked",
            (true, true) => "local",
            (true, false) => "remote",
        };
        self.add(match tuple {
            QueryTuple::Address { local, address } => format!("{} address: {}", part(local), kind(address)),
            QueryTuple::Network { local, network, .. } => {
                format!("{} network: {}", part(local), kind(network))
            }
        });
    }
}

const fn kind(address: &Address) -> &'static str {
    match address {
        Address::Ipv4(_) => "IPv4",
        Address::Netmask(_) => "netmask",
        Address::Ipv6(_) => "IPv6",
        Address::Fqdn(_) => "FQDN",
        Address::DontCare(1) => "don't care",
        Address::DontCare(_) => "don't care of another type",
    }
}

fn method(method: RsipMethod) -> String {
    let name = match method {
        RsipMethod::RsaIp => "RSA-IP",
        RsipMethod::RsapIp => "RSAP-IP",
        RsipMethod::Other(_) => "another",
    };
    format!("RSIP Method: {name}")
}

fn tunnel(tunnel: TunnelType) -> String {
    let name = match tunnel {
        TunnelType::IpIp => "IP-IP",
        TunnelType::Gre => "GRE",
        TunnelType::L2tp => "L2TP",
        TunnelType::Other(_) => "another",
    };
    format!("Tunnel Type: {name}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_message_has_is_in_the_list(message in rsip_proto::strategies::message()) {
            let all = all();
            for form in of(&message) {
                prop_assert!(all.contains(&form), "{}", form);
            }
        }
    }
}
