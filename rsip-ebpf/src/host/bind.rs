//! bind(): the request for a port.
//!
//! The verdict on every port is in `PORTS`: one look-up decides. A port that nothing is known about becomes pending, the
//! first who wants it tells the agent, and all who want it wait until the verdict is there or the deadline has passed.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_retval, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_loop},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use rsip_ebpf::{
    ipv4,
    port::{EACCES, EADDRINUSE, EADDRNOTAVAIL, Verdict, verdict},
};
use rsip_ebpf_common::host::{
    Config, Counter, EVENT_WANT_PORT, FLAG_ENABLED, FLAG_PRIVILEGED, FLAG_TIMEOUT_ALLOW, FLAG_WHOLE, Pending,
    Port, WAIT_POLL,
};

use crate::{
    atomic, event, fail,
    kernel::read,
    maps::{self, HOLDERS, PENDING, PORTS, count},
    park, privilege,
    room::{self, Room},
    rules::{self, Decision},
    scope,
    task::{SIGKILL, Task, bit},
};

/// A pending entry that is older than its deadline by this much was lost by the agent.
const STALE_NS: u64 = 1_000_000_000;
/// How long callers wait that cannot be restarted (io_uring, the first process) while as many of them hold a CPU as may.
const UNPARKED_POLL_NS: u64 = 50_000_000;
/// `bpf_loop` makes 8,388,608 rounds at most, which takes a fraction of a second: loops in a loop reach every deadline.
const POLL_ROUNDS: u32 = 1 << 20;
const POLL_TURNS: u32 = 1 << 12;

/// Codes of the hook: the kernel goes on, and does not ask for CAP_NET_BIND_SERVICE (Linux 5.12).
const PASS: i32 = 1;
const PRIVILEGED: i32 = 1 << 1;

/// What the hook answers.
enum Answer {
    /// The kernel goes on.
    Pass,
    /// The kernel goes on: the port is leased.
    Granted,
    /// bind() fails with this errno (positive).
    Refuse(i32),
    /// The system call runs again.
    Restart,
}

impl Answer {
    /// As a verdict of the hook.
    #[inline(always)]
    fn apply(self) -> i32 {
        let errno = match self {
            Self::Pass => return PASS,
            Self::Granted if privileges_are_leased() => return PASS | PRIVILEGED,
            Self::Granted => return PASS,
            Self::Refuse(errno) => errno,
            Self::Restart => park::ERESTARTNOINTR,
        };
        fail::with(errno);
        0
    }
}

/// A lease is as good as a capability (`--privileged-ports leased`).
#[inline(always)]
fn privileges_are_leased() -> bool {
    maps::config().is_some_and(|config| config.flags & FLAG_PRIVILEGED != 0)
}

/// bind() of an IPv4 socket.
#[cgroup_sock_addr(bind4)]
pub(crate) fn rsip_bind4(ctx: SockAddrContext) -> i32 {
    bind4(&ctx).apply()
}

/// bind() of an IPv6 socket, which may be one for IPv4 too.
#[cgroup_sock_addr(bind6)]
pub(crate) fn rsip_bind6(ctx: SockAddrContext) -> i32 {
    bind6(&ctx).apply()
}

#[inline(always)]
fn bind4(ctx: &SockAddrContext) -> Answer {
    if let Some(config) = asked_any_port(ctx) {
        // SAFETY: the context is valid as long as the program runs.
        let address = unsafe { (*ctx.sock_addr).user_ip4 };
        return any_port(ctx, config, Some(address));
    }
    let Some((config, port)) = asked_port(ctx) else {
        return Answer::Pass;
    };
    // SAFETY: the context is valid as long as the program runs.
    let (family, address) = unsafe { ((*ctx.sock_addr).user_family, (*ctx.sock_addr).user_ip4) };
    if !scope::is_ipv4(family) {
        // What is read as the address is something else, and the kernel says EAFNOSUPPORT.
        return Answer::Pass;
    }
    decide(ctx, config, address, port)
}

