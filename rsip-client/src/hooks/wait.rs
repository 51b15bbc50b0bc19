//! How bind() is made to wait: the ways, and which of them this kernel has.
//!
//! | way | needs | preferred because |
//! |---|---|---|
//! | park (fexit) | a BTF trampoline on the bind system call | nothing but waiting binds runs it |
//! | park (raw tracepoint) | raw tracepoint programs with the tracing helpers | runs where trampolines do not load |
//! | poll | `bpf_loop` (Linux 5.17) | needs nothing else, but holds its CPU while it waits |

use std::fmt;

use aya::programs::fexit::FExitLink;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{FExit, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf};
use rsip_ebpf_common::host::{self, programs};
use rsip_sys::tc;

use super::HooksError;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// The best that this kernel has.
    Auto,
    /// Restart the system call, by either means.
    Park,
    /// Wait inside the hook.
    Poll,
}

/// A way of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The system call is restarted; a fexit program sends the signals.
    ParkFexit,
    /// The system call is restarted; a raw tracepoint program sends the signals.
    ParkTracepoint,
    /// The hook itself waits.
    Poll,
}

impl Way {
    /// The programs' name for it (`WAIT_*`).
    pub const fn code(self) -> u32 {
        match self {
            Self::ParkFexit => host::WAIT_PARK_FEXIT,
            Self::ParkTracepoint => host::WAIT_PARK_TRACEPOINT,
            Self::Poll => host::WAIT_POLL,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ParkFexit => "park (fexit)",
            Self::ParkTracepoint => "park (raw tracepoint)",
            Self::Poll => "poll",
        })
    }
}

/// The way that was chosen. Its program stays attached as long as the value lives; it does nothing unless a bind waits.
#[derive(Debug)]
pub struct Chosen {
    /// The way.
    pub way: Way,
    /// Why not a better one; empty: there is none better.
    pub why: String,
    #[expect(dead_code, reason = "held for its Drop")]
    link: Option<SenderLink>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "held for their Drop")]
enum SenderLink {
    Fexit(FExitLink),
    Tracepoint(RawTracePointLink),
}

/// Names of the bind system call's entry function, by architecture.
pub(crate) const BIND_FUNCTION: &str =
    if cfg!(target_arch = "aarch64") { "__arm64_sys_bind" } else { "__x64_sys_bind" };

/// Tries the ways in their order.
///
/// # Errors
///
/// The wish cannot be met.
pub fn choose(ebpf: &mut Ebpf, wish: Wish) -> Result<Chosen, HooksError> {
    if wish == Wish::Poll {
        return Ok(Chosen { way: Way::Poll, why: "asked for".to_owned(), link: None });
    }
    let no_fexit = match fexit(ebpf) {
        Ok(link) => {
            return Ok(Chosen {
                way: Way::ParkFexit,
                why: String::new(),
                link: Some(SenderLink::Fexit(link)),
            });
        }
        Err(why) => why,
    };
    let no_tracepoint = match tracepoint(ebpf) {
        Ok(link) => {
            return Ok(Chosen {
                way: Way::ParkTracepoint,
                why: no_fexit,
                link: Some(SenderLink::Tracepoint(link)),
            });
        }
        Err(why) => why,
    };
    let why = format!("{no_fexit}; {no_tracepoint}");
    match wish {
        Wish::Auto => Ok(Chosen { way: Way::Poll, why, link: None }),
        Wish::Park | Wish::Poll => Err(HooksError::CannotPark(why)),
    }
}

fn fexit(ebpf: &mut Ebpf) -> Result<FExitLink, String> {
    let failed = |what: &str, why: &dyn fmt::Display| format!("no fexit on {BIND_FUNCTION}: {what}: {why}");
    let btf = Btf::from_sys_fs().map_err(|e| failed("no BTF", &e))?;
    let program: &mut FExit =
        tc::program(ebpf, programs::PARK_FEXIT).map_err(|e| failed("no program", &e))?;
    program.load(BIND_FUNCTION, &btf).map_err(|e| failed("cannot load", &short(&e)))?;
    let id = program.attach().map_err(|e| failed("cannot attach", &short(&e)))?;
    program.take_link(id).map_err(|e| failed("cannot hold", &short(&e)))
}

fn tracepoint(ebpf: &mut Ebpf) -> Result<RawTracePointLink, String> {
    let failed =
        |what: &str, why: &dyn fmt::Display| format!("no raw tracepoint on bpf_trace_printk: {what}: {why}");
    let program: &mut RawTracePoint =
        tc::program(ebpf, programs::PARK_TRACEPOINT).map_err(|e| failed("no program", &e))?;
    program.load().map_err(|e| failed("cannot load", &short(&e)))?;
    let id = program.attach("bpf_trace_printk").map_err(|e| failed("cannot attach", &short(&e)))?;
    program.take_link(id).map_err(|e| failed("cannot hold", &short(&e)))
}

/// The kernel's answer alone: the verifier's log fills pages, and goes to the debug log.
fn short(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            tracing::debug!(%verifier_log, "verifier");
            io_error.to_string()
        }
        ProgramError::SyscallError(error) => error.io_error.to_string(),
        other => other.to_string(),
    }
}
