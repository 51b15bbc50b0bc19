//! The configuration file: TOML with the historical option names. Every mistake is reported with its place, the key,
//! what is wrong and what may be written; an unknown key is a mistake.

mod contradictions;
mod policy;
mod settings;
mod value;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use policy::{denies_all_ports, remote_deny_text};
pub use rsip_sys::config::{ConfigError, Place, Problem};
use settings::KEYS;
pub use settings::{DatapathChoice, Settings};
pub(crate) use value::network_of;

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/rsip/rsipd.conf";
/// Lists everything that is wrong with it.
pub(crate) const CHECKER: &str = "rsipd check";

/// A file that was read: its settings, and where each key stands, for complaints that need a look at the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file, as it was named.
    pub file: PathBuf,
    /// What it says, defaults filled in.
    pub settings: Settings,
    places: BTreeMap<&'static str, Place>,
}

impl Config {
    /// Reads the file at `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) => {
                let hint = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        "copy the sample rsipd.conf there, or name yours with --config"
                    }
                    std::io::ErrorKind::PermissionDenied => "run as root",
                    _ => "name a readable file with --config",
                };
                let what = format!("cannot read the configuration: {error}");
                let problem = Problem { place: None, key: None, what, hint: hint.to_owned() };
                Err(ConfigError::new(file, vec![problem], CHECKER))
            }
        }
    }

    /// Reads `text`, which came from `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let table = rsip_sys::config::parse(text, file, CHECKER, "KEY = value")?;
        let mut settings = Settings::default();
        let mut places = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, value) in table.get_ref() {
            let at = |span| Some(Place::of(text, &span));
            let Some(key) = KEYS.iter().find(|key| key.name == name.get_ref()) else {
                let meant = name.get_ref().to_uppercase().replace('-', "_");
                problems.push(Problem::unknown_key(text, name, &meant, KEYS.iter().map(|key| key.name)));
                continue;
            };
            places.insert(key.name, Place::of(text, &value.span()));
            if let Err(complaint) = (key.set)(&mut settings, value) {
                problems.push(Problem {
                    place: at(complaint.span),
                    key: Some(key.name.to_owned()),
                    what: complaint.what,
                    hint: format!("write {}", key.allowed),
                });
            }
        }
        let config = Self { file: file.to_owned(), settings, places };
        problems.extend(contradictions::of(&config));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(file, problems, CHECKER)) }
    }

    /// Whether the file sets this key.
    #[must_use]
    pub fn sets(&self, key: &str) -> bool {
        self.places.contains_key(key)
    }

    /// A problem with `key`, at its place.
    #[must_use]
    pub fn problem(&self, key: &'static str, what: String, hint: String) -> Problem {
        Problem { place: self.places.get(key).copied(), key: Some(key.to_owned()), what, hint }
    }
}
