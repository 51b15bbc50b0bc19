//! `cargo xtask fuzz`: libFuzzer over the targets of `tests/fuzz`, for a given time.
//!
//! Works with the stable compiler: coverage comes from LLVM's own pass, and no sanitizer is needed where nothing is
//! `unsafe`. Overflow checks and debug assertions are on.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    exec::{self, Step},
    toolchain::Toolchain,
    workspace::Workspace,
};

/// What may be asked of the fuzzer.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// Names; none: all.
    pub(crate) targets: Vec<String>,
    /// For all of them together, on all processors.
    pub(crate) time: Duration,
    /// Whether inputs that reach something new go into the committed corpus.
    pub(crate) keep: bool,
}

/// Feedback for libFuzzer, as its documentation asks for it of compilers that have no flag for it.
const COVERAGE: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// As in CARGO_ENCODED_RUSTFLAGS.
const FLAG_SEPARATOR: &str = "\x1f";

/// The longest input worth trying, bytes.
const MAX_LENGTH: u32 = 4096;
/// One input that takes longer is a finding, seconds.
const SLOWEST: u32 = 10;

/// Fuzzes; an error names every input that brought a target down.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> Result<()> {
    let places = Places::new(workspace);
    let known = places.targets()?;
    let targets = if choice.targets.is_empty() { known.clone() } else { choice.targets.clone() };
    if let Some(unknown) = targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no fuzz target {unknown:?}: there are {}", known.join(", "));
    }
    let program = build(workspace)?;
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let share = share(choice.time, processors, targets.len());
    let step = Step::start_quiet(
        &format!("fuzzing {}, {} s each", targets.join(", "), share.as_secs()),
        &format!("{} s", choice.time.as_secs()),
    );
    let findings = fuzz_all(&places, &program, &targets, share, processors)?;
    if findings.is_empty() {
        step.done("nothing found");
    } else {
        step.done("found something");
    }
    if choice.keep {
        targets.iter().try_for_each(|target| keep(&places, &program, target))?;
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!(
        "{}\nto see one again in every test run: copy it into tests/fuzz/corpus/TARGET, then `cargo test -p rsip-fuzz`",
        findings.join("\n")
    )
}

/// Each target's time when all share the processors.
fn share(total: Duration, processors: usize, targets: usize) -> Duration {
    let at_once = u32::try_from(processors.min(targets).max(1)).unwrap_or(1);
    let targets = u32::try_from(targets.max(1)).unwrap_or(1);
    (total * at_once / targets).max(Duration::from_secs(1))
}

/// Folders of the fuzzer.
struct Places {
    /// Committed inputs, by target.
    corpus: PathBuf,
    /// Inputs found on this machine, findings and logs.
    work: PathBuf,
}

impl Places {
    fn new(workspace: &Workspace) -> Self {
        Self {
            corpus: workspace.root().join("tests/fuzz/corpus"),
            work: workspace.root().join("target/fuzz"),
        }
    }

    /// The targets: each has a corpus.
    fn targets(&self) -> Result<Vec<String>> {
        let entries =
            fs::read_dir(&self.corpus).with_context(|| format!("cannot read {}", self.corpus.display()))?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn found(&self, target: &str) -> PathBuf {
        self.work.join("corpus").join(target)
    }

    fn findings(&self, target: &str) -> PathBuf {
        self.work.join("findings").join(target)
    }
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    if !["c++", "g++", "clang++"].iter().any(|name| exec::find_program(name).is_some()) {
        bail!("libFuzzer is C++, and there is no C++ compiler: `apt-get install g++`, then try again");
    }
    let step = Step::start("building the fuzzer", "1 min the first time");
    let host = Toolchain::detect()?.host;
    let target_dir = workspace.root().join("target/fuzz-build");
    let mut command = exec::cargo();
    command
        .current_dir(workspace.root())
        .args(["build", "--package", "rsip-fuzz", "--features", "engine", "--profile", "fuzz"])
        // With a target named, build scripts and macros are left without the flags.
        .args(["--target", &host, "--target-dir"])
        .arg(&target_dir)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join(FLAG_SEPARATOR));
    exec::run(&mut command).context("the fuzzer does not build")?;
    step.done("built");
    Ok(target_dir.join(host).join("fuzz/rsip-fuzz"))
}

/// As many at once as there are processors. Gives what was found, one line each.
fn fuzz_all(
    places: &Places,
    program: &Path,
    targets: &[String],
    share: Duration,
    processors: usize,
) -> Result<Vec<String>> {
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || -> Result<Vec<String>> {
        let mut findings = Vec::new();
        while let Some(target) = next() {
            findings.extend(fuzz(places, program, target, share)?);
        }
        Ok(findings)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..processors.min(targets.len())).map(|_| scope.spawn(worker)).collect();
        let mut findings = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(found) => findings.extend(found?),
                Err(_) => bail!("a worker of the fuzzer died"),
            }
        }
        Ok(findings)
    })
}

