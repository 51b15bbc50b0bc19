//! The sub-commands that talk to a running agent.

use std::path::Path;
use std::time::{Duration, Instant};

use rsip_sys::control::{self, CallError};
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::Netlink;
use rsip_sys::rundir::{CONTROL_SOCKET, RunDir as HeldRunDir, RunDirError};

use crate::agent::start::{NEEDS_TO_UNDO, PROGRAM, claim, netns_cookie, require_capabilities, run_directory};
use crate::cli::{Ports, RunDir};
use crate::control::{PortAnswer, PortOutcome, Request, Response};
use crate::recovery;

/// The one that is asked, in error lines.
const AGENT: &str = "agent";
/// A question is answered within this; `listen` asks the gateway.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The agent leaves the gateway and restores the host.
const DOWN_PATIENCE: Duration = Duration::from_secs(20);
/// Between the last answer and the end of the process.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);

/// Prints lines for people. Who does not read on (`| head`) has seen enough.
pub(crate) fn say(lines: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stdout(), "{lines}"));
}

/// Asks the agent something that it answers at once.
///
/// # Errors
///
/// No agent runs here, or it answers with an error.
pub(crate) fn ask(run_dir: &RunDir, request: &Request) -> anyhow::Result<Response> {
    ask_within(run_dir, request, PATIENCE)
}

pub(crate) fn ask_within(
    run_dir: &RunDir,
    request: &Request,
    patience: Duration,
) -> anyhow::Result<Response> {
    let directory = run_directory(run_dir.path.as_deref())?;
    let answer = control::call(&directory.join(CONTROL_SOCKET), request, patience);
    Ok(answer.map_err(|error| error.into_failure(AGENT))?)
}

pub(crate) fn unexpected(_: Response) -> anyhow::Error {
    Failure::new(ExitCode::Failure, "the agent's answer is not the one to the question")
        .hint("agent and command must be of one version")
        .into()
}

/// `rsip-client status`.
///
/// # Errors
///
/// No agent runs here.
pub fn status(run_dir: &RunDir, json: bool) -> anyhow::Result<()> {
    match ask(run_dir, &Request::Status)? {
        Response::Status(status) if json => {
            say(&serde_json::to_string_pretty(&status)?);
            Ok(())
        }
        Response::Status(status) => {
            say(status.to_string().trim_end());
            Ok(())
        }
        other => Err(unexpected(other)),
    }
}

/// `rsip-client listen`.
///
/// # Errors
///
/// No agent runs here, or a port was refused.
pub fn listen(arguments: &Ports) -> anyhow::Result<()> {
    let answers = ports(arguments, &Request::Listen(arguments.ports.clone()))?;
    let refused = answers.iter().filter(|a| matches!(a.outcome, PortOutcome::Refused(_))).count();
    if refused > 0 {
        let what = format!("{refused} of {} ports refused", answers.len());
        return Err(Failure::new(ExitCode::Refused, what).into());
    }
    Ok(())
}

/// `rsip-client unlisten`.
///
/// # Errors
///
/// No agent runs here.
pub fn unlisten(arguments: &Ports) -> anyhow::Result<()> {
    ports(arguments, &Request::Unlisten(arguments.ports.clone())).map(drop)
}

fn ports(arguments: &Ports, request: &Request) -> anyhow::Result<Vec<PortAnswer>> {
    match ask_within(&arguments.run_dir, request, PATIENCE)? {
        Response::Ports(answers) => {
            for answer in &answers {
                say(&answer.line());
            }
            Ok(answers)
        }
        other => Err(unexpected(other)),
    }
}

/// `rsip-client down`.
///
/// # Errors
///
/// The agent could not restore the host, or we could not in its place.
pub fn down(run_dir: &RunDir) -> anyhow::Result<()> {
    let directory = run_directory(run_dir.path.as_deref())?;
    let answer: Result<Response, CallError> =
        control::call(&directory.join(CONTROL_SOCKET), &Request::Down, DOWN_PATIENCE);
    match answer {
        Ok(_) => {
            wait_for_end(&directory)?;
            say(&format!("{PROGRAM}: down"));
            Ok(())
        }
        Err(CallError::NotRunning { .. }) => recover(&directory),
        Err(error) => Err(error.into_failure(AGENT).into()),
    }
}

/// Until the agent's process has let go of its lock: whoever starts the next one is not told that it still runs.
fn wait_for_end(directory: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + EXIT_PATIENCE;
    while directory.exists() {
        match HeldRunDir::claim(directory) {
            Err(RunDirError::AlreadyRunning { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into_failure().into()),
        }
    }
    Ok(())
}

fn recover(directory: &Path) -> anyhow::Result<()> {
    require_capabilities(&NEEDS_TO_UNDO)?;
    let run_dir = claim(directory)?;
    let cookie = netns_cookie(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state = runtime.block_on(async {
        let netlink = Netlink::open().map_err(|e| Failure::new(ExitCode::Failure, e.to_string()))?;
        let state = recovery::load(run_dir.path(), cookie)?;
        match &state {
            Some(state) => recovery::undo(state, &netlink, run_dir.path()).await?,
            None => recovery::remove_unknown(&netlink, cookie).await?,
        }
        anyhow::Ok(state)
    })?;
    if state.is_some() {
        say(&format!("{PROGRAM}: down: the agent was dead; what it left is undone"));
    } else {
        // About another namespace, or not there at all.
        crate::state::State::remove(run_dir.path()).map_err(RunDirError::into_failure)?;
        say(&format!("{PROGRAM}: down: no agent was running"));
    }
    Ok(())
}
