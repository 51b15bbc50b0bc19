//! Virtual cables between namespaces.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::libc;

use super::error::{IoContext, Result};
use super::exec;
use super::netns::Inside;

/// One end of a cable: the namespace it is plugged into, and the interface's name there.
pub type End<'a> = (&'a Inside, &'a str);

/// Lays a cable (a veth pair) and switches both ends on. It goes when either namespace goes.
///
/// # Errors
/// Where `ip` refuses, for example because a name is taken.
pub fn cable(one: End<'_>, other: End<'_>) -> Result<()> {
    let [(one_ns, one_if), (other_ns, other_if)] = [one, other];
    #[rustfmt::skip]
    exec::tool("ip", &[
        "link", "add", one_if, "netns", one_ns.name(), "type", "veth",
        "peer", "name", other_if, "netns", other_ns.name(),
    ])?;
    for (namespace, interface) in [one, other] {
        namespace.ip(&["link", "set", "dev", interface, "up"])?;
    }
    Ok(())
}

/// Gives an interface an address, written with its prefix length.
///
/// # Errors
/// Where `ip` refuses.
pub fn address(end: End<'_>, address: &str) -> Result<()> {
    end.0.ip(&["address", "add", address, "dev", end.1])?;
    Ok(())
}

/// A switch (a bridge named `name`) with these interfaces of the same namespace as its ports.
///
/// # Errors
/// Where `ip` refuses.
pub fn switch(namespace: &Inside, name: &str, ports: &[&str]) -> Result<()> {
    namespace.ip(&["link", "add", name, "type", "bridge"])?;
    for port in ports {
        namespace.ip(&["link", "set", "dev", port, "master", name])?;
    }
    namespace.ip(&["link", "set", "dev", name, "up"])?;
    Ok(())
}

/// Makes the kernel write every checksum into packets before they go into a cable. Otherwise it leaves that to hardware which
/// a cable has not: nobody in the kernel minds, but whoever reads the packets sees checksums that are not there yet.
///
/// # Errors
/// Where the kernel refuses.
pub fn finish_checksums(end: End<'_>) -> Result<()> {
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let (namespace, interface) = end;
    namespace
        .enter(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            // `struct ethtool_value`: the command, then 0: off.
            let mut value = [ETHTOOL_STXCSUM, 0];
            // SAFETY: zero is a valid `ifreq`.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
                *to = from.cast_signed();
            }
            request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
            // SAFETY: the descriptor is open; the request is an `ifreq` whose pointer is good for an `ethtool_value`.
            match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })?
        .cannot(|| format!("switch off checksum offload of {interface}"))
}
