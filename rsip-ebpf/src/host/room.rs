//! Room for one more: whether the kernel will find a leased port for a socket that names none.
//!
//! The kernel's refusal (EADDRNOTAVAIL, EADDRINUSE or EAGAIN, by system call) cannot be made to wait, so it must not come to it
//! as long as the gateway has ports. Connections are counted by destination, since they share ports, UDP sockets and those
//! of bind(0) by kind. Only beginnings are counted: the agent, who asks the kernel for what is really there, TIME_WAIT
//! included, writes beside the count what of it is over. At three quarters the agent is told; when all seem taken, the call waits
//! until the agent has counted, has leased more, or has been refused.
//!
//! Two destinations may fall on one counter: that costs the agent a look, and nothing else.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_loop},
    programs::SockAddrContext,
};
use rsip_ebpf_common::host::{
    Config, Counter, EVENT_WANT_ROOM, Event, FLAG_EXHAUSTED, ROOM_DESTINATIONS, ROOM_TCP, ROOM_UDP, WAIT_POLL,
};

use crate::{
    atomic,
    bind::Watch,
    event,
    maps::{self, LAST_USER, ROOM, ROOM_BASE, USES, count},
    park,
    task::Task,
};

const IPPROTO_TCP: u32 = 6;
/// The agent is told of a counter at most once in this time.
const ASK_INTERVAL_NS: u64 = 1_000_000;
/// A count of the agent's is good for so long: who is refused again and again does not make it count each time.
const FRESH_NS: u64 = 20_000_000;
/// Waiting that began so long before its deadline was another one's.
const STALE_NS: u64 = 1_000_000_000;
/// How long callers wait that cannot be restarted: they hold a CPU.
const UNPARKED_NS: u64 = 50_000_000;
/// As many as `bpf_loop` makes: they take a second, which is as long as anybody waits who is not restarted.
const ROUNDS: u32 = 1 << 23;

/// What becomes of the call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The kernel will find a port, or says itself that it does not.
    There,
    /// There is none, and the gateway gives no more.
    None,
    /// The system call runs again.
    Restart,
}

/// Whom a socket is to be connected to: an IPv6 address, or an IPv4 one in its mapped form; and its port.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) address: [u32; 4],
    pub(crate) port: u32,
}

impl Destination {
    /// Nobody: the port is taken for itself.
    pub(crate) const NONE: Self = Self { address: [0; 4], port: 0 };

    #[inline(always)]
    pub(crate) fn ipv4(address: u32, port: u32) -> Self {
        Self { address: [0, 0, 0xffff_u32.to_be(), address], port }
    }

    #[inline(always)]
    fn slot(self) -> u32 {
        let [a, b, c, d] = self.address;
        let word = u64::from(a ^ b.rotate_left(8) ^ c.rotate_left(16) ^ d) | u64::from(self.port) << 32;
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32 & (ROOM_DESTINATIONS - 1)
    }
}

/// A socket without a port is about to be connected.
#[inline(always)]
pub(crate) fn to_connect(ctx: &SockAddrContext, config: &Config, to: Destination) -> Room {
    if config.room == 0 {
        return Room::There;
    }
    // SAFETY: the context is valid as long as the program runs.
    let shares = unsafe { (*ctx.sock_addr).protocol } == IPPROTO_TCP;
    // One way through what follows: the verifier walks every one.
    let (slot, to) = if shares { (to.slot(), to) } else { (ROOM_UDP, Destination::NONE) };
    Seeker { ctx: ctx.sock_addr, slot, to }.one_more(config)
}

/// A socket is about to be bound to port 0.
#[inline(always)]
pub(crate) fn to_bind(ctx: &SockAddrContext, config: &Config) -> Room {
    if config.room == 0 {
        return Room::There;
    }
    // SAFETY: the context is valid as long as the program runs.
    let slot = if unsafe { (*ctx.sock_addr).protocol } == IPPROTO_TCP { ROOM_TCP } else { ROOM_UDP };
    Seeker { ctx: ctx.sock_addr, slot, to: Destination::NONE }.one_more(config)
}

/// An unconnected socket sends, and has got its port just now or before: sendto() takes it before any hook runs. So it is the
/// next one that there has to be room for.
#[inline(always)]
pub(crate) fn after_send(ctx: &SockAddrContext, config: &Config, port: u32) -> Room {
    if config.room == 0 || USES.get(port).is_none_or(|uses| *uses != 0) {
        return Room::There;
    }
    let Some(user) = LAST_USER.get_ptr_mut(port) else {
        return Room::There;
    };
    // SAFETY: the helper takes the context of any cgroup socket program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: an array entry.
    if unsafe { ptr::read_volatile(user) } == cookie {
        return Room::There;
    }
    let room = Seeker { ctx: ctx.sock_addr, slot: ROOM_UDP, to: Destination::NONE }.one_more(config);
    if room != Room::Restart {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(user, cookie) };
    }
    room
}

/// Who wants a port.
#[derive(Clone, Copy)]
struct Seeker {
    ctx: *mut bpf_sock_addr,
    slot: u32,
    to: Destination,
}

impl Seeker {
    #[inline(always)]
    fn one_more(self, config: &Config) -> Room {
        let (Some(room), Some(base)) = (ROOM.get_ptr_mut(self.slot), ROOM_BASE.get(self.slot)) else {
            return Room::There;
        };
        // SAFETY: an array entry; programs change the count by atomic operations only.
        let begun = unsafe { atomic::fetch_add(&raw mut (*room).begun, 1) };
        let used = taken(begun, base.over);
        if used < config.room - config.room / 4 {
            return Room::There;
        }
        self.tell();
        if used + spare(config.room) < config.room {
            // SAFETY: as above. Nobody waits any more, as far as this one knows.
            unsafe {
                if ptr::read_volatile(&raw const (*room).since_ns) != 0 {
                    ptr::write_volatile(&raw mut (*room).since_ns, 0);
                }
            }
            return Room::There;
        }
        // SAFETY: as above.
        unsafe { atomic::fetch_sub(&raw mut (*room).begun, 1) };
        match self.wait(config) {
            Room::There => {
                // SAFETY: as above.
                unsafe { atomic::fetch_add(&raw mut (*room).begun, 1) };
                Room::There
            }
            other => other,
        }
    }

