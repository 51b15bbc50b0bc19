//! The verbs and their options.

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{demo, ebpf, fuzz, lint, setup, soak, test, toolchain::Toolchain, vm, workspace::Workspace};

/// Sets up, builds and tests RSIP.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find or build the eBPF tool chain, install the Debian packages that demo and tests need, get the tests' kernels.
    ///
    /// Does nothing where all is there. The tool chain goes into target/tools; packages are installed with apt-get, and
    /// servers among them are neither started nor enabled on this machine. Kernels for virtual machines go into
    /// target/vm and are not installed.
    #[command(
        after_help = "Example:\n  cargo xtask setup\n  cargo xtask setup --no-packages    # needs no root"
    )]
    Setup {
        /// Only the eBPF tool chain: leave the machine's packages alone.
        #[arg(long)]
        no_packages: bool,
    },
    /// Build the eBPF programs into target/bpf, where the daemons' builds pick them up.
    #[command(after_help = "Example:\n  cargo xtask build-ebpf && cargo build")]
    BuildEbpf,
    /// Run the demonstration: a lab on this machine in which an unmodified Apache gets port 80 of the gateway.
    ///
    /// Sets up and builds what is missing first. Takes root. The exit code says whether every step held.
    #[command(
        after_help = "Example:\n  cargo xtask demo\n  cargo xtask demo --keep    # leaves the lab up and \
                            says how to enter it"
    )]
    Demo {
        /// Options of the demonstration itself, such as --keep.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
        arguments: Vec<String>,
    },
    /// Run every test: outside the lab, in the lab as root, and in virtual machines with Debian's kernels; then see
    /// whether anything was left behind.
    ///
    /// Sets up and builds what is missing first. A test that is left out fails the run.
    #[command(after_help = "Example:\n  cargo xtask test\n  cargo xtask test --unit            # needs no \
                            root\n  cargo xtask test --lab apache      # lab tests with \"apache\" in their \
                            names\n  cargo xtask test --lab apache -- --nocapture\n  cargo xtask test --vm            \
                            # on other kernels, in virtual machines")]
    Test {
        /// Only the tests outside the lab.
        #[arg(long, conflicts_with_all = ["lab", "vm"])]
        unit: bool,
        /// Only the tests in the lab.
        #[arg(long, conflicts_with = "vm")]
        lab: bool,
        /// Only the tests in virtual machines.
        #[arg(long)]
        vm: bool,
        /// Only tests with this in their names.
        filters: Vec<String>,
        /// Passed on to the test programs.
        #[arg(last = true, value_name = "ARG")]
        arguments: Vec<String>,
    },
    /// Run the lab's tests on other kernels, in virtual machines that are emulated.
    ///
    /// tests/vm.toml has the kernels and what runs on which; kernels come from Debian's archive into target/vm. A
    /// machine sees this machine's files, and what it writes is forgotten. Takes root.
    #[command(
        after_help = "Example:\n  cargo xtask vm                  # all kernels\n  cargo xtask vm 6.1 newest\n  \
                            cargo xtask vm --program wait_programs\n  \
                            cargo xtask vm --program socket_ways --write-table    # brings docs/SOCKETS.md up to date\n  cargo xtask vm 6.12 -- 'uname -r; bpftool feature'   # one command"
    )]
    Vm {
        /// Names of kernels [default: all]
        kernels: Vec<String>,
        /// Only this test program of the list; may be given several times.
        #[arg(long = "program", value_name = "NAME", conflicts_with = "command")]
        programs: Vec<String>,
        /// Write what the tests say of sockets into docs/SOCKETS.md; `here` among the kernels is this machine's own.
        #[arg(long, conflicts_with = "command")]
        write_table: bool,
        /// A command in place of the tests; $RSIP_BIN_DIR has the programs that were built last.
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Look for inputs that bring the protocol's code down, for a given time.
    ///
    /// The time is for all targets together. Inputs that reach new code are kept in target/fuzz for the next run, with
    /// --keep also in tests/fuzz/corpus, which every test run replays. Takes a C++ compiler.
    #[command(
        after_help = "Example:\n  cargo xtask fuzz                        # all targets, ten minutes\n  \
                            cargo xtask fuzz --for 1h --keep\n  cargo xtask fuzz gateway --for 90s"
    )]
    Fuzz {
        /// Names of targets [default: all]
        targets: Vec<String>,
        /// How long: seconds, or with s, m or h.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = fuzz::parse_time)]
        time: Duration,
        /// Add what reaches new code to the committed corpus.
        #[arg(long)]
        keep: bool,
    },
    /// Make a million binds of every kind in a lab, and see whether anything of the daemons grows with them.
    ///
    /// Memory, threads, descriptors, entries of eBPF maps and files are measured after each round; the trend after the
    /// warm-up decides. Builds the daemons as they are shipped. Takes root. The exit code says whether all stays flat.
    #[command(
        after_help = "Example:\n  cargo xtask soak\n  cargo xtask soak --binds 5000000\n  cargo xtask soak --for 8h"
    )]
    Soak {
        /// How many binds.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        binds: u64,
        /// As many as there are in this time instead: seconds, or with s, m or h.
        #[arg(long = "for", value_name = "TIME", conflicts_with = "binds", value_parser = fuzz::parse_time)]
        time: Option<Duration>,
    },
    /// Check without running: format, architecture, clippy, documentation.
    #[command(after_help = "Example:\n  cargo xtask lint")]
    Lint,
}

impl Cli {
    /// Carries out the verb.
    pub(crate) fn run(self) -> Result<()> {
        let workspace = Workspace::find()?;
        match self.verb {
            Verb::Setup { no_packages: true } => {
                setup::bpf_tools(&workspace, &Toolchain::detect()?).map(|_tools| ())
            }
            Verb::Setup { no_packages: false } => {
                setup::all(&workspace)?;
                vm::fetch(&workspace)
            }
            Verb::BuildEbpf => ebpf::build(&workspace),
            Verb::Demo { arguments } => demo::run(&workspace, &arguments),
            Verb::Test { unit, lab, vm, filters, arguments } => {
                test::run(&workspace, &test::Choice { unit, lab, vm, filters, arguments })
            }
            Verb::Vm { kernels, programs, command, write_table } => {
                vm::run(&workspace, &vm::Choice { kernels, programs, command, write_table })
            }
            Verb::Fuzz { targets, time, keep } => {
                fuzz::run(&workspace, &fuzz::Choice { targets, time, keep })
            }
            Verb::Soak { binds, time } => soak::run(&workspace, soak::Choice { binds, time }),
            Verb::Lint => lint::run(&workspace),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn is_a_sound_command_line() {
        Cli::command().debug_assert();
    }

    #[test]
    fn hands_options_of_the_demo_on() {
        let cli = Cli::try_parse_from(["xtask", "demo", "--keep", "--verbose"]).unwrap();
        assert!(matches!(cli.verb, Verb::Demo { arguments } if arguments == ["--keep", "--verbose"]));
    }

    #[test]
    fn tells_filters_from_arguments_of_the_test_programs() {
        let cli = Cli::try_parse_from(["xtask", "test", "--lab", "apache", "--", "--nocapture"]).unwrap();
        assert!(matches!(
            cli.verb,
            Verb::Test { unit: false, lab: true, vm: false, filters, arguments }
                if filters == ["apache"] && arguments == ["--nocapture"]
        ));
    }

    #[test]
    fn shows_an_example_for_each_verb() {
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("cargo xtask {}", verb.get_name())), "{}", verb.get_name());
        }
    }
}
