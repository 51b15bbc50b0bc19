//! connect() and sends without connection: they take a port of the leased block by the kernel's own choice. As long as no
//! block is leased there is nothing to choose from: refused, and the agent is told that somebody wants one. A socket with a
//! port that is not leased, as one that was bound before the agent came, is refused too: its packets would have a source that
//! is not ours. Where the lease is for one peer (remote flow policy), nobody else is reached with it.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use rsip_ebpf::{
    ipv4, peer,
    port::{EADDRNOTAVAIL, EHOSTUNREACH},
};
use rsip_ebpf_common::host::{
    Config, Counter, EVENT_WANT_BLOCK, FLAG_EPHEMERAL, FLAG_WHOLE, PORT_GRANTED, PORT_IGNORED,
};

use crate::{
    event, fail,
    maps::{LAST_WANT, PORTS, count},
    park,
    room::{self, Destination, Room},
    scope,
};

const PASS: i32 = 1;
const REFUSE: i32 = 0;
/// At most one event in this time: a program that tries in a loop must not fill the ring.
const WANT_INTERVAL_NS: u64 = 1_000_000;

/// connect() of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub(crate) fn rsip_connect4(ctx: SockAddrContext) -> i32 {
    towards4(&ctx, Call::Connect)
}

/// connect() of an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub(crate) fn rsip_connect6(ctx: SockAddrContext) -> i32 {
    towards6(&ctx, Call::Connect)
}

/// Send of an unconnected IPv4 UDP socket.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn rsip_sendmsg4(ctx: SockAddrContext) -> i32 {
    towards4(&ctx, Call::Send)
}

/// Send of an unconnected IPv6 UDP socket.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn rsip_sendmsg6(ctx: SockAddrContext) -> i32 {
    towards6(&ctx, Call::Send)
}

/// What a program does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// connect()
    Connect,
    /// sendto(), sendmsg(), sendmmsg()
    Send,
}

#[inline(always)]
fn towards4(ctx: &SockAddrContext, call: Call) -> i32 {
    let Some((config, port)) = governed(ctx) else {
        return PASS;
    };
    // SAFETY: the context is valid as long as the program runs.
    let (address, to) = unsafe { ((*ctx.sock_addr).user_ip4, own_order((*ctx.sock_addr).user_port)) };
    let is_judged = config.remote_address != 0 || !has_source(config, port);
    if is_judged && decide(ctx, config, address) == REFUSE {
        return REFUSE;
    }
    let room = room(ctx, config, call, port, Destination::ipv4(address, to));
    answer(ctx, config, call, room, Some(address))
}

#[inline(always)]
fn towards6(ctx: &SockAddrContext, call: Call) -> i32 {
    let Some((config, port)) = governed(ctx) else {
        return PASS;
    };
    let address = scope::user_ip6(ctx.sock_addr);
    let ipv4 = scope::ipv4_side(address);
    if let Some(address) = ipv4 {
        let is_judged = config.remote_address != 0 || !has_source(config, port);
        if is_judged && decide(ctx, config, address) == REFUSE {
            return REFUSE;
        }
    }
    // SAFETY: the context is valid as long as the program runs.
    let to = own_order(unsafe { (*ctx.sock_addr).user_port });
    let room = room(ctx, config, call, port, Destination { address, port: to });
    answer(ctx, config, call, room, ipv4)
}

/// The settings, if the socket is ours to decide about, and the socket's own port.
#[inline(always)]
fn governed(ctx: &SockAddrContext) -> Option<(&'static Config, u32)> {
    // SAFETY: the context is valid as long as the program runs.
    let (kind, protocol, sock) = unsafe {
        let addr = ctx.sock_addr;
        ((*addr).type_, (*addr).protocol, (*addr).__bindgen_anon_1.sk)
    };
    if sock.is_null() {
        return None;
    }
    let config = scope::governed(ctx.as_ptr(), sock.cast(), kind, protocol)?;
    // SAFETY: the kernel gives a valid socket, or null, which was excluded.
    let (port, tied) = unsafe { ((*sock).src_port, (*sock).bound_dev_if) };
    (!scope::is_tied_elsewhere(config, tied)).then_some((config, port))
}

