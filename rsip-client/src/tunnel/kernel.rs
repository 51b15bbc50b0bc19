//! The kernel's own tunnel devices, `ipip` and `gre`, where it has them. They need no program to carry packets, and know
//! path MTUs by themselves. Unlike a tun device they outlive the agent: what a dead one left is removed by the next start.

use std::io;
use std::net::Ipv4Addr;

use rsip_proto::wire::TunnelType;
use rsip_sys::netlink::{Link, Netlink, NetlinkError};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{LinkGre, LinkIpIp, LinkUnspec};

use super::device::{self, ALIAS, DeviceError, NAME, is_ours, message};

/// For finding out whether the kernel has a type; there for a moment.
const PROBE: &str = "rsip-probe";
/// Time to live of the outer header, as the programs have it.
const TTL: u8 = 64;

/// Both ends of the tunnel.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The host's private address.
    pub local: Ipv4Addr,
    /// The gateway's.
    pub remote: Ipv4Addr,
}

/// Whether the kernel has devices of this type: one is made and removed.
///
/// # Errors
///
/// The kernel refuses for another reason than that it has none.
pub async fn has(netlink: &Netlink, kind: TunnelType) -> Result<bool, DeviceError> {
    // Addresses for documentation (RFC 5737): a tunnel of the administrator's own with the same ends would be in the way.
    let ends = Ends { local: Ipv4Addr::new(192, 0, 2, 1), remote: Ipv4Addr::new(192, 0, 2, 2) };
    match add(netlink, PROBE, kind, ends).await {
        Ok(()) => {
            netlink.delete_link(netlink.link(PROBE).await?.index).await?;
            Ok(true)
        }
        Err(DeviceError::Unsupported(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the device; it is down.
///
/// # Errors
///
/// The name is taken, or the kernel has none of this type.
pub(super) async fn create(netlink: &Netlink, kind: TunnelType, ends: Ends) -> Result<Link, DeviceError> {
    // Of whichever type it is; what stays is not ours, and the kernel says so.
    device::remove_leftover(netlink).await?;
    if device::owner(netlink).await? == Some(false) {
        return Err(DeviceError::Foreign);
    }
    add(netlink, NAME, kind, ends).await?;
    let link = netlink.link(NAME).await?;
    let alias = LinkUnspec::new_with_index(link.index).alias(ALIAS).build();
    netlink.handle().link().set(alias).execute().await.map_err(failed)?;
    Ok(link)
}

async fn add(netlink: &Netlink, name: &str, kind: TunnelType, ends: Ends) -> Result<(), DeviceError> {
    let message = match kind {
        TunnelType::IpIp => {
            LinkIpIp::new(name).local(ends.local).remote(ends.remote).ttl(TTL).pmtudisc(true).build()
        }
        TunnelType::Gre => {
            LinkGre::new(name).local(ends.local).remote(ends.remote).ttl(TTL).pmtudisc(true).build()
        }
        TunnelType::L2tp | TunnelType::Other(_) => return Err(DeviceError::Unsupported(kind)),
    };
    match netlink.handle().link().add(message).execute().await {
        Ok(()) => Ok(()),
        Err(rtnetlink::Error::NetlinkError(error))
            if matches!(
                error.raw_code().checked_neg(),
                Some(libc::EOPNOTSUPP | libc::ENOENT | libc::ENODEV)
            ) =>
        {
            Err(DeviceError::Unsupported(kind))
        }
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: rtnetlink::Error) -> DeviceError {
    DeviceError::Create(io::Error::other(error))
}

/// Removes what a dead agent left.
///
/// # Errors
///
/// The kernel refuses.
pub async fn remove_leftover(netlink: &Netlink) -> Result<(), DeviceError> {
    let link = match netlink.link(NAME).await {
        Ok(link) => link,
        Err(NetlinkError::NoSuchInterface(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let kernels_own = message(netlink, &link).await?.is_some_and(|message| is_tunnel(&message));
    if kernels_own && is_ours(netlink, &link).await? {
        netlink.delete_link(link.index).await?;
    }
    Ok(())
}

fn is_tunnel(message: &LinkMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::IpIp | InfoKind::GreTun)))
        }
        _ => false,
    })
}