    /// Tell the agent, unless it has just been told.
    #[inline(always)]
    fn tell(self) {
        let Some(room) = ROOM.get_ptr_mut(self.slot) else {
            return;
        };
        let now = now();
        // SAFETY: an array entry. Of those who find that it is time, one tells.
        unsafe {
            let last = ptr::read_volatile(&raw const (*room).asked_ns);
            if now.saturating_sub(last) < ASK_INTERVAL_NS
                || !atomic::replace(&raw mut (*room).asked_ns, last, now)
            {
                return;
            }
        }
        let [a, b, c, d] = self.to.address;
        // SAFETY: the context is valid as long as the program runs.
        let (protocol, family) = unsafe { ((*self.ctx).protocol, (*self.ctx).family) };
        event::emit(Event {
            kind: EVENT_WANT_ROOM,
            cookie: u64::from(a) | u64::from(b) << 32,
            cgroup_id: u64::from(c) | u64::from(d) << 32,
            port: self.to.port,
            protocol,
            family,
            slot: self.slot,
            ..Event::default()
        });
    }

    /// Wait until there is room, or surely none.
    #[inline(always)]
    fn wait(self, config: &Config) -> Room {
        let Some(room) = ROOM.get_ptr_mut(self.slot) else {
            return Room::There;
        };
        let start = now();
        // SAFETY: an array entry. Of several who begin to wait, any one's time will do.
        let mut since = unsafe { ptr::read_volatile(&raw const (*room).since_ns) };
        if since == 0 || start > since.saturating_add(config.deadline_ns).saturating_add(STALE_NS) {
            since = start;
            // SAFETY: as above.
            unsafe { ptr::write_volatile(&raw mut (*room).since_ns, since) };
            count(Counter::RoomAwaited);
        }
        let deadline = since.saturating_add(config.deadline_ns);
        let task = Task::current();
        let look = Look { slot: self.slot, since, watch: Watch::over(task) };
        let parks = config.wait != WAIT_POLL && park::in_port_call(config);
        let patience = if parks {
            park::turn(config, task, start - since)
        } else if config.wait == WAIT_POLL {
            config.deadline_ns
        } else {
            UNPARKED_NS
        };
        let found = look.until(deadline.min(start.saturating_add(patience)));
        if found == NOT_YET && parks && now() < deadline && park::prepare(config, task) {
            return Room::Restart;
        }
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*room).since_ns, 0) };
        match found {
            // Who cannot wait to the end: the kernel knows whether there is a port.
            NOT_YET if now() < deadline => Room::There,
            THERE => Room::There,
            _ => Room::None,
        }
    }
}

/// So many ports are taken, as far as is known. The agent may write at any moment: never less than nothing.
#[inline(always)]
fn taken(begun: u32, over: u32) -> u32 {
    let used = begun.wrapping_sub(over);
    if used as i32 >= 0 { used } else { 0 }
}

/// Calls that run at this moment may be in no count yet.
#[inline(always)]
fn spare(most: u32) -> u32 {
    (most / 16).min(16)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_ktime_get_ns() }
}

const NOT_YET: u32 = 0;
const THERE: u32 = 1;
const NONE: u32 = 2;

/// What is looked for.
#[derive(Clone, Copy)]
struct Look {
    slot: u32,
    since: u64,
    watch: Watch,
}

#[repr(C)]
struct Poll {
    until: u64,
    look: Look,
    found: u32,
}

impl Look {
    #[inline(always)]
    fn until(self, until: u64) -> u32 {
        let mut state = Poll { until, look: self, found: NOT_YET };
        // SAFETY: the callback takes a `Poll` and does not keep it.
        unsafe { bpf_loop(ROUNDS, round as *mut c_void, (&raw mut state).cast(), 0) };
        state.found
    }

    #[inline(always)]
    fn found(self) -> u32 {
        let (Some(room), Some(base), Some(config)) =
            (ROOM.get_ptr_mut(self.slot), ROOM_BASE.get(self.slot), maps::config())
        else {
            return THERE;
        };
        // SAFETY: array entries.
        let (begun, over, tallied) = unsafe {
            (
                ptr::read_volatile(&raw const (*room).begun),
                ptr::read_volatile(&raw const base.over),
                ptr::read_volatile(&raw const base.tallied_ns),
            )
        };
        // SAFETY: as above.
        let (most, flags) = unsafe {
            (ptr::read_volatile(&raw const config.room), ptr::read_volatile(&raw const config.flags))
        };
        let used = taken(begun, over);
        if most == 0 || used + spare(most) < most {
            return THERE;
        }
        if self.watch.is_over() {
            return NONE;
        }
        if flags & FLAG_EXHAUSTED == 0 {
            return NOT_YET;
        }
        // The last ports are given one by one, each after a look that this call is in.
        let seen = tallied >= self.since;
        match used < most {
            true if seen => THERE,
            false if seen || now().saturating_sub(tallied) < FRESH_NS => NONE,
            _ => NOT_YET,
        }
    }
}

unsafe extern "C" fn round(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `Look::until` passes a `Poll`.
    let state = unsafe { &mut *state.cast::<Poll>() };
    state.found = state.look.found();
    i64::from(state.found != NOT_YET || now() >= state.until)
}