fn fuzz(places: &Places, program: &Path, target: &str, time: Duration) -> Result<Option<String>> {
    let (found, findings) = (places.found(target), places.findings(target));
    for folder in [&found, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = places.work.join(format!("{target}.log"));
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(&findings);
    prefix.push("/");
    let mut command = engine(program, target);
    command
        .arg(format!("-max_total_time={}", time.as_secs()))
        .args([format!("-max_len={MAX_LENGTH}"), format!("-timeout={SLOWEST}")])
        .args(["-use_value_profile=1", "-print_final_stats=1"])
        .arg(prefix)
        .arg(&found)
        .arg(places.corpus.join(target));
    // Its own end, some time for the corpus at the beginning, and not for ever.
    let limit = time + Duration::from_secs(120);
    let outcome = exec::run_logged(&mut command, &log, Some(limit));
    let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    exec::say(&format!("{target}: {}", statistics(&text)));
    Ok(outcome.err().map(|error| {
        let input =
            text.lines().rev().find_map(|line| line.split_once("Test unit written to ")).map(|it| it.1);
        match input {
            Some(input) => format!("{target}: brought down by {input}: {}", reason(&text)),
            None => format!("{target}: {error:#}"),
        }
    }))
}

/// Adds to the committed corpus what reaches code that it does not reach.
fn keep(places: &Places, program: &Path, target: &str) -> Result<()> {
    let mut command = engine(program, target);
    command
        .args([
            "-set_cover_merge=1".to_owned(),
            format!("-max_len={MAX_LENGTH}"),
            format!("-timeout={SLOWEST}"),
        ])
        .arg(places.corpus.join(target))
        .arg(places.found(target));
    let log = places.work.join(format!("{target}-merge.log"));
    exec::run_logged(&mut command, &log, None)
        .with_context(|| format!("cannot add to the corpus of {target}"))
}

fn engine(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command.env("RSIP_FUZZ_TARGET", target).stdin(Stdio::null());
    command
}

/// `stat::number_of_executed_units: 123` and the like, on one line.
fn statistics(log: &str) -> String {
    let value = |name: &str| {
        let line = log.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
        line.map_or("?", |rest| rest.trim_start_matches(':').trim())
    };
    format!(
        "{} inputs, {} a second, {} of them new",
        value("number_of_executed_units"),
        value("average_exec_per_sec"),
        value("new_units_added")
    )
}

/// The line that says why, of a panic or of libFuzzer itself.
fn reason(log: &str) -> &str {
    let mut lines = log.lines();
    let panic = lines.by_ref().find(|line| line.contains("panicked at")).and_then(|_| lines.next());
    panic
        .or_else(|| log.lines().find(|line| line.contains("ERROR: libFuzzer")))
        .unwrap_or("see its log in target/fuzz")
}

/// Seconds, or a number with `s`, `m` or `h`.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.chars().last().unwrap_or('s')),
        None => (text, 's'),
    };
    let factor = match unit {
        'h' => 3600,
        'm' => 60,
        _ => 1,
    };
    let seconds = number.parse::<u64>().ok().and_then(|count| count.checked_mul(factor));
    match seconds {
        Some(seconds @ 1..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is no time of a second to a week: write 90, 90s, 10m or 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        assert_eq!(
            [seconds("90"), seconds("90s"), seconds("10m"), seconds("1h")],
            [90, 90, 600, 3600].map(Ok)
        );
        for bad in ["", "0", "h", "-1", "1d", "1.5h", "99999999999999999999h", "8000000"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_the_time() {
        let hour = Duration::from_secs(3600);
        assert_eq!(share(hour, 2, 4), Duration::from_secs(1800));
        assert_eq!(share(hour, 8, 4), hour);
        assert_eq!(share(hour, 1, 1), hour);
        assert_eq!(share(Duration::from_secs(1), 1, 9), Duration::from_secs(1));
    }

    #[test]
    fn reads_the_fuzzers_words() {
        let log = "thread '<unnamed>' panicked at a.rs:1:2:\ntwo holders\nTest unit written to /x/crash-1\n\
                   stat::number_of_executed_units: 10\nstat::average_exec_per_sec:     5\nstat::new_units_added: 1\n";
        assert_eq!(statistics(log), "10 inputs, 5 a second, 1 of them new");
        assert_eq!(reason(log), "two holders");
        assert_eq!(
            reason("==1== ERROR: libFuzzer: timeout after 10 seconds"),
            "==1== ERROR: libFuzzer: timeout after 10 seconds"
        );
        assert_eq!(statistics(""), "? inputs, ? a second, ? of them new");
    }
}
