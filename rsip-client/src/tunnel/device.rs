//! The tun device `rsip`: the interface that the leased address lives on. Nobody reads it: the program on its way out
//! encapsulates and redirects. It can be made to outlive the agent: without a process it has no carrier, which matters to
//! nobody, since the program takes each packet before any queue does.

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

/// The device. Dropping it removes it, unless it is one of the kernel's own; a process that is killed leaves a lasting one.
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

    /// Makes the device, or takes over that of a predecessor, and brings it up with this MTU. `lasting`: it stays when the
    /// process is killed.
    ///
    /// # Errors
    ///
    /// The name is taken, or the kernel refuses.
    pub async fn create(netlink: &Netlink, mtu: u32, lasting: bool) -> Result<Self, DeviceError> {
        // One of another type.
        kernel::remove_leftover(netlink).await?;
        let descriptor = take(netlink).await?;
        leave_checksums(&descriptor)?;
        persist(&descriptor, lasting)?;
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

impl Drop for Device {
    fn drop(&mut self) {
        // A panic is a crash: what outlives the one outlives the other.
        if !std::thread::panicking()
            && let Some(descriptor) = &self.descriptor
            && let Err(error) = persist(descriptor, false)
        {
            tracing::warn!(%error, "the tunnel device stays");
        }
    }
}

/// A descriptor of the device. Those of a killed process close one by one: its lock may be free a moment before its
/// device is.
async fn take(netlink: &Netlink) -> Result<File, DeviceError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match netlink.link(NAME).await {
            Err(NetlinkError::NoSuchInterface(_)) => {}
            Err(error) => return Err(error.into()),
            Ok(link) if !is_ours(netlink, &link).await? => return Err(DeviceError::Foreign),
            Ok(_) => {}
        }
        let descriptor =
            OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(DeviceError::Open)?;
        match set_name(&descriptor) {
            Err(DeviceError::Create(error))
                if error.raw_os_error() == Some(libc::EBUSY) && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome.map(|()| descriptor),
        }
    }
}

/// Removes the device of a dead agent. One that is not ours stays.
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
    if !is_ours(netlink, &link).await? {
        return Ok(());
    }
    let outcome = netlink.delete_link(link.index).await;
    outcome.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error.into()) })
}

/// Whether the device stays when its last descriptor is closed.
fn persist(descriptor: &File, lasting: bool) -> Result<(), DeviceError> {
    // SAFETY: the argument of TUNSETPERSIST is a number; the descriptor is open.
    let result =
        unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(lasting)) };
    nix::Error::result(result).map(drop).map_err(|errno| DeviceError::Create(errno.into()))
}

/// Whose interface has the name: `None`: nobody's; `true`: an agent's.
///
/// # Errors
///
/// The kernel does not tell.
pub async fn owner(netlink: &Netlink) -> Result<Option<bool>, DeviceError> {
    match netlink.link(NAME).await {
        Ok(link) => Ok(Some(is_ours(netlink, &link).await?)),
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
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    let [low, high, ..] = flags.to_le_bytes();
    let flags = libc::c_short::from_le_bytes([low, high]);
    let mut request =
        libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which outlives the call; the descriptor is
    // open.
    let result = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    nix::Error::result(result).map(drop).map_err(|errno| DeviceError::Create(errno.into()))
}
