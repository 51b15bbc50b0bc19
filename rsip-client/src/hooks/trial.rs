//! Whether a way of waiting works on this kernel: a bind is made to wait by it, and must have its answer.
//!
//! That a program loads and is attached does not say that it runs, or that the signals that it sends arrive. So a child of the
//! agent binds, in a cgroup of its own, under programs and maps of their own: nobody else is looked at, what a predecessor
//! has pinned is not touched, and no gateway is asked. The answer is a refusal, and the address is nobody's: the bind
//! takes no port, whatever comes of it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use rsip_ebpf_common::host::{self, Counter, maps, programs};
use rsip_ebpf_common::layout::{self, Layout};
use rsip_sys::cgroup::{self, CgroupError};
use rsip_sys::{netns, tc};

use super::ebpf::{self, OBJECT, address_word};
use super::layout::Places;
use super::wait::{self, Way};
use crate::clock;

/// What a trial has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bind waited and had its answer.
    Works,
    /// It did not: what was seen.
    Fails(String),
    /// No trial could be made: why.
    Untried(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Fails(why) => f.write_str(why),
            Self::Untried(why) => write!(f, "not tried: {why}"),
        }
    }
}

/// Of RFC 5737: no host has it. So a bind that is not looked at fails, and agents beside this one are not concerned.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FIRST_PORT: u16 = 40_000;
/// The answer: an errno of bind(2) that the programs give for nothing else here.
const ANSWER: i32 = libc::EACCES;
/// Each step of a trial takes well below a millisecond, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// As long a bind that polls may hold a CPU.
const POLLING: Duration = Duration::from_secs(1);
/// Parked binds are answered after so many restarts.
const RESTARTS: u64 = 3;
const POLL_NS: u64 = 50_000;
const CGROUP: &str = "rsip-trial-";

/// Programs, maps and a cgroup for trials; made for the first one, gone with the value.
#[derive(Default)]
pub(super) struct Trials {
    stage: Option<Result<Stage, String>>,
}

impl Trials {
    /// Tries a way.
    pub(super) fn of(&mut self, way: Way) -> Outcome {
        self.with_sender(way, wait::attach)
    }

    /// As [`Trials::of`], with who attaches the sender of the signals.
    fn with_sender<L>(
        &mut self,
        way: Way,
        attach: impl FnOnce(&mut Ebpf, Way) -> Result<L, String>,
    ) -> Outcome {
        let since = Instant::now();
        let stage = self.stage.get_or_insert_with(|| Stage::set(OBJECT).map_err(|error| error.to_string()));
        let stage = match stage {
            Ok(stage) => stage,
            Err(why) => return Outcome::Untried(why.clone()),
        };
        let outcome = match attach(&mut stage.ebpf, way) {
            Ok(_sender) => stage.play(way).unwrap_or_else(|error| Outcome::Untried(error.to_string())),
            Err(why) => Outcome::Fails(why),
        };
        wait::unload(&mut stage.ebpf, way);
        tracing::debug!(%way, %outcome, took = ?since.elapsed(), "trial of a way of waiting");
        outcome
    }
}

#[cfg(test)]
impl Trials {
    /// As with a sender that is attached and sends nothing.
    pub(super) fn without_sender(&mut self, way: Way) -> Outcome {
        self.with_sender(way, |_, _| Ok(()))
    }
}

struct Stage {
    ebpf: Ebpf,
    config: Array<MapData, host::Config>,
    ports: Array<MapData, host::Port>,
    pending: HashMap<MapData, u32, host::Pending>,
    counters: PerCpuArray<MapData, u64>,
    /// Programs that are loaded later look at it, too.
    _places: Array<MapData, Layout>,
    cgroup: OwnCgroup,
    netns_cookie: u64,
    port: u16,
}

type Failed = Box<dyn std::error::Error>;

