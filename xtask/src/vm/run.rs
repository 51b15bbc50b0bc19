//! The list's tests of one kernel: in one virtual machine, one after the other.

use std::{
    collections::BTreeSet,
    path::Path,
    process,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    boot,
    initramfs::quoted,
    list::{Command, Kernel, List, Program},
    machine::Machine,
    table::{self, Row},
};
use crate::{exec, programs::Programs, setup::kernels, tally::Tally, workspace::Workspace};

/// Lines of the kernel's log that are shown with a failure.
const CONSOLE: usize = 15;

/// Where tests add their lines about sockets in the machine.
const TABLE: &str = "/tmp/rsip-table";

/// Runs all that the list has for `kernel`; `filters` are parts of names of tests, none: all. Tests that should have run and did not count as failed.
pub(super) fn on_kernel(
    workspace: &Workspace,
    list: &List,
    kernel: &Kernel,
    ready: &kernels::Kernel,
    programs: &Programs,
    filters: &[String],
) -> Result<(Tally, Vec<Row>)> {
    let started = Instant::now();
    let mut total = Tally::so_far(true);
    let mut machine = None;
    let environment = environment(workspace, list.slow);
    let here = |program: &&Program| program.kernels.contains(&kernel.name);
    for program in list.programs.iter().filter(here) {
        let path = programs
            .path(&format!("rsip-lab/{}", program.name))
            .with_context(|| format!("there is no test program {}", program.name))?;
        let expected = expected(path, program, filters)?;
        if expected.is_empty() {
            // A list that names no test is a mistake; a filter may well leave none.
            anyhow::ensure!(!filters.is_empty(), "the list's entry {} names no test", program.name);
            continue;
        }
        let chosen = if filters.is_empty() { names(program) } else { exactly(&expected) };
        let command = format!(
            "{environment} cd {} && {} {} --test-threads=1 {chosen}",
            quoted(&workspace.root().join("tests").to_string_lossy()),
            variables(program),
            quoted(&path.to_string_lossy()),
        );
        let mut tally = Tally::default();
        // Shown in one piece when it has ended, since other machines run meanwhile.
        let shown = format!("     Running {} on {} ({})", program.name, kernel.name, path.display());
        tally.count(&shown, programs);
        let mut said = vec![shown];
        let step = Instant::now();
        let limit = Duration::from_secs(program.limit);
        let ended = in_machine(&mut machine, workspace, ready, &command, limit, &mut |line| {
            tally.count(line, programs);
            said.push(line.to_owned());
        });
        said.push(format!("    {} on {}: {} s", program.name, kernel.name, step.elapsed().as_secs()));
        println!("{}", said.join("\n"));
        settle(&mut tally, &format!("{} {}", kernel.name, program.name), &expected, ended);
        total.add(tally);
    }
    for check in list.commands.iter().filter(|check| check.kernels.contains(&kernel.name)) {
        let name = format!("{} {}", kernel.name, check.name);
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let mut said = Vec::new();
        let command = format!("{environment} {}", check.run);
        let limit = Duration::from_secs(check.limit);
        let ended = in_machine(&mut machine, workspace, ready, &command, limit, &mut |line| {
            said.push(line.to_owned());
        });
        println!("{}", said.join("\n"));
        total.add(judged(check, &name, &said.join("\n"), ended));
    }
    if total.failed > 0
        && let Some(machine) = &machine
    {
        let console = machine.console();
        for line in &console[console.len().saturating_sub(CONSOLE)..] {
            println!("    console: {line}");
        }
    }
    let rows = match &mut machine {
        Some(machine) => rows(machine)?,
        None => Vec::new(),
    };
    total.took = started.elapsed();
    Ok((total, rows))
}

