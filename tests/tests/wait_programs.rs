//! Programs of every kind wait in bind(), in every way of waiting that this kernel has (or that `RSIP_WAIT` names): each gets
//! what it would get from a kernel that knew the answer.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use rsip_ebpf_common::host::{Counter, FLAG_ENABLED, Port, WAIT_POLL};
use rsip_lab::bpf::host::{GRANTED, Host, denied, ip};
use rsip_lab::bpf::program::{self, Program, until, until_asked, ways};
use rsip_lab::elf32;
use rsip_lab::lab::wait::limit;

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
/// Later than what is tried in the hook before the first restart.
const LATE: Duration = Duration::from_millis(400);

/// The hooks, in each way of waiting.
fn each_way(mut test: impl FnMut(u32, Host)) {
    for wait in ways().unwrap() {
        println!("wait {wait}");
        test(wait, program::host(wait, limit(LONG)).unwrap());
    }
}

fn waiter(arguments: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waiter"));
    Program::start(command.args(arguments)).unwrap()
}

/// Even ports are granted, odd ones refused.
fn even(port: u16) -> Option<Port> {
    Some(if port.is_multiple_of(2) { GRANTED } else { denied(libc::EADDRINUSE, LONG) })
}

#[test]
fn an_answer_may_take_two_seconds() {
    each_way(|wait, mut host| {
        let _agent = host.agent(Duration::from_secs(2), even).unwrap();
        let start = Instant::now();
        let line = waiter(&["seccomp", "80"]).line(SOON).unwrap();
        assert_eq!(line["errno"], 0, "wait {wait}");
        assert!(start.elapsed() >= Duration::from_secs(2));
        let restarts = host.counter(Counter::Parked).unwrap();
        assert_eq!(restarts > 0, wait != WAIT_POLL, "wait {wait}: {restarts}");
        // A restart for each millisecond, not for each 50 microseconds.
        assert!(restarts < 6_000, "{restarts} restarts in 2 s");
        assert_eq!(host.counter(Counter::ParkFailed).unwrap(), 0, "wait {wait}");
    });
}

#[test]
fn a_handler_of_sigcont_hears_little_of_it() {
    each_way(|wait, mut host| {
        host.set(80, GRANTED).unwrap();
        let line = waiter(&["sigcont", "80"]).line(SOON).unwrap();
        assert_eq!((&line["errno"], &line["handled"]), (&0.into(), &0.into()), "known already: wait {wait}");

        let _agent = host.agent(Duration::from_millis(1500), even).unwrap();
        for port in ["82", "83"] {
            let line = waiter(&["sigcont", port]).line(SOON).unwrap();
            let errno = if port == "82" { 0 } else { libc::EADDRINUSE };
            assert_eq!(line["errno"], errno, "wait {wait}: {line}");
            let handled = line["handled"].as_u64().unwrap();
            let most = if wait == WAIT_POLL { 0 } else { 60 };
            assert!(handled <= most, "wait {wait}: SIGCONT was handled {handled} times");
        }
    });
}

#[test]
fn handlers_run_while_bind_waits_and_never_end_it() {
    for arguments in [&["alarms", "80"][..], &["alarms", "80", "--restart"]] {
        each_way(|wait, mut host| {
            let _agent = host.agent(LATE, even).unwrap();
            let line = waiter(arguments).line(SOON).unwrap();
            assert_eq!(line["errno"], 0, "wait {wait}: {line}");
            let handled = line["handled"].as_u64().unwrap();
            // In the hook they wait too.
            assert!(wait == WAIT_POLL || handled > 2, "wait {wait}: {line}");
        });
    }
}

#[test]
fn what_ends_a_program_ends_its_waiting() {
    each_way(|wait, host| {
        for (signal, port) in [(Signal::SIGTERM, 80), (Signal::SIGINT, 82), (Signal::SIGKILL, 84)] {
            let mut program = waiter(&["both", &port.to_string()]);
            until_asked(&host, port).unwrap();
            thread::sleep(Duration::from_millis(50));
            program.signal(signal).unwrap();
            let (status, said) = program.finish(SOON).unwrap();
            let by = std::os::unix::process::ExitStatusExt::signal(&status);
            assert_eq!((by, said.as_str()), (Some(signal as i32), ""), "wait {wait}");
            assert_eq!(host.uses(port).unwrap(), 0);
        }
        // One that wants to end by itself. Where it is told between two looks, its handler runs and bind() goes on: tell it again.
        let before = host.counter(Counter::BindAbandoned).unwrap();
        let mut program = waiter(&["term", "86"]);
        until_asked(&host, 86).unwrap();
        until("the program to be done", || {
            program.signal(Signal::SIGTERM).unwrap();
            thread::sleep(Duration::from_millis(50));
            host.counter(Counter::BindAbandoned).unwrap() > before
        })
        .unwrap();
        let line = program.line(SOON).unwrap();
        assert_eq!(line["errno"], libc::EADDRINUSE, "wait {wait}: {line}");
        assert_eq!(host.counter(Counter::BindTimeout).unwrap(), 0);
    });
}