impl Stage {
    fn set(object: &[u8]) -> Result<Self, Failed> {
        // One bind has no need of the large ones.
        let mut ebpf = tc::load_object_sized(object, &[(maps::SOCKETS, 1), (maps::PENDING, 16)])?;
        let mut places: Array<MapData, Layout> = tc::take_map(&mut ebpf, layout::MAP)?;
        places.set(0, Places::of_this_kernel().layout, 0)?;
        let cgroup = OwnCgroup::make()?;
        let program: &mut CgroupSockAddr = tc::program(&mut ebpf, programs::BIND4)?;
        program.load()?;
        program.attach(cgroup.0.directory(), CgroupAttachMode::Single)?;
        Ok(Self {
            config: tc::take_map(&mut ebpf, maps::CONFIG)?,
            ports: tc::take_map(&mut ebpf, maps::PORTS)?,
            pending: tc::take_map(&mut ebpf, maps::PENDING)?,
            counters: tc::take_map(&mut ebpf, maps::COUNTERS)?,
            _places: places,
            ebpf,
            cgroup,
            netns_cookie: netns::cookie()?,
            port: FIRST_PORT,
        })
    }

    /// One bind, from the question to the answer.
    fn play(&mut self, way: Way) -> Result<Outcome, Failed> {
        // What is known of a port is known for good.
        self.port += 1;
        let deadline = if way == Way::Poll { POLLING } else { PATIENCE };
        self.config.set(
            0,
            host::Config {
                netns_cookie: self.netns_cookie,
                deadline_ns: nanoseconds(deadline),
                poll_ns: POLL_NS,
                public_address: address_word(ADDRESS),
                wait: way.code(),
                flags: host::FLAG_ENABLED | host::FLAG_PRIVILEGED,
                ..ebpf::machine_config()
            },
            0,
        )?;
        let before = Counts::of(&self.counters)?;
        let mut actor = Actor::start(self.cgroup.0.procs(), self.port)?;
        let waited = loop {
            if actor.has_ended(Duration::from_millis(1))? || actor.age() > PATIENCE {
                break false;
            }
            let so_far = Counts::of(&self.counters)?.since(before);
            // Who is held, or fails to be restarted, is seen to wait as well: whether that was meant is asked afterwards.
            if self.pending.get(&self.port.into(), 0).is_ok()
                && so_far.restarts.max(so_far.held * RESTARTS) >= RESTARTS
            {
                break true;
            }
        };
        let until_ns = nanoseconds(clock::monotonic()).saturating_add(nanoseconds(PATIENCE * 10));
        let answer = host::Port { until_ns, state: host::PORT_DENIED, errno: ANSWER.unsigned_abs() };
        self.ports.set(self.port.into(), answer, 0)?;
        let errno = if actor.has_ended(PATIENCE)? { actor.errno()? } else { None };
        let asked = self.pending.get(&self.port.into(), 0).is_ok();
        let counts = Counts::of(&self.counters)?.since(before);
        Ok(judge(way, &Seen { asked, waited, errno, counts }))
    }
}

/// What became of a bind.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The hook asked for the port.
    asked: bool,
    /// It was seen to wait before the answer was given.
    waited: bool,
    /// What bind() gave the program; `None`: it did not come back.
    errno: Option<i32>,
    counts: Counts,
}

fn judge(way: Way, seen: &Seen) -> Outcome {
    let fails = |what: &str| Outcome::Fails(format!("a trial bind {what}"));
    match seen.errno {
        None => fails("did not come back"),
        // Of something else that governs binds here.
        Some(errno) if !seen.asked => {
            Outcome::Untried(format!("the trial bind got errno {errno} before it had to wait"))
        }
        Some(libc::EADDRINUSE) => fails("had no answer at its deadline"),
        Some(errno) if errno != ANSWER => fails(&format!("got errno {errno}")),
        Some(_) if way == Way::Poll && seen.waited => Outcome::Works,
        Some(_) if way != Way::Poll && seen.counts.restarts > 0 && seen.counts.held == 0 => Outcome::Works,
        Some(_) if way == Way::Poll => fails("did not wait"),
        Some(_) => fails("was not restarted: no signal arrives"),
    }
}

/// What the programs have counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    restarts: u64,
    held: u64,
}

