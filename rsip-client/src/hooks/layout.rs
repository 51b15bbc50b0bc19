//! Where the running kernel keeps what the hooks look at: "this socket takes IPv6 only", so that `[::]:80` for IPv6 alone,
//! which needs no lease, is told from the dual-stack one, which does; whether a socket is the kernel's own; which signals a
//! waiting thread has; whether a thread may bind a privileged port.

use rsip_ebpf_common::host::SOCK_PREFIX;
use rsip_ebpf_common::layout::Layout;

use super::btf::{self, Wanted};

/// How a 32-bit system call is told: the word of `task_struct.thread_info` and the bit, then the numbers of bind and
/// socketcall there (which no 32-bit ARM has).
#[cfg(not(target_arch = "aarch64"))]
const COMPAT: (&str, u32, u32, u32) = ("status", 0x0002, 361, 102);
#[cfg(target_arch = "aarch64")]
const COMPAT: (&str, u32, u32, u32) = ("flags", 1 << 22, 282, rsip_ebpf_common::layout::NO_CALL);

/// In the order in which [`Places::read`] takes them.
const WANTED: [Wanted; 30] = [
    Wanted::Member("sock_common", "skc_ipv6only"),
    Wanted::Member("task_struct", "flags"),
    Wanted::Member("task_struct", "ptrace"),
    Wanted::Member("task_struct", "jobctl"),
    Wanted::Member("task_struct", "pending"),
    Wanted::Member("task_struct", "blocked"),
    Wanted::Member("task_struct", "signal"),
    Wanted::Member("task_struct", "sighand"),
    Wanted::Member("task_struct", "thread_info"),
    Wanted::Member("thread_info", COMPAT.0),
    Wanted::Member("sigpending", "signal"),
    Wanted::Member("signal_struct", "shared_pending"),
    Wanted::Member("signal_struct", "nr_threads"),
    Wanted::Member("sighand_struct", "action"),
    Wanted::Size("k_sigaction"),
    Wanted::Member("sock", "sk_kern_sock"),
    Wanted::Member("sock", "sk_socket"),
    Wanted::Member("socket", "file"),
    Wanted::Member("tcp_sock", "is_mptcp"),
    Wanted::Member("sock_common", "skc_bound_dev_if"),
    Wanted::Member("task_struct", "cred"),
    Wanted::Member("cred", "cap_effective"),
    Wanted::Member("cred", "user_ns"),
    Wanted::Member("user_namespace", "level"),
    Wanted::Member("sock_common", "skc_net"),
    Wanted::Member("net", "user_ns"),
    Wanted::Member("net", "ipv4"),
    Wanted::Member("netns_ipv4", "sysctl_ip_prot_sock"),
    Wanted::Member("task_struct", "group_leader"),
    Wanted::Member("task_struct", "comm"),
];

/// What this kernel tells.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// Byte of `struct sock`, and bit in it, that say that an IPv6 socket takes IPv6 only; (0, 0): unknown.
    pub v6only: (u32, u32),
    /// All else.
    pub layout: Layout,
}

impl Places {
    /// Of the running kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        btf::of_this_kernel()
            .and_then(|btf| btf::look_up(&btf, &WANTED).try_into().ok())
            .map_or(Self { v6only: (0, 0), layout: Layout::default() }, Self::read)
    }

    fn read(found: [Option<u32>; WANTED.len()]) -> Self {
        let [
            v6only,
            flags,
            ptrace,
            jobctl,
            pending,
            blocked,
            signal,
            sighand,
            thread,
            compat,
            set,
            shared,
            threads,
            action,
            size,
            kernel,
            socket,
            file,
            mptcp,
            tied,
            cred,
            effective,
            cred_namespace,
            level,
            net,
            net_namespace,
            ipv4,
            port_start,
            leader,
            command,
        ] = found;
        let byte = |bit: Option<u32>| bit.map_or(0, |bit| bit / 8);
        // Bit fields are counted from the low end on little-endian machines, which are all that the programs are built for.
        let mask = |bit: Option<u32>| bit.map_or(0, |bit| 1 << (bit % 8));
        let inner = |outer: Option<u32>, inner: Option<u32>| byte(outer.zip(inner).map(|(a, b)| a + b));
        let all = |places: &[Option<u32>]| u32::from(places.iter().all(Option::is_some));
        let v6only = v6only.filter(|bit| bit / 8 < SOCK_PREFIX);
        let (compat_mask, compat_bind_nr, compat_socketcall_nr) = match thread.and(compat) {
            Some(_) => (COMPAT.1, COMPAT.2, COMPAT.3),
            None => (0, 0, 0),
        };
        let layout = Layout {
            task_known: all(&[
                flags, ptrace, jobctl, pending, blocked, signal, sighand, set, shared, threads, action, size,
            ]),
            sock_known: all(&[kernel, socket, file]),
            task_leader: leader.and(command).map_or(0, |_| byte(leader)),
            task_command: byte(command),
            task_flags: byte(flags),
            task_ptrace: byte(ptrace),
            task_jobctl: byte(jobctl),
            task_pending: inner(pending, set),
            task_blocked: byte(blocked),
            task_signal: byte(signal),
            signal_pending: inner(shared, set),
            signal_threads: byte(threads),
            task_sighand: byte(sighand),
            sighand_action: byte(action),
            action_size: size.unwrap_or(0),
            compat_word: inner(thread, compat),
            compat_mask,
            compat_bind_nr,
            compat_socketcall_nr,
            sock_kernel: byte(kernel),
            sock_kernel_mask: mask(kernel),
            sock_socket: byte(socket),
            socket_file: byte(file),
            tcp_mptcp: byte(mptcp),
            tcp_mptcp_mask: mask(mptcp),
            sock_tied: byte(tied),
            cred_known: all(&[cred, effective, cred_namespace, level, net, net_namespace, ipv4, port_start]),
            task_cred: byte(cred),
            cred_effective: byte(effective),
            cred_user_ns: byte(cred_namespace),
            user_ns_level: byte(level),
            sock_net: byte(net),
            net_user_ns: byte(net_namespace),
            net_port_start: inner(ipv4, port_start),
        };
        Self { v6only: v6only.map_or((0, 0), |bit| (bit / 8, 1 << (bit % 8))), layout }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_everything_in_this_kernel() {
        let places = Places::of_this_kernel();
        assert!(places.v6only.0 > 0 && places.v6only.0 < SOCK_PREFIX && places.v6only.1.is_power_of_two());
        let layout = places.layout;
        assert_eq!((layout.task_known, layout.sock_known, layout.cred_known), (1, 1, 1), "{layout:?}");
        assert_eq!(layout.sock_tied, 20, "as it has always been");
        assert!(layout.sock_kernel_mask.is_power_of_two() && layout.action_size >= 16, "{layout:?}");
        assert!(layout.task_pending > 0 && layout.signal_pending > 0, "{layout:?}");
    }

    #[test]
    fn nothing_is_known_without_type_information() {
        let places = Places::read([None; WANTED.len()]);
        assert_eq!(places.layout, Layout::default());
        assert_eq!(places.v6only, (0, 0));
    }

    #[test]
    fn one_missing_place_makes_its_part_unknown() {
        let mut found = [Some(64); WANTED.len()];
        let kernel = WANTED.iter().position(|wish| *wish == Wanted::Member("sock", "sk_kern_sock"));
        found[kernel.expect("wanted")] = None;
        let layout = Places::read(found).layout;
        assert_eq!((layout.task_known, layout.sock_known), (1, 0), "{layout:?}");
    }
}
