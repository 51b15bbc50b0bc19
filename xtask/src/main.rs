//! The developer's one door: `cargo xtask VERB`. It sets up the eBPF tool chain, builds the eBPF programs, and runs the
//! demo, the tests and the checks, each from a fresh clone with nothing prepared.
//!
//! One file per verb (`setup/`, `ebpf`, `test`, `vm/`, `lint`, `demo`); `exec` runs programs, `workspace` knows the places,
//! `toolchain` knows the Rust compiler, `tally` counts tests, `judge` has tshark decode what they have captured, `leaks` compares the machine
//! before and after, `tidy` holds the architecture.

mod cli;
mod coverage;
mod demo;
mod ebpf;
mod exec;
mod fuzz;
mod judge;
mod leaks;
mod lint;
mod programs;
mod setup;
mod soak;
mod tally;
mod test;
mod tidy;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
