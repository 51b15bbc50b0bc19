//! `cargo xtask lint`: what is checked without running anything.

use anyhow::{Result, bail};

use crate::{
    exec::{self, Step},
    tidy,
    workspace::Workspace,
};

/// Runs every check, also after one has failed, and names those that failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let checks: [(&str, &str, Check); 4] = [
        ("format (cargo fmt --all puts it right)", "2 s", format),
        ("architecture and sizes", "1 s", tidy::check),
        ("clippy", "1 min the first time", clippy),
        ("documentation", "1 min the first time", documentation),
    ];
    let mut failed = Vec::new();
    for (name, usually, check) in checks {
        let step = Step::start(name, usually);
        match check(workspace) {
            Ok(()) => step.done("good"),
            Err(error) => {
                step.done(&format!("{error:#}"));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("not good: {}", failed.join(", "));
    }
    Ok(())
}

type Check = fn(&Workspace) -> Result<()>;

fn format(workspace: &Workspace) -> Result<()> {
    exec::run(exec::cargo().current_dir(workspace.root()).args(["fmt", "--all", "--", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut command = exec::cargo();
    command.current_dir(workspace.root()).args(["clippy", "--workspace", "--all-targets"]);
    exec::run(command.args(["--", "-D", "warnings"]))
}

fn documentation(workspace: &Workspace) -> Result<()> {
    let mut command = exec::cargo();
    command.current_dir(workspace.root()).args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    // With private items shown, links to them lead somewhere.
    exec::run(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}
