//! The keys of the file, made from the options of `up`, and how their values become arguments.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::Range;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory as _};
use rsip_sys::config::Problem;
use toml::Spanned;
use toml::de::DeValue;

use super::{Setting, UP};
use crate::cli::Cli;

/// Options that make no sense in a file: `--config` itself, what clap adds.
const NO_KEYS: [&str; 3] = ["config", "help", "version"];

/// Why a value cannot be taken, and where it stands.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) span: Range<usize>,
    pub(super) what: String,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// It is said or not.
    Nothing,
    /// One value.
    One,
    /// Any number of values.
    List,
}

/// A key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// In the file.
    pub(super) name: String,
    /// In clap.
    pub(super) id: String,
    long: String,
    takes: Takes,
    value_name: String,
    help: String,
}

/// Every option of `up` that may stand in a file.
pub(super) fn all() -> Vec<Key> {
    up().get_arguments().filter_map(key).collect()
}

fn up() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli.find_subcommand(UP).cloned().unwrap_or_default()
}

fn key(option: &Arg) -> Option<Key> {
    let long = option.get_long()?;
    if NO_KEYS.contains(&long) {
        return None;
    }
    let takes = match option.get_action() {
        ArgAction::Set => Takes::One,
        ArgAction::Append => Takes::List,
        ArgAction::SetTrue => Takes::Nothing,
        _ => return None,
    };
    let names = option.get_value_names().unwrap_or_default();
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    Some(Key {
        name: long.replace('-', "_"),
        id: option.get_id().to_string(),
        long: long.to_owned(),
        takes,
        value_name: names.first().map(ToString::to_string).unwrap_or_default(),
        help,
    })
}

impl Key {
    /// The arguments that say the same on the command line.
    ///
    /// # Errors
    ///
    /// The value is not one of this key.
    pub(super) fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<OsString>, Complaint> {
        match (self.takes, value.get_ref()) {
            (Takes::Nothing, DeValue::Boolean(true)) => Ok(vec![format!("--{}", self.long).into()]),
            (Takes::Nothing, DeValue::Boolean(false)) => Ok(Vec::new()),
            (Takes::Nothing, other) => {
                Err(complain(value, format!("{} stands where true or false should be", kind(other))))
            }
            (Takes::List, DeValue::Array(values)) => values.iter().map(|value| self.one(value)).collect(),
            (Takes::List | Takes::One, _) => Ok(vec![self.one(value)?]),
        }
    }

    fn one(&self, value: &Spanned<DeValue<'_>>) -> Result<OsString, Complaint> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => decimal(number),
            DeValue::Float(number) => number.to_string(),
            DeValue::Table(rule) if self.long == "rule" => {
                rule_text(rule).map_err(|what| complain(value, what))?
            }
            other => {
                let wanted =
                    if self.takes == Takes::List { "text, a number or a list" } else { "text or a number" };
                return Err(complain(value, format!("{} stands where {wanted} should be", kind(other))));
            }
        };
        let argument = format!("--{}={text}", self.long);
        let trial = up().try_get_matches_from(["up", &argument]);
        match trial {
            Err(error) if !matches!(error.kind(), ErrorKind::MissingRequiredArgument) => {
                Err(complain(value, why(&error, &text)))
            }
            Ok(_) | Err(_) => Ok(argument.into()),
        }
    }

    /// What may be written, for the end of a complaint.
    pub(super) fn allowed(&self) -> String {
        let example = match self.takes {
            Takes::Nothing => "true or false".to_owned(),
            Takes::One => self.value_name.clone(),
            Takes::List => format!("[{0}, {0}, ...]", self.value_name),
        };
        let help = self.help.lines().next().unwrap_or_default();
        format!("write {} = {example}: {help}", self.name)
    }
}

fn complain(value: &Spanned<DeValue<'_>>, what: String) -> Complaint {
    Complaint { span: value.span(), what }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// TOML has hexadecimal numbers and the like; options have not.
fn decimal(number: &toml::de::DeInteger<'_>) -> String {
    i128::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string())
}

/// A `[[rule]]` as the text of one.
fn rule_text(table: &toml::de::DeTable<'_>) -> Result<String, String> {
    const PARTS: [&str; 6] = ["action", "ports", "protocol", "program", "user", "cgroup"];
    let mut words = Vec::new();
    for (name, _) in table {
        if !PARTS.contains(&name.get_ref().as_ref()) {
            return Err(format!("a rule has no {}; it has {}", name.get_ref(), PARTS.join(", ")));
        }
    }
    for part in PARTS {
        let Some(value) = table.get(part) else {
            if part == "action" {
                return Err("a rule needs action = \"lease\", \"ignore\" or \"deny\"".to_owned());
            }
            continue;
        };
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => decimal(number),
            other => return Err(format!("{} stands where {part} should be text or a number", kind(other))),
        };
        words.push(match part {
            "action" | "ports" | "protocol" => text,
            _ => format!("{part}=\"{text}\""),
        });
    }
    Ok(words.join(" "))
}

/// What clap says is wrong with a value, in a few words.
fn why(error: &clap::Error, text: &str) -> String {
    let choices = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(choices)) if !choices.is_empty() => Some(choices.join(", ")),
        _ => None,
    };
    match (choices, std::error::Error::source(error)) {
        (Some(choices), _) => format!("{text:?} is none of {choices}"),
        (None, Some(why)) => why.to_string(),
        (None, None) => {
            let said = error.to_string();
            said.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    }
}

/// What two keys say that cannot both be.
pub(super) fn contradiction(settings: &[Setting]) -> Option<Problem> {
    let arguments = settings.iter().flat_map(|setting| setting.arguments.iter().cloned());
    let error = up().try_get_matches_from(std::iter::once("up".into()).chain(arguments)).err()?;
    let said = error.to_string();
    let what = said.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Some(Problem { place: None, key: None, what, hint: "leave one of them out".to_owned() })
}

/// Options that cannot stand beside one that is `given`.
pub(super) fn excluded_by(given: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let up = up();
    let mut excluded = BTreeSet::new();
    for option in up.get_arguments() {
        let others = up.get_arg_conflicts_with(option);
        if given(option.get_id().as_str()) {
            excluded.extend(others.iter().map(|other| other.get_id().to_string()));
        } else if others.iter().any(|other| given(other.get_id().as_str())) {
            excluded.insert(option.get_id().to_string());
        }
    }
    excluded
}
