//! A program that keeps running, with its output in a file.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{IoContext, LabError, Result};
use super::exec;
use super::wait::{self, Look};

/// How long a program may take to end after SIGTERM.
pub const STOP: Duration = Duration::from_secs(10);

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where this program's output starts in the log: an earlier run may have written there too.
    log_start: usize,
    ended: Option<ExitStatus>,
    keep: bool,
}

impl Process {
    /// Starts it; standard output and standard error are added to the file `log`.
    ///
    /// # Errors
    /// Where the log cannot be written or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let context = || format!("write {}", log.display());
        let out = OpenOptions::new().create(true).append(true).open(log).cannot(context)?;
        let log_start = usize::try_from(out.metadata().cannot(context)?.len()).unwrap_or(usize::MAX);
        let err = out.try_clone().cannot(context)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| exec::spawn_error(command, error))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), log_start, ended: None, keep: false })
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Everything that it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// From now on dropping leaves it running.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Whether it runs; after that its exit code is known.
    ///
    /// # Errors
    /// Where the system cannot say.
    pub fn running(&mut self) -> Result<bool> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().cannot(|| format!("look after {}", self.name))?;
        }
        Ok(self.ended.is_none())
    }

    /// Waits for its end and gives the exit code (128 plus the signal, if one killed it).
    ///
    /// # Errors
    /// [`LabError::Timeout`] where it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        let name = self.name.clone();
        wait::until(&format!("{name} to end"), limit, || {
            Ok(if self.running()? { Look::NotYet("it runs".into()) } else { Look::Ready(()) })
        })?;
        let code = self.ended.and_then(|status| status.code().or(status.signal().map(|signal| 128 + signal)));
        Ok(code.unwrap_or(-1))
    }

    /// Sends a signal, if it still runs.
    ///
    /// # Errors
    /// Where the signal is refused.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.running()? {
            kill(self.pid(), signal).cannot(|| format!("send {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Ends it with SIGTERM and gives its exit code.
    ///
    /// # Errors
    /// [`LabError::Timeout`] where it does not end within [`STOP`].
    pub fn stop(&mut self) -> Result<i32> {
        self.signal(Signal::SIGTERM)?;
        self.wait(STOP)
    }

    /// Ends it with SIGKILL: it can clean up nothing.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(STOP).map(drop)
    }

    /// Waits until a line of the output contains `text`; fails at once when the program has ended before.
    ///
    /// # Errors
    /// [`LabError::Timeout`], or [`LabError::Command`] with the whole output where it has ended.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{} to say {text:?}", self.name);
        wait::until(&what, limit, || {
            if self.output().contains(text) {
                return Ok(Look::Ready(()));
            }
            self.expect_running()?;
            Ok(Look::NotYet(self.output().lines().last().unwrap_or("no output").to_owned()))
        })
    }

    /// Fails where the program has ended.
    ///
    /// # Errors
    /// [`LabError::Command`] with its exit code and output.
    pub fn expect_running(&mut self) -> Result<()> {
        if self.running()? {
            return Ok(());
        }
        let code = self.wait(Duration::ZERO)?;
        let how = format!("ended with code {code}, where it was expected to run");
        Err(LabError::Command { command: self.name.clone(), how, output: self.output() })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A stopped program cannot take SIGTERM.
        let ended = self.signal(Signal::SIGTERM).and_then(|()| self.signal(Signal::SIGCONT));
        if let Err(error) = ended.and_then(|()| self.wait(STOP).map(drop)).or_else(|_| self.kill()) {
            eprintln!("lab: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_output_of_this_run_and_the_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "an earlier run\n").unwrap();
        let mut process =
            Process::start("talker", Command::new("sh").args(["-c", "echo hello; exec sleep 60"]), &log)
                .unwrap();
        process.wait_for_output("hello", exec::SHORT).unwrap();
        assert_eq!(process.output(), "hello\n");
        assert_eq!(process.stop().unwrap(), 128 + 15);
        assert!(!process.running().unwrap());
        assert!(process.expect_running().is_err());
    }

    #[test]
    fn says_so_when_the_program_ends_before_it_says_the_word() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process =
            Process::start("mute", Command::new("sh").args(["-c", "echo no; exit 4"]), &log).unwrap();
        let error = process.wait_for_output("yes", exec::SHORT).unwrap_err().to_string();
        assert!(error.contains("ended with code 4") && error.contains("no\n"), "{error}");
    }
}
