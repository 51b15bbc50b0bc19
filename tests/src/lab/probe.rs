//! The helper program `probe`: exactly the socket calls that a test wants.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::binaries;
use super::error::{LabError, Result};
use super::exec;
use super::netns::Inside;
use super::process::Process;
use super::topology::Lab;
use super::wait::{self, Look};

/// What `probe` says about a bind.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Bound {
    /// "ok", or the name of the error.
    pub result: String,
    /// 0, or the number of the error.
    pub errno: i32,
    /// The port that was asked for, or that the kernel chose.
    pub port: u16,
    /// How long bind (and listen) took.
    pub micros: u64,
}

impl Bound {
    /// Fails unless the bind worked.
    ///
    /// # Errors
    /// [`LabError::Unexpected`].
    pub fn expect_ok(&self) -> Result<()> {
        self.expect("ok")
    }

    /// Fails unless the bind ended like this: "ok" or the name of an error.
    ///
    /// # Errors
    /// [`LabError::Unexpected`].
    pub fn expect(&self, result: &str) -> Result<()> {
        if self.result == result {
            return Ok(());
        }
        let what = format!("bind of port {}", self.port);
        Err(LabError::Unexpected { what, expected: result.to_owned(), seen: format!("{self:?}") })
    }

    /// How long bind (and listen) took.
    #[must_use]
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// A probe that holds a socket, or tries to get one.
#[derive(Debug)]
pub struct Probe {
    /// The running program.
    pub process: Process,
}

impl Probe {
    /// Starts `probe` with these arguments inside a namespace, and does not wait for anything.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(lab: &Lab, inside: &Inside, arguments: &[&str]) -> Result<Self> {
        static PROBES: AtomicU32 = AtomicU32::new(0);
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let log = lab.folder().join(format!("probe-{number}.log"));
        let mut command = inside.command(binaries::own("probe")?);
        Ok(Self { process: Process::start("probe", command.args(arguments), &log)? })
    }

    /// What became of its bind.
    ///
    /// # Errors
    /// [`LabError::Timeout`] where it is still waiting after `limit`.
    pub fn bound(&mut self, limit: Duration) -> Result<Bound> {
        wait::until("probe to say what became of its bind", limit, || {
            let output = self.process.output();
            // A line without its end is still being written.
            Ok(match output.split_once('\n') {
                Some((line, _)) => Look::Ready(parse(line)?),
                None => Look::NotYet("it waits".into()),
            })
        })
    }
}

/// Binds in a namespace, holds the socket, and says what became of it; `arguments` are those of `probe bind`.
///
/// # Errors
/// Where the probe says nothing within 20 seconds.
pub fn bind(lab: &Lab, inside: &Inside, arguments: &[&str]) -> Result<(Probe, Bound)> {
    run_until_bound(lab, inside, "bind", arguments)
}

/// Binds a port that must be granted, and answers everybody who asks; `arguments` are those of `probe serve`.
///
/// # Errors
/// Where the bind fails.
pub fn serve(lab: &Lab, inside: &Inside, arguments: &[&str]) -> Result<Probe> {
    let (probe, bound) = run_until_bound(lab, inside, "serve", arguments)?;
    bound.expect_ok()?;
    Ok(probe)
}

fn run_until_bound(lab: &Lab, inside: &Inside, verb: &str, arguments: &[&str]) -> Result<(Probe, Bound)> {
    let mut all = vec![verb];
    all.extend_from_slice(arguments);
    let mut probe = Probe::start(lab, inside, &all)?;
    let bound = probe.bound(exec::SHORT)?;
    Ok((probe, bound))
}

/// What a `probe serve` told somebody who asked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The asker, as the server saw it.
    pub peer: SocketAddrV4,
    /// The server's own address; of a datagram socket, the one that it is bound to.
    pub local: SocketAddr,
}

/// Asks a `probe serve` once; further `arguments` are those of `probe ask`.
///
/// # Errors
/// [`LabError::Command`] where there is no answer.
pub fn ask(inside: &Inside, server: SocketAddrV4, arguments: &[&str]) -> Result<Answer> {
    let answers = ask_often(inside, server, 1, arguments)?;
    answers.first().copied().ok_or_else(|| unexpected("answer of a probe", "one", "none"))
}

/// Asks a `probe serve` so many times, one after the other.
///
/// # Errors
/// [`LabError::Command`] where one is not answered.
pub fn ask_often(
    inside: &Inside,
    server: SocketAddrV4,
    count: u16,
    arguments: &[&str],
) -> Result<Vec<Answer>> {
    #[derive(Deserialize)]
    struct Said {
        answer: String,
    }
    let fixed = ["ask", &server.to_string(), "--count", &count.to_string()];
    let read = |line: &str| {
        let said: Said = parse(line)?;
        let parsed = said
            .answer
            .split_once(' ')
            .and_then(|(peer, local)| Some(Answer { peer: peer.parse().ok()?, local: local.parse().ok()? }));
        parsed.ok_or_else(|| unexpected("answer of a probe", "two addresses", &said.answer))
    };
    run(inside, &[&fixed[..], arguments].concat())?.lines().map(read).collect()
}

/// Runs `probe` to its end; it must say "ok".
///
/// # Errors
/// [`LabError::Command`] with what it said.
pub fn run(inside: &Inside, arguments: &[&str]) -> Result<String> {
    let mut command = inside.command(binaries::own("probe")?);
    exec::run(command.args(arguments), Duration::from_secs(120))?.success()
}

fn parse<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T> {
    serde_json::from_str(line).map_err(|error| unexpected("line of a probe", &error.to_string(), line))
}

fn unexpected(what: &str, expected: &str, seen: &str) -> LabError {
    LabError::Unexpected { what: what.into(), expected: expected.into(), seen: seen.into() }
}