#[test]
fn other_threads_work_on_and_are_never_seen_stopped() {
    each_way(|wait, mut host| {
        let _agent = host.agent(Duration::from_secs(1), even).unwrap();
        let line = waiter(&["threads", "80"]).line(SOON).unwrap();
        assert_eq!((&line["errno"], &line["stopped"]), (&0.into(), &0.into()), "wait {wait}: {line}");
        assert!(line["seen"].as_u64().unwrap() > 10 && line["work"].as_u64().unwrap() > 10, "{line}");
    });
}

#[test]
fn threads_of_one_program_wait_side_by_side() {
    each_way(|wait, mut host| {
        let _agent = host.agent(LATE, even).unwrap();
        // In the hook they would hold every CPU.
        let (ports, expected) = if wait == WAIT_POLL {
            (&["both", "80"][..], serde_json::json!({ "80": 0 }))
        } else {
            (&["both", "80", "81", "82"][..], serde_json::json!({ "80": 0, "81": 98, "82": 0 }))
        };
        assert_eq!(waiter(ports).line(SOON).unwrap()["errnos"], expected, "wait {wait}");
    });
}

#[test]
fn a_bind_by_io_uring_waits_without_a_restart() {
    each_way(|wait, mut host| {
        let _agent = host.agent(Duration::from_secs(1), even).unwrap();
        for port in ["80", "81"] {
            let line = waiter(&["uring", port]).line(SOON).unwrap();
            let errno = line["errno"].as_i64().unwrap();
            let expected = match (has_uring_bind(), port) {
                (false, _) => libc::EINVAL,
                (true, "80") => 0,
                (true, _) => libc::EADDRINUSE,
            };
            assert_eq!(errno, i64::from(expected), "wait {wait}");
        }
        assert_eq!(host.counter(Counter::Parked).unwrap(), 0);
    });
}

/// Since Linux 6.11.
fn has_uring_bind() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 11)
}

#[test]
fn programs_of_32_bit_wait_as_others_do() {
    let folder = tempfile::tempdir().unwrap();
    each_way(|wait, mut host| {
        let _agent = host.agent(LATE, even).unwrap();
        for call in [elf32::Call::Bind, elf32::Call::Socketcall] {
            for (port, errno) in [(90, 0), (91, libc::EADDRINUSE)] {
                let port = port + if call == elf32::Call::Bind { 0 } else { 2 };
                let path = folder.path().join(format!("{call:?}-{port}-{wait}"));
                elf32::write(&path, call, port).unwrap();
                let before = host.counter(Counter::Parked).unwrap();
                let (status, _) = Program::start(&mut Command::new(&path)).unwrap().finish(SOON).unwrap();
                assert_eq!(status.code(), Some(errno), "wait {wait}: {call:?} of {port}");
                let parked = host.counter(Counter::Parked).unwrap() > before;
                assert_eq!(parked, wait != WAIT_POLL, "wait {wait}: {call:?} of {port}");
            }
        }
    });
}

#[test]
fn the_first_process_of_a_container_waits() {
    // It takes fewer signals than others.
    each_way(|wait, mut host| {
        let _agent = host.agent(LATE, even).unwrap();
        let waiter = env!("CARGO_BIN_EXE_waiter");
        let mut unshare = Command::new("unshare");
        let line =
            Program::start(unshare.args(["--pid", "--fork", waiter, "seccomp", "80"])).unwrap().line(SOON);
        assert_eq!(line.unwrap()["errno"], 0, "wait {wait}");
        assert_eq!(host.counter(Counter::Parked).unwrap() > 0, wait != WAIT_POLL, "wait {wait}");
    });
}