#[inline(always)]
fn bind6(ctx: &SockAddrContext) -> Answer {
    if let Some(config) = asked_any_port(ctx) {
        return any_port(ctx, config, scope::ipv4_side(scope::user_ip6(ctx.sock_addr)));
    }
    let Some((config, port)) = asked_port(ctx) else {
        return Answer::Pass;
    };
    let Some(address) = scope::ipv4_side(scope::user_ip6(ctx.sock_addr)) else {
        return Answer::Pass;
    };
    // SAFETY: the context is valid as long as the program runs.
    let sock = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if scope::is_v6only(config, sock.cast()) {
        return Answer::Pass;
    }
    decide(ctx, config, address, port)
}

/// The settings, if the kernel is to choose a port.
#[inline(always)]
fn asked_any_port(ctx: &SockAddrContext) -> Option<&'static Config> {
    // SAFETY: the context is valid as long as the program runs.
    let (port, kind, protocol, sock) = unsafe {
        let addr = ctx.sock_addr;
        ((*addr).user_port, (*addr).type_, (*addr).protocol, (*addr).__bindgen_anon_1.sk)
    };
    if port != 0 || sock.is_null() {
        return None;
    }
    let config = scope::governed(ctx.as_ptr(), sock.cast(), kind, protocol)?;
    // SAFETY: the kernel gives a valid socket, or null, which was excluded.
    (config.room != 0 && unsafe { (*sock).src_port } == 0).then_some(config)
}

/// bind() to port 0 of this address (IPv4 side).
#[inline(always)]
fn any_port(ctx: &SockAddrContext, config: &Config, address: Option<u32>) -> Answer {
    // SAFETY: takes no pointer.
    if unsafe { bpf_get_retval() } != 0 {
        return Answer::Pass;
    }
    match room::to_bind(ctx, config) {
        Room::There => Answer::Pass,
        Room::Restart => Answer::Restart,
        Room::None => {
            // SAFETY: the context is valid as long as the program runs.
            let stream = unsafe { (*ctx.sock_addr).protocol } == u32::from(ipv4::PROTOCOL_TCP);
            match address {
                // A TCP socket with an address may want no port yet (IP_BIND_ADDRESS_NO_PORT): the kernel knows.
                Some(address) if address == 0 || (address == config.public_address && !stream) => {
                    count(Counter::RoomRefused);
                    Answer::Refuse(EADDRNOTAVAIL)
                }
                _ => Answer::Pass,
            }
        }
    }
}

/// The port asked for, if the socket is ours to decide about and a port is asked for at all.
#[inline(always)]
fn asked_port(ctx: &SockAddrContext) -> Option<(&'static Config, u32)> {
    // SAFETY: the context is valid as long as the program runs.
    let (port, kind, protocol, sock) = unsafe {
        let addr = ctx.sock_addr;
        let port = u32::from(u16::from_be((*addr).user_port as u16));
        (port, (*addr).type_, (*addr).protocol, (*addr).__bindgen_anon_1.sk)
    };
    if port == 0 || sock.is_null() {
        return None;
    }
    let config = scope::governed(ctx.as_ptr(), sock.cast(), kind, protocol)?;
    // SAFETY: the kernel gives a valid socket, or null, which was excluded.
    let (bound, tied) = unsafe { ((*sock).src_port, (*sock).bound_dev_if) };
    // A socket that has a port gets no other one: the kernel says EINVAL.
    (bound == 0 && !scope::is_tied_elsewhere(config, tied)).then_some((config, port))
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, config: &Config, address: u32, port: u32) -> Answer {
    if !scope::is_public_side(config, address) {
        return Answer::Pass;
    }
    // SAFETY: the context is valid as long as the program runs.
    let sock = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if config.flags & FLAG_PRIVILEGED == 0 && privilege::is_refused(sock.cast(), port) {
        return Answer::Pass;
    }
    // SAFETY: takes no pointer.
    if unsafe { bpf_get_retval() } != 0 {
        // Another program on the hook has refused already: nobody needs the port.
        return Answer::Pass;
    }
    // SAFETY: the context is valid as long as the program runs.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    let (decision, slot) = rules::decide(config, port, protocol);
    let answer = match decision {
        Decision::Ignore => Answer::Pass,
        Decision::Deny => {
            count(Counter::BindDenied);
            Answer::Refuse(EACCES)
        }
        Decision::Lease if config.flags & FLAG_WHOLE != 0 => {
            count(Counter::BindGranted);
            Answer::Granted
        }
        Decision::Lease => answer(now_verdict(port)).unwrap_or_else(|| wait(ctx, config, port)),
    };
    if !matches!(answer, Answer::Restart) {
        rules::hit(slot);
    }
    answer
}

