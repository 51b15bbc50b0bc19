//! What is wrong with a configuration file, and where: the same words for both daemons.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable};

use crate::exit::{ExitCode, Failure};

/// A place in the file; both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    /// The place of a byte offset in `text`.
    #[must_use]
    pub fn of(text: &str, span: &Range<usize>) -> Self {
        let mut end = span.start.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..end];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file; nowhere for a key that is not there.
    pub place: Option<Place>,
    /// The key, or nothing where the file is no TOML.
    pub key: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// What to write instead, or what to do.
    pub hint: String,
}

/// Everything that is wrong with one file, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The command that lists all of it.
    pub checker: &'static str,
}

impl ConfigError {
    /// The problems of `file`, sorted by place; those without one are last.
    #[must_use]
    pub fn new(file: &Path, mut problems: Vec<Problem>, checker: &'static str) -> Self {
        // What is not there at all comes last: more often than not it is there, misspelt.
        problems.sort_by_key(|problem| (problem.place.is_none(), problem.place));
        Self { file: file.to_owned(), problems, checker }
    }

    /// One line for each problem: `FILE:LINE:COLUMN: KEY: what: hint`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|problem| {
            let mut line = self.file.display().to_string();
            if let Some(Place { line: number, column }) = problem.place {
                line.push_str(&format!(":{number}:{column}"));
            }
            for part in
                [problem.key.as_deref(), Some(&problem.what), Some(&problem.hint)].into_iter().flatten()
            {
                if !part.is_empty() {
                    line.push_str(": ");
                    line.push_str(part);
                }
            }
            line
        })
    }

    /// The same for the end of `main`.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        Failure::new(ExitCode::Config, self.to_string())
    }
}

/// The first problem, and how many more there are.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().next().unwrap_or_default())?;
        match self.problems.len().saturating_sub(1) {
            0 => Ok(()),
            more => write!(f, " (and {more} more: `{}` lists them)", self.checker),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The table of keys and values that `text` is, in TOML. `example` is the form of a line, for whoever wrote something else.
///
/// # Errors
/// Every error of syntax, and nothing else: what follows one is guesswork.
pub fn parse<'a>(
    text: &'a str,
    file: &Path,
    checker: &'static str,
    example: &str,
) -> Result<Spanned<DeTable<'a>>, ConfigError> {
    let (table, syntax) = DeTable::parse_recoverable(text);
    if syntax.is_empty() {
        return Ok(table);
    }
    let problems = syntax.iter().map(|error| Problem {
        place: error.span().map(|span| Place::of(text, &span)),
        key: None,
        what: error.message().replace('\n', "; "),
        hint: format!("the file is TOML: {example}, text in quotes, lists in [ ]"),
    });
    Err(ConfigError::new(file, problems.collect(), checker))
}

impl Problem {
    /// A key that there is not; `meant` is how it would be spelt if it were one of the `known` ones.
    #[must_use]
    pub fn unknown_key<'a>(
        text: &str,
        key: &Spanned<DeString<'_>>,
        meant: &str,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Self {
        Self {
            place: Some(Place::of(text, &key.span())),
            key: Some(key.get_ref().to_string()),
            what: "unknown key".to_owned(),
            hint: suggestion(meant, known),
        }
    }
}

/// What an unknown key may have meant: a known one that is spelt nearly the same, else all of them.
#[must_use]
pub fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match known.clone().map(|key| (distance(name, key), key)).min() {
        Some((distance, key)) if distance <= 2 => format!("did you mean {key}?"),
        _ => format!("the keys are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Insertions, deletions and exchanges of characters from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let best = (diagonal + usize::from(a != b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_lines_and_characters_from_one() {
        let text = "a = 1\nö = \"ü\" # x\n";
        assert_eq!(Place::of(text, &(0..1)), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, &(6..8)), Place { line: 2, column: 1 });
        let quote = text.find('"').unwrap();
        assert_eq!(Place::of(text, &(quote..quote)), Place { line: 2, column: 5 });
        assert_eq!(Place::of(text, &(1000..1001)).line, 3, "past the end: the end");
    }
}
