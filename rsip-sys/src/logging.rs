//! Log set-up: to standard error for people; where standard error is the journal, to journald itself, which keeps every field of
//! an event as one of its own (`CLIENT_ID=`, `PORT=`).
//!
//! The level comes from the configuration; the environment variable [`ENVIRONMENT`] wins over it and may name modules
//! (`rsipd=debug,rsip_proto=trace`). [`LogHandle::set_level`] changes it while the program runs.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Wins over the configured level.
pub const ENVIRONMENT: &str = "RSIP_LOG";

/// The levels that a configuration may name.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level, or not a list of `module=level`.
    #[error("log level {given:?} is not understood: use one of {}, or module=level,…", LEVELS.join(", "))]
    BadLevel {
        /// What was given.
        given: String,
    },
    /// The program set up logging twice.
    #[error("logging is set up already")]
    Twice,
}

/// Changes the level of a running program.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The environment decides; the configuration does not change it.
    fixed: bool,
}

impl LogHandle {
    /// Sets the level, unless the environment decides. Answers whether it did.
    ///
    /// # Errors
    /// [`LogError::BadLevel`].
    pub fn set_level(&self, level: &str) -> Result<bool, LogError> {
        let filter = parse(level)?;
        if self.fixed {
            return Ok(false);
        }
        Ok(self.filter.reload(filter).is_ok())
    }
}

/// Starts logging for this process.
///
/// # Errors
/// [`LogError::BadLevel`] for `level` or for the environment's; [`LogError::Twice`].
pub fn init(level: &str) -> Result<LogHandle, LogError> {
    let environment = std::env::var(ENVIRONMENT).ok().filter(|given| !given.is_empty());
    let filter = parse(environment.as_deref().unwrap_or(level))?;
    let (filter, handle) = reload::Layer::new(filter);
    let layer = fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    if stderr_is_journal() {
        match tracing_journald::Layer::new() {
            Ok(journal) => {
                registry.with(journal.with_field_prefix(None).with_priority_mappings(priorities())).try_init()
            }
            // journald stamps each line itself.
            Err(_) => registry.with(layer.without_time()).try_init(),
        }
    } else {
        registry.with(layer).try_init()
    }
    .map_err(|_| LogError::Twice)?;
    Ok(LogHandle { filter: handle, fixed: environment.is_some() })
}

/// As syslog has them; the crate's own default calls a change of state a "notice".
fn priorities() -> PriorityMappings {
    PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    }
}

fn parse(given: &str) -> Result<EnvFilter, LogError> {
    let bad = || LogError::BadLevel { given: given.to_owned() };
    // A bare word that is no level would be taken for a module's name, and silence everything else.
    if !given.contains('=') && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(given)) {
        return Err(bad());
    }
    EnvFilter::builder().parse(given).map_err(|_| bad())
}

/// `JOURNAL_STREAM` names the journal's socket as `device:inode`; it is inherited also where standard error has been
/// redirected elsewhere, so the two are compared (systemd.exec(5)).
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Some((device, inode)) = stream.split_once(':') else { return false };
    nix::sys::stat::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_levels_and_modules_but_no_other_word() {
        for good in ["info", "OFF", "rsipd=debug,warn", "rsip_proto=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["loud", "", "rsipd=loud", "rsipd=="] {
            assert!(matches!(parse(bad), Err(LogError::BadLevel { .. })), "{bad}");
        }
    }

    #[test]
    fn starts_once_and_changes_level() {
        let log = init("info").unwrap();
        assert!(matches!(init("info"), Err(LogError::Twice)));
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        assert!(log.set_level("debug").unwrap());
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        assert!(log.set_level("nonsense").is_err());
    }
}