/// The answer to a verdict; `None`: none yet.
#[inline(always)]
fn answer(verdict: Verdict) -> Option<Answer> {
    match verdict {
        Verdict::Unknown => None,
        Verdict::Ignored => Some(Answer::Pass),
        Verdict::Granted => {
            count(Counter::BindGranted);
            Some(Answer::Granted)
        }
        Verdict::Denied(errno) => {
            count(Counter::BindDenied);
            Some(Answer::Refuse(errno))
        }
    }
}

#[inline(always)]
fn now_verdict(port: u32) -> Verdict {
    PORTS.get(port).map_or(Verdict::Unknown, |entry: &Port| verdict(entry, now()))
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_ktime_get_ns() }
}

/// Wait for the verdict, to the end or until the call is restarted.
#[inline(always)]
fn wait(ctx: &SockAddrContext, config: &Config, port: u32) -> Answer {
    let start = now();
    // Nobody is there to be asked: over at once.
    let deadline = if maps::agent_lives() { pending_until(ctx, config, port, start) } else { start };
    if start < deadline {
        let task = Task::current();
        let look = Look { port, watch: Watch::over(task) };
        let parks = config.wait != WAIT_POLL && park::in_bind_call(config);
        if parks {
            let waited = config.deadline_ns.saturating_sub(deadline - start);
            let turn = park::turn(config, task, waited);
            if let Some(answer) = look.until(deadline.min(start.saturating_add(turn))) {
                return answer;
            }
            if now() < deadline && park::prepare(config, task) {
                return Answer::Restart;
            }
        }
        // A sender that fails is gone, or busy with a thread that another one interrupted: then the kernel preempts itself, and
        // looking to the end is no harm.
        if let Some(answer) = hold(config, look, deadline, parks || config.wait == WAIT_POLL) {
            return answer;
        }
    }
    count(Counter::BindTimeout);
    if config.flags & FLAG_TIMEOUT_ALLOW != 0 { Answer::Pass } else { Answer::Refuse(EADDRINUSE) }
}

/// Look for the verdict inside the hook, to the end. That may hold a CPU, and unless `whatever`, one has to be left for whoever
/// answers.
#[inline(always)]
fn hold(config: &Config, look: Look, deadline: u64, whatever: bool) -> Option<Answer> {
    count(Counter::Held);
    let holders = HOLDERS.get_ptr_mut(0)?;
    // SAFETY: an array entry; programs change it by atomic operations only. Whoever adds takes away again.
    let others = unsafe { atomic::fetch_add(holders, 1) };
    let until = if whatever || others < config.holders_max {
        deadline
    } else {
        deadline.min(now().saturating_add(UNPARKED_POLL_NS))
    };
    let answer = look.until(until);
    // SAFETY: as above.
    unsafe { atomic::fetch_sub(holders, 1) };
    answer
}

/// When the waiting for `port` ends; the agent has been told that somebody waits.
#[inline(always)]
fn pending_until(ctx: &SockAddrContext, config: &Config, port: u32, now: u64) -> u64 {
    let fresh = now.saturating_add(config.deadline_ns);
    let Some(pending) = PENDING.get_ptr_mut(port) else {
        // The entry is there before the event, so that the agent always finds what to delete. Who inserts it asks.
        let entry = Pending { deadline_ns: fresh, asked: 1, pad: 0 };
        if PENDING.insert(port, entry, u64::from(BPF_NOEXIST)).is_ok() {
            ask(ctx, port);
        }
        return fresh;
    };
    // SAFETY: a map entry stays readable while the program runs, even when user space deletes it.
    let (until, asked) = unsafe {
        (
            ptr::read_volatile(&raw const (*pending).deadline_ns),
            ptr::read_volatile(&raw const (*pending).asked),
        )
    };
    if now > until.saturating_add(STALE_NS) {
        // SAFETY: as above; deadlines are only changed here.
        if unsafe { atomic::replace(&raw mut (*pending).deadline_ns, until, fresh) } {
            ask(ctx, port);
        }
        return fresh;
    }
    // SAFETY: as above; of those who find 0, one gets 0 back and asks.
    if asked == 0 && unsafe { atomic::fetch_add(&raw mut (*pending).asked, 1) } == 0 {
        ask(ctx, port);
    }
    until
}

