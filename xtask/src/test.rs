//! `cargo xtask test`: everything that can fail, from a fresh clone, with one summary at the end.

use anyhow::{Context, Result, bail};

use crate::{
    coverage, ebpf,
    exec::{self, Step},
    judge,
    leaks::Snapshot,
    programs::Programs,
    setup,
    tally::Tally,
    vm::{self, table},
    workspace::Workspace,
};

/// The package of the lab and its tests.
const LAB: &str = "rsip-lab";

/// Which tests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// Only those outside the lab, which need no root.
    pub(crate) unit: bool,
    /// Only those in the lab.
    pub(crate) lab: bool,
    /// Only those in virtual machines.
    pub(crate) vm: bool,
    /// Parts of names; none: all.
    pub(crate) filters: Vec<String>,
    /// Passed on to the test programs.
    pub(crate) arguments: Vec<String>,
}

impl Choice {
    /// Those who name tests get virtual machines where they ask for them: starting one takes its time.
    fn wants_vm(&self) -> bool {
        self.vm || !(self.unit || self.lab) && self.filters.is_empty() && self.arguments.is_empty()
    }
}

/// Runs the chosen tests; an error if one failed, was left out, or left something behind on the machine.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> Result<()> {
    if !choice.unit {
        if !exec::is_root() {
            bail!(
                "the lab's tests make network namespaces, cgroups and eBPF programs, which takes root: run \
                 `cargo xtask test` as root, or those that need no root with `cargo xtask test --unit`"
            );
        }
        setup::all(workspace)?;
        if choice.wants_vm() {
            vm::fetch(workspace)?;
        }
        // Embedded by the daemons, so before anything that builds them.
        ebpf::build(workspace)?;
    }
    judge::forget_captures(workspace)?;
    let mut parts = Vec::new();
    if !choice.lab && !choice.vm {
        parts.push(("outside the lab".to_owned(), unit(workspace, choice)?));
    }
    let (mut left, mut rows) = (Vec::new(), Vec::new());
    if !choice.unit {
        build_programs(workspace)?;
        let programs = workspace.programs();
        let before = Snapshot::take(&programs);
        let tests = Programs::build(&mut lab_tests(workspace))?;
        table::forget(workspace)?;
        if !choice.vm {
            parts.push(("in the lab".to_owned(), lab(workspace, choice, &tests)?));
        }
        if choice.wants_vm() {
            let done = vm::test(workspace, &tests, &choice.filters)?;
            parts.extend(done.parts);
            rows.extend(done.rows);
        }
        rows.extend(table::native(workspace)?);
        left = before.differences(&programs);
    }
    let whole = choice.filters.is_empty() && choice.arguments.is_empty();
    let same = if whole { table::check(workspace, &rows) } else { Ok(()) };
    let covered = check_coverage(workspace, choice, &parts);
    // Part of the tests only: then not everything can have been said. The tests outside the lab say all of it.
    let complete = choice.filters.is_empty() && choice.arguments.is_empty() && !choice.lab;
    // In a virtual machine nothing is recorded.
    let judged = if choice.vm { Ok(()) } else { judge::judge(workspace, complete) };
    summarise(&parts, &left)?;
    covered.and(judged).and(same)
}

/// The page on the RFC's requirements, as far as this run can tell.
fn check_coverage(workspace: &Workspace, choice: &Choice, parts: &[(String, Tally)]) -> Result<()> {
    if !choice.filters.is_empty() || !choice.arguments.is_empty() || choice.vm {
        return Ok(());
    }
    let ran = parts.iter().flat_map(|(_, tally)| tally.names.iter().cloned()).collect();
    let asked_for = |package: &str| if package == LAB { !choice.unit } else { !choice.lab };
    let said = coverage::check(workspace, &ran, asked_for)?;
    exec::say(&format!("the RFC's requirements: {said}"));
    Ok(())
}

/// Builds the daemons and the lab's own programs.
pub(crate) fn build_programs(workspace: &Workspace) -> Result<()> {
    let step = Step::start("building the daemons and the lab", "2 min the first time");
    let mut command = exec::cargo();
    command.current_dir(workspace.root()).args(["build", "--workspace", "--exclude", "rsip-ebpf", "--bins"]);
    exec::run(&mut command).context("the workspace does not build")?;
    step.done("built");
    Ok(())
}

