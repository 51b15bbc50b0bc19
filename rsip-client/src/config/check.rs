//! `rsip-client check`: everything that is wrong with the configuration file.

use std::path::{Path, PathBuf};

use clap::Args;
use rsip_sys::exit::{ExitCode, Failure};

use super::{DEFAULT_PATH, read};
use crate::calls::say;

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client check                                   # /etc/rsip/rsip-client.conf
  rsip-client check --config ./rsip-client.conf

A line for each mistake: FILE:LINE:COLUMN: KEY: what is wrong: what to write. Exits with 78 if there is one.";

/// `rsip-client check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The configuration file [default: /etc/rsip/rsip-client.conf]
    #[arg(long, value_name = "FILE", env = "RSIP_CLIENT_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Prints every mistake.
///
/// # Errors
///
/// There is one.
pub fn check(arguments: &Check) -> anyhow::Result<()> {
    let path = arguments.config.as_deref().unwrap_or_else(|| Path::new(DEFAULT_PATH));
    match read(path) {
        Ok(settings) => {
            say(&format!("{}: fine, {} settings", path.display(), settings.len()));
            Ok(())
        }
        Err(error) => {
            let error = error.into_error(path);
            error.lines().for_each(|line| say(&line));
            let mistakes = format!("{}: {} mistakes", path.display(), error.problems.len());
            Err(Failure::new(ExitCode::Config, mistakes).into())
        }
    }
}
