//! The calling thread, as the kernel sees it: its signals, and who watches it.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use rsip_ebpf_common::{layout::Layout, rules::COMMAND_LENGTH};

use crate::{
    kernel::{member, read},
    maps,
};

pub(crate) const SIGKILL: u32 = 9;
pub(crate) const SIGCONT: u32 = 18;
pub(crate) const SIGSTOP: u32 = 19;
const SIGINT: u32 = 2;
const SIGTERM: u32 = 15;
const SIGTSTP: u32 = 20;
const SIGTTIN: u32 = 21;
const SIGTTOU: u32 = 22;
const SIGURG: u32 = 23;
const SIGWINCH: u32 = 28;
/// Signals that stop a process.
const STOPS: u64 = bit(SIGSTOP) | bit(SIGTSTP) | bit(SIGTTIN) | bit(SIGTTOU);

/// `task_struct.flags`: a thread of the kernel's own. io_uring's workers are not.
const PF_KTHREAD: u32 = 0x0020_0000;
/// `task_struct.jobctl`: all threads of the process are being stopped.
const JOBCTL_STOP_PENDING: u64 = 1 << 17;
/// The highest handler that is none: SIG_DFL (0), SIG_IGN (1).
const SIG_IGN: u64 = 1;

/// A signal in a set of signals.
pub(crate) const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// The calling thread.
#[derive(Clone, Copy)]
pub(crate) struct Task {
    address: u64,
    layout: &'static Layout,
}

/// What a thread waits for to be done with it.
#[derive(Clone, Copy)]
pub(crate) struct Coming {
    /// Its own pending signals that it does not block.
    own: u64,
    /// Those of its process, where it is the only thread, which then is woken for them.
    shared: u64,
    /// Its process is being stopped.
    stopping: bool,
}

impl Coming {
    /// Whether something of this is on its way that was so before, in `earlier`, too.
    #[inline(always)]
    pub(crate) fn is_there_since(self, earlier: Self) -> bool {
        self.own & earlier.own != 0
            || self.shared & earlier.shared != 0
            || (self.stopping && earlier.stopping)
    }
}

impl Task {
    /// `None` where the kernel does not tell where things are.
    #[inline(always)]
    pub(crate) fn current() -> Option<Self> {
        maps::layout().filter(|layout| layout.task_known != 0).map(Self::of)
    }

    /// The same for a layout that knows.
    #[inline(always)]
    pub(crate) fn of(layout: &'static Layout) -> Self {
        // SAFETY: takes no pointer.
        let address = unsafe { bpf_get_current_task() };
        Self { address, layout }
    }

    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        member::<u32>(self.address, self.layout.task_flags) & PF_KTHREAD != 0
    }

    /// The command name of the process, which is that of its first thread.
    #[inline(always)]
    pub(crate) fn leader_command(self) -> [u8; COMMAND_LENGTH] {
        if self.layout.task_leader == 0 {
            return [0; COMMAND_LENGTH];
        }
        let leader: u64 = member(self.address, self.layout.task_leader);
        member(leader, self.layout.task_command)
    }

    /// Whether a debugger or tracer sees every signal of this thread.
    #[inline(always)]
    pub(crate) fn is_traced(self) -> bool {
        member::<u32>(self.address, self.layout.task_ptrace) != 0
    }

    /// Whether the thread is in a 32-bit system call.
    #[inline(always)]
    pub(crate) fn is_in_compat_call(self) -> bool {
        member::<u32>(self.address, self.layout.compat_word) & self.layout.compat_mask != 0
    }

    /// Numbers of the system calls bind and socketcall for 32-bit programs.
    #[inline(always)]
    pub(crate) fn compat_numbers(self) -> (u32, u32) {
        (self.layout.compat_bind_nr, self.layout.compat_socketcall_nr)
    }

    /// Where the thread's own pending signals are.
    #[inline(always)]
    pub(crate) fn own_signals(self) -> u64 {
        self.address + u64::from(self.layout.task_pending)
    }

    /// Where the process's pending signals are.
    #[inline(always)]
    pub(crate) fn process_signals(self) -> u64 {
        self.process() + u64::from(self.layout.signal_pending)
    }

    #[inline(always)]
    fn process(self) -> u64 {
        member(self.address, self.layout.task_signal)
    }

    /// Whether the process has no other thread.
    #[inline(always)]
    fn is_alone(self) -> bool {
        member::<u32>(self.process(), self.layout.signal_threads) == 1
    }

    #[inline(always)]
    fn blocked(self) -> u64 {
        member(self.address, self.layout.task_blocked)
    }

    #[inline(always)]
    fn pending(self) -> u64 {
        read(self.own_signals())
    }

    #[inline(always)]
    fn shared_pending(self) -> u64 {
        read(self.process_signals())
    }

    #[inline(always)]
    fn is_stopping(self) -> bool {
        member::<u64>(self.address, self.layout.task_jobctl) & JOBCTL_STOP_PENDING != 0
    }

    /// Whether `signal` is pending for this very thread.
    #[inline(always)]
    pub(crate) fn has(self, signal: u32) -> bool {
        self.pending() >> (signal - 1) & 1 != 0
    }

    /// What is on its way to the thread and makes the kernel look at its signals before the program runs on.
    #[inline(always)]
    pub(crate) fn coming(self) -> Coming {
        let blocked = self.blocked();
        let shared = if self.is_alone() { self.shared_pending() } else { 0 };
        Coming { own: self.pending() & !blocked, shared: shared & !blocked, stopping: self.is_stopping() }
    }

    /// Signals that stop the process and are on their way to it or to this thread. Not `ours`.
    #[inline(always)]
    pub(crate) fn stops(self, ours: u64) -> u64 {
        (self.shared_pending() | (self.pending() & !ours)) & STOPS & !self.blocked()
    }

    /// Whether the process will stop: it does so already, or has no handler for one of these signals.
    #[inline(always)]
    pub(crate) fn will_stop(self, stops: u64) -> bool {
        if self.is_stopping() {
            return true;
        }
        if stops == 0 {
            return false;
        }
        let handled = self.handled(SIGTSTP) | self.handled(SIGTTIN) | self.handled(SIGTTOU);
        stops & !handled != 0
    }

    /// The signal, if the process has a handler for it, else none.
    #[inline(always)]
    fn handled(self, signal: u32) -> u64 {
        let handlers: u64 = member(self.address, self.layout.task_sighand);
        let before = u64::from(signal - 1) * u64::from(self.layout.action_size);
        let action: u64 = member(handlers + before, self.layout.sighand_action);
        u64::from(action > SIG_IGN) << (signal - 1)
    }

    /// Whether a handler of the program runs for this signal in this thread.
    #[inline(always)]
    pub(crate) fn handles(self, signal: u32) -> bool {
        self.handled(signal) & !self.blocked() != 0
    }

    /// A signal that does nothing to this process, and is neither blocked nor handled; 0: there is none.
    #[inline(always)]
    pub(crate) fn idle_signal(self) -> u32 {
        let taken = self.blocked() | self.handled(SIGURG) | self.handled(SIGWINCH);
        if taken & bit(SIGURG) == 0 {
            SIGURG
        } else if taken & bit(SIGWINCH) == 0 {
            SIGWINCH
        } else {
            0
        }
    }

    /// Signals that tell the program to end, and that it handles: it wants to hear of them at once. Not for a debugged program,
    /// whose debugger has the first word.
    #[inline(always)]
    pub(crate) fn ending(self) -> u64 {
        if self.is_traced() {
            return 0;
        }
        (self.handled(SIGINT) | self.handled(SIGTERM)) & !self.blocked()
    }
}
