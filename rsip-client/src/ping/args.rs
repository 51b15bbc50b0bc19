//! The part of the command line that is about asking a gateway.

use std::net::SocketAddrV4;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::RunDir;

/// Examples and exit codes of `rsip-client ping-gateway --help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client ping-gateway
  rsip-client ping-gateway --gateway 10.0.0.1 --count 10 --interval 0.2
  rsip-client ping-gateway --transport udp --json | jq .transports[0].average_ms

The question is a QUERY without a client ID of this host: nothing is registered, leased or renewed by it. That the gateway
answers with an error (301 REGISTER_FIRST, 305 BAD_CLIENT_ID, 102 USE_TCP) is the answer that is wanted.

Exit codes: 0 every transport that was tried answers, 3 one of them does not answer at all.";

/// `rsip-client ping-gateway`.
#[derive(Clone, Debug, Args)]
pub struct Ping {
    /// The gateway [default: the running agent's, or that of a killed agent]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = crate::cli::parse_gateway, env = "RSIP_GATEWAY")]
    pub gateway: Option<SocketAddrV4>,
    /// How often to ask over each transport.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Seconds from one question to the next.
    #[arg(long, value_name = "SECONDS", default_value = "0.25", value_parser = crate::cli::parse_seconds)]
    pub interval: Duration,
    /// How many seconds to wait for each answer.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = crate::cli::parse_positive_seconds)]
    pub timeout: Duration,
    /// What carries the question.
    #[arg(long, value_enum, default_value = "both")]
    pub transport: Transports,
    /// Print data instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}

/// `--transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transports {
    /// One after the other.
    Both,
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}
