//! Making a bind wait by restarting its system call.
//!
//! cgroup programs may not sleep. A hook that answers `-ERESTARTNOINTR` while a signal is pending makes the kernel run the
//! system call again instead of returning to the program. The signal is a SIGSTOP that a SIGCONT cancels before it is
//! taken: the program sees neither, can be killed at any time, and shares its CPU. cgroup programs may not send signals; a
//! sender does it, which the hook calls and which says what it has done, so that `-ERESTARTNOINTR` is never answered in vain: a
//! fexit program on a helper that the hook uses, or a raw tracepoint program that runs when the hook prints a trace line.
//!
//! SIGCONT cancels every stop of the process, not only ours. So it is not sent while somebody else stops the program, or traces
//! it: what is pending then makes the kernel restart the call as well.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_task_btf, bpf_loop, bpf_send_signal_thread, bpf_set_retval, bpf_task_pt_regs,
            bpf_trace_vprintk,
        },
    },
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};
use rsip_ebpf_common::host::{Config, Counter, EVENT_CONTINUE, WAIT_PARK_FEXIT};

use crate::{
    event,
    kernel::read,
    maps::{ARM, count},
    task::{SIGCONT, SIGSTOP, Task, bit},
};

/// The kernel's code for "run the system call again, whatever the signal's handler says". Never seen by programs as long as
/// a signal is pending.
pub(crate) const ERESTARTNOINTR: i32 = 513;

const EBUSY: i64 = 16;
/// [`ARM`]: beside SIGCONT: to be sent even if somebody else stops or traces the program.
const WHATEVER: u32 = 1 << 8;
/// [`ARM`]: nothing left to send.
const SENT: u32 = 0;
/// The previous signal is still on its way from an interrupt: that takes well below a microsecond, each try some tens of
/// nanoseconds.
const TRIES_IN_TRACEPOINT: u32 = 1000;
/// How often the sender is called for a signal. Kernels that print trace lines with interrupts disabled (before 6.3) deliver the
/// signal only after the line.
const CALLS: u32 = 32;
/// Offsets in `struct pt_regs` are below.
const REGISTERS: u64 = 512;
/// A program of the x32 kind: the bit in the number of its system calls.
const X32: u32 = 1 << 30;
/// `rbx` in `struct pt_regs` of x86_64, and what it says when a 32-bit program's socketcall is a bind.
const FIRST_ARGUMENT: u64 = 40;
const SOCKETCALL_BIND: u32 = 2;
/// The kernel takes no signals for the first process from programs.
const INIT: u64 = 1;

/// Longest time for which a waiting program holds its CPU before it lets others run.
const TURN_MAX_NS: u64 = 4_000_000;
/// The same for programs that notice each restart: they handle SIGCONT, or are traced.
const RARE_TURN_NS: u64 = 10_000_000;
const RARE_TURN_MAX_NS: u64 = 100_000_000;

/// Whether the calling thread is in the bind system call itself: not in io_uring, nor in the kernel's own work, none of which
/// restarts.
#[inline(always)]
pub(crate) fn in_bind_call(config: &Config) -> bool {
    // SAFETY: the helpers take no pointer but the current task's, which is valid.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    // Half of the register where registers are long: no number needs more, and not every machine has more.
    let number: u32 = read(registers + (u64::from(config.syscall_nr_offset) & (REGISTERS - 1)));
    match Task::current() {
        Some(task) if task.is_in_compat_call() => {
            let (bind, socketcall) = task.compat_numbers();
            number == bind
                || (number == socketcall && read::<u32>(registers + FIRST_ARGUMENT) == SOCKETCALL_BIND)
        }
        _ => number & !X32 == config.bind_nr,
    }
}

