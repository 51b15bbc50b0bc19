//! The Rust compiler in use: what the eBPF tool chain has to match.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::exec;

/// What `rustc` says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// `1.95.0`, or `1.97.0-nightly`.
    pub(crate) release: String,
    /// Of the compiler's sources; tells two nightly builds apart.
    pub(crate) commit: String,
    /// The machine's target triple.
    pub(crate) host: String,
    /// Major version of the LLVM inside; bitcode is only safe to exchange within one.
    pub(crate) llvm_major: u32,
    /// The folder that holds the tool chain's `lib`.
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// Asks the compiler.
    pub(crate) fn detect() -> Result<Self> {
        let verbose = exec::output(exec::rustc().arg("-vV"))?;
        let sysroot = exec::output(exec::rustc().args(["--print", "sysroot"]))?;
        Self::parse(&verbose, sysroot.trim())
    }

    fn parse(verbose: &str, sysroot: &str) -> Result<Self> {
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .with_context(|| format!("`rustc -vV` does not say `{name}`"))
        };
        let llvm = field("LLVM version")?;
        let llvm_major = llvm
            .split('.')
            .next()
            .and_then(|major| major.parse().ok())
            .with_context(|| format!("`rustc -vV` gives an LLVM version that is none: `{llvm}`"))?;
        Ok(Self {
            release: field("release")?.to_owned(),
            commit: field("commit-hash")?.to_owned(),
            host: field("host")?.to_owned(),
            llvm_major,
            sysroot: PathBuf::from(sysroot),
        })
    }

    /// The machine's architecture as the eBPF crates name it: `x86_64`, `aarch64`, …
    pub(crate) fn host_arch(&self) -> &str {
        self.host.split('-').next().unwrap_or(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\ncommit-hash: 59807616e1fa\n\
                           commit-date: 2026-04-14\nhost: aarch64-unknown-linux-gnu\nrelease: 1.95.0\n\
                           LLVM version: 22.1.2\n";

    #[test]
    fn reads_what_the_compiler_says() {
        let toolchain = Toolchain::parse(VERBOSE, "/opt/rust").unwrap();
        assert_eq!(toolchain.release, "1.95.0");
        assert_eq!(toolchain.commit, "59807616e1fa");
        assert_eq!(toolchain.llvm_major, 22);
        assert_eq!(toolchain.host_arch(), "aarch64");
        assert_eq!(toolchain.sysroot, PathBuf::from("/opt/rust"));
    }

    #[test]
    fn names_what_is_missing() {
        let error = Toolchain::parse("release: 1.95.0\n", "/").unwrap_err().to_string();
        assert!(error.contains("LLVM version"), "{error}");
        let odd = VERBOSE.replace("22.1.2", "unknown");
        assert!(Toolchain::parse(&odd, "/").unwrap_err().to_string().contains("unknown"));
    }
}
