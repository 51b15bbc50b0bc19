//! A tun device whose other end is in the test's own hands.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{BpfError, Result};

/// A device without link-layer header. It has a carrier as long as the value lives.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes it in the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel has no tun, or the name is taken.
    pub fn new(name: &str) -> Result<Self> {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        let failed = |source: io::Error| BpfError::System { what: format!("tun device {name}"), source };
        let file = File::options().read(true).write(true).open("/dev/net/tun").map_err(failed)?;
        // `struct ifreq`: the name, then the flags.
        let mut request = [0_u8; 40];
        let length = name.len().min(15);
        request[..length].copy_from_slice(&name.as_bytes()[..length]);
        // IFF_TUN | IFF_NO_PI: both fit in the field.
        let flags = 0x1001_u16;
        request[16..18].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: the descriptor is open; the request is as long as `struct ifreq`.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } != 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        Ok(Self { file })
    }

    /// A second handle to the same device.
    ///
    /// # Errors
    /// Where there are too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// Lets the kernel leave checksums of packets that leave through the device to whoever gets them: true for devices
    /// whose packets a program takes away.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn leave_checksums(&self) -> Result<()> {
        const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
        const TUN_F_CSUM: libc::c_ulong = 1;
        // SAFETY: the descriptor is open; the argument is a number.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, TUN_F_CSUM) } == 0 {
            return Ok(());
        }
        Err(BpfError::System { what: "checksum offload".into(), source: io::Error::last_os_error() })
    }

    /// Lets an IP packet arrive at the device.
    ///
    /// # Errors
    /// Where the device is down.
    pub fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        self.file.write_all(packet)
    }

    /// The next IPv4 packet that leaves through the device; `None`: none within a second.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.receive_within(Duration::from_secs(1))
    }

    /// As [`Self::receive`], within another time; at most a minute.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn receive_within(&mut self, limit: Duration) -> io::Result<Option<Vec<u8>>> {
        let limit = u16::try_from(limit.as_millis()).unwrap_or(60_000);
        loop {
            let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(limit))? == 0 {
                return Ok(None);
            }
            let mut packet = vec![0; 65_536];
            let length = self.file.read(&mut packet)?;
            packet.truncate(length);
            // The kernel's own IPv6 neighbour discovery is nothing to tests.
            if packet.first().is_some_and(|octet| octet >> 4 == 4) {
                return Ok(Some(packet));
            }
        }
    }
}