/// Whether the calling thread is in a system call that takes a port, and can be restarted. A sendmmsg() cannot: what it has
/// sent before would be sent again.
#[inline(always)]
pub(crate) fn in_port_call(config: &Config) -> bool {
    // SAFETY: as in `in_bind_call`.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let number: u32 = read(registers + (u64::from(config.syscall_nr_offset) & (REGISTERS - 1)));
    match Task::current() {
        Some(task) if task.is_in_compat_call() => {
            let (bind, socketcall) = task.compat_numbers();
            let call = read::<u32>(registers + FIRST_ARGUMENT);
            // connect() is the next one.
            number == bind
                || number == bind + 1
                || (number == socketcall && (call == SOCKETCALL_BIND || call == SOCKETCALL_BIND + 1))
        }
        _ => {
            let number = number & !X32;
            number == config.bind_nr
                || number == config.connect_nr
                || number == config.sendto_nr
                || number == config.sendmsg_nr
        }
    }
}

/// How long to look for the verdict before the next restart, after so much of the waiting. Most answers come at once; who waits
/// for long need not be restarted ten thousand times a second.
#[inline(always)]
pub(crate) fn turn(config: &Config, task: Option<Task>, waited_ns: u64) -> u64 {
    if task.is_some_and(|task| task.is_traced() || task.handles(SIGCONT)) {
        return (waited_ns / 4).clamp(RARE_TURN_NS, RARE_TURN_MAX_NS);
    }
    (waited_ns / 16).min(TURN_MAX_NS).max(config.poll_ns)
}

/// Prepare the calling thread's restart. `true`: the hook must answer `-ERESTARTNOINTR`. `false`: it must not.
#[inline(always)]
pub(crate) fn prepare(config: &Config, task: Option<Task>) -> bool {
    let thread = bpf_get_current_pid_tgid();
    if thread >> 32 == INIT {
        return false;
    }
    let sender = Sender { way: config.wait, thread };
    let ready = sender.restart(task);
    forget(thread);
    count(if ready { Counter::Parked } else { Counter::ParkFailed });
    ready
}

/// Sends signals to the calling thread.
#[derive(Clone, Copy)]
struct Sender {
    way: u32,
    thread: u64,
}

impl Sender {
    /// See to it that the kernel looks at the thread's signals before the program runs on.
    #[inline(always)]
    fn restart(self, task: Option<Task>) -> bool {
        let Some(task) = task else {
            return self.send_surely(SIGSTOP) && self.go_on(SIGCONT);
        };
        let traced = task.is_traced();
        let stops = task.stops(0);
        let stopped = task.will_stop(stops);
        let before = task.coming();
        let idle = if traced || stopped || stops != 0 { task.idle_signal() } else { 0 };
        let first = if idle == 0 { SIGSTOP } else { idle };
        if !self.send_surely(first) {
            return false;
        }
        if idle == 0 {
            if !task.has(SIGSTOP) {
                return false;
            }
            return self.go_on(if traced { SIGCONT | WHATEVER } else { SIGCONT });
        }
        // Every signal for a traced thread becomes pending and is shown to the tracer: one without effect will do. And what was
        // pending before a signal of ours was sent is pending for good: signals are sent under a lock.
        if task.has(idle) || task.coming().is_there_since(before) {
            return true;
        }
        // Another thread may be about to take it. If it stops all of them, it is no matter who does.
        stopped && self.send_surely(SIGSTOP)
    }

    /// Cancel the stop.
    #[inline(always)]
    fn go_on(self, signal: u32) -> bool {
        if !self.send(signal, 1) {
            count(Counter::ParkFailed);
            ask_to_continue();
        }
        true
    }

    /// Send a signal that does not count twice, and be sure that it has arrived.
    #[inline(always)]
    fn send_surely(self, signal: u32) -> bool {
        // The tracepoint program sends from an interrupt, one signal after the other.
        self.send(signal, if self.way == WAIT_PARK_FEXIT { 1 } else { 2 })
    }

    /// Have the sender's program send a signal so many times. The last one may be on its way still.
    #[inline(always)]
    fn send(self, signal: u32, times: u32) -> bool {
        if ARM.insert(self.thread, signal, 0).is_err() {
            return false;
        }
        let mut state = Sending { sender: self, signal, left: times };
        // SAFETY: the callback takes a `Sending` and does not keep it.
        unsafe { bpf_loop(CALLS, call_sender as *mut c_void, (&raw mut state).cast(), 0) };
        state.left == 0
    }
}

