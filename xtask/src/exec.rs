//! Running programs: what is shown meanwhile, what is said when they fail.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How often a quiet step says that it is still at work.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A long step: says what it does and how long that usually takes, then how long it took.
pub(crate) struct Step {
    started: Instant,
    // Dropped to end the thread that says "still at it".
    _alive: Option<mpsc::Sender<()>>,
}

impl Step {
    /// Announces `what`, whose programs show their own progress; `usually` is how long it takes on a small machine.
    pub(crate) fn start(what: &str, usually: &str) -> Self {
        eprintln!("==> {what} (usually {usually})");
        Self { started: Instant::now(), _alive: None }
    }

    /// The same for something that shows nothing by itself: says from time to time how long it has taken so far.
    pub(crate) fn start_quiet(what: &str, usually: &str) -> Self {
        let Self { started, .. } = Self::start(what, usually);
        let (alive, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(HEARTBEAT) {
                eprintln!("    {} s so far", started.elapsed().as_secs());
            }
        });
        Self { started, _alive: Some(alive) }
    }

    /// Says how it ended and how long it took.
    pub(crate) fn done(self, result: &str) {
        eprintln!("    {result} ({:.1} s)", self.started.elapsed().as_secs_f32());
    }
}

/// Says one line about a short step.
pub(crate) fn say(line: &str) {
    eprintln!("==> {line}");
}

/// The cargo that started this program, so that the tool chain stays the same all the way.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The compiler that cargo uses.
pub(crate) fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Runs with the terminal's own output; anything but success is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    check(command, status)
}

/// Runs and returns what it wrote to standard output; its errors go to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` wrote something not UTF-8", shown(command)))
}

/// Runs with all output going to the file `log`; a failure quotes its last lines. `limit` ends it early.
pub(crate) fn run_logged(command: &mut Command, log: &Path, limit: Option<Duration>) -> Result<()> {
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    let status = match limit {
        None => child.wait()?,
        Some(limit) => match wait_at_most(&mut child, limit)? {
            Some(status) => status,
            None => bail!("`{}` did not end within {} s and was stopped", shown(command), limit.as_secs()),
        },
    };
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    // The log is for a human eye: bytes that are not UTF-8 are shown as far as they go.
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    text.push_str(&String::from_utf8_lossy(&bytes));
    bail!(
        "`{}` failed ({status}); its last lines, all of them in {}:\n{}",
        shown(command),
        log.display(),
        last_lines(&text, 12)
    )
}

fn wait_at_most(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Finds a program on PATH or where administrators' programs live (PATH of a plain user leaves these out).
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // The owner of /proc/self is the effective user; spares a dependency for one system call.
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_the_last_lines_when_a_logged_command_fails() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo broken >&2; exit 3"]);
        let error = run_logged(&mut command, &log, None).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
    }

    #[test]
    fn stops_a_command_that_takes_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let mut command = Command::new("sleep");
        let error = run_logged(command.arg("60"), &dir.path().join("log"), Some(Duration::from_millis(200)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("was stopped"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn keeps_only_the_last_lines() {
        assert_eq!(last_lines("a\nb\n\nc\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "");
    }

    #[test]
    fn finds_programs_of_administrators_without_path() {
        assert!(find_program("sh").is_some());
        assert!(find_program("no-such-program-anywhere").is_none());
    }
}