fn unit(workspace: &Workspace, choice: &Choice) -> Result<Tally> {
    let step =
        Step::start("tests outside the lab: codec, state machines, daemons' parts", "3 min the first time");
    let command = || {
        let mut command = cargo_test(workspace);
        command.args(["--workspace", "--exclude", LAB]);
        command
    };
    let programs = Programs::build(&mut command())?;
    let tally = Tally::of(command().arg("--").args(command_line(&[], choice)), &programs)?;
    step.done("all have run");
    Ok(tally)
}

/// Builds and runs the lab's tests, as it stands.
pub(crate) fn lab_tests(workspace: &Workspace) -> std::process::Command {
    let mut command = cargo_test(workspace);
    command.args(["--package", LAB]).env("RSIP_BIN_DIR", workspace.programs());
    command.env(table::FOLDER, table::folder(workspace));
    command
}

fn lab(workspace: &Workspace, choice: &Choice, tests: &Programs) -> Result<Tally> {
    let step = Step::start("tests in the lab: real programs in network namespaces", "some minutes");
    // One after the other: they share the machine's cgroup tree and its load.
    let arguments = command_line(&["--test-threads=1"], choice);
    let tally = Tally::of(lab_tests(workspace).arg("--").args(arguments), tests)?;
    step.done("all have run");
    Ok(tally)
}

/// What the test programs are told.
fn command_line<'a>(first: &[&'a str], choice: &'a Choice) -> Vec<&'a str> {
    let told = choice.filters.iter().chain(&choice.arguments).map(String::as_str);
    first.iter().copied().chain(told).collect()
}

fn cargo_test(workspace: &Workspace) -> std::process::Command {
    let mut command = exec::cargo();
    command.current_dir(workspace.root()).args(["test", "--no-fail-fast"]);
    command.env(judge::CAPTURE_DIR, judge::folder(workspace));
    command
}

/// Says how the parts of a run went and what they left behind; an error where that is not good.
pub(crate) fn summarise(parts: &[(String, Tally)], left: &[String]) -> Result<()> {
    println!("\n==> summary");
    for (name, tally) in parts {
        println!(
            "    {name}: {} passed, {} failed, {} left out, in {} s{}",
            tally.passed,
            tally.failed,
            tally.ignored,
            tally.took.as_secs(),
            if tally.ended_well || tally.failed > 0 {
                ""
            } else {
                "; a test program did not build or crashed"
            },
        );
        for failure in &tally.failures {
            println!("        failed: {failure}");
        }
    }
    for line in left {
        println!("    {line}");
    }
    let passed: usize = parts.iter().map(|(_, tally)| tally.passed).sum();
    let failed: usize = parts.iter().map(|(_, tally)| tally.failed).sum();
    let good = parts.iter().all(|(_, tally)| tally.is_good());
    // Kept apart from the rest, in the words that tools look for.
    println!("\n{passed} passed, {failed} failed");
    if !good {
        bail!("not all tests passed");
    }
    if !left.is_empty() {
        bail!("the tests left {} things behind on this machine", left.len());
    }
    if passed == 0 {
        bail!("no test has that in its name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: usize, failed: usize) -> Tally {
        let mut tally = Tally::default();
        (tally.passed, tally.failed, tally.ended_well) = (passed, failed, failed == 0);
        tally
    }

    fn parts(counts: &[(usize, usize)]) -> Vec<(String, Tally)> {
        counts.iter().map(|(passed, failed)| ("a".to_owned(), tally(*passed, *failed))).collect()
    }

    #[test]
    fn starts_virtual_machines_when_everything_or_they_are_asked_for() {
        let all = Choice::default();
        assert!(all.wants_vm());
        assert!(Choice { vm: true, filters: vec!["a".into()], ..all.clone() }.wants_vm());
        assert!(!Choice { filters: vec!["a".into()], ..all.clone() }.wants_vm());
        assert!(!Choice { unit: true, ..all.clone() }.wants_vm());
        assert!(!Choice { lab: true, ..all }.wants_vm());
    }

    #[test]
    fn is_content_only_when_all_passed_and_nothing_stayed() {
        assert!(summarise(&parts(&[(3, 0), (0, 0)]), &[]).is_ok());
        assert!(summarise(&parts(&[(3, 0), (2, 1)]), &[]).is_err());
        assert!(summarise(&parts(&[(3, 0)]), &["device".to_owned()]).is_err());
        assert!(summarise(&parts(&[(0, 0)]), &[]).is_err(), "a filter that no test matches");
    }
}
