//! Counting the sockets that use a port: from a bind that succeeded to the end of the socket.
//!
//! A socket counts exactly while it has an entry in `SOCKETS`, so that no event is counted twice, whatever else fails.
//! Ports that connect() or listen() chose by themselves are not counted: they come out of the leased block.

use aya_ebpf::{
    EbpfContext as _, bindings::BPF_NOEXIST, helpers::generated::bpf_get_socket_cookie, macros::cgroup_sock,
    programs::SockContext,
};
use rsip_ebpf_common::host::{Config, Counter, EVENT_RELEASED};

use crate::{
    atomic, event, kernel,
    maps::{SOCKETS, USES, count},
    scope,
};

/// A post-bind program that answers anything else undoes the bind.
const KEEP: i32 = 1;

/// An IPv4 socket got its port.
#[cgroup_sock(post_bind4)]
pub(crate) fn rsip_post_bind4(ctx: SockContext) -> i32 {
    if let Some(config) = governed(&ctx) {
        // SAFETY: the context is valid as long as the program runs.
        let address = unsafe { (*ctx.sock).src_ip4 };
        bound(&ctx, config, address);
    }
    KEEP
}

/// An IPv6 socket got its port.
#[cgroup_sock(post_bind6)]
pub(crate) fn rsip_post_bind6(ctx: SockContext) -> i32 {
    if let Some(config) = governed(&ctx)
        && let Some(address) = scope::ipv4_side(scope::source_ip6(ctx.sock))
        && !scope::is_v6only(config, ctx.as_ptr())
    {
        bound(&ctx, config, address);
    }
    KEEP
}

/// A socket is closed for good.
#[cgroup_sock(sock_release)]
pub(crate) fn rsip_release(ctx: SockContext) -> i32 {
    // SAFETY: the helper takes the context of this program type.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Nothing of the settings matters here: what was counted is counted down.
    forget(cookie);
    KEEP
}

#[inline(always)]
fn governed(ctx: &SockContext) -> Option<&'static Config> {
    // SAFETY: the context is valid as long as the program runs.
    let (kind, protocol) = unsafe { ((*ctx.sock).type_, (*ctx.sock).protocol) };
    // The context of these programs is the socket.
    scope::governed(ctx.as_ptr(), ctx.as_ptr(), kind, protocol)
}

#[inline(always)]
fn bound(ctx: &SockContext, config: &Config, address: u32) {
    if !scope::is_public_side(config, address)
        || scope::is_tied_elsewhere(config, scope::tied_to(ctx.as_ptr()))
    {
        return;
    }
    // SAFETY: the context is valid as long as the program runs.
    let port = unsafe { (*ctx.sock).src_port };
    // Whatever let it pass, a lease or a rule: what has changed since must not make the count wrong.
    // SAFETY: the helper takes the context of this program type.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // The kernel's own TCP socket of an MPTCP one, which nobody would count down: the kernel's tables have to tell.
    if kernel::has_no_release(ctx.as_ptr()) {
        return;
    }
    // A socket that was disconnected (connect() to AF_UNSPEC) can be bound again.
    forget(cookie);
    if SOCKETS.insert(cookie, port, u64::from(BPF_NOEXIST)).is_err() {
        count(Counter::CountLost);
        return;
    }
    if let Some(uses) = USES.get_ptr_mut(port) {
        // SAFETY: an array entry; programs change it by atomic operations only.
        unsafe { atomic::fetch_add(uses, 1) };
    }
}

/// The socket counts no more.
#[inline(always)]
fn forget(cookie: u64) {
    // SAFETY: the entry is this socket's own, and its calls are serialised by the socket's lock or its end.
    let Some(&port) = (unsafe { SOCKETS.get(cookie) }) else {
        return;
    };
    if SOCKETS.remove(cookie).is_err() {
        return;
    }
    let Some(uses) = USES.get_ptr_mut(port) else {
        return;
    };
    // SAFETY: as in `bound`.
    match unsafe { atomic::fetch_sub(uses, 1) } {
        1 => {
            event::send(EVENT_RELEASED, &event::Subject { cookie, port, protocol: 0, family: 0 });
        }
        // User space has reset the count meanwhile: it must not wrap.
        0 => {
            // SAFETY: as in `bound`.
            unsafe { atomic::fetch_add(uses, 1) };
        }
        _ => {}
    }
}
