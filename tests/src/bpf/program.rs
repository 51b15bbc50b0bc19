//! Programs under test's hooks, and the ways in which their bind() waits.

use std::env;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rsip_ebpf_common::host::{Config, WAIT_PARK_FEXIT, WAIT_PARK_TRACEPOINT, WAIT_POLL};
use serde_json::Value;

use super::host::{Host, parking_ways};
use super::{BpfError, Result};
use crate::lab::wait;

/// Names one way of waiting for tests that go through all: "park-fexit", "park-tracepoint" or "poll", as `--wait` has it.
/// Unset or "auto": all that this kernel has.
pub const WAY_VARIABLE: &str = "RSIP_WAIT";

/// The ways of waiting that are to be tested.
///
/// # Errors
/// Where [`WAY_VARIABLE`] names none, or the object is not there.
pub fn ways() -> Result<Vec<u32>> {
    match env::var(WAY_VARIABLE).unwrap_or_default().as_str() {
        "" | "auto" => {
            let mut ways = parking_ways()?;
            ways.push(WAIT_POLL);
            Ok(ways)
        }
        "park-fexit" => Ok(vec![WAIT_PARK_FEXIT]),
        "park-tracepoint" => Ok(vec![WAIT_PARK_TRACEPOINT]),
        "poll" => Ok(vec![WAIT_POLL]),
        other => Err(BpfError::Absent(format!("way of waiting {other:?} ({WAY_VARIABLE})"))),
    }
}

/// Hooks that wait in this way, this long at most. One CPU is left free by those that hold theirs.
///
/// # Errors
/// Where the kernel refuses something.
pub fn host(wait: u32, deadline: Duration) -> Result<Host> {
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Host::new(Config {
        public_address: u32::from_ne_bytes([203, 0, 113, 1]),
        deadline_ns: u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX),
        poll_ns: 50_000,
        wait,
        holders_max: u32::try_from(processors).unwrap_or(u32::MAX).saturating_sub(1),
        ..Config::default()
    })
}

/// A running program. It ends with the value.
#[derive(Debug)]
pub struct Program(Child);

impl Program {
    /// Starts it; what it prints is for [`Self::line`] and [`Self::finish`].
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().map(Self).map_err(|source| cannot("start a program", source))
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).map_err(|errno| cannot("signal a program", errno.into()))
    }

    /// The state that the kernel shows for it: 'R', 'S', 'T', ….
    #[must_use]
    pub fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    /// Waits for its end, and gives what it printed.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn finish(&mut self, limit: Duration) -> Result<(ExitStatus, String)> {
        let text = self.read(limit, |_| false)?;
        let status = self.0.wait().map_err(|source| cannot("wait for a program", source))?;
        Ok((status, text))
    }

    /// The last line that it printed, as JSON, at its end.
    ///
    /// # Errors
    /// Where it does not end in time, or prints something else.
    pub fn line(&mut self, limit: Duration) -> Result<Value> {
        let (_, text) = self.finish(limit)?;
        parse(&text)
    }

    /// The first line that it prints, as JSON, while it runs on.
    ///
    /// # Errors
    /// Where none comes in time, or something else.
    pub fn first_line(&mut self, limit: Duration) -> Result<Value> {
        let text = self.read(limit, |text| text.contains('\n'))?;
        parse(&text)
    }

    fn read(&mut self, limit: Duration, enough: impl Fn(&str) -> bool) -> Result<String> {
        let limit = wait::limit(limit);
        let deadline = Instant::now() + limit;
        let mut said = Vec::new();
        let Some(output) = &mut self.0.stdout else { return Ok(String::new()) };
        loop {
            if enough(&String::from_utf8_lossy(&said)) {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut ready, timeout) {
                Ok(0) => {
                    let said = String::from_utf8_lossy(&said).into_owned();
                    let late = std::io::Error::other(format!("nothing more in {limit:?} after {said:?}"));
                    return Err(cannot("hear from a program", late));
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(cannot("wait for a program's words", errno.into())),
            }
            let mut buffer = [0; 4096];
            match output.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => said.extend(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(cannot("hear from a program", source)),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended and was waited for is not signalled any more.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("a program: {error}");
        }
    }
}

/// The last line that is JSON.
fn parse(text: &str) -> Result<Value> {
    let lines = text.lines().rev().filter(|line| line.starts_with('{'));
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .next()
        .ok_or_else(|| cannot("understand a program", std::io::Error::other(format!("it prints {text:?}"))))
}

/// Waits until somebody waits for a port.
///
/// # Errors
/// Where nobody does.
pub fn until_asked(host: &Host, port: u16) -> Result<()> {
    until(&format!("a question about port {port}"), || host.pending().contains(&u32::from(port)))
}

/// Waits until something is so.
///
/// # Errors
/// Where it is not so in ten seconds.
pub fn until(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + wait::limit(Duration::from_secs(10));
    while !is_so() {
        if Instant::now() > deadline {
            return Err(cannot("wait", std::io::Error::other(format!("{what}: not in 10 s"))));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn cannot(what: &str, source: std::io::Error) -> BpfError {
    BpfError::System { what: what.to_owned(), source }
}