impl Counts {
    fn of(counters: &PerCpuArray<MapData, u64>) -> Result<Self, Failed> {
        let count = |counter: Counter| counters.get(&(counter as u32), 0).map(|values| values.iter().sum());
        Ok(Self { restarts: count(Counter::Parked)?, held: count(Counter::Held)? })
    }

    fn since(self, before: Self) -> Self {
        Self { restarts: self.restarts - before.restarts, held: self.held - before.held }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The child that binds. It is ended with the value.
struct Actor {
    child: Pid,
    result: File,
    since: Instant,
}

impl Actor {
    fn start(procs: &File, port: u16) -> Result<Self, Failed> {
        let (result, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let address = libc::sockaddr_in {
            sin_family: libc::sa_family_t::try_from(libc::AF_INET)?,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: address_word(ADDRESS) },
            sin_zero: [0; 8],
        };
        let parent = nix::unistd::getpid();
        // SAFETY: the child makes system calls only and ends without returning: nothing is allocated, no lock is taken.
        match unsafe { fork() }? {
            ForkResult::Child => act(procs.as_raw_fd(), write.as_raw_fd(), &address, parent),
            ForkResult::Parent { child } => {
                Ok(Self { child, result: File::from(result), since: Instant::now() })
            }
        }
    }

    fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether the child has said something, or is gone, within this time.
    fn has_ended(&self, limit: Duration) -> io::Result<bool> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.result.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(ready) => return Ok(ready > 0),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// What bind() gave; `None`: the child ended without a word.
    fn errno(&mut self) -> Result<Option<i32>, Failed> {
        let mut said = [0; 4];
        match self.result.read_exact(&mut said) {
            Ok(()) => match i32::from_ne_bytes(said) {
                errno if errno >= 0 => Ok(Some(errno)),
                errno => {
                    Err(format!("no trial bind can be made: {}", io::Error::from_raw_os_error(-errno)).into())
                }
            },
            Err(_) => Ok(None),
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended; who is stopped is killed, too.
        kill(self.child, Signal::SIGKILL).ok();
        while waitpid(self.child, None) == Err(nix::Error::EINTR) {}
    }
}

const LENGTH: libc::socklen_t = 16;
const _: () = assert!(size_of::<libc::sockaddr_in>() == LENGTH as usize);

/// The child: enters the cgroup, binds, and says the errno (negative: one of what comes before).
fn act(procs: RawFd, result: RawFd, address: &libc::sockaddr_in, parent: Pid) -> ! {
    // SAFETY: system calls on open descriptors and on values that live longer; the process ends at the end.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let errno = if libc::getppid() != parent.as_raw() {
            libc::ESRCH.wrapping_neg()
        } else if libc::write(procs, c"0".as_ptr().cast(), 1) != 1 {
            (*libc::__errno_location()).wrapping_neg()
        } else {
            match libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) {
                socket if socket < 0 => (*libc::__errno_location()).wrapping_neg(),
                socket => match libc::bind(socket, std::ptr::from_ref(address).cast(), LENGTH) {
                    0 => 0,
                    _ => *libc::__errno_location(),
                },
            }
        };
        libc::write(result, std::ptr::from_ref(&errno).cast(), size_of_val(&errno));
        libc::_exit(0)
    }
}

/// A cgroup for the child alone.
struct OwnCgroup(cgroup::Child);

