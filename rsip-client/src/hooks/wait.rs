//! How bind() is made to wait: the ways, and which of them this kernel has.
//!
//! | way | needs | preferred because |
//! |---|---|---|
//! | park (fexit) | a BTF trampoline on the helper by which hooks set their answer | little else runs it |
//! | park (raw tracepoint) | raw tracepoint programs with the tracing helpers | runs where trampolines do not load |
//! | poll | `bpf_loop` (Linux 5.17) | needs nothing else, but holds its CPU while it waits |

use std::path::PathBuf;
use std::{fmt, io};

use aya::programs::fexit::FExitLink;
use aya::programs::links::FdLink;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{FExit, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf};
use rsip_ebpf_common::host::{self, programs};
use rsip_sys::tc;

use super::HooksError;
use super::pins::Pins;

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// The best that this kernel has.
    Auto,
    /// Restart the system call, by either means.
    Park,
    /// Restart the system call by a fexit program, or fail.
    ParkFexit,
    /// Restart the system call by a raw tracepoint program, or fail.
    ParkTracepoint,
    /// Wait inside the hook.
    Poll,
}

impl Wish {
    const fn allows(self, way: Way) -> bool {
        match self {
            Self::Auto => true,
            Self::Park => !matches!(way, Way::Poll),
            Self::ParkFexit => matches!(way, Way::ParkFexit),
            Self::ParkTracepoint => matches!(way, Way::ParkTracepoint),
            Self::Poll => matches!(way, Way::Poll),
        }
    }
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
    link: Option<SenderLink>,
}

#[derive(Debug)]
enum SenderLink {
    Fexit(FExitLink),
    Tracepoint(RawTracePointLink),
}

impl Chosen {
    /// Gives the sender's link a name, under which it outlives the process. `None`: nobody sends.
    ///
    /// # Errors
    ///
    /// The file system does not take it.
    pub fn pin(&mut self, pins: &Pins) -> io::Result<Option<PathBuf>> {
        let link = match self.link.take() {
            None => return Ok(None),
            Some(SenderLink::Fexit(link)) => FdLink::from(link),
            Some(SenderLink::Tracepoint(link)) => FdLink::from(link),
        };
        let path = pins.sender(link.info().map_err(io::Error::other)?.program_id());
        link.pin(&path).map_err(io::Error::other)?;
        Ok(Some(path))
    }
}

/// The helper that the fexit program follows: hooks call it where they want signals sent.
pub(crate) const HELPER: &str = "bpf_set_retval";

/// Tries the ways in their order, as far as the wish allows them.
///
/// # Errors
///
/// The wish cannot be met.
pub fn choose(ebpf: &mut Ebpf, wish: Wish) -> Result<Chosen, HooksError> {
    let mut why = Vec::new();
    for way in [Way::ParkFexit, Way::ParkTracepoint] {
        if !wish.allows(way) {
            continue;
        }
        let link = match way {
            Way::ParkFexit => fexit(ebpf).map(SenderLink::Fexit),
            _ => tracepoint(ebpf).map(SenderLink::Tracepoint),
        };
        match link {
            Ok(link) => return Ok(Chosen { way, why: reason(wish, &why), link: Some(link) }),
            Err(reason) => why.push(reason),
        }
    }
    if wish.allows(Way::Poll) {
        return Ok(Chosen { way: Way::Poll, why: reason(wish, &why), link: None });
    }
    Err(HooksError::CannotPark(why.join("; ")))
}

/// Why not a better way: it was not wanted, or it does not work here.
fn reason(wish: Wish, failed: &[String]) -> String {
    match wish {
        Wish::Auto | Wish::Park => failed.join("; "),
        Wish::ParkFexit | Wish::ParkTracepoint | Wish::Poll => "asked for".to_owned(),
    }
}

fn fexit(ebpf: &mut Ebpf) -> Result<FExitLink, String> {
    let failed = |what: &str, why: &dyn fmt::Display| format!("no fexit on {HELPER}: {what}: {why}");
    let btf = Btf::from_sys_fs().map_err(|e| failed("no BTF", &e))?;
    let program: &mut FExit =
        tc::program(ebpf, programs::PARK_FEXIT).map_err(|e| failed("no program", &e))?;
    program.load(HELPER, &btf).map_err(|e| failed("cannot load", &short(&e)))?;
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
