//! What a bind does while the gateway has not answered yet, in both ways of waiting that this machine has.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rsip_ebpf_common::host::{
    Config, Counter, EVENT_WANT_PORT, FLAG_TIMEOUT_ALLOW, WAIT_PARK_TRACEPOINT, WAIT_POLL,
};
use rsip_lab::bpf::host::{GRANTED, Host, denied, parking_ways};
use socket2::{Domain, Socket, Type};

const MS: u64 = 1_000_000;
const LONG: Duration = Duration::from_secs(60);

fn host(wait: u32, deadline: Duration) -> Host {
    Host::new(Config {
        public_address: u32::from_ne_bytes([203, 0, 113, 1]),
        deadline_ns: u64::try_from(deadline.as_nanos()).unwrap(),
        poll_ns: MS / 20,
        wait,
        ..Config::default()
    })
    .unwrap()
}

/// Hooks that wait by restarting, in every way that this kernel has, one after the other.
fn each_parking(mut test: impl FnMut(Host)) {
    for wait in parking_ways().unwrap() {
        println!("wait {wait}");
        test(host(wait, LONG));
    }
}

fn each_way() -> Vec<u32> {
    let mut ways = parking_ways().unwrap();
    ways.push(WAIT_POLL);
    ways
}

fn bind(port: u16) -> io::Result<Socket> {
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&address.into()).map(|()| socket)
}

/// 0, or the errno.
fn outcome(result: &io::Result<Socket>) -> i32 {
    result.as_ref().map_or_else(|error| error.raw_os_error().unwrap(), |_| 0)
}

/// Even ports are granted, odd ones refused.
fn even(port: u16) -> Option<rsip_ebpf_common::host::Port> {
    Some(if port.is_multiple_of(2) { GRANTED } else { denied(libc::EADDRINUSE, LONG) })
}

#[test]
fn waits_until_the_answer_is_there() {
    for wait in each_way() {
        let mut host = host(wait, LONG);
        // One CPU for each who waits in the hook: on a machine with fewer the answer would come too late.
        let _agent = host.agent(Duration::from_millis(100), even).unwrap();
        for port in [80, 81] {
            let start = Instant::now();
            let result = bind(port);
            let took = start.elapsed();
            assert_eq!(outcome(&result), if port == 80 { 0 } else { libc::EADDRINUSE }, "wait {wait}");
            assert!((100..1000).contains(&took.as_millis()), "wait {wait}: {took:?}");
        }
        assert!(host.pending().is_empty());
        let parked = host.counter(Counter::Parked).unwrap();
        assert_eq!(parked > 0, wait != WAIT_POLL, "wait {wait}: parked {parked} times");
        assert_eq!(host.counter(Counter::ParkFailed).unwrap(), 0);
    }
}

#[test]
fn every_wait_ends() {
    for wait in each_way() {
        let deadline = Duration::from_millis(300);
        let mut host = host(wait, deadline);
        for (flags, expected) in [(0, libc::EADDRINUSE), (FLAG_TIMEOUT_ALLOW, 0)] {
            host.change(|config| config.flags = config.flags & !FLAG_TIMEOUT_ALLOW | flags).unwrap();
            let port = if flags == 0 { 80 } else { 81 };
            let start = Instant::now();
            assert_eq!(outcome(&bind(port)), expected, "wait {wait}");
            let took = start.elapsed();
            assert!(took >= deadline && took < deadline * 3, "wait {wait}: {took:?}");
        }
        assert_eq!(host.counter(Counter::BindTimeout).unwrap(), 2);
    }
}

#[test]
fn a_wait_longer_than_one_loop_of_the_kernel_is_waited_out() {
    let deadline = Duration::from_secs(3);
    let host = host(WAIT_POLL, deadline);
    let start = Instant::now();
    assert_eq!(outcome(&bind(80)), libc::EADDRINUSE);
    assert!(start.elapsed() >= deadline, "{:?}", start.elapsed());
    assert_eq!(host.counter(Counter::BindTimeout).unwrap(), 1);
}

#[test]
fn more_programs_than_cpus_wait_at_once() {
    each_parking(|mut host| {
        let programs = 8 * u16::try_from(thread::available_parallelism().unwrap().get()).unwrap();
        let _agent = host.agent(Duration::from_millis(20), even).unwrap();
        let start = Barrier::new(usize::from(programs));
        let outcomes: Vec<i32> = thread::scope(|scope| {
            let waiting: Vec<_> = (0..programs)
                .map(|number| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        outcome(&bind(1000 + number))
                    })
                })
                .collect();
            waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let expected: Vec<i32> =
            (0..programs).map(|n| if n % 2 == 0 { 0 } else { libc::EADDRINUSE }).collect();
        assert_eq!(outcomes, expected);
        assert_eq!(host.counter(Counter::BindTimeout).unwrap(), 0);
    });
}

