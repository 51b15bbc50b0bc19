//! The tun device `rsip`: the interface that the leased address lives on. Nobody reads it: the program on its way out
//! encapsulates and redirects. It exists as long as its descriptor is open, so a dead agent leaves none.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use rsip_proto::wire::TunnelType;
use rsip_sys::netlink::{Link, Netlink, NetlinkError};
use rsip_sys::sysctl;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use super::kernel;

/// Its name.
pub const NAME: &str = "rsip";
/// Its alias, by which we know it for ours.
pub(super) const ALIAS: &str = "rsip-client tunnel";
/// How long a predecessor that was just killed may take to vanish.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No /dev/net/tun, or not allowed.
    #[error("cannot open /dev/net/tun: {0}")]
    Open(io::Error),
    /// Somebody else's interface has the name.
    #[error("interface {NAME} exists already and is not ours")]
    Foreign,
    /// The kernel does not make it.
    #[error("cannot make tun device {NAME}: {0}")]
    Create(io::Error),
    /// The kernel has no devices of this type.
    #[error("this kernel has no {0} devices")]
    Unsupported(TunnelType),
    /// It cannot be set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The device. Dropping it removes it, unless it is one of the kernel's own.
#[derive(Debug)]
pub struct Device {
    /// What keeps a tun device alive; `None`: one of the kernel's own.
    descriptor: Option<File>,
    /// As it was made.
    pub link: Link,
}

impl Device {
    /// Makes one of the kernel's own, and brings it up with this MTU.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel has none of this type.
    pub async fn of_kernel(
        netlink: &Netlink,
        kind: TunnelType,
        ends: kernel::Ends,
        mtu: u32,
    ) -> Result<Self, DeviceError> {
        let link = kernel::create(netlink, kind, ends).await?;
        without_ipv6();
        netlink.set_up(link.index, Some(mtu)).await?;
        Ok(Self { descriptor: None, link: netlink.link(NAME).await? })
    }

    /// Whether it is one of the kernel's own.
    pub const fn is_kernels(&self) -> bool {
        self.descriptor.is_none()
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn remove(self, netlink: &Netlink) -> Result<(), DeviceError> {
        if self.is_kernels() {
            let outcome = netlink.delete_link(self.link.index).await;
            return outcome.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error.into()) });
        }
        Ok(())
    }

    /// Makes the device, and brings it up with this MTU.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel refuses.
    pub async fn create(netlink: &Netlink, mtu: u32) -> Result<Self, DeviceError> {
        wait_for_predecessor(netlink).await?;
        let descriptor =
            OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(DeviceError::Open)?;
        set_name(&descriptor)?;
        leave_checksums(&descriptor)?;
        let link = netlink.link(NAME).await?;
        let alias = LinkUnspec::new_with_index(link.index).alias(ALIAS).build();
        netlink
            .handle()
            .link()
            .set(alias)
            .execute()
            .await
            .map_err(|error| DeviceError::Create(io::Error::other(error)))?;
        without_ipv6();
        netlink.set_up(link.index, Some(mtu)).await?;
        Ok(Self { descriptor: Some(descriptor), link: netlink.link(NAME).await? })
    }
}

/// IPv6 would say hello on it, to nobody. Not there at all is as good.
fn without_ipv6() {
    if let Err(error) = sysctl::write(&format!("net.ipv6.conf.{NAME}.disable_ipv6"), "1") {
        tracing::debug!(%error, "IPv6 stays on the tunnel device");
    }
}

/// The descriptors of a killed process close one by one: its lock may be free a moment before its device is gone.
pub(super) async fn wait_for_predecessor(netlink: &Netlink) -> Result<(), DeviceError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match netlink.link(NAME).await {
            Err(NetlinkError::NoSuchInterface(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(link) if !is_ours(netlink, &link).await? => return Err(DeviceError::Foreign),
            Ok(_) if tokio::time::Instant::now() >= deadline => return Err(DeviceError::Foreign),
            Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Whose interface has the name: `None`: nobody's; `true`: an agent's.
///
/// # Errors
///
/// The kernel does not tell.
pub async fn owner(netlink: &Netlink) -> Result<Option<bool>, DeviceError> {
    match netlink.link(NAME).await {
        Ok(link) => is_ours(netlink, &link).await.map(Some),
        Err(NetlinkError::NoSuchInterface(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn is_ours(netlink: &Netlink, link: &Link) -> Result<bool, DeviceError> {
    let ours = |a: &LinkAttribute| matches!(a, LinkAttribute::IfAlias(alias) if alias == ALIAS);
    // It vanished in between: then it was going, and the next look tells.
    Ok(message(netlink, link).await?.is_none_or(|message| message.attributes.iter().any(ours)))
}

/// All that the kernel says about a device; `None`: it is gone.
pub(super) async fn message(netlink: &Netlink, link: &Link) -> Result<Option<LinkMessage>, DeviceError> {
    use futures_util::StreamExt as _;
    let mut links = Box::pin(netlink.handle().link().get().match_index(link.index).execute());
    match links.next().await {
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(_)) | None => Ok(None),
    }
}

/// Lets the kernel leave the checksum of each packet to the interface that it really leaves through: nobody reads this one.
/// Without it Linux 6.12 and later lose track of where the checksum stands when they make room for the outer header of a
/// UDP super-packet (UDP_SEGMENT, as QUIC servers send them), and drop it.
fn leave_checksums(descriptor: &File) -> Result<(), DeviceError> {
    // SAFETY: the argument of TUNSETOFFLOAD is a number; the descriptor is open.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETOFFLOAD, libc::TUN_F_CSUM) };
    nix::Error::result(result).map(drop).map_err(|errno| DeviceError::Create(errno.into()))
}

fn set_name(descriptor: &File) -> Result<(), DeviceError> {
    let mut name = [0; libc::IF_NAMESIZE];
    for (to, from) in name.iter_mut().zip(NAME.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // IFF_TUN_EXCL is the sign bit of the field, which has 16 bits.
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    let [low, high, ..] = flags.to_le_bytes();
    let flags = libc::c_short::from_le_bytes([low, high]);
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which outlives the call; the descriptor is
    // open.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    nix::Error::result(result).map(drop).map_err(|errno| DeviceError::Create(errno.into()))
}
