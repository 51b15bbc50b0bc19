//! The service template of RSIP (RFC 3105 section 7): names and values that gateways register and hosts ask for.

use std::net::Ipv4Addr;

use crate::text::{Attribute, AttributeError, AttributeList, ServiceUrl, Value};

/// The service type of RSIP gateways.
pub const SERVICE_TYPE: &str = "service:rsip";
/// The language of the template.
pub const LANGUAGE: &str = "en";
/// Port of a gateway whose URL names none. (The template's example says 4455, which is a slip.)
pub const DEFAULT_PORT: u16 = 4555;
/// Tag: whether IPsec (RFC 3104) is supported.
pub const IPSEC_SUPPORT: &str = "ipsec-support";
/// Tag: whether IKE (RFC 3104) is supported.
pub const IKE_SUPPORT: &str = "ike-support";
/// Tag: tunnels on offer: `IP-IP`, `L2TP`, `GRE`, `NONE`.
pub const TUNNEL_TYPE: &str = "tunnel-type";
/// Tag: transports of RSIP itself: `TCP`, `UDP`.
pub const TRANSPORT: &str = "transport";
/// Tag: 0, the lowest, to 100.
pub const LOAD: &str = "load";
/// What a host asks for: a gateway with a tunnel that it can use.
pub const PREDICATE: &str = "(tunnel-type=IP-IP)";

/// The URL of a gateway.
#[must_use]
pub fn url(address: Ipv4Addr, port: u16) -> ServiceUrl {
    ServiceUrl::new(SERVICE_TYPE, address, Some(port))
}

/// The attributes of a gateway. All that have a value are registered, since a predicate sees what is registered and
/// never a default.
///
/// # Errors
/// When there is no tunnel type, or one that cannot stand in an attribute list.
pub fn attributes<'a>(
    tunnel_types: impl IntoIterator<Item = &'a str>,
    load: Load,
) -> Result<AttributeList, AttributeError> {
    let strings = |tag: &str, values: Vec<&str>| {
        let value = |text: &str| Value::from_text(text).ok_or_else(|| AttributeError::Syntax(tag.to_owned()));
        Attribute::new(tag, values.into_iter().map(value).collect::<Result<_, _>>()?)
    };
    let mut list = AttributeList::default();
    list.set(Attribute::new(IPSEC_SUPPORT, vec![Value::Boolean(false)])?);
    list.set(Attribute::new(IKE_SUPPORT, vec![Value::Boolean(false)])?);
    let tunnels: Vec<&str> = tunnel_types.into_iter().collect();
    if tunnels.is_empty() {
        return Err(AttributeError::Syntax(TUNNEL_TYPE.to_owned()));
    }
    list.set(strings(TUNNEL_TYPE, tunnels)?);
    list.set(strings(TRANSPORT, vec!["TCP", "UDP"])?);
    list.set(load.attribute()?);
    Ok(list)
}

/// How busy a gateway is: 0, the lowest, to 100. More is 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Load(u8);

impl Load {
    /// A load; more than 100 is 100.
    #[must_use]
    pub fn new(percent: u8) -> Self {
        Self(percent.min(100))
    }

    /// The share of `used` in `all`, rounded up so that only an idle gateway has none.
    #[must_use]
    pub fn share(used: u64, all: u64) -> Self {
        let percent = used.saturating_mul(100).div_ceil(all.max(1)).min(100);
        Self::new(u8::try_from(percent).unwrap_or(100))
    }

    /// The load that stands in an attribute list; nothing when none does, or one that is no percentage.
    #[must_use]
    pub fn of(attributes: &AttributeList) -> Option<Self> {
        let percent = u8::try_from(attributes.integer(LOAD)?).ok()?;
        (percent <= 100).then_some(Self(percent))
    }

    /// The number.
    #[must_use]
    pub fn percent(self) -> u8 {
        self.0
    }

    /// As an attribute.
    ///
    /// # Errors
    /// Never: the signature is that of all attributes.
    pub fn attribute(self) -> Result<Attribute, AttributeError> {
        Attribute::new(LOAD, vec![Value::Integer(self.0.into())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Predicate;

    #[test]
    fn a_gateway_registers_every_attribute_of_the_template() {
        let attributes = attributes(["IP-IP", "GRE"], Load::new(12)).expect("attributes");
        assert_eq!(
            attributes.to_string(),
            "(ipsec-support=false),(ike-support=false),(tunnel-type=IP-IP,GRE),(transport=TCP,UDP),(load=12)"
        );
        assert_eq!(Load::of(&attributes), Some(Load(12)));
        assert!(Predicate::parse(PREDICATE).expect("a predicate").is_satisfied_by(&attributes));
        assert_eq!(url(Ipv4Addr::new(10, 0, 0, 1), 4555).to_string(), "service:rsip://10.0.0.1:4555");
    }

    #[test]
    fn a_load_is_a_percentage() {
        assert_eq!(Load::share(0, 256).percent(), 0);
        assert_eq!(Load::share(1, 256).percent(), 1);
        assert_eq!(Load::share(128, 256).percent(), 50);
        assert_eq!(Load::share(300, 256).percent(), 100);
        assert_eq!(Load::share(0, 0).percent(), 0);
        assert_eq!(Load::share(u64::MAX, 1).percent(), 100);
        let read = |text: &str| Load::of(&AttributeList::parse(text).expect("a list")).map(Load::percent);
        assert_eq!(read("(load=0)"), Some(0));
        assert_eq!(read("(LOAD=100)"), Some(100));
        for odd in ["(load=101)", "(load=-1)", "(load=low)", "load", "(load=1,2)", "(x=1)"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
