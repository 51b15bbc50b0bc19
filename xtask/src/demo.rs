//! `cargo xtask demo`: builds what the demonstration runs, then becomes it.

use std::{os::unix::process::CommandExt, process::Command};

use anyhow::{Result, bail};

use crate::{ebpf, exec, setup, test, workspace::Workspace};

/// Runs the demonstration with `arguments`; returns only where it cannot be started.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    if !exec::is_root() {
        bail!(
            "the demo makes network namespaces and eBPF programs, which takes root: run `cargo xtask demo` as root"
        );
    }
    setup::all(workspace)?;
    ebpf::build(workspace)?;
    test::build_programs(workspace)?;
    let programs = workspace.programs();
    let demo = programs.join("demo");
    // In this process's place: signals from the terminal and the exit code are then its own.
    let error = Command::new(&demo).args(arguments).env("RSIP_BIN_DIR", programs).exec();
    bail!("cannot start {}: {error}", demo.display())
}
