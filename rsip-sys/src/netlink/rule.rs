//! Rules: which routing table decides for which packets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use futures_util::TryStreamExt;
use rtnetlink::IpVersion;
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::{Netlink, NetlinkError};

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Its address.
    pub address: Ipv4Addr,
    /// How many of the leading bits count, at most 32.
    pub length: u8,
}

impl Prefix {
    /// One address.
    #[must_use]
    pub const fn host(address: Ipv4Addr) -> Self {
        Self { address, length: 32 }
    }

    /// The default route's destination.
    pub const ALL: Self = Self { address: Ipv4Addr::UNSPECIFIED, length: 0 };

    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (u32::from(self.address) ^ u32::from(address)) & self.mask() == 0
    }

    /// The same network, the bits that do not count cleared.
    #[must_use]
    pub fn network(self) -> Self {
        Self { address: Ipv4Addr::from(u32::from(self.address) & self.mask()), length: self.length }
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.length.min(32))).unwrap_or(0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address = address.parse().map_err(|_| format!("{address:?} is not an IPv4 address"))?;
        let length = length
            .parse()
            .ok()
            .filter(|length| *length <= 32)
            .ok_or_else(|| format!("{length:?} is not the length of an IPv4 prefix (0 to 32)"))?;
        let prefix = Self { address, length };
        if prefix.network() != prefix {
            return Err(format!("{text} has bits set behind its prefix; meant is {}", prefix.network()));
        }
        Ok(prefix)
    }
}

/// An IPv4 rule that leads to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Rules are tried in this order, lowest first.
    pub priority: u32,
    /// Packets from here; `None`: any. `0.0.0.0/32` matches what has no source address yet.
    pub source: Option<Prefix>,
    /// Packets to here; `None`: any.
    pub destination: Option<Prefix>,
    /// The table to look up.
    pub table: u32,
    /// Do not take a route of the table whose prefix is this short or shorter.
    pub suppress_prefix_length: Option<u32>,
    /// Who made it (rt_protos).
    pub protocol: u8,
}

impl Netlink {
    /// IPv4 rules that lead to tables.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub async fn rules(&self) -> Result<Vec<Rule>, NetlinkError> {
        let messages: Vec<RuleMessage> = self
            .handle
            .rule()
            .get(IpVersion::V4)
            .execute()
            .try_collect()
            .await
            .map_err(|e| NetlinkError::new("list rules".into(), e))?;
        Ok(messages.iter().filter(|m| m.header.action == RuleAction::ToTable).map(Rule::new).collect())
    }

    /// Adds a rule.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_exists`] where it is there already.
    pub async fn add_rule(&self, rule: Rule) -> Result<(), NetlinkError> {
        let mut request = self.handle.rule().add().v4();
        *request.message_mut() = rule.message();
        request.execute().await.map_err(|e| NetlinkError::new(format!("add rule {}", rule.priority), e))
    }

    /// Removes a rule; only one that is the same in all parts.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_missing`] where it is gone already.
    pub async fn delete_rule(&self, rule: Rule) -> Result<(), NetlinkError> {
        self.handle
            .rule()
            .del(rule.message())
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("remove rule {}", rule.priority), e))
    }
}

impl Rule {
    fn new(message: &RuleMessage) -> Self {
        let header = &message.header;
        let mut rule = Self {
            priority: 0,
            source: None,
            destination: None,
            table: header.table.into(),
            suppress_prefix_length: None,
            protocol: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(value) => rule.priority = *value,
                RuleAttribute::Source(IpAddr::V4(address)) => {
                    rule.source = Some(Prefix { address: *address, length: header.src_len });
                }
                RuleAttribute::Destination(IpAddr::V4(address)) => {
                    rule.destination = Some(Prefix { address: *address, length: header.dst_len });
                }
                RuleAttribute::Table(table) => rule.table = *table,
                // The kernel tells "nothing is suppressed" as -1.
                RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => {
                    rule.suppress_prefix_length = Some(*length);
                }
                RuleAttribute::Protocol(protocol) => rule.protocol = (*protocol).into(),
                _ => {}
            }
        }
        rule
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = rtnetlink::packet_route::AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Table(self.table));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        if let Some(source) = self.source {
            message.header.src_len = source.length;
            attributes.push(RuleAttribute::Source(IpAddr::V4(source.address)));
        }
        if let Some(destination) = self.destination {
            message.header.dst_len = destination.length;
            attributes.push(RuleAttribute::Destination(IpAddr::V4(destination.address)));
        }
        if let Some(length) = self.suppress_prefix_length {
            attributes.push(RuleAttribute::SuppressPrefixLen(length));
        }
        message
    }
}