/// Tell the agent that somebody waits, or leave it to the next pass when the ring has no room.
#[inline(always)]
fn ask(ctx: &SockAddrContext, port: u32) {
    // SAFETY: the context is valid as long as the program runs.
    let subject = unsafe {
        event::Subject {
            cookie: bpf_get_socket_cookie(ctx.as_ptr()),
            port,
            protocol: (*ctx.sock_addr).protocol,
            family: (*ctx.sock_addr).family,
        }
    };
    if event::send(EVENT_WANT_PORT, &subject) {
        return;
    }
    if let Some(pending) = PENDING.get_ptr_mut(port) {
        // SAFETY: as in `pending_until`.
        unsafe { ptr::write_volatile(&raw mut (*pending).asked, 0) };
    }
}

/// Signals after which nobody wants to know the verdict any more.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    /// Where the thread's and its process's pending signals are; 0: unknown.
    own: u64,
    process: u64,
    /// Those that tell the program to end, and that it handles.
    ending: u64,
}

impl Watch {
    #[inline(always)]
    pub(crate) fn over(task: Option<Task>) -> Self {
        match task {
            Some(task) => {
                Self { own: task.own_signals(), process: task.process_signals(), ending: task.ending() }
            }
            None => Self { own: 0, process: 0, ending: 0 },
        }
    }

    #[inline(always)]
    pub(crate) fn is_over(self) -> bool {
        // SIGKILL, and what else ends a program for certain, is with each thread.
        let (own, process): (u64, u64) = (read(self.own), read(self.process));
        own & bit(SIGKILL) | (own | process) & self.ending != 0
    }
}

/// What is looked for.
#[derive(Clone, Copy)]
struct Look {
    port: u32,
    watch: Watch,
}

/// State of a polling loop.
#[repr(C)]
struct Poll {
    until: u64,
    look: Look,
    /// 1: the verdict is there or the time is over. An integer, because the verifier wants to see that a callback answers
    /// 0 or 1.
    over: u32,
}

impl Look {
    /// Look for the verdict again and again until it is there or the time is over.
    #[inline(always)]
    fn until(self, until: u64) -> Option<Answer> {
        let mut state = Poll { until, look: self, over: 0 };
        // SAFETY: the callback takes a `Poll` and does not keep it.
        unsafe { bpf_loop(POLL_TURNS, poll_turn as *mut c_void, (&raw mut state).cast(), 0) };
        if !are_hooks_on() {
            return Some(Answer::Pass);
        }
        let found = answer(now_verdict(self.port));
        if found.is_none() && self.watch.is_over() {
            count(Counter::BindAbandoned);
            return Some(Answer::Refuse(EADDRINUSE));
        }
        found
    }
}

/// Whether the agent still wants to decide.
#[inline(always)]
fn are_hooks_on() -> bool {
    maps::config().is_some_and(|config| config.flags & FLAG_ENABLED != 0)
}

unsafe extern "C" fn poll_turn(_turn: u32, state: *mut c_void) -> i64 {
    // SAFETY: as in `Look::until`.
    unsafe { bpf_loop(POLL_ROUNDS, poll_round as *mut c_void, state, 0) };
    // SAFETY: `Look::until` passes a `Poll`.
    i64::from(unsafe { (*state.cast::<Poll>()).over } != 0)
}

unsafe extern "C" fn poll_round(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `Look::until` passes a `Poll`.
    let state = unsafe { &mut *state.cast::<Poll>() };
    let over = now() >= state.until
        || now_verdict(state.look.port) != Verdict::Unknown
        || state.look.watch.is_over()
        || !are_hooks_on();
    state.over = u32::from(over);
    i64::from(over)
}
