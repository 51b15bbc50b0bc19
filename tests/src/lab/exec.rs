//! Programs that run to their end, in bounded time.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::error::{IoContext, LabError, Result};
use super::wait::{self, Look};

/// How long an ordinary command may take.
pub const SHORT: Duration = Duration::from_secs(20);

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; 128 plus the signal for a program that was killed, as a shell has it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// Standard output of a program that ended with 0.
    ///
    /// # Errors
    /// [`LabError::Command`] with everything it printed.
    pub fn success(self) -> Result<String> {
        if self.status.success() { Ok(self.stdout) } else { Err(self.into_error("ended")) }
    }

    /// An error that shows how the program ended.
    #[must_use]
    pub fn into_error(self, how: &str) -> LabError {
        let how = format!("{how} with code {}", self.code());
        LabError::Command { command: self.command, how, output: format!("{}{}", self.stdout, self.stderr) }
    }
}

/// The command line of a command, for messages.
#[must_use]
pub fn line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

/// Runs a command to its end. Its output goes to files, not pipes: a daemon that the program leaves behind may keep
/// them open without holding us up.
///
/// # Errors
/// [`LabError::Missing`] where the program is not there; [`LabError::Command`] where it did not end in time (it is
/// killed then). How it ended is for the caller to judge: see [`Output::success`].
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let text = line(command);
    let mut stdout = tempfile::tempfile().cannot(|| "make a temporary file".into())?;
    let mut stderr = tempfile::tempfile().cannot(|| "make a temporary file".into())?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().cannot(|| "share a file".into())?)
        .stderr(stderr.try_clone().cannot(|| "share a file".into())?)
        .spawn()
        .map_err(|error| spawn_error(command, error))?;
    let ended = wait::until(&text, limit, || {
        let status = child.try_wait().cannot(|| format!("wait for `{text}`"))?;
        Ok(status.map_or_else(|| Look::NotYet("it runs".into()), Look::Ready))
    });
    let status = match ended {
        Ok(status) => status,
        Err(_) => {
            child.kill().and_then(|()| child.wait()).cannot(|| format!("kill `{text}`"))?;
            let output = format!("{}{}", text_of(&mut stdout)?, text_of(&mut stderr)?);
            return Err(LabError::Command {
                command: text,
                how: format!("did not end in {limit:?}"),
                output,
            });
        }
    };
    Ok(Output { command: text, status, stdout: text_of(&mut stdout)?, stderr: text_of(&mut stderr)? })
}

/// Runs a program of this machine that must end with 0, and gives what it printed.
///
/// # Errors
/// As [`run`], and [`LabError::Command`] for any other exit code.
pub fn tool(program: &str, arguments: &[&str]) -> Result<String> {
    run(Command::new(program).args(arguments), SHORT)?.success()
}

/// Whether a program of this name is on the search path.
#[must_use]
pub fn installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// The error for a program that could not be started.
pub(super) fn spawn_error(command: &Command, error: std::io::Error) -> LabError {
    if error.kind() == std::io::ErrorKind::NotFound {
        let program = command.get_program().to_string_lossy().into_owned();
        LabError::Missing { program, hint: "`cargo xtask setup` installs what the lab needs" }
    } else {
        LabError::Io { what: format!("start `{}`", line(command)), source: error }
    }
}

fn text_of(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).cannot(|| "read a program's output".into())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn keeps_output_and_code() {
        let output = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), SHORT).unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code()), ("out\n", "err\n", 3));
        let error = output.success().unwrap_err().to_string();
        assert!(error.contains("ended with code 3\nout\nerr"), "{error}");
    }

    #[test]
    fn kills_what_does_not_end() {
        let start = Instant::now();
        let error = run(Command::new("sleep").arg("60"), Duration::from_millis(100)).unwrap_err();
        assert!(error.to_string().starts_with("`sleep 60` did not end in 100ms"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn is_not_held_up_by_a_daemon_that_keeps_the_output_open() {
        let start = Instant::now();
        run(Command::new("sh").args(["-c", "sleep 2 & echo started"]), SHORT).unwrap().success().unwrap();
        assert!(start.elapsed() < Duration::from_millis(1500));
    }

    #[test]
    fn names_a_program_that_is_not_there() {
        let error = tool("no-such-program", &[]).unwrap_err();
        assert!(error.to_string().starts_with("no-such-program is missing"), "{error}");
        assert!(!installed("no-such-program"));
        assert!(installed("sh"));
    }
}
