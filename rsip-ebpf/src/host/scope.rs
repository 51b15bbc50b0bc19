//! Which sockets and which addresses are ours to decide about. Everything else passes untouched.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_netns_cookie, bpf_probe_read_kernel},
    },
    maps::lpm_trie::Key,
};
use rsip_ebpf::ipv4;
use rsip_ebpf_common::host::{Config, FLAG_ENABLED, SOCK_PREFIX};

use crate::{kernel, maps};

const AF_UNSPEC: u32 = 0;
const AF_INET: u32 = 2;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// First 12 octets of an IPv4-mapped IPv6 address, as words in network byte order.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// The agent's settings, if a socket of this kind that the calling thread uses is ours to decide about: hooks enabled, TCP or
/// UDP, the agent's network namespace, neither the agent itself nor the kernel. `ctx` is the program's context, `sock` the
/// socket as it names it.
#[inline(always)]
pub(crate) fn governed(
    ctx: *mut c_void,
    sock: *const c_void,
    kind: u32,
    protocol: u32,
) -> Option<&'static Config> {
    let config = maps::config()?;
    if config.flags & FLAG_ENABLED == 0 {
        return None;
    }
    match (kind, protocol as u8) {
        (SOCK_STREAM, ipv4::PROTOCOL_TCP) | (SOCK_DGRAM, ipv4::PROTOCOL_UDP) if protocol < 256 => {}
        _ => return None,
    }
    // SAFETY: the helper takes the context of any cgroup socket program.
    if unsafe { bpf_get_netns_cookie(ctx) } != config.netns_cookie {
        return None;
    }
    // A dead agent's number may be anybody's.
    if (bpf_get_current_pid_tgid() >> 32) as u32 == config.agent_tgid && maps::agent_lives() {
        return None;
    }
    if kernel::is_own(config, sock, protocol) {
        return None;
    }
    Some(config)
}

/// Whether a socket bound to this address (network byte order) uses leased ports: any address, or the leased one.
#[inline(always)]
pub(crate) fn is_public_side(config: &Config, address: u32) -> bool {
    // Before anything is leased the second is the first.
    address == 0 || address == config.public_address
}

/// Whether a socket with this SO_BINDTODEVICE (0: none) hears and speaks through another interface than the tunnel: it uses no
/// lease, whatever its address.
#[inline(always)]
pub(crate) fn is_tied_elsewhere(config: &Config, interface: u32) -> bool {
    interface != 0 && interface != config.tunnel_ifindex
}

/// Whether an address with this family is one of IPv4. Zero addresses may come without a family (ip(7)).
#[inline(always)]
pub(crate) fn is_ipv4(family: u32) -> bool {
    matches!(family, AF_UNSPEC | AF_INET)
}

/// Whether the address (network byte order) is reached without the gateway, whatever is leased: loopback, or in `LOCAL`.
#[inline(always)]
pub(crate) fn is_local(address: u32) -> bool {
    ipv4::is_loopback(address) || maps::LOCAL.get(Key::new(32, address.to_ne_bytes())).is_some()
}

/// The IPv4 side of an IPv6 address: 0 for `::` (dual stack), the address for an IPv4-mapped one, `None` for real IPv6.
#[inline(always)]
pub(crate) fn ipv4_side(address: [u32; 4]) -> Option<u32> {
    if [address[0], address[1], address[2]] == MAPPED {
        return Some(address[3]);
    }
    (address == [0; 4]).then_some(0)
}

/// The address that an IPv6 hook is called with.
#[inline(always)]
pub(crate) fn user_ip6(addr: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: the context is valid as long as the program runs. Word by word and volatile: the verifier rejects the
    // wide loads that the compiler would make of a copy.
    unsafe {
        let words = &raw const (*addr).user_ip6;
        let words = words.cast::<u32>();
        [
            ptr::read_volatile(words),
            ptr::read_volatile(words.add(1)),
            ptr::read_volatile(words.add(2)),
            ptr::read_volatile(words.add(3)),
        ]
    }
}

/// The address that a socket is bound to.
#[inline(always)]
pub(crate) fn source_ip6(sock: *mut bpf_sock) -> [u32; 4] {
    // SAFETY: as in `user_ip6`.
    unsafe {
        let words = &raw const (*sock).src_ip6;
        let words = words.cast::<u32>();
        [
            ptr::read_volatile(words),
            ptr::read_volatile(words.add(1)),
            ptr::read_volatile(words.add(2)),
            ptr::read_volatile(words.add(3)),
        ]
    }
}

/// Whether an IPv6 socket cannot receive IPv4 (IPV6_V6ONLY). `false` where user space could not say where the kernel keeps it.
#[inline(always)]
pub(crate) fn is_v6only(config: &Config, sock: *const c_void) -> bool {
    let offset = config.v6only_offset;
    if offset == 0 || offset >= SOCK_PREFIX {
        return false;
    }
    // The whole beginning is read because the verifier forbids arithmetic on socket pointers.
    let mut prefix = [0u8; SOCK_PREFIX as usize];
    // SAFETY: the helper checks the source; the destination is as long as said.
    if unsafe { bpf_probe_read_kernel(prefix.as_mut_ptr().cast(), SOCK_PREFIX, sock) } != 0 {
        return false;
    }
    u32::from(prefix[(offset & (SOCK_PREFIX - 1)) as usize]) & config.v6only_mask != 0
}

/// SO_BINDTODEVICE of a socket that a post-bind program is called with; those may not ask for it. 0: none.
#[inline(always)]
pub(crate) fn tied_to(sock: *const c_void) -> u32 {
    match maps::layout() {
        Some(layout) if layout.sock_tied != 0 => kernel::member(kernel::address_of(sock), layout.sock_tied),
        _ => 0,
    }
}
