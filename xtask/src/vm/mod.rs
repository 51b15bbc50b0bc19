//! `cargo xtask vm`: tests on other kernels, in virtual machines whose root file system is this machine's own. Nothing
//! is built or installed in them; what they write is forgotten.

mod initramfs;
mod list;
mod machine;
mod run;
pub(crate) mod table;

use std::{
    fs,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    ebpf,
    exec::{self, Step},
    programs::Programs,
    setup::{self, kernels},
    tally::Tally,
    test,
    workspace::Workspace,
};
use list::{Kernel, List};
use machine::Machine;

/// Begins the lines that the script in the machine writes to us. Nothing else says this.
const MARK: &str = "rsip-vm-d1a7";

/// So many machines run at the same time: while the tests of one wait, which they do a lot, another has the processors.
const AT_ONCE: usize = 2;

/// Among the kernels whose columns are to be written: this machine's own.
const HERE: &str = "here";

/// A command by hand may take this long.
const BY_HAND: Duration = Duration::from_secs(3600);

/// What to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// Names of kernels; none: all of the list.
    pub(crate) kernels: Vec<String>,
    /// Names of test programs; none: all of the list, and its commands.
    pub(crate) programs: Vec<String>,
    /// A command in place of the list's tests.
    pub(crate) command: Vec<String>,
    /// Write what the tests say of sockets into the docs.
    pub(crate) write_table: bool,
}

/// Runs the list's tests on the chosen kernels, or one command.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> Result<()> {
    let list = List::read(workspace)?.only(&choice.programs)?;
    let named = |name: &&String| name.as_str() != HERE;
    let kernels = match choice.kernels.as_slice() {
        [] => list.kernels.iter().collect(),
        names => names.iter().filter(named).map(|name| list.kernel(name)).collect::<Result<Vec<_>>>()?,
    };
    require_machine()?;
    setup::all(workspace)?;
    if !choice.command.is_empty() {
        return kernels.iter().try_for_each(|kernel| by_hand(workspace, kernel, &choice.command));
    }
    let ready = ready(workspace, &kernels)?;
    ebpf::build(workspace)?;
    test::build_programs(workspace)?;
    let programs = Programs::build(&mut test::lab_tests(workspace))?;
    let mut done = run_all(workspace, &list, &ready, &programs, &[])?;
    if !choice.write_table {
        let same = table::check(workspace, &done.rows);
        return test::summarise(&done.parts, &[]).and(same);
    }
    // What was seen is written down whatever else failed: it took its time.
    let mut here = Ok(());
    if choice.kernels.is_empty() || choice.kernels.iter().any(|name| name == HERE) {
        here = run::ways_here(workspace, &programs);
        done.rows.extend(table::native(workspace)?);
    }
    let written = table::write(workspace, &done.rows);
    test::summarise(&done.parts, &[]).and(here).and(written)
}

/// What ran in virtual machines.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// One tally for each kernel.
    pub(crate) parts: Vec<(String, Tally)>,
    /// What the tests said of sockets.
    pub(crate) rows: Vec<table::Row>,
}

/// Gets the kernels that `cargo xtask test` runs.
pub(crate) fn fetch(workspace: &Workspace) -> Result<()> {
    require_machine()?;
    let list = List::read(workspace)?;
    ready(workspace, &of_tests(&list)).map(drop)
}

/// The part of `cargo xtask test`. `filters` are parts of names of tests; none: all.
pub(crate) fn test(workspace: &Workspace, programs: &Programs, filters: &[String]) -> Result<Done> {
    let list = List::read(workspace)?.often();
    let ready = ready(workspace, &of_tests(&list))?;
    run_all(workspace, &list, &ready, programs, filters)
}

fn of_tests(list: &List) -> Vec<&Kernel> {
    list.kernels.iter().filter(|kernel| kernel.test).collect()
}

/// A virtual machine takes root, for the file server; and the kernels are those of one architecture.
fn require_machine() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the virtual machines run kernels for x86-64 and programs that were built for it");
    }
    if !exec::is_root() {
        bail!("a virtual machine reads this machine's whole file system, which takes root");
    }
    Ok(())
}

type Ready<'a> = Vec<(&'a Kernel, kernels::Kernel)>;

