//! `rsip-client rules`: asks a running agent.

use std::io::Read as _;
use std::path::Path;

use rsip_sys::exit::{ExitCode, Failure};

use super::args::{Rules, Verb};
use super::set::Change;
use super::{Action, Rule, RuleError};
use crate::calls::{PATIENCE, ask_within, say, unexpected};
use crate::control::{Request, Response};

/// `rsip-client rules`.
///
/// # Errors
///
/// No agent runs here, or what is wrong with the rule.
pub fn rules(arguments: &Rules) -> anyhow::Result<()> {
    let change = change(arguments.verb.as_ref().unwrap_or(&Verb::List))?;
    match ask_within(&arguments.run_dir, &Request::Rules(change), PATIENCE)? {
        Response::Rules(rules) if arguments.json => say(&serde_json::to_string_pretty(&rules)?),
        Response::Rules(rules) => say(rules.numbered().trim_end()),
        other => return Err(unexpected(other)),
    }
    Ok(())
}

fn change(verb: &Verb) -> anyhow::Result<Change> {
    Ok(match verb {
        Verb::List => Change::List,
        Verb::Add { rule } => Change::Add(checked(&rule.join(" "))?),
        Verb::Insert { number, rule } => Change::Insert(*number, checked(&rule.join(" "))?),
        Verb::Delete { number } => Change::Delete(*number),
        Verb::Policy { policy } => Change::Policy((*policy).into()),
        Verb::Flush => Change::Flush,
        Verb::Replace { file } => {
            let (rules, policy) = lines(&read(file)?).map_err(|(line, error)| {
                Failure::new(ExitCode::Usage, format!("{}:{line}", file.display())).why(error.to_string())
            })?;
            Change::Replace(rules, policy)
        }
    })
}

/// The agent would refuse it as well, but then the exit code would not say that the words are wrong.
fn checked(text: &str) -> anyhow::Result<String> {
    match text.parse::<Rule>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Failure::new(ExitCode::Usage, format!("rule {text:?}"))
            .why(error.to_string())
            .hint("see `rsip-client rules --help`")
            .into()),
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let outcome = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    outcome.map_err(|error| {
        Failure::new(ExitCode::Usage, format!("cannot read {}", file.display()))
            .why(error.to_string())
            .hint("name a text file with a rule on each line")
    })?;
    Ok(text)
}

/// The rules of a file, and its policy if it has one.
///
/// # Errors
///
/// The number of the first line that is wrong, and why.
fn lines(text: &str) -> Result<(Vec<String>, Option<Action>), (usize, RuleError)> {
    let mut rules = Vec::new();
    let mut policy = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        let wrong = |error| (number, error);
        match line.strip_prefix("policy ") {
            Some(action) => policy = Some(action.trim().parse::<Action>().map_err(wrong)?),
            None if line.is_empty() => {}
            None => {
                line.parse::<Rule>().map_err(wrong)?;
                rules.push(line.to_owned());
            }
        }
    }
    Ok((rules, policy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_file_of_rules() {
        let text = "# private\nI6010-6019   # X11\n\npolicy ignore\nlease 80 program=apache2\n";
        let rules = ["I6010-6019", "lease 80 program=apache2"].map(ToOwned::to_owned).to_vec();
        assert_eq!(lines(text), Ok((rules, Some(Action::Ignore))));
        assert_eq!(lines(""), Ok((Vec::new(), None)));
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        assert_eq!(lines("I1-1\nI2-1\n"), Err((2, RuleError::Backwards("2-1".to_owned()))));
        assert_eq!(lines("policy maybe\n"), Err((1, RuleError::NoAction)));
    }
}