impl OwnCgroup {
    fn make() -> Result<Self, CgroupError> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        cgroup::remove_empty(&cgroup::of_this_process()?, is_left);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        cgroup::Child::make(&format!("{CGROUP}{}-{number}", std::process::id())).map(Self)
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // A child that was just waited for may still be counted for a moment.
        for _ in 0..100 {
            match self.0.remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}

/// Whether a cgroup of this name was made for a trial by an agent that was killed in the midst of it.
fn is_left(name: &str) -> bool {
    let owner = name.strip_prefix(CGROUP).and_then(|rest| rest.split_once('-')?.0.parse().ok());
    owner.is_some_and(|pid: i32| pid > 0 && kill(Pid::from_raw(pid), None) == Err(nix::Error::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_this_machine_answers_and_nothing_is_left() {
        let mut trials = Trials::default();
        assert_eq!(trials.of(Way::ParkTracepoint), Outcome::Works);
        // On a busy machine nobody may get to answer before a bind that holds a CPU has to end.
        let polled: Vec<Outcome> = (0..5).map(|_| trials.of(Way::Poll)).collect();
        assert!(polled.contains(&Outcome::Works), "{polled:?}");
        assert_eq!(trials.of(Way::ParkTracepoint), Outcome::Works, "once more");
        let Some(Ok(stage)) = &trials.stage else { panic!("it was set") };
        let path = stage.cgroup.0.path().to_owned();
        assert!(cgroup::id(&path).is_ok());
        // Nobody answers who is not asked.
        assert!(stage.pending.get(&FIRST_PORT.into(), 0).is_err());
        drop(trials);
        assert!(cgroup::id(&path).is_err(), "{path} is left");
    }

    #[test]
    fn a_way_without_a_sender_fails() {
        let mut trials = Trials::default();
        let why = "a trial bind was not restarted: no signal arrives";
        assert_eq!(trials.without_sender(Way::ParkTracepoint), Outcome::Fails(why.to_owned()));
        assert_eq!(trials.of(Way::ParkTracepoint), Outcome::Works, "the one before is forgotten");
    }

    #[test]
    fn needs_neither_loopback_nor_any_address() {
        // A thread's network namespace is its own, and its children's.
        let outcome = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            Trials::default().of(Way::ParkTracepoint)
        });
        assert_eq!(outcome.join().expect("no panic"), Outcome::Works);
    }

    #[test]
    fn a_child_that_stops_is_not_waited_for_and_does_not_stay() {
        let own = OwnCgroup::make().expect("root");
        // Nobody looks at this bind: the address is nobody's.
        let mut actor = Actor::start(own.0.procs(), FIRST_PORT).expect("fork");
        assert!(actor.has_ended(PATIENCE).expect("poll"));
        assert_eq!(actor.errno().expect("it was made"), Some(libc::EADDRNOTAVAIL));
        let child = actor.child;
        drop(actor);
        assert_eq!(kill(child, None), Err(nix::Error::ESRCH));
    }

    #[test]
    fn judges_by_what_was_seen() {
        let counts = Counts { restarts: 3, held: 0 };
        let good = Seen { asked: true, waited: true, errno: Some(ANSWER), counts };
        let held = Counts { restarts: 0, held: 1 };
        let polled = Seen { counts: held, ..good };
        assert_eq!(judge(Way::ParkFexit, &good), Outcome::Works);
        assert_eq!(judge(Way::Poll, &polled), Outcome::Works);
        let fails = |what: &str| Outcome::Fails(format!("a trial bind {what}"));
        for (way, seen, outcome) in [
            (Way::ParkFexit, Seen { errno: Some(513), ..good }, fails("got errno 513")),
            (Way::ParkFexit, Seen { errno: None, ..good }, fails("did not come back")),
            (Way::ParkTracepoint, polled, fails("was not restarted: no signal arrives")),
            (Way::Poll, Seen { waited: false, ..polled }, fails("did not wait")),
            (
                Way::Poll,
                Seen { errno: Some(libc::EADDRINUSE), ..polled },
                fails("had no answer at its deadline"),
            ),
        ] {
            assert_eq!(judge(way, &seen), outcome, "{way} {seen:?}");
        }
        let unasked = Seen { asked: false, errno: Some(libc::EADDRNOTAVAIL), ..good };
        assert!(matches!(judge(Way::ParkFexit, &unasked), Outcome::Untried(_)));
    }

    #[test]
    fn knows_what_a_killed_agent_left_from_what_a_living_one_uses() {
        let living = std::process::id();
        for (name, left) in [
            (format!("{CGROUP}{living}-0"), false),
            (format!("{CGROUP}{}-0", i32::MAX), true),
            (format!("{CGROUP}0-0"), false),
            (format!("{CGROUP}-5-0"), false),
            ("rsip-run-5".to_owned(), false),
            (CGROUP.to_owned(), false),
        ] {
            assert_eq!(is_left(&name), left, "{name}");
        }
    }
}
