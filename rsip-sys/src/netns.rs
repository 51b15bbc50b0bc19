//! Which network namespace this process is in.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetNs {
    /// Inode of the namespace file: what `ip netns identify`, `lsns` and `/proc/PID/ns/net` show.
    pub inode: u64,
    /// Process 1 lives in it: the machine's own network, or that of the container whose process 1 we see.
    pub is_initial: bool,
}

/// What could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// `/proc` does not tell.
    #[error("cannot read {path}: {source}")]
    Proc {
        /// Which file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// No cookie.
    #[error("the kernel has no network namespace cookies (SO_NETNS_COOKIE, Linux 5.14): {0}")]
    Cookie(nix::Error),
}

impl NetNs {
    /// The calling thread's.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted or not readable.
    pub fn current() -> Result<Self, NetNsError> {
        let own = identity("/proc/thread-self/ns/net")?;
        // Reading process 1's namespace needs CAP_SYS_PTRACE; without it nothing was lost: we name the namespace.
        let is_initial = identity("/proc/1/ns/net").is_ok_and(|initial| initial == own);
        Ok(Self { inode: own.1, is_initial })
    }
}

/// A descriptor that keeps the calling thread's namespace alive and can be entered with `setns`.
///
/// # Errors
///
/// `/proc` is not mounted or not readable.
pub fn open_current() -> Result<File, NetNsError> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map_err(|source| NetNsError::Proc { path, source })
}

fn identity(path: &'static str) -> Result<(u64, u64), NetNsError> {
    let metadata = fs::metadata(path).map_err(|source| NetNsError::Proc { path, source })?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The cookie by which eBPF programs know the calling thread's network namespace (`bpf_get_netns_cookie`); unlike the
/// inode it is never used again while the machine runs.
///
/// # Errors
///
/// Kernels before 5.14 do not tell it.
pub fn cookie() -> Result<u64, NetNsError> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(NetNsError::Cookie)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie))
        .map_err(|_| NetNsError::Cookie(nix::Error::EINVAL))?;
    // SAFETY: the option writes at most `length` bytes to the pointer, which is to a u64 that outlives the call; the
    // descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    nix::Error::result(result).map_err(NetNsError::Cookie)?;
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_has_another_inode_and_another_cookie() {
        let here = (NetNs::current().expect("proc"), cookie().expect("cookie"));
        let there = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            (NetNs::current().expect("proc"), cookie().expect("cookie"))
        })
        .join()
        .expect("the thread ends");
        assert_ne!(here.0.inode, there.0.inode);
        assert_ne!(here.1, there.1);
        assert!(!there.0.is_initial);
    }
}