#[test]
fn a_child_that_shares_its_parents_memory_waits() {
    each_way(|wait, mut host| {
        let _agent = host.agent(LATE, even).unwrap();
        let line = waiter(&["vfork", "80"]).line(SOON).unwrap();
        assert_eq!((&line["errno"], &line["ended"]), (&0.into(), &true.into()), "wait {wait}: {line}");
        let line = waiter(&["vfork", "81"]).line(SOON).unwrap();
        assert_eq!(line["errno"], libc::EADDRINUSE, "wait {wait}: {line}");
    });
}

#[test]
fn a_hundred_programs_wait_at_once() {
    for wait in ways().unwrap().into_iter().filter(|wait| *wait != WAIT_POLL) {
        let mut host = program::host(wait, limit(LONG)).unwrap();
        let mut programs = waiter(&["many", "1000", "1100"]);
        // Nobody answers before all of them wait.
        until("a hundred questions", || host.pending().len() == 100).unwrap();
        let _agent = host.agent(Duration::from_millis(10), even).unwrap();
        let line = programs.line(LONG).unwrap();
        assert_eq!(line["errnos"], serde_json::json!({ "0": 50, "98": 50 }), "wait {wait}");
        assert_eq!(host.counter(Counter::BindTimeout).unwrap(), 0);
    }
}

#[test]
fn who_waits_gets_no_strange_errno_when_the_sender_goes() {
    for wait in ways().unwrap().into_iter().filter(|wait| *wait != WAIT_POLL) {
        let mut host =
            program::host(wait, limit(Duration::from_secs(2)).min(Duration::from_secs(6))).unwrap();
        let mut programs = waiter(&["many", "1000", "1012"]);
        until("all questions", || host.pending().len() == 12).unwrap();
        host.detach_sender().unwrap();
        let line = programs.line(LONG).unwrap();
        assert_eq!(line["errnos"], serde_json::json!({ "98": 12 }), "wait {wait}: the time is over");
    }
}

#[test]
fn who_waits_is_let_through_when_the_hooks_go() {
    each_way(|wait, mut host| {
        // In the hook they would hold every CPU.
        let (end, number) = if wait == WAIT_POLL { ("1001", 1) } else { ("1012", 12) };
        let mut programs = waiter(&["many", "1000", end]);
        until("all questions", || host.pending().len() == number).unwrap();
        // As the agent does it.
        host.change(|config| config.flags &= !FLAG_ENABLED).unwrap();
        host.detach_hooks().unwrap();
        let expected = serde_json::json!({ "0": number });
        assert_eq!(programs.line(SOON).unwrap()["errnos"], expected, "wait {wait}");
    });
}

#[test]
fn sockets_of_the_kernel_neither_wait_nor_ask() {
    // A module where it is not built in; what is missing shows below.
    Command::new("modprobe").args(["-q", "vxlan"]).status().ok();
    each_way(|wait, mut host| {
        host.change(|config| config.deadline_ns = 100_000_000).unwrap();
        // The device's UDP socket is bound by the kernel in ip's netlink call.
        ip("link add vx0 type vxlan id 1 local 127.0.0.1 dev lo dstport 4789").unwrap();
        ip("address add 203.0.113.1/32 dev lo").unwrap();
        ip("link set vx0 up").unwrap();
        let asked = host.events().iter().map(|event| event.port).collect::<Vec<_>>();
        assert_eq!((asked, host.pending()), (vec![], vec![]), "wait {wait}");
        assert_eq!(host.uses(4789).unwrap(), 0, "it is not counted either");
        // The same port in a program: nobody answers.
        let line = waiter(&["both", "4790"]).line(SOON).unwrap();
        assert_eq!(line["errnos"]["4790"], libc::EADDRINUSE, "wait {wait}");
    });
}

#[test]
fn the_kernels_socket_below_an_mptcp_socket_is_the_programs() {
    const IPPROTO_MPTCP: i32 = 262;
    each_way(|wait, mut host| {
        let _agent = host.agent(LATE, even).unwrap();
        for (port, errno) in [(80, None), (81, Some(libc::EADDRINUSE))] {
            let socket = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM,
                Some(socket2::Protocol::from(IPPROTO_MPTCP)),
            )
            .unwrap();
            let address = std::net::SocketAddr::from(([0, 0, 0, 0], port));
            let bound = socket.bind(&address.into());
            assert_eq!(bound.err().and_then(|error| error.raw_os_error()), errno, "wait {wait}");
        }
        let asked = host.events().iter().filter(|event| event.port == 80 || event.port == 81).count();
        assert!(asked >= 2, "wait {wait}: {asked} questions");
    });
}
