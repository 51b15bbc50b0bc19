//! What can go wrong in the lab itself.

use std::io;
use std::time::Duration;

/// Result of a lab function.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// A failure of the lab, or of a program that was expected to work in it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Network namespaces need it.
    #[error("the lab makes network namespaces: run it as root")]
    NotRoot,
    /// Another lab holds the machine.
    #[error("another lab has been running on this machine for {0:?}: wait for it, or end it")]
    Busy(Duration),
    /// A program is not installed or not built.
    #[error("{program} is missing: {hint}")]
    Missing {
        /// Its name or path.
        program: String,
        /// How to get it.
        hint: &'static str,
    },
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program ended in another way than it should.
    #[error("`{command}` {how}\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        how: String,
        /// What it printed.
        output: String,
    },
    /// Something did not happen in time.
    #[error("waited {waited:?} for {what}; last seen: {last}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// The last thing that was seen instead.
        last: String,
    },
    /// Something is not as it should be.
    #[error("{what}: expected {expected}, saw {seen}")]
    Unexpected {
        /// What was looked at.
        what: String,
        /// What it should have been.
        expected: String,
        /// What it was.
        seen: String,
    },
}

/// Adds to an [`io::Error`] what was tried.
pub trait IoContext<T> {
    /// `what` continues the sentence "cannot …".
    ///
    /// # Errors
    /// The same failure, with the sentence.
    fn cannot(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn cannot(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io { what: what(), source: source.into() })
    }
}
