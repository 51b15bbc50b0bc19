//! Interfaces and their addresses.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec};

use super::{Netlink, NetlinkError};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet, in bytes, without the link layer's header.
    pub mtu: u32,
    /// Link-layer address; `None` where it has none (tun).
    pub mac: Option<[u8; 6]>,
    /// The administrator wants it up (IFF_UP).
    pub up: bool,
    /// It can carry packets (IFF_LOWER_UP).
    pub carrier: bool,
    /// It is the loopback interface.
    pub loopback: bool,
}

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface.
    pub index: u32,
    /// The address itself.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_length: u8,
}

impl Netlink {
    /// Looks an interface up by name.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], or the kernel does not tell.
    pub async fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        // The kernel answers longer names with EINVAL or ERANGE, which would tell nobody anything.
        if name.is_empty() || name.len() >= libc::IF_NAMESIZE {
            return Err(NetlinkError::NoSuchInterface(name.to_owned()));
        }
        let mut links = Box::pin(self.handle.link().get().match_name(name).execute());
        self.one(name, links.next().await)
    }

    /// Looks an interface up by number.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoSuchInterface`], or the kernel does not tell.
    pub async fn link_by_index(&self, index: u32) -> Result<Link, NetlinkError> {
        let mut links = Box::pin(self.handle.link().get().match_index(index).execute());
        self.one(&format!("number {index}"), links.next().await)
    }

    fn one(
        &self,
        what: &str,
        answer: Option<Result<LinkMessage, rtnetlink::Error>>,
    ) -> Result<Link, NetlinkError> {
        match answer {
            Some(Ok(message)) => Ok(Link::new(&message)),
            None => Err(NetlinkError::NoSuchInterface(what.to_owned())),
            Some(Err(error)) => match NetlinkError::new(format!("look up interface {what}"), error) {
                error if error.errno() == Some(libc::ENODEV) => {
                    Err(NetlinkError::NoSuchInterface(what.to_owned()))
                }
                error => Err(error),
            },
        }
    }

    /// All interfaces.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| NetlinkError::new("list interfaces".into(), e))?;
        Ok(messages.iter().map(Link::new).collect())
    }

    /// Brings an interface up, with this MTU where one is given.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn set_up(&self, index: u32, mtu: Option<u32>) -> Result<(), NetlinkError> {
        let builder: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_index(index).up();
        let message = match mtu {
            Some(mtu) => builder.mtu(mtu).build(),
            None => builder.build(),
        };
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("bring interface number {index} up"), e))
    }

    /// Removes an interface.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_missing`] where it is gone already.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        self.handle
            .link()
            .del(index)
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("remove interface number {index}"), e))
    }

    /// IPv4 addresses of all interfaces, in the kernel's order (the first of an interface is its primary one).
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub async fn addresses(&self) -> Result<Vec<InterfaceAddress>, NetlinkError> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| NetlinkError::new("list addresses".into(), e))?;
        Ok(messages.iter().filter_map(InterfaceAddress::new).collect())
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_exists`] where it has it already.
    pub async fn add_address(&self, address: InterfaceAddress) -> Result<(), NetlinkError> {
        self.handle
            .address()
            .add(address.index, IpAddr::V4(address.address), address.prefix_length)
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("add address {}", address.address), e))
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    ///
    /// The kernel refuses; [`NetlinkError::is_missing`] where it is gone already.
    pub async fn delete_address(&self, address: InterfaceAddress) -> Result<(), NetlinkError> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(address.index)
            .address(address.address, address.prefix_length)
            .build();
        self.handle
            .address()
            .del(message)
            .execute()
            .await
            .map_err(|e| NetlinkError::new(format!("remove address {}", address.address), e))
    }
}

impl Link {
    fn new(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            mac: None,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
                _ => {}
            }
        }
        link
    }
}

impl InterfaceAddress {
    fn new(message: &AddressMessage) -> Option<Self> {
        if message.header.family != AddressFamily::Inet {
            return None;
        }
        let mut local = None;
        let mut address = None;
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link ADDRESS is the peer's, LOCAL our own; elsewhere they are the same.
                AddressAttribute::Local(IpAddr::V4(value)) => local = Some(*value),
                AddressAttribute::Address(IpAddr::V4(value)) => address = Some(*value),
                _ => {}
            }
        }
        Some(Self {
            index: message.header.index,
            address: local.or(address)?,
            prefix_length: message.header.prefix_len,
        })
    }
}
