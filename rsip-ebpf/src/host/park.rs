//! Making a bind wait by restarting its system call.
//!
//! cgroup programs may not sleep. A hook that answers `-ERESTARTNOINTR` while a signal is pending makes the kernel run the
//! system call again instead of returning to the program. The signal is a SIGSTOP that a SIGCONT cancels before it is
//! taken: the program sees neither, can be killed at any time, and shares its CPU. cgroup programs may not send signals; a
//! fexit program on the system call does it, or a raw tracepoint program that the hook calls by printing a trace line.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_get_current_task_btf, bpf_loop, bpf_probe_read_kernel, bpf_send_signal_thread,
            bpf_task_pt_regs, bpf_trace_vprintk,
        },
    },
    macros::{fexit, raw_tracepoint},
    programs::{FExitContext, RawTracePointContext},
};
use rsip_ebpf_common::host::{Config, Counter, EVENT_CONTINUE, WAIT_PARK_FEXIT};

use crate::{
    event,
    maps::{ARM, count},
};

/// The kernel's code for "run the system call again, whatever the signal's handler says". Never seen by programs as long as
/// a signal is pending.
pub(crate) const ERESTARTNOINTR: i32 = 513;

const SIGCONT: u32 = 18;
const SIGSTOP: u32 = 19;
const EBUSY: i64 = 16;
/// [`ARM`]: nothing left to send, or (fexit) both to be sent.
const SENT: u32 = 0;
/// The previous signal is still on its way from an interrupt: that takes well below a microsecond, each try some tens of
/// nanoseconds.
const TRIES_IN_TRACEPOINT: u32 = 1000;
/// Kernels that print with interrupts disabled (before 6.3) deliver the signal only after the trace line.
const TRACE_LINES: u32 = 16;
/// Offsets in `struct pt_regs` are below.
const REGISTERS: u64 = 512;

/// Whether the calling thread is in the bind system call itself: not in io_uring, a compatibility call or the kernel's own
/// work, none of which restarts.
#[inline(always)]
pub(crate) fn in_bind_call(config: &Config) -> bool {
    // SAFETY: the helpers take no pointer but the current task's, which is valid.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let address = registers + (u64::from(config.syscall_nr_offset) & (REGISTERS - 1));
    // Half of the register where registers are long: no number needs more, and not every machine has more.
    let mut number = 0u32;
    // SAFETY: the helper checks the source; the destination is as long as said.
    let read = unsafe { bpf_probe_read_kernel((&raw mut number).cast(), 4, address as *const c_void) };
    read == 0 && number == config.bind_nr
}

/// Prepare the calling thread's restart. `true`: the hook must answer `-ERESTARTNOINTR`. `false`: it must not.
#[inline(always)]
pub(crate) fn prepare(config: &Config) -> bool {
    let thread = bpf_get_current_pid_tgid();
    let ready = if config.wait == WAIT_PARK_FEXIT {
        ARM.insert(thread, SENT, 0).is_ok()
    } else {
        let stopped = signal_by_tracepoint(thread, SIGSTOP);
        if stopped && !signal_by_tracepoint(thread, SIGCONT) {
            count(Counter::ParkFailed);
            ask_to_continue();
        }
        forget(thread);
        stopped
    };
    count(if ready { Counter::Parked } else { Counter::ParkFailed });
    ready
}

/// Have [`rsip_park_tp`] send a signal to the calling thread.
#[inline(always)]
fn signal_by_tracepoint(thread: u64, signal: u32) -> bool {
    if ARM.insert(thread, signal, 0).is_err() {
        return false;
    }
    let line = *b"rsip\0\0\0\0";
    for _ in 0..TRACE_LINES {
        // SAFETY: the format is a NUL-terminated string of the length said, without arguments.
        unsafe { bpf_trace_vprintk(line.as_ptr().cast(), 5, core::ptr::null(), 0) };
        // SAFETY: the entry is the calling thread's own.
        if unsafe { ARM.get(thread) } == Some(&SENT) {
            return true;
        }
    }
    false
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
    let Some(armed) = ARM.get_ptr_mut(bpf_get_current_pid_tgid()) else {
        return 0;
    };
    // SAFETY: the entry is the calling thread's own, and stays while its hook waits for this program.
    let signal = unsafe { *armed };
    if signal == SENT {
        return 0;
    }
    let mut state = Try { signal, answer: -EBUSY };
    // SAFETY: the callback takes a `Try` and does not keep it.
    unsafe { bpf_loop(TRIES_IN_TRACEPOINT, try_signal as *mut c_void, (&raw mut state).cast(), 0) };
    if state.answer == 0 {
        // SAFETY: as above.
        unsafe { *armed = SENT };
    }
    0
}

/// Runs when the bind system call returns (`__x64_sys_bind` and its like, which the agent names when it loads the program).
#[fexit]
pub(crate) fn rsip_park_exit(ctx: FExitContext) -> i32 {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the entry is the calling thread's own.
    if unsafe { ARM.get(thread) }.is_none() {
        return 0;
    }
    forget(thread);
    // The system call has one argument (its registers); its result follows.
    let result: i64 = ctx.arg(1);
    if result as i32 != -ERESTARTNOINTR {
        // Another program on the hook had the last word.
        return 0;
    }
    // SAFETY: takes no pointer.
    let stopped = unsafe { bpf_send_signal_thread(SIGSTOP) };
    if stopped != 0 {
        count(Counter::ParkFailed);
    }
    // Also when the stop failed: any pending signal makes the kernel restart the call.
    // SAFETY: takes no pointer.
    if unsafe { bpf_send_signal_thread(SIGCONT) } != 0 {
        count(Counter::ParkFailed);
        if stopped == 0 {
            ask_to_continue();
        }
    }
    0
}
