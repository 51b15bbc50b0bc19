//! The captures of a test run, and their judgement by a decoder that is not ours.

use std::{fs, io, path::PathBuf};

use anyhow::{Context, Result};

use crate::{
    exec::{self, Step},
    workspace::Workspace,
};

/// Names the folder of captures to the tests.
pub(crate) const CAPTURE_DIR: &str = "RSIP_CAPTURE_DIR";

/// Takes away what an earlier run has captured.
pub(crate) fn forget_captures(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot empty {}", folder.display()));
        }
        _ => {}
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Where captures go.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("target/captures")
}

/// Gives every captured message to tshark. `complete`: this run must have had every message type and every form of a
/// parameter.
pub(crate) fn judge(workspace: &Workspace, complete: bool) -> Result<()> {
    let step = Step::start("tshark decodes every message that was said", "1 min");
    let mut command = exec::cargo();
    command.current_dir(workspace.root()).args(["run", "--quiet", "--package", "rsip-capture", "--"]);
    command.args(complete.then_some("--complete")).arg(folder(workspace));
    exec::run(&mut command).context("the captured messages did not stand the judgement")?;
    step.done("it sees in each what we see");
    Ok(())
}
