//! Ctrl-C leaves nothing of a lab behind either.

use std::thread;

use super::error::{IoContext, Result};
use super::topology;
use nix::sys::signal::{SigSet, Signal};

/// From now on SIGINT, SIGTERM and SIGHUP remove the lab of this name before the process ends. To be called while the
/// process has one thread: later ones inherit what is blocked here. Programs that run in the lab's namespaces do not.
///
/// # Errors
/// Where signals cannot be blocked.
pub fn clean_up_at_the_end(id: &'static str) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().cannot(|| "block signals".into())?;
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        eprintln!("\n{signal}: removing the lab");
        if let Err(error) = topology::remove(id) {
            eprintln!("{id}: {error}");
        }
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}
