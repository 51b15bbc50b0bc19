//! Routes.

use std::net::Ipv4Addr;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::{Netlink, NetlinkError, Prefix};

/// The table that `ip route` shows.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// It is for this machine.
    Local,
    /// Anything else (broadcast, blackhole, unreachable, …).
    Other(u8),
}

/// A route. Multipath routes show without interface and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it does.
    pub kind: RouteKind,
    /// Where to; `0.0.0.0/0` is the default route.
    pub destination: Prefix,
    /// Next hop; `None`: on the link itself.
    pub gateway: Option<Ipv4Addr>,
    /// Number of the interface.
    pub interface: Option<u32>,
    /// Source address that it prefers.
    pub source: Option<Ipv4Addr>,
    /// The table that it is in.
    pub table: u32,
    /// Who made it (rt_protos).
    pub protocol: u8,
}

impl Netlink {
    /// IPv4 routes of one table.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub async fn routes(&self, table: u32) -> Result<Vec<Route>, NetlinkError> {
        let messages: Vec<RouteMessage> = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build())
            .execute()
            .try_collect()
            .await
            .map_err(|e| NetlinkError::new("list routes".into(), e))?;
        Ok(messages.iter().filter_map(Route::new).filter(|route| route.table == table).collect())
    }

    /// The route that a packet from here to `destination` takes now, with the source address that it would get.
    ///
    /// # Errors
    ///
    /// The kernel has none (`ENETUNREACH`), or does not tell.
    pub async fn route_to(&self, destination: Ipv4Addr) -> Result<Route, NetlinkError> {
        let action = || format!("find a route to {destination}");
        let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32).build();
        let mut answers = Box::pin(self.handle.route().get(message).execute());
        let missing = || NetlinkError::Refused {
            action: action(),
            source: std::io::Error::from_raw_os_error(libc::ENETUNREACH),
        };
        let answer = answers.next().await.ok_or_else(missing)?;
        Route::new(&answer.map_err(|e| NetlinkError::new(action(), e))?).ok_or_else(missing)
    }

    /// Adds a unicast route.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_exists`] where it is there already.
    pub async fn add_route(&self, route: Route) -> Result<(), NetlinkError> {
        self.handle
            .route()
            .add(route.message())
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("add a route to {}", route.destination), e))
    }

    /// Removes a unicast route.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_missing`] where it is gone already.
    pub async fn delete_route(&self, route: Route) -> Result<(), NetlinkError> {
        self.handle
            .route()
            .del(route.message())
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("remove the route to {}", route.destination), e))
    }
}

impl Route {
    fn new(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.address_family != AddressFamily::Inet {
            return None;
        }
        let kind = match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            other => RouteKind::Other(other.into()),
        };
        let mut route = Self {
            kind,
            destination: Prefix { address: Ipv4Addr::UNSPECIFIED, length: header.destination_prefix_length },
            gateway: None,
            interface: None,
            source: None,
            table: header.table.into(),
            protocol: header.protocol.into(),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                    route.destination.address = *address
                }
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => route.source = Some(*address),
                RouteAttribute::Oif(index) => route.interface = Some(*index),
                RouteAttribute::Table(table) => route.table = *table,
                _ => {}
            }
        }
        Some(route)
    }

    fn message(&self) -> RouteMessage {
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.destination.address, self.destination.length)
            .table_id(self.table)
            .protocol(RouteProtocol::from(self.protocol));
        if let Some(gateway) = self.gateway {
            builder = builder.gateway(gateway);
        } else {
            builder = builder.scope(RouteScope::Link);
        }
        if let Some(index) = self.interface {
            builder = builder.output_interface(index);
        }
        if let Some(source) = self.source {
            builder = builder.pref_source(source);
        }
        builder.build()
    }
}
