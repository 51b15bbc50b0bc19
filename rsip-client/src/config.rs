//! The configuration file: the options of `up` by their names, in TOML. The command line wins, option by option.
//!
//! Each key is an option's long name with `_` for `-`, and its value is read by the same parser as on the command line; so there is
//! one place where an option is described, and no option that a file cannot have.
//!
//! ```text
//! file ── keys and values ──> arguments ──┐
//!                                         ├──> one command line
//! command line, environment ──────────────┘
//! ```

mod check;
mod keys;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};
use rsip_sys::config::{self, ConfigError, Place, Problem};

use crate::cli::Cli;
pub use check::{Check, EXAMPLES as CHECK_EXAMPLES, check};

/// Where the file is unless `--config` says otherwise. It need not be there.
pub const DEFAULT_PATH: &str = "/etc/rsip/rsip-client.conf";
/// Lists everything that is wrong with it.
const CHECKER: &str = "rsip-client check";
/// The sub-command that the file is for.
const UP: &str = "up";

/// One setting of a file, as arguments of `up`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    /// The option's name in clap.
    id: String,
    arguments: Vec<OsString>,
}

/// Reads the command line, and where it says `up` the configuration file.
///
/// # Errors
///
/// What is wrong with the file. A wrong command line ends the process, as clap does.
pub fn command_line(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Cli> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = Cli::command().get_matches_from(&arguments);
    let Some((UP, up)) = matches.subcommand() else { return Ok(Cli::from_arg_matches(&matches)?) };
    let Some(settings) = settings(up)? else { return Ok(Cli::from_arg_matches(&matches)?) };
    let together = merge(&arguments, up, &settings);
    let matches = Cli::command().get_matches_from(together);
    Ok(Cli::from_arg_matches(&matches)?)
}

/// The settings of the file that `up` names, or of the default one. `None`: there is no default file.
fn settings(up: &ArgMatches) -> anyhow::Result<Option<Vec<Setting>>> {
    let named = up.get_one::<PathBuf>("config");
    let path = named.map_or_else(|| Path::new(DEFAULT_PATH), PathBuf::as_path);
    match read(path) {
        Ok(settings) => Ok(Some(settings)),
        Err(Unread::Missing) if named.is_none() => Ok(None),
        Err(error) => Err(error.into_error(path).into_failure().into()),
    }
}

/// Why a file gives no settings.
#[derive(Debug)]
enum Unread {
    /// It is not there.
    Missing,
    /// It cannot be read.
    Io(std::io::Error),
    /// It is wrong.
    Wrong(ConfigError),
}

impl Unread {
    fn into_error(self, path: &Path) -> ConfigError {
        let problem = |what: String, hint: &str| {
            let problem = Problem { place: None, key: None, what, hint: hint.to_owned() };
            ConfigError::new(path, vec![problem], CHECKER)
        };
        match self {
            Self::Missing => {
                problem("there is no such file".to_owned(), "copy the sample rsip-client.conf there")
            }
            Self::Io(error) => problem(
                format!("cannot read the configuration: {error}"),
                "name a readable file with --config",
            ),
            Self::Wrong(error) => error,
        }
    }
}

fn read(path: &Path) -> Result<Vec<Setting>, Unread> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path).map_err(Unread::Wrong),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Unread::Missing),
        Err(error) => Err(Unread::Io(error)),
    }
}

/// Reads `text`, which came from `file`.
///
/// # Errors
///
/// Everything that is wrong with it.
fn parse(text: &str, file: &Path) -> Result<Vec<Setting>, ConfigError> {
    let table = config::parse(text, file, CHECKER, "key = value")?;
    let keys = keys::all();
    let mut settings = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in table.get_ref() {
        let Some(key) = keys.iter().find(|key| key.name == name.get_ref().as_ref()) else {
            let meant = name.get_ref().replace('-', "_");
            let known = keys.iter().map(|key| key.name.as_str());
            problems.push(Problem::unknown_key(text, name, &meant, known));
            continue;
        };
        match key.read(value) {
            Ok(arguments) => settings.push(Setting { id: key.id.clone(), arguments }),
            Err(complaint) => problems.push(Problem {
                place: Some(Place::of(text, &complaint.span)),
                key: Some(key.name.clone()),
                what: complaint.what,
                hint: key.allowed(),
            }),
        }
    }
    if problems.is_empty() {
        problems.extend(keys::contradiction(&settings));
    }
    if problems.is_empty() { Ok(settings) } else { Err(ConfigError::new(file, problems, CHECKER)) }
}

/// The command line with what the file adds to it: no option that it has itself, and none that one of its own excludes.
fn merge(arguments: &[OsString], up: &ArgMatches, settings: &[Setting]) -> Vec<OsString> {
    let given =
        |id: &str| matches!(up.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let excluded = keys::excluded_by(given);
    let added = settings
        .iter()
        .filter(|setting| !given(&setting.id) && !excluded.contains(&setting.id))
        .flat_map(|setting| setting.arguments.iter().cloned());
    let verb = arguments.iter().position(|argument| argument == UP).map_or(arguments.len(), |at| at + 1);
    let (before, after) = arguments.split_at(verb);
    before.iter().cloned().chain(added).chain(after.iter().cloned()).collect()
}

#[cfg(test)]
mod tests;