/// Whether there is a port for the socket, or, where it has one by sending, for the next one.
#[inline(always)]
fn room(ctx: &SockAddrContext, config: &Config, call: Call, port: u32, to: Destination) -> Room {
    match call {
        Call::Connect if port == 0 => room::to_connect(ctx, config, to),
        Call::Connect => Room::There,
        Call::Send => room::after_send(ctx, config, port),
    }
}

#[inline(always)]
fn answer(ctx: &SockAddrContext, config: &Config, call: Call, room: Room, to: Option<u32>) -> i32 {
    match room {
        Room::There => PASS,
        Room::Restart => {
            fail::with(park::ERESTARTNOINTR);
            REFUSE
        }
        Room::None if call == Call::Connect && is_public(ctx, config, to) => {
            refuse(Counter::RoomRefused, EADDRNOTAVAIL)
        }
        // What is local is refused by nobody but the kernel, and who sends has a port.
        Room::None => PASS,
    }
}

/// Whether the socket speaks to the public realm.
#[inline(always)]
fn is_public(ctx: &SockAddrContext, config: &Config, to: Option<u32>) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    let sock = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let Some(to) = to else {
        return false;
    };
    if sock.is_null() {
        return false;
    }
    // SAFETY: the kernel gives a valid socket, or null, which was excluded.
    let source = unsafe { (*sock).src_ip4 };
    scope::is_public_side(config, source) && !ipv4::is_not_a_host(to) && !scope::is_local(to)
}

/// Whether a socket with this port (0: none yet) has a source that it may use.
#[inline(always)]
fn has_source(config: &Config, port: u32) -> bool {
    match port {
        0 => config.flags & FLAG_EPHEMERAL != 0,
        port => config.flags & FLAG_WHOLE != 0 || is_usable(port),
    }
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, config: &Config, destination: u32) -> i32 {
    if ipv4::is_not_a_host(destination) || scope::is_local(destination) {
        return PASS;
    }
    // SAFETY: the context is valid as long as the program runs.
    let (sock, port) =
        unsafe { ((*ctx.sock_addr).__bindgen_anon_1.sk, u16::from_be((*ctx.sock_addr).user_port as u16)) };
    if sock.is_null() {
        return PASS;
    }
    // SAFETY: the kernel gives a valid socket, or null, which was excluded. IPv6 sockets keep the IPv4 side of their
    // address in the same field.
    let (source, source_port) = unsafe { ((*sock).src_ip4, (*sock).src_port) };
    let from_leased = scope::is_public_side(config, source);
    if !peer::may_send(config, from_leased, destination, port) {
        return refuse(Counter::RemoteRefused, EHOSTUNREACH);
    }
    if !from_leased || has_source(config, source_port) {
        return PASS;
    }
    if config.flags & FLAG_EPHEMERAL == 0 {
        want_block(ctx);
    }
    refuse(Counter::ConnectRefused, EADDRNOTAVAIL)
}

#[inline(always)]
fn refuse(counter: Counter, errno: i32) -> i32 {
    count(counter);
    fail::with(errno);
    REFUSE
}

/// Whether packets may leave with this port: it is leased, or the operator says that it is none of ours.
#[inline(always)]
fn is_usable(port: u32) -> bool {
    PORTS.get(port).is_some_and(|entry| matches!(entry.state, PORT_GRANTED | PORT_IGNORED))
}

/// Tell the agent that somebody wants a block, unless it has just been told.
#[inline(always)]
fn want_block(ctx: &SockAddrContext) {
    let Some(last) = LAST_WANT.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: takes no pointer.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: an array entry. Two CPUs may both find that it is time, which costs one more event.
    let due = unsafe { now.saturating_sub(*last) >= WANT_INTERVAL_NS };
    if !due {
        return;
    }
    // SAFETY: the context is valid as long as the program runs.
    let subject = unsafe {
        event::Subject {
            cookie: bpf_get_socket_cookie(ctx.as_ptr()),
            port: 0,
            protocol: (*ctx.sock_addr).protocol,
            family: (*ctx.sock_addr).family,
        }
    };
    if event::send(EVENT_WANT_BLOCK, &subject) {
        // SAFETY: as above.
        unsafe { *last = now };
    }
}

#[inline(always)]
fn own_order(port: u32) -> u32 {
    u32::from(u16::from_be(port as u16))
}
