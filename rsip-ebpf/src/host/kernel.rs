//! The kernel's own sockets: they serve NFS, CIFS, tunnels, cluster file systems. Nobody behind them could be told anything: they
//! are never made to wait and never refused.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use rsip_ebpf::ipv4;
use rsip_ebpf_common::{host::Config, layout::Layout};

use crate::{maps, park, task::Task};

/// Read the kernel's memory; 0 where there is none.
#[inline(always)]
pub(crate) fn read<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    // The helper writes zeros where it cannot read: the verifier has no second way to follow.
    // SAFETY: the helper checks the source; the destination is as long as said, and any bytes are valid for integers.
    unsafe {
        bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void)
    };
    value
}

/// Read a member of a structure at `base`.
#[inline(always)]
pub(crate) fn member<T: Copy + Default>(base: u64, offset: u32) -> T {
    read(base + u64::from(offset))
}

/// Where the kernel has the socket that a program's context names.
#[inline(always)]
pub(crate) fn address_of(sock: *const c_void) -> u64 {
    // The verifier forbids arithmetic on socket pointers, but not on what a copy of one reads as.
    let pointer = sock;
    read((&raw const pointer) as u64)
}

/// Whether no program stands behind this socket, or none behind what is done with it.
#[inline(always)]
pub(crate) fn is_own(config: &Config, sock: *const c_void, protocol: u32) -> bool {
    let Some(layout) = maps::layout() else {
        return false;
    };
    if layout.task_known != 0 && Task::of(layout).is_kernel_thread() {
        return true;
    }
    if layout.sock_known == 0 {
        return false;
    }
    let sock = address_of(sock);
    if !is_marked(layout, sock) && !is_fileless(layout, sock) {
        return false;
    }
    // MPTCP and SMC have a TCP socket of the kernel's do what a program asks of theirs.
    let serves_program = protocol == u32::from(ipv4::PROTOCOL_TCP)
        && (is_part_of_mptcp(layout, sock) || park::in_bind_call(config));
    !serves_program
}

/// Whether the kernel made the socket for itself, and lets it go without a release hook.
#[inline(always)]
pub(crate) fn has_no_release(sock: *const c_void) -> bool {
    maps::layout().is_some_and(|layout| layout.sock_known != 0 && is_marked(layout, address_of(sock)))
}

#[inline(always)]
fn is_marked(layout: &Layout, sock: u64) -> bool {
    u32::from(member::<u8>(sock, layout.sock_kernel)) & layout.sock_kernel_mask != 0
}

/// No descriptor ever led to the socket. Not all of the kernel's sockets are marked (those of storage targets are not).
#[inline(always)]
fn is_fileless(layout: &Layout, sock: u64) -> bool {
    let socket: u64 = member(sock, layout.sock_socket);
    let file: u64 = if socket == 0 { 0 } else { member(socket, layout.socket_file) };
    file == 0
}

#[inline(always)]
fn is_part_of_mptcp(layout: &Layout, sock: u64) -> bool {
    u32::from(member::<u8>(sock, layout.tcp_mptcp)) & layout.tcp_mptcp_mask != 0
}
