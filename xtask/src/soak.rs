//! `cargo xtask soak`: builds the daemons as they are shipped, then becomes the soak.

use std::{os::unix::process::CommandExt, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf,
    exec::{self, Step},
    setup,
    workspace::Workspace,
};

/// How much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Choice {
    /// So many binds.
    pub(crate) binds: u64,
    /// As many as there are in this time instead.
    pub(crate) time: Option<Duration>,
}

impl Choice {
    fn arguments(self) -> [String; 2] {
        match self.time {
            Some(time) => ["--seconds".to_owned(), time.as_secs().to_string()],
            None => ["--binds".to_owned(), self.binds.to_string()],
        }
    }
}

/// Runs the soak; returns only where it cannot be started.
pub(crate) fn run(workspace: &Workspace, choice: Choice) -> Result<()> {
    if !exec::is_root() {
        bail!(
            "the soak makes network namespaces and eBPF programs, which takes root: run `cargo xtask soak` as root"
        );
    }
    setup::all(workspace)?;
    ebpf::build(workspace)?;
    let step = Step::start("building the daemons and the lab as they are shipped", "5 min the first time");
    let mut command = exec::cargo();
    let packages = ["rsip-client", "rsipd", "rsip-lab"].map(|name| ["--package", name]);
    command.current_dir(workspace.root()).args(["build", "--release", "--bins"]).args(packages.concat());
    exec::run(&mut command).context("the workspace does not build")?;
    step.done("built");
    let programs = workspace.programs().with_file_name("release");
    let soak = programs.join("soak");
    // In this process's place: signals from the terminal and the exit code are then its own.
    let mut command = Command::new(&soak);
    command.arg("run").args(choice.arguments()).env("RSIP_BIN_DIR", programs);
    let error = command.exec();
    bail!("cannot start {}: {error}", soak.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_goes_before_the_number() {
        let choice = Choice { binds: 5, time: None };
        assert_eq!(choice.arguments(), ["--binds", "5"]);
        let choice = Choice { time: Some(Duration::from_secs(90)), ..choice };
        assert_eq!(choice.arguments(), ["--seconds", "90"]);
    }
}
