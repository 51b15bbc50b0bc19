//! Who watches or stops a program that waits in bind() - debuggers, tracers, shells - sees nothing strange and breaks nothing,
//! in every way of waiting that this kernel has (or that `RSIP_WAIT` names).
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use rsip_ebpf_common::host::{Counter, Port, WAIT_POLL};
use rsip_lab::bpf::host::{GRANTED, Host, denied};
use rsip_lab::bpf::program::{self, Program, until, until_asked, ways};
use rsip_lab::lab::wait::limit;

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);
const WHILE: Duration = Duration::from_millis(400);

fn each_way(mut test: impl FnMut(u32, Host)) {
    for wait in ways().unwrap() {
        println!("wait {wait}");
        test(wait, program::host(wait, limit(LONG)).unwrap());
    }
}

/// Ways in which a program that waits can be stopped: in the hook it cannot.
fn each_parking(mut test: impl FnMut(Host)) {
    for wait in ways().unwrap().into_iter().filter(|wait| *wait != WAIT_POLL) {
        println!("wait {wait}");
        test(program::host(wait, limit(LONG)).unwrap());
    }
}

fn even(port: u16) -> Option<Port> {
    Some(if port.is_multiple_of(2) { GRANTED } else { denied(libc::EADDRINUSE, LONG) })
}

fn waiter() -> &'static str {
    env!("CARGO_BIN_EXE_waiter")
}

fn start(program: &str, arguments: &[&str]) -> Program {
    // What it prints for people is in the test's output.
    Program::start(Command::new(program).args(arguments)).unwrap()
}

#[test]
fn a_program_runs_under_strace() {
    each_way(|wait, mut host| {
        let _agent = host.agent(WHILE, even).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("strace");
        for (port, errno) in [("80", 0), ("81", libc::EADDRINUSE)] {
            let log = log.to_str().unwrap();
            let line = start("strace", &["-f", "-o", log, waiter(), "seccomp", port]).line(SOON).unwrap();
            assert_eq!(line["errno"], errno, "wait {wait}");
            let seen = std::fs::read_to_string(log).unwrap();
            let last = seen.lines().rev().find(|line| line.contains("bind(")).unwrap();
            let end = if errno == 0 { "= 0" } else { "EADDRINUSE (Address already in use)" };
            assert!(last.trim_end().ends_with(end), "wait {wait}: {last}");
        }
    });
}

#[test]
fn a_program_runs_under_gdb() {
    each_way(|wait, mut host| {
        let _agent = host.agent(WHILE, even).unwrap();
        for (port, errno) in [("80", 0), ("81", libc::EADDRINUSE)] {
            // A signal at which gdb stops would end the program with it.
            let line = start("gdb", &["-nx", "-batch", "-ex", "run", "--args", waiter(), "seccomp", port])
                .line(SOON)
                .unwrap();
            assert_eq!(line["errno"], errno, "wait {wait}");
        }
    });
}

#[test]
fn strace_and_gdb_attach_to_a_waiting_program() {
    each_way(|wait, mut host| {
        let mut program = start(waiter(), &["seccomp", "80"]);
        until_asked(&host, 80).unwrap();
        let pid = program.pid().to_string();
        if wait == WAIT_POLL {
            // In the hook it answers no debugger until its time is over; then the debugger has it.
            let _agent = host.agent(WHILE, even).unwrap();
            let mut gdb = start("gdb", &["-nx", "-batch", "-p", &pid, "-ex", "detach"]);
            host.set(80, GRANTED).unwrap();
            gdb.finish(SOON).unwrap();
            assert_eq!(program.line(SOON).unwrap()["errno"], 0);
            return;
        }
        for _ in 0..3 {
            let mut gdb =
                start("gdb", &["-nx", "-batch", "-p", &pid, "-ex", "info registers rip", "-ex", "detach"]);
            let (status, said) = gdb.finish(SOON).unwrap();
            assert!(status.success() && said.contains("rip"), "wait {wait}: {said}");
        }
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("strace");
        let mut strace = start("strace", &["-f", "-o", log.to_str().unwrap(), "-p", &pid]);
        let seen = || std::fs::read_to_string(&log).unwrap_or_default();
        until("strace to see restarts", || seen().matches("ERESTARTNOINTR").count() > 2).unwrap();
        let _agent = host.agent(Duration::ZERO, even).unwrap();
        host.set(80, GRANTED).unwrap();
        assert_eq!(program.line(SOON).unwrap()["errno"], 0, "wait {wait}");
        strace.finish(SOON).unwrap();
        assert!(!seen().contains("513"), "{}", seen());
    });
}