#[repr(C)]
struct Sending {
    sender: Sender,
    signal: u32,
    left: u32,
}

/// Call the sender's program once; `state` is a [`Sending`].
unsafe extern "C" fn call_sender(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `Sender::send` passes a `Sending`.
    let state = unsafe { &mut *state.cast::<Sending>() };
    if state.sender.way == WAIT_PARK_FEXIT {
        // `rsip_park_exit`. Nothing was answered so far, and that stays so.
        // SAFETY: takes no pointer.
        unsafe { bpf_set_retval(0) };
    } else {
        // `rsip_park_tp`.
        let line = *b"rsip\0\0\0\0";
        // SAFETY: the format is a NUL-terminated string of the length said, without arguments.
        unsafe { bpf_trace_vprintk(line.as_ptr().cast(), 5, core::ptr::null(), 0) };
    }
    // SAFETY: the entry is the calling thread's own.
    if unsafe { ARM.get(state.sender.thread) } != Some(&SENT) {
        return 0;
    }
    state.left = state.left.saturating_sub(1);
    if state.left > 0 && ARM.insert(state.sender.thread, state.signal, 0).is_ok() {
        return 0;
    }
    1
}

/// The thread was stopped and cannot be continued from here: somebody else must do it.
#[inline(always)]
fn ask_to_continue() {
    event::send(EVENT_CONTINUE, &event::Subject { cookie: 0, port: 0, protocol: 0, family: 0 });
}

#[inline(always)]
fn forget(thread: u64) {
    // Only this thread inserts and removes its entry: there is nothing to do about one that is not there.
    ARM.remove(thread).ok();
}

/// One try to send a signal; `state` is a [`Try`].
unsafe extern "C" fn try_signal(_round: u32, state: *mut c_void) -> i64 {
    // SAFETY: `rsip_park_tp` passes a `Try`.
    let state = unsafe { &mut *state.cast::<Try>() };
    // SAFETY: takes no pointer.
    state.answer = unsafe { bpf_send_signal_thread(state.signal) };
    i64::from(state.answer != -EBUSY)
}

#[repr(C)]
struct Try {
    signal: u32,
    answer: i64,
}

/// Runs in the thread that printed a trace line, whoever that is; sends what is armed for it.
#[raw_tracepoint(tracepoint = "bpf_trace_printk")]
pub(crate) fn rsip_park_tp(_ctx: RawTracePointContext) -> i32 {
    send_armed()
}

/// Runs when a hook has called `bpf_set_retval`, whoever's that is; sends what is armed for the thread.
#[fexit(function = "bpf_set_retval")]
pub(crate) fn rsip_park_exit(_ctx: FExitContext) -> i32 {
    send_armed()
}

#[inline(always)]
fn send_armed() -> i32 {
    let Some(armed) = ARM.get_ptr_mut(bpf_get_current_pid_tgid()) else {
        return 0;
    };
    // SAFETY: the entry is the calling thread's own, and stays while its hook waits for this program.
    let signal = unsafe { *armed };
    if signal == SENT {
        return 0;
    }
    // If somebody else stops the program, or a tracer begins with it, our stop is his. Looked at as late as can be.
    if signal == SIGCONT
        && let Some(task) = Task::current()
        && (task.will_stop(task.stops(bit(SIGSTOP))) || task.is_traced())
    {
        // SAFETY: as above.
        unsafe { *armed = SENT };
        return 0;
    }
    let mut state = Try { signal: signal & !WHATEVER, answer: -EBUSY };
    // SAFETY: the callback takes a `Try` and does not keep it.
    unsafe { bpf_loop(TRIES_IN_TRACEPOINT, try_signal as *mut c_void, (&raw mut state).cast(), 0) };
    if state.answer == 0 {
        // SAFETY: as above.
        unsafe { *armed = SENT };
    }
    0
}
