//! What the kernel tells about attached eBPF programs: not what somebody believes to have attached.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Where a program stands on a cgroup (`enum bpf_attach_type`), as far as ours do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum CgroupHook {
    /// bind() of IPv4.
    Bind4 = 8,
    /// bind() of IPv6.
    Bind6 = 9,
    /// connect() of IPv4.
    Connect4 = 10,
    /// connect() of IPv6.
    Connect6 = 11,
    /// After a bind of IPv4.
    PostBind4 = 12,
    /// After a bind of IPv6.
    PostBind6 = 13,
    /// sendto() and sendmsg() of UDP over IPv4.
    Sendmsg4 = 14,
    /// The same over IPv6.
    Sendmsg6 = 15,
    /// A socket ends.
    SockRelease = 34,
}

impl CgroupHook {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Bind4,
        Self::Bind6,
        Self::PostBind4,
        Self::PostBind6,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::SockRelease,
    ];

    /// Its name in documentation and in `bpftool cgroup`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::PostBind4 => "post_bind4",
            Self::PostBind6 => "post_bind6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::SockRelease => "sock_release",
        }
    }
}

/// The bpf system call's command.
const BPF_PROG_QUERY: libc::c_int = 16;
/// Also the programs that are attached above in the tree.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
/// The kernel allows 64 programs at one place.
const MOST: usize = 64;

/// The `query` part of `union bpf_attr`.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// The programs that run for sockets of a cgroup, those attached above it included, in the order in which they run: their
/// numbers.
///
/// # Errors
///
/// Not allowed (CAP_NET_ADMIN), or the kernel does not know the hook.
pub fn effective(cgroup: &File, hook: CgroupHook) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; MOST];
    let mut query = Query {
        target_fd: u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?,
        attach_type: hook as u32,
        query_flags: BPF_F_QUERY_EFFECTIVE,
        attach_flags: 0,
        prog_ids: u64::try_from(ids.as_mut_ptr().expose_provenance()).map_err(io::Error::other)?,
        prog_cnt: u32::try_from(MOST).map_err(io::Error::other)?,
        pad: 0,
    };
    // SAFETY: the attribute and the array that it points to live until the call has returned; the kernel writes at most
    // `prog_cnt` numbers into the array and the count back into the attribute, whose size is told.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.prog_cnt).map_err(io::Error::other)?;
    Ok(ids.get(..count).unwrap_or(&ids).to_vec())
}

/// Names of all loaded programs by number; programs that go meanwhile are left out.
///
/// # Errors
///
/// Not allowed (CAP_SYS_ADMIN).
pub fn program_names() -> io::Result<BTreeMap<u32, String>> {
    let mut names = BTreeMap::new();
    for program in aya::programs::loaded_programs() {
        match program {
            Ok(program) => {
                let name = String::from_utf8_lossy(program.name()).into_owned();
                names.insert(program.id(), name);
            }
            Err(aya::programs::ProgramError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(aya::programs::ProgramError::SyscallError(error)) => return Err(error.io_error),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup;

    #[test]
    fn the_kernel_answers_for_every_hook() {
        let root = cgroup::open_root().expect("cgroup v2");
        for hook in CgroupHook::ALL {
            effective(&root.directory, hook).unwrap_or_else(|error| panic!("{}: {error}", hook.name()));
        }
        let file = File::open("/proc/self/status").expect("proc");
        assert!(effective(&file, CgroupHook::Bind4).is_err(), "that is no cgroup");
    }

    #[test]
    fn numbers_are_those_of_loaded_programs() {
        let root = cgroup::open_root().expect("cgroup v2");
        // Programs of others come and go: only what stays counts.
        let before = effective(&root.directory, CgroupHook::Bind4).expect("needs root");
        let names = program_names().expect("needs root");
        let after = effective(&root.directory, CgroupHook::Bind4).expect("needs root");
        for id in before.iter().filter(|id| after.contains(id)) {
            assert!(names.contains_key(id), "program {id} runs and is not loaded");
        }
    }
}
