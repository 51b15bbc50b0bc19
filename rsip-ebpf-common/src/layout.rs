//! Where the running kernel keeps what the host's programs look at in its own structures: the calling thread's signals, and
//! whose socket a socket is, what the thread may do. It differs between kernels; user space reads it from the kernel's type information.

/// Name of the map: `Array<Layout>`, one entry. Written by user space before anything is attached.
pub const MAP: &str = "LAYOUT";

/// Offsets in bytes. What is not known is 0, as is its mask.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// 1: what is said about tasks, processes and signals holds; 0: the programs do without.
    pub task_known: u32,
    /// 1: what is said about sockets holds.
    pub sock_known: u32,
    /// `task_struct.flags`.
    pub task_flags: u32,
    /// `task_struct.group_leader`, a pointer; 0: unknown, then a process goes by the name of its calling thread alone.
    pub task_leader: u32,
    /// `task_struct.comm`.
    pub task_command: u32,
    /// `task_struct.ptrace`: not 0 while somebody traces the thread.
    pub task_ptrace: u32,
    /// `task_struct.jobctl`.
    pub task_jobctl: u32,
    /// `task_struct.pending.signal`: signals for the thread.
    pub task_pending: u32,
    /// `task_struct.blocked`.
    pub task_blocked: u32,
    /// `task_struct.signal`, a pointer.
    pub task_signal: u32,
    /// `signal_struct.shared_pending.signal`: signals for the process.
    pub signal_pending: u32,
    /// `signal_struct.nr_threads`.
    pub signal_threads: u32,
    /// `task_struct.sighand`, a pointer.
    pub task_sighand: u32,
    /// `sighand_struct.action`: what the process does with each signal.
    pub sighand_action: u32,
    /// Size of one of these.
    pub action_size: u32,
    /// Word of `task_struct` that tells a 32-bit system call.
    pub compat_word: u32,
    /// The bit in that word.
    pub compat_mask: u32,
    /// Number of the bind system call there.
    pub compat_bind_nr: u32,
    /// Number of socketcall there, or [`NO_CALL`].
    pub compat_socketcall_nr: u32,
    /// Byte of `struct sock` with `sk_kern_sock`: the kernel made the socket for itself.
    pub sock_kernel: u32,
    /// The bit in that byte.
    pub sock_kernel_mask: u32,
    /// `sock.sk_socket`, a pointer.
    pub sock_socket: u32,
    /// `socket.file`, a pointer: what a program's descriptor leads to.
    pub socket_file: u32,
    /// `tcp_sock.is_mptcp`: one byte of a flag, from the beginning of `struct sock`.
    pub tcp_mptcp: u32,
    /// The bit in that byte.
    pub tcp_mptcp_mask: u32,
    /// `sock_common.skc_bound_dev_if`: the interface of SO_BINDTODEVICE.
    pub sock_tied: u32,
    /// 1: what is said about credentials and namespaces holds.
    pub cred_known: u32,
    /// `task_struct.cred`, a pointer.
    pub task_cred: u32,
    /// `cred.cap_effective`.
    pub cred_effective: u32,
    /// `cred.user_ns`, a pointer.
    pub cred_user_ns: u32,
    /// `user_namespace.level`.
    pub user_ns_level: u32,
    /// `sock_common.skc_net`, a pointer.
    pub sock_net: u32,
    /// `net.user_ns`, a pointer.
    pub net_user_ns: u32,
    /// `net.ipv4.sysctl_ip_prot_sock`: the first port that is not privileged (`ip_unprivileged_port_start`).
    pub net_port_start: u32,
}

/// No system call's number.
pub const NO_CALL: u32 = u32::MAX;

const _: () = assert!(size_of::<Layout>() == 136);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding (size asserted above), any bit pattern valid.
unsafe impl aya::Pod for Layout {}
