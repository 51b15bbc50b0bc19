//! `rsipd`: the RSIP gateway daemon.

use std::process::ExitCode as ProcessExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use rsip_sys::exit::{self, ExitCode};
use rsip_sys::manual;
use rsipd::cli::{Rsipd, RsipdCommand};
use rsipd::control::PROGRAM;
use rsipd::start;

/// The sample of the configuration file.
const SAMPLE: &str = include_str!("../rsipd.conf");

fn main() -> ProcessExitCode {
    let arguments = Rsipd::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start");
    let result = runtime.and_then(|runtime| match arguments.command.unwrap_or(RsipdCommand::Run) {
        RsipdCommand::Run => runtime.block_on(start::run(arguments.options)).map(|()| ExitCode::Ok),
        RsipdCommand::Check => {
            let good = runtime.block_on(start::check(&arguments.options))?;
            Ok(if good { ExitCode::Ok } else { ExitCode::Config })
        }
        RsipdCommand::ShowConfig => start::show_config(&arguments.options).map(|()| ExitCode::Ok),
        RsipdCommand::Completions { shell } => {
            // Who does not read on has seen enough.
            manual::completions(Rsipd::command(), shell).unwrap_or_default();
            Ok(ExitCode::Ok)
        }
        RsipdCommand::Man { output } => {
            let what = || format!("cannot write manual pages to {}", output.display());
            manual::pages(&Rsipd::command(), &output)
                .and_then(|_| {
                    manual::file_page("rsipd.conf", "settings of the RSIP gateway", SAMPLE, &output)
                })
                .with_context(what)
                .map(|_| ExitCode::Ok)
        }
    });
    match result {
        Ok(code) => code.into(),
        Err(error) => exit::finish(PROGRAM, &Err(error)),
    }
}
