//! `tests/vm.toml`: which kernels, and what runs on which.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

/// The file, from the work tree's root.
pub(super) const FILE: &str = "tests/vm.toml";

#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// By how much the lab's waits are longer there.
    pub(super) slow: u32,
    #[serde(rename = "kernel")]
    pub(super) kernels: Vec<Kernel>,
    #[serde(rename = "program", default)]
    pub(super) programs: Vec<Program>,
    #[serde(rename = "command", default)]
    pub(super) commands: Vec<Command>,
}

/// A kernel.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Kernel {
    pub(super) name: String,
    /// Debian's suites, the first that has it.
    pub(super) suites: Vec<String>,
    /// How its package is called, `*` standing for the version.
    pub(super) package: String,
    /// Whether `cargo xtask test` runs it.
    #[serde(default)]
    pub(super) test: bool,
}

/// A test program of the lab.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Program {
    /// `NAME` for `tests/tests/NAME.rs`.
    pub(super) name: String,
    /// Names of kernels.
    pub(super) kernels: Vec<String>,
    /// Parts of test names; none: all tests.
    #[serde(default)]
    pub(super) only: Vec<String>,
    /// Parts of the names of those that are left to the run outside.
    #[serde(default)]
    pub(super) skip: Vec<String>,
    /// Not part of `cargo xtask test`, for the time that it takes.
    #[serde(default)]
    pub(super) seldom: bool,
    /// Parts of names of tests that are part of it all the same.
    #[serde(default)]
    pub(super) often: Vec<String>,
    /// Set for the program.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// Seconds.
    pub(super) limit: u64,
}

/// A command that counts as one test.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    /// What it shows.
    pub(super) name: String,
    pub(super) kernels: Vec<String>,
    /// For the shell; `$RSIP_BIN_DIR` has our programs.
    pub(super) run: String,
    /// The exit code that it must end with.
    pub(super) exit: i32,
    /// What must be in its output.
    #[serde(default)]
    pub(super) says: Vec<String>,
    /// Seconds.
    pub(super) limit: u64,
}

impl List {
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let path = workspace.root().join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{FILE} is not good"))
    }

    fn parse(text: &str) -> Result<Self> {
        let list: Self = toml::from_str(text)?;
        let users = list.programs.iter().map(|program| (&program.name, &program.kernels));
        let users = users.chain(list.commands.iter().map(|command| (&command.name, &command.kernels)));
        for (user, kernels) in users {
            for kernel in kernels {
                list.kernel(kernel).with_context(|| format!("of {user}"))?;
            }
        }
        for kernel in &list.kernels {
            if kernel.package.matches('*').count() != 1 || kernel.suites.is_empty() {
                bail!("the kernel {} takes a package with one * and a suite", kernel.name);
            }
        }
        Ok(list)
    }

    /// The same with these programs alone; none: all of it.
    pub(super) fn only(mut self, programs: &[String]) -> Result<Self> {
        for name in programs {
            if !self.programs.iter().any(|program| &program.name == name) {
                bail!("there is no test program {name} in {FILE}");
            }
        }
        if !programs.is_empty() {
            self.programs.retain(|program| programs.contains(&program.name));
            self.commands.clear();
        }
        Ok(self)
    }

    /// What of it is part of `cargo xtask test`.
    pub(super) fn often(mut self) -> Self {
        for program in &mut self.programs {
            if program.seldom && !program.often.is_empty() {
                (program.only, program.seldom) = (program.often.clone(), false);
            }
        }
        self.programs.retain(|program| !program.seldom);
        self
    }

    /// A kernel by name.
    pub(super) fn kernel(&self, name: &str) -> Result<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name).with_context(|| {
            let known: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            format!("there is no kernel {name} in {FILE}, which has {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "slow = 2\n[[kernel]]\nname = \"6.1\"\nsuites = [\"bookworm\"]\npackage = \"linux-image-6.1.*-amd64\"\n";

    #[test]
    fn knows_the_committed_list() {
        let workspace = Workspace::find().unwrap();
        let list = List::read(&workspace).unwrap();
        for program in &list.programs {
            let place = workspace.root().join("tests/tests").join(&program.name);
            assert!(
                place.with_extension("rs").is_file() || place.join("main.rs").is_file(),
                "{}",
                program.name
            );
        }
        for name in ["6.1", "6.12"] {
            assert!(list.kernel(name).unwrap().test, "{name}");
        }
    }

    #[test]
    fn some_tests_of_a_seldom_program_are_run_often() {
        let program = |name: &str, more: &str| {
            format!("[[program]]\nname = \"{name}\"\nlimit = 3\nkernels = [\"6.1\"]\n{more}\n")
        };
        let all = [
            program("always", ""),
            program("seldom", "seldom = true"),
            program("partly", "seldom = true\noften = [\"quick\"]\nonly = [\"quick\", \"slow\"]"),
        ];
        let list = List::parse(&format!("{KERNEL}{}", all.concat())).unwrap().often();
        let names: Vec<_> =
            list.programs.iter().map(|program| (program.name.as_str(), &program.only)).collect();
        assert_eq!(names, [("always", &vec![]), ("partly", &vec!["quick".to_owned()])]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(List::parse(KERNEL).is_ok());
        let program = "[[program]]\nname = \"a\"\nlimit = 3\nkernels = [\"6.2\"]\n";
        let error = format!("{:#}", List::parse(&format!("{KERNEL}{program}")).unwrap_err());
        assert_eq!(error, "of a: there is no kernel 6.2 in tests/vm.toml, which has 6.1");
        assert!(List::parse(&format!("{KERNEL}tset = true\n")).is_err());
        assert!(List::parse(&KERNEL.replace('*', "")).is_err());
    }
}
