//! The part of the command line that is about finding troubles.

use std::net::{Ipv4Addr, SocketAddrV4};

use clap::Args;

use crate::cli::{RunDir, Transport};
use crate::discovery::args::Search;

/// Examples and exit codes of `rsip-client doctor --help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client doctor                                # of the running agent, or of a host on which none runs yet
  rsip-client doctor --gateway 10.0.0.1             # would this gateway serve this host?
  rsip-client doctor --peer 9.9.9.9                 # also: do packets of all sizes come through the tunnel to this host?
  rsip-client doctor --json | jq '.findings[] | select(.verdict != \"ok\")'

Exit codes: 0 nothing has failed, 1 something has (warnings do not count).";

/// `rsip-client doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// The gateway to look at [default: the running agent's, that of a killed agent, or the least busy one that SLP finds]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = crate::cli::parse_gateway, env = "RSIP_GATEWAY")]
    pub gateway: Option<SocketAddrV4>,
    /// The interface towards the gateway [default: as the routing table says]
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// What carries RSIP, where no agent runs.
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// Try packets of all sizes through the tunnel to this host of the internet, which must answer ping.
    #[arg(long, value_name = "ADDR")]
    pub peer: Option<Ipv4Addr>,
    /// Where no agent runs: do not try a registration and a lease of one port (both are ended again at once).
    #[arg(long)]
    pub no_trial: bool,
    /// Where gateways are looked for.
    #[command(flatten)]
    pub search: Search,
    /// Print data instead of lines.
    #[arg(long)]
    pub json: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}
