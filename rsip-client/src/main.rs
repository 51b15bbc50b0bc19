//! `rsip-client`: leases a public address and ports for this host.

use anyhow::Context as _;
use clap::CommandFactory as _;
use rsip_client::cli::{Cli, Command, Up};
use rsip_client::{
    agent, bugreport, calls, config, discovery, doctor, giveback, held, ping, rules, run, watch,
};
use rsip_sys::manual;

/// The sample of the configuration file.
const SAMPLE: &str = include_str!("../rsip-client.conf");

fn main() -> std::process::ExitCode {
    let outcome = match config::command_line(std::env::args_os()) {
        Ok(cli) => carry_out(cli.command),
        Err(error) => Err(error),
    };
    rsip_sys::exit::finish(agent::start::PROGRAM, &outcome)
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(arguments) => up(*arguments),
        Command::Down(run_dir) => calls::down(&run_dir),
        Command::Status { json, watch: None, run_dir } => calls::status(&run_dir, json),
        Command::Status { json, watch: Some(interval), run_dir } => watch::watch(&run_dir, json, interval),
        Command::Listen(ports) => calls::listen(&ports),
        Command::Unlisten(ports) => calls::unlisten(&ports),
        Command::Check(arguments) => config::check(&arguments),
        Command::Run(arguments) => run::run(&arguments).map(|never| match never {}),
        Command::Rules(arguments) => rules::call::rules(&arguments),
        Command::Discover(arguments) => discovery::command::discover(arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::PingGateway(arguments) => ping::ping_gateway(&arguments),
        Command::Ports(arguments) => held::ports(&arguments),
        Command::Free(arguments) => giveback::free(&arguments),
        Command::Bugreport(arguments) => bugreport::bugreport(&arguments),
        // Who does not read on has seen enough.
        Command::Completions { shell } => {
            manual::completions(Cli::command(), shell).unwrap_or_default();
            Ok(())
        }
        Command::Man { output } => manual::pages(&Cli::command(), &output)
            .and_then(|_| {
                manual::file_page("rsip-client.conf", "settings of the RSIP host agent", SAMPLE, &output)
            })
            .map(drop)
            .with_context(|| format!("cannot write manual pages to {}", output.display())),
    }
}

fn up(arguments: Up) -> anyhow::Result<()> {
    // One thread: the agent is one task, and what it waits for is the network.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::start::up(arguments))
}
