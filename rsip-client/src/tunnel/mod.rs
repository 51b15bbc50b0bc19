//! The tunnel of one leased address.
//!
//! ```text
//! socket ── rule 4554/4555 ── table 4555 ──> device rsip ── egress program ──> private interface ──> gateway
//! socket <──────────────────────────────────── device rsip <── ingress program ── private interface <── gateway
//! ```
//!
//! [`Tunnel`] owns the device and the two programs from the first binding to the end of the agent; address, route and
//! rules follow the leased address. Everything is found again by name or number, so that what a dead agent left behind
//! is removed by [`remove_leftovers`], and nothing that is not ours is touched.

pub mod device;
pub mod direct;
pub mod kernel;
pub mod kind;
pub mod local;
pub mod path;
pub mod routing;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rsip_ebpf_common::host::programs;
use rsip_proto::wire::TunnelType;
use rsip_sys::netlink::{InterfaceAddress, Link, Netlink, NetlinkError, Prefix};
use rsip_sys::tc::{self, Attachment, Direction, EbpfError, Method};

use self::device::{Device, DeviceError};
use self::path::Path;
use self::routing::{Hop, Plan};
use crate::hooks::any::Hooks;

/// What the tunnel takes of each packet: an outer IPv4 header, and with GRE a header of its own.
const fn overhead(kind: TunnelType) -> u32 {
    match kind {
        TunnelType::Gre => 24,
        _ => 20,
    }
}

/// The smallest MTU that IPv4 knows (RFC 791).
const MIN_MTU: u32 = 68;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Address, route or rules.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The programs.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// Somebody else's default route stands where ours must.
    #[error("routing table {} has a default route that is not ours", routing::TABLE)]
    ForeignRoute,
}

/// How the tunnel is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How programs are held at interfaces, where it is not left to the kernel.
    pub forced: Option<Method>,
    /// Largest packet in the tunnel (`--mtu`), where less fits or less is wanted than the private interface takes.
    pub mtu: Option<u32>,
    /// One of the kernel's own devices, and not a tun device with programs.
    pub kernel: bool,
}

/// The tunnel.
#[derive(Debug)]
pub struct Tunnel {
    device: Device,
    options: Options,
    kind: TunnelType,
    /// What a router said fits, outer header included.
    path_mtu: Option<u32>,
    outward: Option<Attachment>,
    inward: Option<Attachment>,
    endpoints: BTreeSet<Ipv4Addr>,
    hop: Hop,
    direct: BTreeSet<Prefix>,
    public: Option<Ipv4Addr>,
}

impl Tunnel {
    /// Makes the device and attaches the programs; no address yet. What a dead agent left at work is taken over, without a
    /// moment in which it is not.
    ///
    /// # Errors
    ///
    /// The kernel refuses; nothing is left then.
    pub async fn create(
        netlink: &Netlink,
        hooks: &mut Hooks,
        path: &Path,
        endpoint: Ipv4Addr,
        kind: TunnelType,
        options: Options,
    ) -> Result<Self, TunnelError> {
        let mtu = inner_mtu(kind, path.interface.mtu, options.mtu);
        let device = if options.kernel {
            let ends = kernel::Ends { local: path.source, remote: endpoint };
            Device::of_kernel(netlink, kind, ends, mtu).await?
        } else {
            Device::create(netlink, mtu, hooks.are_pinned()).await?
        };
        // A dead agent's device has its address still.
        let mut addresses = netlink.addresses().await?.into_iter();
        let left = addresses.find(|address| address.index == device.link.index).map(|found| found.address);
        let outward = hooks.attach_outward(netlink, &device.link, options.forced).await?;
        let inward = match hooks.attach_inward(netlink, &path.interface, options.forced).await {
            Ok(inward) => inward,
            Err(error) => {
                if let Some(outward) = outward {
                    outward.detach(netlink).await?;
                }
                return Err(error.into());
            }
        };
        Ok(Self {
            device,
            options,
            kind,
            path_mtu: None,
            outward,
            inward,
            endpoints: [endpoint].into(),
            hop: hop(path),
            direct: BTreeSet::new(),
            public: left,
        })
    }

    /// The device.
    pub const fn link(&self) -> &Link {
        &self.device.link
    }

    /// How the programs are held; `None`: there are none.
    pub fn method(&self) -> Option<Method> {
        self.inward.as_ref().map(Attachment::method)
    }

    /// The leased address.
    pub const fn public(&self) -> Option<Ipv4Addr> {
        self.public
    }

    /// Gives the tunnel its address, with route and rules; or takes them away. Networks in `direct` are left out of it.
    ///
    /// # Errors
    ///
    /// The kernel refuses. What was done is undone by the next call.
    pub async fn set_public(
        &mut self,
        netlink: &Netlink,
        public: Option<Ipv4Addr>,
        direct: BTreeSet<Prefix>,
    ) -> Result<(), TunnelError> {
        self.direct = direct;
        if let Some(old) = self.public.filter(|old| Some(*old) != public) {
            routing::remove(netlink).await?;
            let outcome = netlink.delete_address(self.address(old)).await;
            outcome.or_else(|e| if e.is_missing() { Ok(()) } else { Err(e) })?;
        }
        self.public = public;
        self.repair(netlink).await
    }

