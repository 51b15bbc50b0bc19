//! How bind() is made to wait: the ways, and which of them this kernel has.
//!
//! | way | needs | preferred because |
//! |---|---|---|
//! | park (fexit) | a BTF trampoline on the helper by which hooks set their answer | little else runs it |
//! | park (raw tracepoint) | raw tracepoint programs with the tracing helpers | runs where trampolines do not load |
//! | poll | `bpf_loop` (Linux 5.17) | needs nothing else, but holds its CPU while it waits |
//!
//! A way that loads need not work: each is tried with a bind before it is taken (`trial`), unless it was asked for by name.

use std::path::PathBuf;
use std::{fmt, io};

use aya::programs::fexit::FExitLink;
use aya::programs::links::FdLink;
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{FExit, Program, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf};
use rsip_ebpf_common::host::{self, programs};
use rsip_sys::tc;

use super::HooksError;
use super::pins::Pins;
use super::trial::Trials;

pub use super::trial::Outcome;

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

    /// Whether one way is asked for by its name: then it is taken, if it can be had at all.
    const fn names_one(self) -> bool {
        matches!(self, Self::ParkFexit | Self::ParkTracepoint | Self::Poll)
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

/// The best one first.
const WAYS: [Way; 3] = [Way::ParkFexit, Way::ParkTracepoint, Way::Poll];

impl Way {
    /// The programs' name for it (`WAIT_*`).
    pub const fn code(self) -> u32 {
        match self {
            Self::ParkFexit => host::WAIT_PARK_FEXIT,
            Self::ParkTracepoint => host::WAIT_PARK_TRACEPOINT,
            Self::Poll => host::WAIT_POLL,
        }
    }

    /// The way that the programs call so.
    pub fn of_code(code: u32) -> Option<Self> {
        WAYS.into_iter().find(|way| way.code() == code)
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
pub(super) enum SenderLink {
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
const HELPER: &str = "bpf_set_retval";

/// Tries the ways in their order, as far as the wish allows them. What a predecessor has `proven` since the machine started,
/// under programs that wait in it still, is not tried again.
///
/// # Errors
///
/// The wish cannot be met.
pub fn choose(ebpf: &mut Ebpf, wish: Wish, proven: Option<Way>) -> Result<Chosen, HooksError> {
    let mut trials = Trials::default();
    choose_by(ebpf, wish, |way| if proven == Some(way) { Outcome::Works } else { trials.of(way) })
}

/// The ways of waiting, best first, down to the first one that works, and what a trial shows of each.
pub fn try_all() -> Vec<(Way, Outcome)> {
    let mut trials = Trials::default();
    let mut tried = Vec::new();
    for way in WAYS {
        tried.push((way, trials.of(way)));
        if tried.last().is_some_and(|(_, outcome)| *outcome == Outcome::Works) {
            break;
        }
    }
    tried
}

fn choose_by(ebpf: &mut Ebpf, wish: Wish, trial: impl FnMut(Way) -> Outcome) -> Result<Chosen, HooksError> {
    let found = pick(wish, |way| attach(ebpf, way), trial).map_err(HooksError::CannotPark)?;
    for way in found.passed_over {
        unload(ebpf, way);
    }
    Ok(Chosen { way: found.way, why: found.why, link: found.sender })
}

struct Found<L> {
    way: Way,
    why: String,
    sender: L,
    /// Ways that load, and do not work.
    passed_over: Vec<Way>,
}

/// The first way whose sender can be attached and that stands its trial; else why there is none.
fn pick<L>(
    wish: Wish,
    mut attach: impl FnMut(Way) -> Result<L, String>,
    mut trial: impl FnMut(Way) -> Outcome,
) -> Result<Found<L>, String> {
    let mut why = Vec::new();
    let mut passed_over = Vec::new();
    for way in WAYS.into_iter().filter(|way| wish.allows(*way)) {
        let sender = match attach(way) {
            Ok(sender) => sender,
            Err(reason) => {
                why.push(reason);
                continue;
            }
        };
        if wish.names_one() {
            return Ok(Found { way, why: "asked for".to_owned(), sender, passed_over });
        }
        match trial(way) {
            Outcome::Works => {}
            Outcome::Untried(reason) => why.push(format!("{way} is taken untried: {reason}")),
            Outcome::Fails(reason) => {
                why.push(format!("{way} does not work here: {reason}"));
                // There is nothing after the last one: a bind that is answered then ends by its deadline at worst.
                if way != Way::Poll {
                    passed_over.push(way);
                    continue;
                }
            }
        }
        return Ok(Found { way, why: why.join("; "), sender, passed_over });
    }
    Err(why.join("; "))
}

/// Loads a way's sender and attaches it.
///
/// # Errors
///
/// What the kernel refuses.
pub(super) fn attach(ebpf: &mut Ebpf, way: Way) -> Result<Option<SenderLink>, String> {
    match way {
        Way::ParkFexit => fexit(ebpf).map(SenderLink::Fexit).map(Some),
        Way::ParkTracepoint => tracepoint(ebpf).map(SenderLink::Tracepoint).map(Some),
        Way::Poll => Ok(None),
    }
}

/// The program of a way that is not taken after all.
pub(super) fn unload(ebpf: &mut Ebpf, way: Way) {
    let name = match way {
        Way::ParkFexit => programs::PARK_FEXIT,
        Way::ParkTracepoint => programs::PARK_TRACEPOINT,
        Way::Poll => return,
    };
    let unloaded = match ebpf.program_mut(name) {
        Some(Program::FExit(program)) => program.unload(),
        Some(Program::RawTracePoint(program)) => program.unload(),
        _ => Ok(()),
    };
    if let Err(error) = unloaded {
        tracing::debug!(%error, program = name, "stays loaded");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks::ebpf::OBJECT;

    fn fails(what: &str) -> Outcome {
        Outcome::Fails(what.to_owned())
    }

    #[test]
    fn takes_the_first_way_that_answers() {
        let pick = |wish, outcome: fn(Way) -> Outcome| {
            pick(wish, Ok::<Way, String>, outcome).map(|found| (found.sender, found.why, found.passed_over))
        };
        let park = "park (fexit) does not work here: silence";
        for (wish, outcome, way, why, passed_over) in [
            (Wish::Auto, (|_| Outcome::Works) as fn(Way) -> Outcome, Way::ParkFexit, "", vec![]),
            (
                Wish::Park,
                |way| if way == Way::ParkFexit { fails("silence") } else { Outcome::Works },
                Way::ParkTracepoint,
                park,
                vec![Way::ParkFexit],
            ),
            (
                Wish::Auto,
                |_| Outcome::Untried("no cgroup".to_owned()),
                Way::ParkFexit,
                "park (fexit) is taken untried: no cgroup",
                vec![],
            ),
            // By its name: as the operator says.
            (Wish::ParkTracepoint, |_| fails("silence"), Way::ParkTracepoint, "asked for", vec![]),
            (Wish::Poll, |_| fails("silence"), Way::Poll, "asked for", vec![]),
        ] {
            assert_eq!(pick(wish, outcome), Ok((way, why.to_owned(), passed_over)), "{wish:?}");
        }
        // Nothing is left: the last one all the same, unless it is not wanted.
        let (way, why, _) = pick(Wish::Auto, |_| fails("silence")).expect("the last one");
        assert_eq!(way, Way::Poll);
        assert!(why.starts_with(park) && why.ends_with("; poll does not work here: silence"), "{why}");
        assert!(pick(Wish::Park, |_| fails("silence")).expect_err("no way to park").starts_with(park));
    }

    #[test]
    fn what_a_predecessor_has_proven_is_not_tried_again() {
        for way in WAYS {
            assert_eq!(Way::of_code(way.code()), Some(way));
        }
        assert_eq!(Way::of_code(77), None);
        let mut ebpf = tc::load_object(OBJECT).expect("it is built");
        let trials = std::time::Instant::now();
        let chosen = choose(&mut ebpf, Wish::Auto, None).expect("there is a way");
        let trials = trials.elapsed();
        unload(&mut ebpf, chosen.way);
        let proven = std::time::Instant::now();
        let again = choose(&mut ebpf, Wish::Auto, Some(chosen.way)).expect("there is a way");
        assert_eq!((again.way, &again.why), (chosen.way, &chosen.why));
        println!("with a trial {trials:?}, without {:?}", proven.elapsed());
    }

    #[test]
    fn what_cannot_be_attached_is_not_tried() {
        let attach = |way| if way == Way::ParkFexit { Err("no fexit".to_owned()) } else { Ok(()) };
        let trial = |way| if way == Way::ParkFexit { panic!("tried") } else { Outcome::Works };
        let found = pick(Wish::Auto, attach, trial).expect("there is another way");
        assert_eq!((found.way, found.why.as_str()), (Way::ParkTracepoint, "no fexit"));
    }

    #[test]
    fn a_way_whose_signals_do_not_arrive_is_passed_over() {
        let mut ebpf = tc::load_object(OBJECT).expect("it is built");
        let mut trials = Trials::default();
        // Programs that load and are attached, and send nothing.
        let deaf = |way| if way == Way::Poll { trials.of(way) } else { trials.without_sender(way) };
        let chosen = choose_by(&mut ebpf, Wish::Auto, deaf).expect("polling is left");
        assert_eq!(chosen.way, Way::Poll, "{}", chosen.why);
        assert!(
            chosen.why.ends_with(
                "park (raw tracepoint) does not work here: a trial bind was not restarted: no signal arrives"
            ),
            "{}",
            chosen.why
        );
        assert!(chosen.link.is_none());
        let sender = ebpf.program(programs::PARK_TRACEPOINT).expect("in the object");
        assert!(sender.fd().is_err(), "it is still loaded");
    }
}
