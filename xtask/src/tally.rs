//! Runs `cargo test`, shows what it says and keeps count.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{exec, programs::Programs};

/// What the test programs of one run said at their ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
    /// Names of those that failed.
    pub(crate) failures: Vec<String>,
    /// Those that passed, as `package/target::path`.
    pub(crate) names: BTreeSet<String>,
    /// The test program that is running.
    program: String,
    /// A test whose verdict stands on a later line, because something wrote in between.
    open: Option<String>,
    /// Whether cargo itself ended well: a test program that crashes counts nothing.
    pub(crate) ended_well: bool,
    pub(crate) took: Duration,
}

impl Tally {
    /// Runs `command`, a `cargo test` of these programs.
    pub(crate) fn of(command: &mut Command, programs: &Programs) -> Result<Self> {
        let started = Instant::now();
        // Cargo says which program it starts on one stream, the program's words are on the other: one pipe keeps the order.
        let (output, both) = io::pipe().context("cannot make a pipe")?;
        command.stdin(Stdio::null()).stdout(both.try_clone().context("cannot share a pipe")?).stderr(both);
        let spawned = command.spawn();
        // The command keeps its ends of the pipe, and the other end would never see it closed.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = spawned.with_context(|| format!("cannot start `{}`", exec::shown(command)))?;
        let mut tally = Self::default();
        for line in BufReader::new(output).split(b'\n') {
            // Tests may print what they like.
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            tally.count(&line, programs);
        }
        tally.ended_well = child.wait()?.success();
        tally.took = started.elapsed();
        Ok(tally)
    }

    /// Reads `Running tests/a.rs (target/debug/deps/a-1)`, `test name ... FAILED` and
    /// `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn count(&mut self, line: &str, programs: &Programs) {
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
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            let name = name.trim_end_matches(" - should panic").to_owned();
            match verdict {
                "ok" => self.passed(&name),
                "FAILED" => self.failures.push(name),
                _ => self.open = Some(name),
            }
        } else if let Some((_, path)) =
            line.trim_start().strip_prefix("Running ").and_then(|rest| rest.split_once(" ("))
        {
            self.program = programs.name(path.trim_end_matches(')')).unwrap_or_default().to_owned();
            self.open = None;
        } else if (line == "ok" || line == "FAILED")
            && let Some(name) = self.open.take()
        {
            if line == "ok" {
                self.passed(&name);
            } else {
                self.failures.push(name);
            }
        }
    }

    /// One that has counted nothing yet.
    pub(crate) fn so_far(ended_well: bool) -> Self {
        Self { ended_well, ..Self::default() }
    }

    /// Adds what another part of the same run said.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
        self.names.extend(other.names);
        self.ended_well &= other.ended_well;
        self.took += other.took;
    }

    fn passed(&mut self, name: &str) {
        self.names.insert(format!("{}::{name}", self.program));
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
        let programs = Programs::of(&[("a-1", "p/lib"), ("b-2", "p/b")]);
        let mut tally = Tally { ended_well: true, ..Tally::default() };
        text.lines().for_each(|line| tally.count(line, &programs));
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
    fn knows_which_tests_passed_and_in_which_program() {
        let all = tally(
            "     Running unittests src/lib.rs (target/debug/deps/a-1)\ntest x::y ... ok\ntest z ... FAILED\n\
             test wild - should panic ... ok\n     Running tests/b.rs (/else/deps/b-2)\n\
             test noisy ... a daemon says something\nand more\nok\ntest loud ... words\nFAILED\n",
        );
        let names: Vec<_> = all.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["p/b::noisy", "p/lib::wild", "p/lib::x::y"]);
        assert_eq!(all.failures, ["z", "loud"]);
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
        let script = "echo 'Running x (deps/a-1)' >&2; echo 'test t ... ok'; \
                      echo 'test result: ok. 7 passed; 0 failed; 0 ignored'; exit 101";
        command.args(["-c", script]);
        let tally = Tally::of(&mut command, &Programs::of(&[("a-1", "p/lib")])).unwrap();
        assert_eq!(tally.passed, 7);
        assert!(tally.names.contains("p/lib::t"));
        assert!(!tally.ended_well);
    }
}