/// What the tests have said of sockets in this machine.
fn rows(machine: &mut Machine) -> Result<Vec<Row>> {
    let mut text = String::new();
    let command = format!("cat {TABLE}/* 2>/dev/null");
    // There is no such file where no test of this kernel says anything.
    machine.run(&command, Duration::from_secs(20), &mut |line| text += &format!("{line}\n"))?;
    Ok(table::parse(&text))
}

/// Has them said for this machine's own kernel, with each way of waiting that it has. An error where a test failed.
pub(super) fn ways_here(workspace: &Workspace, programs: &Programs) -> Result<()> {
    let path = programs.path("rsip-lab/socket_ways").context("there is no test program socket_ways")?;
    table::forget(workspace)?;
    let mut all = Ok(());
    for way in [None, Some("poll")] {
        let mut command = process::Command::new(path);
        command.current_dir(workspace.root().join("tests")).arg("--test-threads=1");
        command.env("RSIP_BIN_DIR", workspace.programs()).env(table::FOLDER, table::folder(workspace));
        command.envs(way.map(|way| ("RSIP_WAIT", way)));
        all = all.and(exec::run(&mut command));
    }
    all
}

/// Runs a command in the machine, which is started where there is none: the first time, and after one has died.
fn in_machine(
    machine: &mut Option<Machine>,
    workspace: &Workspace,
    ready: &kernels::Kernel,
    command: &str,
    limit: Duration,
    each: &mut dyn FnMut(&str),
) -> Result<i32> {
    let running = match machine {
        Some(running) => running,
        None => machine.insert(boot(workspace, ready)?),
    };
    let ended = running.run(command, limit, each);
    if ended.is_err() {
        *machine = None;
    }
    ended
}

/// What every command of ours is told: our programs, the lab's patience.
pub(super) fn environment(workspace: &Workspace, slow: u32) -> String {
    let folder = |path: &Path| quoted(&path.to_string_lossy());
    format!(
        "mkdir -p {TABLE}; export {}={TABLE} RSIP_BIN_DIR={} RSIP_BPF_DIR={} RSIP_LAB_SLOW={slow};",
        table::FOLDER,
        folder(&workspace.programs()),
        folder(&workspace.bpf_objects()),
    )
}

fn variables(program: &Program) -> String {
    let words = program.env.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let words = words.collect::<Vec<_>>().join(" ");
    if words.is_empty() { words } else { format!("env {words}") }
}

/// The list's choice in words of the test program.
fn names(program: &Program) -> String {
    let only = program.only.iter().map(|name| quoted(name));
    let skip = program.skip.iter().map(|name| format!("--skip {}", quoted(name)));
    only.chain(skip).collect::<Vec<_>>().join(" ")
}

fn exactly(names: &BTreeSet<String>) -> String {
    let names = names.iter().map(|name| quoted(name)).collect::<Vec<_>>();
    format!("--exact {}", names.join(" "))
}

/// The tests that the program has by the list's choice, as it says outside the machine.
fn expected(path: &Path, program: &Program, filters: &[String]) -> Result<BTreeSet<String>> {
    let mut command = process::Command::new(path);
    command.args(["--list", "--format", "terse"]).args(&program.only);
    command.args(program.skip.iter().flat_map(|name| ["--skip", name]));
    let said = exec::output(&mut command)?;
    let names = said.lines().filter_map(|line| line.strip_suffix(": test"));
    let wanted =
        |name: &&str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    Ok(names.filter(wanted).map(str::to_owned).collect())
}

