//! What a gateway says of itself (RFC 3105 section 7), and whether this host can use it.

use std::fmt;
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::wire::TunnelType;
use rsip_slp::template::{self, Load};
use rsip_slp::text::{AttributeList, ServiceUrl, Value};
use rsip_slp::user::Service;

/// A gateway as it is advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where it is.
    pub url: ServiceUrl,
    /// How long the advertisement holds.
    pub lifetime: Duration,
    /// Its tunnel types, as advertised; where it says nothing: IP-IP, the template's default.
    pub tunnels: Vec<String>,
    /// What carries RSIP, as advertised; where it says nothing: TCP, the template's default.
    pub transports: Vec<String>,
    /// 0 (idle) to 100 (full); `None`: it does not say.
    pub load: Option<u8>,
    /// RFC 3104: IPsec through it.
    pub ipsec: bool,
    /// RFC 3104: IKE through it.
    pub ike: bool,
}

impl Offer {
    /// Reads the attributes of a gateway. What the template does not know is passed over.
    pub fn new(mut url: ServiceUrl, lifetime: Duration, attributes: &AttributeList) -> Self {
        let texts = |tag: &str, default: &str| {
            let mut values: Vec<String> = attributes
                .get(tag)
                .into_iter()
                .flat_map(|attribute| attribute.values())
                .filter_map(|value| match value {
                    // It is printed: nothing that a terminal would take for an order.
                    Value::String(text) if !text.chars().any(char::is_control) => {
                        Some(text.to_ascii_uppercase())
                    }
                    _ => None,
                })
                .collect();
            if values.is_empty() {
                values.push(default.to_owned());
            }
            values
        };
        let flag = |tag: &str| {
            let first = attributes.get(tag).and_then(|attribute| attribute.values().first());
            matches!(first, Some(Value::Boolean(true)))
        };
        // RSIP's URLs have none, and this one would be printed.
        url.path.clear();
        Self {
            tunnels: texts(template::TUNNEL_TYPE, "IP-IP"),
            transports: texts(template::TRANSPORT, "TCP"),
            load: Load::of(attributes).map(Load::percent),
            ipsec: flag(template::IPSEC_SUPPORT),
            ike: flag(template::IKE_SUPPORT),
            url,
            lifetime,
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.url.port.unwrap_or(template::DEFAULT_PORT)
    }

    /// Whether this host can use it: one of these tunnels, and RSIP over the wanted transport.
    pub fn serves(&self, transport: HostTransport, tunnels: &[TunnelType]) -> bool {
        let has = |all: &[String], one: &str| all.iter().any(|held| held == one);
        tunnels.iter().any(|tunnel| has(&self.tunnels, &tunnel.to_string()))
            && has(&self.transports, transport_value(transport))
    }
}

impl From<Service> for Offer {
    fn from(service: Service) -> Self {
        Self::new(service.url, service.lifetime, &service.attributes.unwrap_or_default())
    }
}

/// Tunnel types, transports, load, lifetime.
impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tunnel {}  transport {}", self.tunnels.join(","), self.transports.join(","))?;
        match self.load {
            Some(load) => write!(f, "  load {load}")?,
            None => f.write_str("  load unknown")?,
        }
        write!(f, "  lifetime {} s", self.lifetime.as_secs())
    }
}

/// How the template calls a transport.
const fn transport_value(transport: HostTransport) -> &'static str {
    match transport {
        HostTransport::Tcp => "TCP",
        HostTransport::Udp => "UDP",
    }
}

/// The question for gateways that [`Offer::serves`] this host. An attribute that is left out has its default, which a
/// plain comparison would not see (RFC 2608 section 8.1: only what is registered is compared).
pub fn predicate(transport: HostTransport, tunnels: &[TunnelType]) -> String {
    let transport = match transport {
        HostTransport::Tcp => "(|(transport=TCP)(!(transport=*)))",
        HostTransport::Udp => "(transport=UDP)",
    };
    let mut types: String = tunnels.iter().map(|tunnel| format!("(tunnel-type={tunnel})")).collect();
    if tunnels.contains(&TunnelType::IpIp) {
        types.push_str("(!(tunnel-type=*))");
    }
    format!("(&(|{types}){transport})")
}

#[cfg(test)]
mod tests {
    use rsip_slp::text::Predicate;

    use super::*;

    fn offer(url: &str, attributes: &str) -> Offer {
        let attributes = AttributeList::parse(attributes).expect("attributes");
        Offer::new(ServiceUrl::parse(url).expect("a URL"), Duration::from_secs(300), &attributes)
    }

    const BOTH: [TunnelType; 2] = [TunnelType::IpIp, TunnelType::Gre];
    const FULL: &str =
        "(ipsec-support=false),(ike-support=TRUE),(tunnel-type=ip-ip,GRE),(transport=TCP,UDP),(load=12)";

    #[test]
    fn reads_the_template() {
        let offer = offer("service:rsip://10.0.0.1:4555", FULL);
        assert_eq!((offer.load, offer.ipsec, offer.ike, offer.port()), (Some(12), false, true, 4555));
        assert_eq!(offer.to_string(), "tunnel IP-IP,GRE  transport TCP,UDP  load 12  lifetime 300 s");
    }

    #[test]
    fn what_is_left_out_has_its_default_and_what_cannot_be_is_passed_over() {
        for attributes in
            ["", "tunnel-type,(load=101),(transport=7)", "(load=x),(ipsec-support=maybe)", "(load=-1)"]
        {
            let offer = offer("service:rsip://gw/a\u{1b}b", attributes);
            assert_eq!((offer.load, offer.ipsec, offer.port()), (None, false, 4555), "{attributes}");
            assert_eq!(offer.url.to_string(), "service:rsip://gw");
            assert!(
                offer.serves(HostTransport::Tcp, &[TunnelType::IpIp])
                    && !offer.serves(HostTransport::Udp, &BOTH),
                "{attributes}"
            );
        }
    }

    #[test]
    fn the_question_finds_exactly_the_gateways_that_serve() {
        let transports = [HostTransport::Tcp, HostTransport::Udp];
        let tunnels = [&BOTH[..], &BOTH[..1], &BOTH[1..]];
        for (transport, tunnels) in transports.iter().flat_map(|&one| tunnels.map(|other| (one, other))) {
            let predicate = Predicate::parse(&predicate(transport, tunnels)).expect("a predicate");
            for attributes in [
                "",
                FULL,
                "(tunnel-type=GRE)",
                "(tunnel-type=IP-IP),(transport=TCP)",
                "(transport=UDP)",
                "(tunnel-type=L2TP,IP-IP),(transport=UDP,TCP)",
            ] {
                let found = AttributeList::parse(attributes).expect("attributes");
                assert_eq!(
                    predicate.is_satisfied_by(&found),
                    offer("service:rsip://gw", attributes).serves(transport, tunnels),
                    "{transport:?} {tunnels:?} {attributes}"
                );
            }
        }
    }
}
