//! Runs `cargo test`, shows what it says and keeps count.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::exec;

/// What the test programs of one run said at their ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    /// Names of those that failed.
    pub(crate) failures: Vec<String>,
    /// Whether cargo itself ended well: a test program that crashes counts nothing.
    pub(crate) ended_well: bool,
    pub(crate) took: Duration,
}

impl Tally {
    /// Runs `command`, a `cargo test`.
    pub(crate) fn of(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", exec::shown(command)))?;
        let mut tally = Self::default();
        let stdout = child.stdout.take().context("no output of `cargo test`")?;
        for line in BufReader::new(stdout).split(b'\n') {
            // Tests may print what they like.
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            tally.count(&line);
        }
        tally.ended_well = child.wait()?.success();
        tally.took = started.elapsed();
        Ok(tally)
    }

    /// Counts `test result: ok. 5 passed; 0 failed; 1 ignored; …` and `test name ... FAILED`.
    fn count(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split(';') {
                let mut words = part.split_whitespace().rev();
                let (kind, number) = (words.next(), words.next().and_then(|word| word.parse::<usize>().ok()));
                match (kind, number) {
                    (Some("passed"), Some(number)) => self.passed += number,
                    (Some("failed"), Some(number)) => self.failed += number,
                    (Some("ignored"), Some(number)) => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// Whether this run proves anything bad. Tests that are not run prove nothing, which is bad as well.
    pub(crate) fn is_good(&self) -> bool {
        self.ended_well && self.failed == 0 && self.ignored == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally { ended_well: true, ..Tally::default() };
        text.lines().for_each(|line| tally.count(line));
        tally
    }

    #[test]
    fn adds_up_several_test_programs() {
        let all = tally(
            "running 3 tests\ntest a ... ok\ntest b::c ... FAILED\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
             test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s\n",
        );
        assert_eq!((all.passed, all.failed, all.ignored), (42, 1, 0));
        assert_eq!(all.failures, ["b::c"]);
        assert!(!all.is_good());
    }

    #[test]
    fn does_not_call_it_good_when_tests_were_left_out() {
        let good = tally("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n");
        assert!(good.is_good());
        assert!(!tally("test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured\n").is_good());
        assert!(!Tally { ended_well: false, ..good }.is_good());
    }

    #[test]
    fn counts_what_a_run_prints() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 7 passed; 0 failed; 0 ignored'; exit 101"]);
        let tally = Tally::of(&mut command).unwrap();
        assert_eq!(tally.passed, 7);
        assert!(!tally.ended_well);
    }
}