/// Stops a program. One stop in hundreds comes in the very moment of a restart and is lost; on emulated machines, more.
fn stop(program: &Program, signal: Signal) {
    until("the program to stop", || {
        program.signal(signal).unwrap();
        thread::sleep(Duration::from_millis(10));
        program.state() == Some('T')
    })
    .unwrap();
}

#[test]
fn a_waiting_program_is_stopped_and_continued_by_signals() {
    each_parking(|host| {
        for (port, signal) in [(80, Signal::SIGSTOP), (82, Signal::SIGTSTP), (84, Signal::SIGTTIN)] {
            let mut program = start(waiter(), &["sigcont", &port.to_string()]);
            until_asked(&host, port).unwrap();
            for _ in 0..20 {
                stop(&program, signal);
                program.signal(Signal::SIGCONT).unwrap();
                until("the program to go on", || program.state() != Some('T')).unwrap();
            }
            host.set(port, GRANTED).unwrap();
            let line = program.line(SOON).unwrap();
            assert_eq!(line["errno"], 0, "{signal}");
        }
        // And one whose other threads take the signal.
        let mut program = start(waiter(), &["threads", "86"]);
        until_asked(&host, 86).unwrap();
        for _ in 0..20 {
            stop(&program, Signal::SIGTSTP);
            thread::sleep(Duration::from_millis(5));
            assert_eq!(program.state(), Some('T'), "nobody continued it");
            program.signal(Signal::SIGCONT).unwrap();
            until("the program to go on", || program.state() != Some('T')).unwrap();
        }
        host.set(86, GRANTED).unwrap();
        assert_eq!(program.line(SOON).unwrap()["errno"], 0);
        assert!(host.counter(Counter::Parked).unwrap() > 0);
    });
}

/// A shell with job control at a terminal of its own.
struct Shell {
    terminal: File,
    said: String,
    _shell: Program,
}

impl Shell {
    fn start() -> Self {
        let pty = openpty(None, None).unwrap();
        let terminal = File::from(pty.slave);
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "-i"]).env("PS1", "ready> ").env("TERM", "dumb");
        command.stderr(Stdio::from(terminal.try_clone().unwrap()));
        let (input, output) = (terminal.try_clone().unwrap(), terminal);
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let (input, output) = (input.as_fd(), output.as_fd());
                nix::unistd::dup2_stdin(input)?;
                nix::unistd::dup2_stdout(output)?;
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let shell = Program::start(&mut command).unwrap();
        let mut shell = Self { terminal: File::from(pty.master), said: String::new(), _shell: shell };
        shell.hears("ready> ");
        shell
    }

    fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    /// Types a key until the terminal shows this.
    fn insists(&mut self, key: &str, text: &str) {
        let deadline = Instant::now() + limit(SOON);
        while !self.said.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} does not come after {:?}", self.said);
            self.types(key);
            for _ in 0..10 {
                self.listen();
            }
        }
        self.hears(text);
    }

    /// Waits until the terminal shows this, after what was waited for before.
    fn hears(&mut self, text: &str) {
        let deadline = Instant::now() + limit(SOON);
        while !self.said.contains(text) {
            assert!(Instant::now() < deadline, "{text:?} does not come after {:?}", self.said);
            self.listen();
        }
        let (_, rest) = self.said.split_once(text).unwrap();
        self.said = rest.to_owned();
    }

    /// Takes what the terminal shows within a moment.
    fn listen(&mut self) {
        let mut ready = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(50_u8)).unwrap() > 0 {
            let mut buffer = [0; 4096];
            let length = self.terminal.read(&mut buffer).unwrap();
            self.said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

#[test]
fn job_control_works_while_a_program_waits() {
    const CTRL_Z: &str = "\u{1a}";
    const CTRL_C: &str = "\u{3}";
    each_parking(|host| {
        let mut shell = Shell::start();
        shell.types(&format!("{} seccomp 80\n", waiter()));
        until_asked(&host, 80).unwrap();
        for round in 0..5 {
            shell.insists(CTRL_Z, "Stopped");
            shell.hears("ready> ");
            if round % 2 == 0 {
                shell.types("bg\n");
                shell.hears("ready> ");
            }
            shell.types("fg\n");
            shell.hears("seccomp 80");
        }
        host.set(80, GRANTED).unwrap();
        shell.hears(r#"{"errno":0}"#);
        shell.hears("ready> ");
        shell.types(&format!("{} seccomp 82\n", waiter()));
        until_asked(&host, 82).unwrap();
        shell.insists(CTRL_C, "ready> ");
        shell.types("echo code $?\n");
        shell.hears("code 130");
        shell.types("exit\n");
    });
}
