//! The verbs and their options.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{ebpf, setup, toolchain::Toolchain, workspace::Workspace};

/// Sets up, builds and tests RSIP.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Find or build the eBPF tool chain, and install the Debian packages that demo and tests need.
    ///
    /// Does nothing where all is there. The tool chain goes into target/tools; packages are installed with apt-get, and
    /// servers among them are neither started nor enabled on this machine.
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
}

impl Cli {
    /// Carries out the verb.
    pub(crate) fn run(self) -> Result<()> {
        let workspace = Workspace::find()?;
        match self.verb {
            Verb::Setup { no_packages: true } => {
                setup::bpf_tools(&workspace, &Toolchain::detect()?).map(|_tools| ())
            }
            Verb::Setup { no_packages: false } => setup::all(&workspace),
            Verb::BuildEbpf => ebpf::build(&workspace),
        }
    }
}
