//! `rsipdctl`: looks at and controls a running `rsipd`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode as ProcessExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use rsip_sys::control::{CallError, call};
use rsip_sys::exit::{self, ExitCode, Failure};
use rsip_sys::manual;
use rsip_sys::rundir;
use rsipd::cli::{ClientName, Rsipdctl, RsipdctlCommand, Target};
use rsipd::control::view::{Answer, Request, State};
use rsipd::control::{PROGRAM, table};

/// The daemon answers at once, unless it is very busy.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ProcessExitCode {
    exit::finish("rsipdctl", &run(&Rsipdctl::parse()))
}

fn run(arguments: &Rsipdctl) -> anyhow::Result<()> {
    let directory = match &arguments.run_dir {
        Some(directory) => directory.clone(),
        None => rundir::default_path(PROGRAM).map_err(rundir::RunDirError::into_failure)?,
    };
    let socket = directory.join(rundir::CONTROL_SOCKET);
    match &arguments.command {
        RsipdctlCommand::Dump => show(arguments, &dump(&socket)?, |state| state, table::dump),
        RsipdctlCommand::Clients => show(arguments, &dump(&socket)?, |state| &state.clients, table::clients),
        RsipdctlCommand::Binds => show(arguments, &dump(&socket)?, |state| &state.clients, table::binds),
        RsipdctlCommand::Pool => show(arguments, &dump(&socket)?, |state| &state.pool, table::pool),
        RsipdctlCommand::Status => show(arguments, &dump(&socket)?, |state| state, table::status),
        RsipdctlCommand::Release { target } => release(&socket, *target),
        RsipdctlCommand::Stop => stop(&socket),
        RsipdctlCommand::Completions { shell } => {
            // Who does not read on has seen enough.
            manual::completions(Rsipdctl::command(), *shell).unwrap_or_default();
            Ok(())
        }
        RsipdctlCommand::Man { output } => manual::pages(&Rsipdctl::command(), output)
            .map(drop)
            .with_context(|| format!("cannot write manual pages to {}", output.display())),
    }
}

fn show<'a, T: serde::Serialize + 'a>(
    arguments: &Rsipdctl,
    state: &'a State,
    part: impl Fn(&'a State) -> T,
    table: impl Fn(&State) -> String,
) -> anyhow::Result<()> {
    let text = if arguments.json { serde_json::to_string_pretty(&part(state))? + "\n" } else { table(state) };
    match io::stdout().write_all(text.as_bytes()) {
        // `| head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Answer, Failure> {
    call(socket, request, PATIENCE).map_err(|error: CallError| error.into_failure(PROGRAM))
}

fn dump(socket: &Path) -> Result<State, Failure> {
    match ask(socket, &Request::Dump)? {
        Answer::State(state) => Ok(*state),
        Answer::Done => {
            Err(Failure::new(ExitCode::Failure, PROGRAM).why("answered something else than was asked"))
        }
    }
}

fn release(socket: &Path, target: Target) -> anyhow::Result<()> {
    let client = match target.client {
        ClientName::Id(id) => id,
        ClientName::Host(host) => {
            let state = dump(socket)?;
            let client = state.clients.iter().find(|client| client.host == host);
            client.map(|client| client.client_id).ok_or_else(|| {
                Failure::new(ExitCode::Failure, format!("no host {host} is registered"))
                    .hint("see `rsipdctl clients`")
            })?
        }
    };
    ask(socket, &Request::Release { client, bind: target.bind })?;
    Ok(())
}

/// The daemon removes its socket last.
fn stop(socket: &Path) -> anyhow::Result<()> {
    ask(socket, &Request::Stop)?;
    let deadline = Instant::now() + PATIENCE;
    while socket.exists() {
        if Instant::now() > deadline {
            let failure = Failure::new(ExitCode::Failure, "rsipd was told to stop, but is still there");
            return Err(failure.hint("look at its log").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
