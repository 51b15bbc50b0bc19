//! How the gateway is reached: over which interface, from which private address.

use std::net::Ipv4Addr;

use rsip_sys::netlink::{Link, Netlink, NetlinkError, RouteKind};

use super::device;

/// The way to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The private interface.
    pub interface: Link,
    /// The host's private address: the tunnel's near end.
    pub source: Ipv4Addr,
    /// Who takes packets that are to go the way of the gateway: the gateway itself, or the first router towards it.
    pub next_hop: Ipv4Addr,
}

/// Why there is no way to the gateway.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// No such interface, or the kernel does not tell.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The routing table has nothing for it.
    #[error("no route to gateway {0}")]
    NoRoute(Ipv4Addr),
    /// It is this very host.
    #[error("gateway address {0} is this host's own")]
    OwnAddress(Ipv4Addr),
    /// The route is none that packets can take.
    #[error("the route to gateway {0} leads nowhere")]
    DeadEnd(Ipv4Addr),
    /// The route goes over another interface than the named one.
    #[error("gateway {gateway} is reached over {found}, not over {wanted}")]
    OtherInterface {
        /// The gateway.
        gateway: Ipv4Addr,
        /// What the routing table says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// The interface is down.
    #[error("interface {0} is down")]
    Down(String),
}

/// Finds the way to the gateway, over `interface` where one is named.
///
/// # Errors
///
/// There is none.
pub async fn find(netlink: &Netlink, gateway: Ipv4Addr, interface: Option<&str>) -> Result<Path, PathError> {
    let named = match interface {
        Some(name) => Some(netlink.link(name).await?),
        None => None,
    };
    if let Some(named) = named.as_ref().filter(|named| !named.up) {
        return Err(PathError::Down(named.name.clone()));
    }
    let route = match netlink.route_to(gateway).await {
        Ok(route) => route,
        Err(error)
            if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES)) =>
        {
            return Err(PathError::NoRoute(gateway));
        }
        Err(error) => return Err(error.into()),
    };
    match route.kind {
        RouteKind::Unicast => {}
        RouteKind::Local => return Err(PathError::OwnAddress(gateway)),
        RouteKind::Other(_) => return Err(PathError::DeadEnd(gateway)),
    }
    let (Some(index), Some(source)) = (route.interface, route.source) else {
        return Err(PathError::DeadEnd(gateway));
    };
    let found = netlink.link_by_index(index).await?;
    if found.name == device::NAME {
        // Nothing of the main table leads there any more, and our own rules for the rest do.
        return Err(PathError::NoRoute(gateway));
    }
    match named {
        Some(named) if named.index != found.index => {
            Err(PathError::OtherInterface { gateway, found: found.name, wanted: named.name })
        }
        _ => Ok(Path { interface: found, source, next_hop: route.gateway.unwrap_or(gateway) }),
    }
}