/// Holds what ran against what should have.
fn settle(tally: &mut Tally, name: &str, expected: &BTreeSet<String>, ended: Result<i32>) {
    let why = match ended {
        Ok(0) => "did not run".to_owned(),
        Ok(124 | 137) => "did not end in time".to_owned(),
        Ok(code) => format!("did not run to its end; the program ended with code {code}"),
        Err(ref error) => {
            println!("    {error:#}");
            "did not run to its end; the virtual machine died".to_owned()
        }
    };
    let passed: BTreeSet<String> =
        tally.names.iter().filter_map(|name| Some(name.split_once("::")?.1.to_owned())).collect();
    let failed: BTreeSet<String> = tally.failures.iter().cloned().collect();
    let missing = expected.iter().filter(|test| !passed.contains(*test) && !failed.contains(*test));
    let missing: Vec<String> = missing.map(|test| format!("{name}::{test} ({why})")).collect();
    tally.failures = failed.into_iter().map(|test| format!("{name}::{test}")).chain(missing).collect();
    // A program that died has not said so itself.
    tally.passed = passed.len();
    tally.failed = tally.failures.len();
    tally.ended_well = matches!(ended, Ok(0));
}

/// One command, as one test.
fn judged(check: &Command, name: &str, said: &str, ended: Result<i32>) -> Tally {
    let mut wrong: Vec<String> = check
        .says
        .iter()
        .filter(|part| !said.contains(part.as_str()))
        .map(|part| format!("no {part:?}"))
        .collect();
    match ended {
        Ok(code) if code == check.exit => {}
        Ok(code) => wrong.push(format!("exit code {code} in place of {}", check.exit)),
        Err(error) => wrong.push(format!("{error:#}")),
    }
    let mut tally = Tally::so_far(wrong.is_empty());
    if wrong.is_empty() {
        println!("test {name} ... ok");
        tally.passed = 1;
    } else {
        println!("test {name} ... FAILED: {}", wrong.join("; "));
        (tally.failed, tally.failures) = (1, vec![name.to_owned()]);
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn said(text: &str) -> Tally {
        let programs = Programs::of(&[("a-1", "rsip-lab/a")]);
        let mut tally = Tally::default();
        let running = "     Running a on 6.1 (/t/deps/a-1)";
        [running].into_iter().chain(text.lines()).for_each(|line| tally.count(line, &programs));
        tally
    }

    #[test]
    fn what_ran_is_held_against_what_should_have() {
        let mut all = said("test x ... ok\ntest y::z ... ok\ntest result: ok. 2 passed; 0 failed; 0 ignored");
        settle(&mut all, "6.1 a", &set(&["x", "y::z"]), Ok(0));
        assert_eq!((all.passed, all.failed, all.is_good()), (2, 0, true));

        let mut fewer = said("test x ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored");
        settle(&mut fewer, "6.1 a", &set(&["x", "y"]), Ok(0));
        assert_eq!(fewer.failures, ["6.1 a::y (did not run)"]);
        assert!(!fewer.is_good());
    }

    #[test]
    fn a_program_or_a_machine_that_dies_fails_what_it_did_not_run() {
        for (ended, why) in [
            (Ok(124), "did not end in time"),
            (Ok(139), "did not run to its end; the program ended with code 139"),
            (Err(anyhow::anyhow!("gone")), "did not run to its end; the virtual machine died"),
        ] {
            let mut tally = said("test x ... ok\ntest y ... FAILED");
            settle(&mut tally, "6.1 a", &set(&["x", "y", "z"]), ended);
            assert_eq!((tally.passed, tally.failed), (1, 2));
            assert_eq!(tally.failures, ["6.1 a::y".to_owned(), format!("6.1 a::z ({why})")]);
        }
    }

    #[test]
    fn a_command_is_judged_by_code_and_words() {
        let check = Command {
            name: "refuses".into(),
            kernels: vec![],
            run: String::new(),
            exit: 5,
            says: vec!["5.18".into()],
            limit: 1,
        };
        assert!(judged(&check, "5.10 refuses", "needs 5.18", Ok(5)).is_good());
        assert!(!judged(&check, "5.10 refuses", "needs 5.18", Ok(0)).is_good());
        assert!(!judged(&check, "5.10 refuses", "", Ok(5)).is_good());
        assert!(!judged(&check, "5.10 refuses", "needs 5.18", Err(anyhow::anyhow!("gone"))).is_good());
    }
}
