//! How a program of ours ends: a typed exit code, and on failure one line on standard error.
//!
//! The line is `program: what: why: hint`. It names the thing (an interface, a key, a file), the cause, and what to do.
//! A [`Failure`] carries the three and the exit code; `anyhow` contexts put around it are printed before it.

use std::borrow::Cow;
use std::fmt;

/// The exit codes of both daemons and of their control programs. 2 is clap's own, for usage errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// 0.
    Ok = 0,
    /// 1: something failed while running.
    Failure = 1,
    /// 2: the command line is wrong.
    Usage = 2,
    /// 3: the gateway is out of reach, or what answers there is not RSIP.
    Unreachable = 3,
    /// 4: the gateway refused.
    Refused = 4,
    /// 5: a capability or a feature of the kernel is missing.
    Missing = 5,
    /// 6: another instance runs already.
    AlreadyRunning = 6,
    /// 78: the configuration is wrong (`EX_CONFIG` of sysexits.h).
    Config = 78,
}

impl ExitCode {
    /// The number that the parent process sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

/// Why a program ends, said so that the reader can act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: ExitCode,
    what: Cow<'static, str>,
    why: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
}

impl Failure {
    /// `what` names the thing that failed.
    #[must_use]
    pub fn new(code: ExitCode, what: impl Into<Cow<'static, str>>) -> Self {
        Self { code, what: what.into(), why: None, hint: None }
    }

    /// The cause.
    #[must_use]
    pub fn why(mut self, why: impl Into<Cow<'static, str>>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code that goes with it.
    #[must_use]
    pub const fn code(&self) -> ExitCode {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for part in [&self.why, &self.hint].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The line for `error`, without the program's name: every context and cause once, joined by `: `, on one line.
#[must_use]
pub fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Many libraries repeat their source in their own text: say it once.
        if text.is_empty() || line.ends_with(text.as_str()) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The exit code for `error`: that of the outermost [`Failure`] in its chain, else 1.
#[must_use]
pub fn code(error: &anyhow::Error) -> ExitCode {
    error
        .downcast_ref::<Failure>()
        .or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
        .map_or(ExitCode::Failure, Failure::code)
}

/// The end of `main`: nothing for success; for an error its line on standard error, and its code.
#[must_use]
pub fn finish(program: &str, result: &anyhow::Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => ExitCode::Ok.into(),
        Err(error) => {
            eprintln!("{program}: {}", line(error));
            code(error).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn says_what_why_and_hint_on_one_line() {
        let failure =
            Failure::new(ExitCode::Config, "INT_IF eth9").why("no such interface").hint("see `ip link`");
        assert_eq!(line(&failure.into()), "INT_IF eth9: no such interface: see `ip link`");
    }

    #[test]
    fn finds_the_code_under_context() {
        let bare: anyhow::Error = Failure::new(ExitCode::Missing, "CAP_BPF").into();
        assert_eq!(code(&bare), ExitCode::Missing);
        let wrapped = Err::<(), _>(bare).context("cannot start").unwrap_err();
        assert_eq!(code(&wrapped), ExitCode::Missing);
        assert_eq!(line(&wrapped), "cannot start: CAP_BPF");
        assert_eq!(code(&anyhow::anyhow!("anything")), ExitCode::Failure);
    }

    #[test]
    fn flattens_line_breaks_and_repetitions() {
        let source = std::io::Error::other("verifier said\n  no\n");
        let error = Err::<(), _>(source).context("cannot load").unwrap_err();
        assert_eq!(line(&error), "cannot load: verifier said; no");
        let twice = Err::<(), _>(std::io::Error::other("gone")).context("read: gone").unwrap_err();
        assert_eq!(line(&twice), "read: gone");
    }
}
