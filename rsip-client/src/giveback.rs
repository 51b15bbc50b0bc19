//! `rsip-client free`: gives leases back at once.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use clap::Args;
use rsip_sys::exit::{ExitCode, Failure};

use crate::calls::{ask, say, unexpected};
use crate::cli::RunDir;
use crate::control::{FreeAnswer, FreeOutcome, FreeTarget, Request, Response};

/// Examples and exit codes of `rsip-client free --help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client free 8080              # do not wait until the linger time is over
  rsip-client free bind:7            # the lease with BIND ID 7, a block of ephemeral ports for example
  rsip-client free --force 80        # although programs use it: they are reached no more

Exit codes: 0 all of them were given back, 1 one of them was not.";

/// The gateway is told, and answers, within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// `rsip-client free`.
#[derive(Clone, Debug, Args)]
pub struct Free {
    /// A port that is leased by number, or `bind:ID` for the lease with that BIND ID (see `rsip-client status`).
    #[arg(required = true, value_name = "PORT|bind:ID", value_parser = parse_target)]
    pub targets: Vec<FreeTarget>,
    /// Also what programs use: they keep their sockets, and nobody reaches them.
    #[arg(long)]
    pub force: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}

fn parse_target(text: &str) -> Result<FreeTarget, String> {
    let bad = || format!("{text:?} is neither a port (1 to 65535) nor bind:ID");
    match text.strip_prefix("bind:") {
        Some(id) => u32::from_str(id).map(FreeTarget::Bind).map_err(|_| bad()),
        None => u16::from_str(text).ok().filter(|port| *port > 0).map(FreeTarget::Port).ok_or_else(bad),
    }
}

/// Gives back, and waits until it is done.
///
/// # Errors
///
/// No agent runs here, or something was not given back.
pub fn free(arguments: &Free) -> anyhow::Result<()> {
    let request = Request::Free { targets: arguments.targets.clone(), force: arguments.force };
    let answers = match ask(&arguments.run_dir, &request)? {
        Response::Freed(answers) => answers,
        other => return Err(unexpected(other)),
    };
    let mut kept = 0;
    for answer in &answers {
        if let FreeOutcome::Freed(bind_id) = answer.outcome {
            wait(&arguments.run_dir, bind_id)?;
        } else {
            kept += 1;
        }
        say(&line(answer));
    }
    if kept == 0 {
        return Ok(());
    }
    let failure = Failure::new(ExitCode::Failure, format!("{kept} of {} not given back", answers.len()));
    let in_use = answers.iter().any(|answer| matches!(answer.outcome, FreeOutcome::InUse(_)));
    Err(if in_use {
        failure.hint("end the programs (rsip-client ports shows them), or use --force")
    } else {
        failure
    }
    .into())
}

fn wait(run_dir: &RunDir, bind_id: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Response::Status(status) = ask(run_dir, &Request::Status)? else { return Ok(()) };
        if status.leases.iter().all(|lease| lease.bind_id != bind_id) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let what = format!("bind:{bind_id}");
            return Err(Failure::new(ExitCode::Failure, what)
                .why(format!("the gateway has not confirmed within {} s", PATIENCE.as_secs()))
                .hint("it is out of use here already; see rsip-client ping-gateway")
                .into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The line for people.
fn line(answer: &FreeAnswer) -> String {
    let target = match answer.target {
        FreeTarget::Port(port) => port.to_string(),
        FreeTarget::Bind(id) => format!("bind:{id}"),
    };
    match &answer.outcome {
        FreeOutcome::Freed(_) => format!("{target}: given back"),
        FreeOutcome::InUse(sockets) => format!("{target}: in use by {sockets} sockets"),
        FreeOutcome::NotLeased => format!("{target}: is not leased"),
        FreeOutcome::OfBlock(id) => format!("{target}: belongs to a block: free bind:{id}"),
        FreeOutcome::Whole => {
            format!("{target}: the whole address is leased as one: rsip-client down gives it back")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_and_bind_ids() {
        assert_eq!(parse_target("80"), Ok(FreeTarget::Port(80)));
        assert_eq!(parse_target("bind:0"), Ok(FreeTarget::Bind(0)));
        for bad in ["", "0", "65536", "bind:", "bind:-1", "bind", "http"] {
            assert!(parse_target(bad).is_err(), "{bad}");
        }
    }
}
