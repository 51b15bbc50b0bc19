//! `rsip-client run -- COMMAND`: one program that is served by the agent, with all that it starts.
//!
//! It gets a cgroup of its own inside of the one that it would be in anyway, so that every limit stays in force, and the agent
//! puts its programs there. The cgroup goes when the last process in it has ended.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{SigSet, Signal};
use rsip_sys::cgroup;
use rsip_sys::exit::{ExitCode, Failure};

use crate::calls::{ask, unexpected};
use crate::cli::RunDir;
use crate::control::{Request, Response};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client up --cgroup none &                      # serves nobody but
  rsip-client run -- nginx -g 'daemon off;'           # this one
  rsip-client run -- su www -c ./server

The exit code is the command's; 128 and the signal's number where a signal ended it. Signals HUP, INT, QUIT, TERM, USR1, USR2,
ALRM, WINCH, CONT and TSTP are passed on.";

/// Signals that are passed on. Those of a terminal reach the command anyway, and are not passed on a second time.
const PASSED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];
/// What shells say of a command that is not there, and of one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// `rsip-client run`.
#[derive(Clone, Debug, Args)]
pub struct Run {
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
    /// The command with its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs the command to its end, and ends this process as it ended.
///
/// # Errors
///
/// No agent runs here, or the command cannot be run.
pub fn run(arguments: &Run) -> anyhow::Result<std::convert::Infallible> {
    let own = own_cgroup()?;
    match ask(&arguments.run_dir, &Request::Run(own.path().to_owned()))? {
        Response::Done => {}
        other => return Err(unexpected(other)),
    }
    let signals = signals();
    signals.thread_block().context("cannot block signals")?;
    let child = match start(arguments, &own, &signals) {
        Ok(child) => child,
        Err(error) => {
            let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            let command = arguments.command.first().map(|name| name.to_string_lossy()).unwrap_or_default();
            drop(writeln!(std::io::stderr(), "rsip-client: cannot run {command}: {error}"));
            drop(own);
            std::process::exit(code.into());
        }
    };
    let status = accompany(child, &signals)?;
    drop(own);
    std::process::exit(code(status))
}

/// The cgroup. What is still in it when the value goes is left to the agent, which removes it after the last process.
fn own_cgroup() -> anyhow::Result<cgroup::Child> {
    let made = cgroup::Child::make(&format!("rsip-run-{}", std::process::id()));
    made.map_err(|error| {
        Failure::new(ExitCode::Failure, error.to_string())
            .hint("run as root, on a kernel with cgroup v2")
            .into()
    })
}

fn signals() -> SigSet {
    PASSED.into_iter().chain([Signal::SIGCHLD]).collect()
}

fn start(arguments: &Run, own: &cgroup::Child, blocked: &SigSet) -> std::io::Result<Child> {
    let procs = own.procs().try_clone()?;
    let (name, rest) = arguments.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(name);
    command.args(rest);
    let blocked = *blocked;
    let enter = move || {
        // "0" is whoever writes it.
        (&procs).write_all(b"0")?;
        blocked.thread_unblock().map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec only system calls are made (write, sigprocmask); nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(enter) };
    command.spawn()
}

/// Passes signals on until the command has ended.
fn accompany(mut child: Child, signals: &SigSet) -> anyhow::Result<ExitStatus> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the command")? {
            return Ok(status);
        }
        let (signal, sender) = wait(signals).context("cannot wait for signals")?;
        if PASSED.contains(&signal) && sender == Sender::Program {
            // It may have ended just now.
            nix::sys::signal::kill(pid, signal).ok();
        }
        if signal == Signal::SIGTSTP {
            // As the shell expects of its job, until it sends SIGCONT.
            nix::sys::signal::raise(Signal::SIGSTOP).context("cannot stop")?;
        }
    }
}

/// Who has sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// The kernel: for a terminal, to all of its foreground processes; or about a child.
    Kernel,
    /// A program, to this process.
    Program,
}

fn wait(signals: &SigSet) -> nix::Result<(Signal, Sender)> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: the set is valid, and there is room for what the kernel writes.
        let number = unsafe { libc::sigwaitinfo(signals.as_ref(), info.as_mut_ptr()) };
        match nix::errno::Errno::result(number) {
            // A stop and its end interrupt it.
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error),
            Ok(number) => {
                // SAFETY: zeroed, then written by the kernel.
                let code = unsafe { info.assume_init() }.si_code;
                // Codes of programs are 0 and below.
                let sender = if code > 0 { Sender::Kernel } else { Sender::Program };
                return Ok((Signal::try_from(number)?, sender));
            }
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}
