//! `rsip-client status --watch`: again and again, until it is interrupted.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::time::Duration;

use crate::calls::{ask, unexpected};
use crate::cli::RunDir;
use crate::control::{Request, Response};

/// Cursor to the corner, and everything from there away: no flicker, and nothing of the last time stays.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Prints the status every `interval`; on a terminal in the same place, elsewhere one after the other; in JSON one object a
/// line. Ends with SIGINT, and when nobody reads any more.
///
/// # Errors
///
/// No agent runs here when it begins. One that ends while it is watched is waited for.
pub fn watch(run_dir: &RunDir, json: bool, interval: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(repeat(run_dir, json, interval))
}

async fn repeat(run_dir: &RunDir, json: bool, interval: Duration) -> anyhow::Result<()> {
    let mut interrupted = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let redraws = stdout().is_terminal() && !json;
    let mut first = true;
    loop {
        let text = match look(run_dir, json) {
            Ok(text) => text,
            Err(error) if first => return Err(error),
            // JSON's readers know by the lines that do not come.
            Err(_) if json => String::new(),
            Err(error) => format!("{}\n", rsip_sys::exit::line(&error)),
        };
        let separator = if redraws || json || first { "" } else { "\n" };
        let begin = if redraws { REDRAW } else { separator };
        first = false;
        let mut out = stdout();
        if write!(out, "{begin}{text}").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        tokio::select! {
            _ = interrupted.recv() => return Ok(()),
            () = tokio::time::sleep(interval) => {}
        }
    }
}

fn look(run_dir: &RunDir, json: bool) -> anyhow::Result<String> {
    match ask(run_dir, &Request::Status)? {
        Response::Status(status) if json => Ok(serde_json::to_string(&status)? + "\n"),
        Response::Status(status) => Ok(status.to_string()),
        other => Err(unexpected(other)),
    }
}