    /// The gateway is reached another way now: over another interface (or the same one, made anew), or one with another
    /// MTU.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the next call tries again.
    pub async fn move_to(
        &mut self,
        netlink: &Netlink,
        hooks: &mut Hooks,
        path: &Path,
    ) -> Result<(), TunnelError> {
        // Another way may be as wide as its first step.
        self.path_mtu = None;
        self.set_mtu(netlink, path.interface.mtu).await?;
        let elsewhere = |inward: &Attachment| inward.interface().index != path.interface.index;
        if self.inward.as_ref().is_some_and(|inward| elsewhere(inward) || !inward.serves()) {
            let inward = hooks.attach_inward(netlink, &path.interface, self.options.forced).await?;
            if let Some(old) = std::mem::replace(&mut self.inward, inward) {
                old.detach(netlink).await?;
            }
        }
        self.hop = hop(path);
        self.repair(netlink).await
    }

    /// A router said that no more than `path_mtu` fits, outer header included; `None`: that is over. `interface_mtu` is what
    /// the private interface takes.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the next call tries again.
    pub async fn narrow(
        &mut self,
        netlink: &Netlink,
        interface_mtu: u32,
        path_mtu: Option<u32>,
    ) -> Result<(), TunnelError> {
        self.path_mtu = path_mtu;
        self.set_mtu(netlink, interface_mtu).await
    }

    /// Whether the program is where it was put: an interface that was made anew, under whatever number, has none.
    pub fn is_attached(&self) -> bool {
        self.inward.as_ref().is_none_or(Attachment::serves)
    }

    /// Whether its device is one of the kernel's own: that one's ends and type are what they were when it was made.
    pub const fn is_kernels(&self) -> bool {
        self.device.is_kernels()
    }

    /// Its type.
    pub const fn kind(&self) -> TunnelType {
        self.kind
    }

    /// Makes it one of another type; nothing is leased at the moment.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the next call tries again.
    pub async fn become_kind(
        &mut self,
        netlink: &Netlink,
        interface_mtu: u32,
        kind: TunnelType,
    ) -> Result<(), TunnelError> {
        self.kind = kind;
        self.set_mtu(netlink, interface_mtu).await
    }

    /// Largest packet that is sent to the gateway, outer header included.
    pub const fn outer_mtu(&self) -> u32 {
        self.device.link.mtu.saturating_add(overhead(self.kind))
    }

    async fn set_mtu(&mut self, netlink: &Netlink, interface_mtu: u32) -> Result<(), TunnelError> {
        let outer = self.path_mtu.map_or(interface_mtu, |path| path.min(interface_mtu));
        netlink.set_up(self.device.link.index, Some(inner_mtu(self.kind, outer, self.options.mtu))).await?;
        self.device.link = netlink.link_by_index(self.device.link.index).await?;
        Ok(())
    }

    /// Puts back what somebody else removed.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn repair(&self, netlink: &Netlink) -> Result<(), TunnelError> {
        let Some(public) = self.public else { return Ok(()) };
        let address = self.address(public);
        if !netlink.addresses().await?.contains(&address) {
            let outcome = netlink.add_address(address).await;
            outcome.or_else(|e| if e.is_exists() { Ok(()) } else { Err(e) })?;
        }
        let plan = Plan {
            device: self.device.link.index,
            endpoints: self.endpoints.clone(),
            public,
            direct: self.direct.clone(),
            hop: self.hop,
        };
        routing::apply(netlink, &plan).await?;
        // The kernel takes one default route of a kind; another one that was there first stays.
        if routing::leads_elsewhere(netlink, plan.device).await? {
            return Err(TunnelError::ForeignRoute);
        }
        Ok(())
    }

    /// Removes everything. Goes on after an error.
    ///
    /// # Errors
    ///
    /// The first that the kernel gave.
    pub async fn destroy(self, netlink: &Netlink) -> Result<(), TunnelError> {
        let mut outcome = routing::remove(netlink).await.map_err(TunnelError::from);
        for program in [self.inward, self.outward].into_iter().flatten() {
            outcome = outcome.and(program.detach(netlink).await.map_err(TunnelError::from));
        }
        let removed = self.device.remove(netlink).await;
        outcome.and(removed.map_err(TunnelError::from))
    }

    const fn address(&self, public: Ipv4Addr) -> InterfaceAddress {
        InterfaceAddress { index: self.device.link.index, address: public, prefix_length: 32 }
    }
}

const fn hop(path: &Path) -> Hop {
    Hop { interface: path.interface.index, router: path.next_hop, source: path.source }
}

/// What an inner packet may have: what fits into an outer one, or less where less is `wanted`.
fn inner_mtu(kind: TunnelType, outer: u32, wanted: Option<u32>) -> u32 {
    let fits = outer.saturating_sub(overhead(kind)).max(MIN_MTU);
    wanted.map_or(fits, |wanted| wanted.min(fits))
}

/// Removes what a dead agent may have left: its rules, its device and, on the private interface, the filter of a kernel
/// without tcx links.
///
/// # Errors
///
/// The kernel refuses.
pub async fn remove_leftovers(netlink: &Netlink, private: Option<&str>) -> Result<(), TunnelError> {
    routing::remove(netlink).await?;
    device::remove_leftover(netlink).await?;
    let Some(name) = private else { return Ok(()) };
    match netlink.link(name).await {
        Ok(link) => {
            Ok(tc::remove_leftovers(netlink, &link, &[(programs::TUNNEL_IN, Direction::Ingress)]).await?)
        }
        Err(NetlinkError::NoSuchInterface(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