fn ready<'a>(workspace: &Workspace, wanted: &[&'a Kernel]) -> Result<Ready<'a>> {
    let folder = folder(workspace)?;
    // Two xtasks at once would unpack into the same folders.
    let lock = fs::File::create(folder.join("lock")).context("cannot create the kernels' lock file")?;
    lock.lock().context("cannot take the kernels' lock")?;
    wanted
        .iter()
        .map(|kernel| {
            let place = folder.join(&kernel.name);
            Ok((*kernel, kernels::ensure(&place, &kernel.package, &kernel.suites)?))
        })
        .collect()
}

/// Where kernels are kept.
fn folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.root().join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// Removes what another xtask could not, as it was killed while it packed.
fn forget_the_dead(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        // `start-PID-KERNEL`
        let owner =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix("start-")?.split('-').next());
        let Some(owner) = owner else { continue };
        if Path::new("/proc").join(owner).exists() {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn boot(workspace: &Workspace, kernel: &kernels::Kernel) -> Result<Machine> {
    forget_the_dead(&folder(workspace)?)?;
    // Of this process alone; qemu has read it when the machine takes commands.
    let name = format!("{}-{}", std::process::id(), kernel.release);
    let file = folder(workspace)?.join(format!("start-{name}.cpio"));
    let packed = initramfs::pack(kernel, MARK, &file);
    let machine = packed.and_then(|()| {
        Machine::boot(kernel, &file, &name, MARK).or_else(|error| {
            // What is emulated on a busy machine may fail at its start for that alone; a kernel that does not start
            // fails again.
            exec::say(&format!("once more: {error:#}"));
            Machine::boot(kernel, &file, &name, MARK)
        })
    });
    if let Err(error) = fs::remove_file(&file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        exec::say(&format!("cannot remove {}: {error}", file.display()));
    }
    machine
}

/// Runs the list on some kernels, [`AT_ONCE`] of them at a time.
fn run_all(
    workspace: &Workspace,
    list: &List,
    kernels: &[(&Kernel, kernels::Kernel)],
    programs: &Programs,
    filters: &[String],
) -> Result<Done> {
    let next = AtomicUsize::new(0);
    let one = |(kernel, ready): &(&Kernel, kernels::Kernel)| -> Result<_> {
        let step = Step::start(&format!("tests on {} in a virtual machine", ready.release), "5 min");
        let (tally, rows) = run::on_kernel(workspace, list, kernel, ready, programs, filters)?;
        step.done(&format!("{}: {} passed, {} failed", ready.release, tally.passed, tally.failed));
        Ok((format!("in a VM with {} ({})", kernel.name, ready.release), tally, rows))
    };
    let worker = || {
        let mut results = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(kernel) = kernels.get(number) else { return results };
            results.push((number, one(kernel)));
        }
    };
    let mut results = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.flatten().collect::<Vec<_>>()
    });
    results.sort_by_key(|(number, _)| *number);
    let mut done = Done::default();
    for (_, result) in results {
        let (name, tally, rows) = result?;
        done.parts.push((name, tally));
        done.rows.extend(rows);
    }
    Ok(done)
}

fn by_hand(workspace: &Workspace, kernel: &Kernel, command: &[String]) -> Result<()> {
    let ready = ready(workspace, &[kernel])?;
    let [(_, ready)] = ready.as_slice() else { bail!("there is no kernel {}", kernel.name) };
    let step = Step::start(&format!("starting {}", ready.release), "10 s");
    let mut machine = boot(workspace, ready)?;
    step.done("takes commands");
    let environment = run::environment(workspace, 1);
    let line = format!("{environment} {}", command.join(" ").replace('\n', "; "));
    let code = machine.run(&line, BY_HAND, &mut |line| println!("{line}"))?;
    for line in machine.console() {
        eprintln!("    console: {line}");
    }
    if code != 0 {
        bail!("on {} the command ended with exit code {code}", ready.release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_belongs_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let own = format!("start-{}-6.1.0-cloud.cpio", std::process::id());
        // No process has that number.
        for name in [own.as_str(), "start-4194305-6.1.0-cloud.cpio", "6.1"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir_all(dir.path().join("start-4194305-6.12.0-cloud.folder/bin")).unwrap();
        forget_the_dead(dir.path()).unwrap();
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut left: Vec<_> = left.map(|name| name.into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["6.1".to_owned(), own]);
    }
}