#[test]
fn those_who_want_the_same_port_share_one_question() {
    each_parking(|mut host| {
        let agent = host.agent(Duration::from_millis(200), even).unwrap();
        let start = Barrier::new(4);
        let outcomes: Vec<i32> = thread::scope(|scope| {
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        outcome(&bind(81))
                    })
                })
                .collect();
            waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes, [libc::EADDRINUSE; 4]);
        drop(agent);
        let asked = host.events().iter().filter(|event| event.kind == EVENT_WANT_PORT).count();
        assert_eq!(asked, 1);
    });
}

#[test]
fn agent_and_waiting_program_share_one_cpu() {
    each_parking(|mut host| {
        let mut one = CpuSet::new();
        one.set(0).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        // Threads inherit the affinity.
        let _agent = host.agent(Duration::from_millis(100), even).unwrap();
        let start = Instant::now();
        assert_eq!(outcome(&bind(80)), 0);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

/// Another program that binds and holds port 80. It ends with the value.
struct Program(Child);

impl Program {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_probe"));
        Self(command.args(["bind", "0.0.0.0:80"]).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended and was waited for is not signalled any more.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("the waiting program: {error}");
        }
    }
}

fn wait_for_question(host: &Host) {
    let start = Instant::now();
    while host.pending().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the program never asked");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_waiting_program_can_be_ended() {
    each_parking(|host| {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
            let mut program = Program::start();
            wait_for_question(&host);
            thread::sleep(Duration::from_millis(50));
            let start = Instant::now();
            kill(program.pid(), signal).unwrap();
            let status = program.0.wait().unwrap();
            assert!(start.elapsed() < Duration::from_millis(500), "{signal}: {:?}", start.elapsed());
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal as i32));
            assert_eq!(host.uses(80).unwrap(), 0);
        }
    });
}

#[test]
fn a_parent_that_watches_sees_nothing_of_the_waiting() {
    each_parking(|mut host| {
        let program = Program::start();
        let pid = program.pid();
        wait_for_question(&host);
        let watch = || {
            waitpid(pid, Some(WaitPidFlag::WUNTRACED | WaitPidFlag::WCONTINUED | WaitPidFlag::WNOHANG))
                .unwrap()
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            assert_eq!(watch(), WaitStatus::StillAlive);
        }
        assert!(host.counter(Counter::Parked).unwrap() > 10, "it was restarted meanwhile");
        let _agent = host.agent(Duration::ZERO, even).unwrap();
        while host.uses(80).unwrap() == 0 {
            assert_eq!(watch(), WaitStatus::StillAlive);
            assert!(start.elapsed() < Duration::from_secs(10), "the answer did not arrive");
        }
    });
}

#[test]
fn signals_that_the_program_handles_do_not_disturb_the_waiting() {
    extern "C" fn ignore(_: libc::c_int) {}
    each_parking(|mut host| {
        // SAFETY: the handler does nothing.
        unsafe { nix::sys::signal::signal(Signal::SIGUSR1, nix::sys::signal::SigHandler::Handler(ignore)) }
            .unwrap();
        let _agent = host.agent(Duration::from_millis(300), even).unwrap();
        let (process, target) = (std::process::id(), nix::unistd::gettid().as_raw());
        let disturbing = thread::spawn(move || {
            for _ in 0..100 {
                thread::sleep(Duration::from_millis(2));
                // SAFETY: integers only.
                let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, target, libc::SIGUSR1) };
                assert_eq!(sent, 0);
            }
        });
        let result = bind(80);
        disturbing.join().unwrap();
        assert_eq!(outcome(&result), 0);
    });
}

#[test]
fn a_call_that_is_not_bind_is_never_restarted() {
    // The same call, but the programs believe that bind has another number, as it has for io_uring and 32-bit programs.
    each_parking(|mut host| {
        host.change(|config| config.bind_nr = u32::try_from(libc::SYS_listen).unwrap()).unwrap();
        let start = Instant::now();
        assert_eq!(outcome(&bind(80)), libc::EADDRINUSE);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(host.counter(Counter::Parked).unwrap(), 0);
    });
}

#[test]
fn never_restarts_when_nobody_can_send_the_signals() {
    // The programs are told to park, but the tracepoint program is not attached.
    let mut host = host(WAIT_POLL, Duration::from_millis(200));
    host.change(|config| config.wait = WAIT_PARK_TRACEPOINT).unwrap();
    let start = Instant::now();
    let result = bind(80);
    assert_eq!(outcome(&result), libc::EADDRINUSE, "and not {}", Errno::from_raw(513));
    assert!(start.elapsed() >= Duration::from_millis(200), "it waited in the hook instead");
    assert!(host.counter(Counter::ParkFailed).unwrap() > 0);
    assert_eq!(host.counter(Counter::Parked).unwrap(), 0);
}
