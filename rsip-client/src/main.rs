//! `rsip-client`: leases a public address and ports for this host.

use rsip_client::cli::{Command, Up};
use rsip_client::{agent, calls, config, discovery, doctor, ping, rules};

fn main() -> std::process::ExitCode {
    let outcome = match config::command_line(std::env::args_os()) {
        Ok(cli) => run(cli.command),
        Err(error) => Err(error),
    };
    rsip_sys::exit::finish(agent::start::PROGRAM, &outcome)
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(arguments) => up(*arguments),
        Command::Down(run_dir) => calls::down(&run_dir),
        Command::Status { json, run_dir } => calls::status(&run_dir, json),
        Command::Listen(ports) => calls::listen(&ports),
        Command::Unlisten(ports) => calls::unlisten(&ports),
        Command::Check(arguments) => config::check(&arguments),
        Command::Rules(arguments) => rules::call::rules(&arguments),
        Command::Discover(arguments) => discovery::command::discover(arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::PingGateway(arguments) => ping::ping_gateway(&arguments),
    }
}

fn up(arguments: Up) -> anyhow::Result<()> {
    // One thread: the agent is one task, and what it waits for is the network.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::start::up(arguments))
}
