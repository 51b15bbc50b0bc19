//! The command lines.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use rsip_sys::manual::Shell;

use crate::config::DEFAULT_PATH;

const RSIPD_EXAMPLES: &str = "\
Examples:
  rsipd check                          is /etc/rsip/rsipd.conf right, and does it fit this system?
  rsipd                                run in the foreground with /etc/rsip/rsipd.conf
  rsipd run --config ./rsipd.conf --log-level debug
  ip netns exec gw rsipd --config gw.conf
  rsipdctl dump                        who has leased what

Signals:  TERM, INT  de-register all hosts and end      HUP  read the configuration again
          USR1       write the status file
Exit codes:  0 ok   1 failed   2 usage   5 missing capability or kernel feature   6 already running
             78 configuration";

const RSIPDCTL_EXAMPLES: &str = "\
Examples:
  rsipdctl dump                        one row for each binding
  rsipdctl dump --json | jq .counters
  rsipdctl release 17                  end the registration of client 17, with all its bindings
  rsipdctl release 10.0.0.2/3          end binding 3 of the host 10.0.0.2
  ip netns exec gw rsipdctl status     the daemon of another network namespace";

/// RSIP gateway: leases public addresses and ports to private hosts, and forwards their packets.
#[derive(Debug, Parser)]
#[command(name = "rsipd", version, after_help = RSIPD_EXAMPLES)]
pub struct Rsipd {
    /// What to do; nothing: run.
    #[command(subcommand)]
    pub command: Option<RsipdCommand>,
    /// What holds for all of it.
    #[command(flatten)]
    pub options: RsipdOptions,
}

/// What `rsipd` can do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RsipdCommand {
    /// Run in the foreground.
    Run,
    /// Say what is wrong with the configuration, and what of it does not fit this system.
    Check,
    /// Print the configuration with all defaults filled in.
    ShowConfig,
    /// Print the completions for a shell.
    #[command(after_help = "Examples:\n  rsipd completions bash > /etc/bash_completion.d/rsipd")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages.
    #[command(after_help = "Examples:\n  rsipd man --output /usr/local/share/man/man8")]
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// Options of `rsipd`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RsipdOptions {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "RSIPD_CONFIG", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Where lock and control socket are [default: /run/rsipd, in other network namespaces /run/rsipd/netns-INODE].
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Log level, in place of LOG_LEVEL [off, error, warn, info, debug, trace].
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// Looks at and controls a running rsipd.
#[derive(Debug, Parser)]
#[command(name = "rsipdctl", version, after_help = RSIPDCTL_EXAMPLES)]
pub struct Rsipdctl {
    /// What to do.
    #[command(subcommand)]
    pub command: RsipdctlCommand,
    /// Run directory of the daemon [default: /run/rsipd, in other network namespaces /run/rsipd/netns-INODE].
    #[arg(long, global = true, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Print JSON in place of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `rsipdctl` can do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RsipdctlCommand {
    /// The leases, one row for each binding; with --json the whole state, counters included.
    Dump,
    /// The registered hosts.
    Clients,
    /// The bindings, and whether the data path holds them.
    Binds,
    /// Use of the public addresses.
    Pool,
    /// The daemon and what it counted.
    Status,
    /// End a registration or a binding; the host is told.
    Release {
        /// CLIENT or CLIENT/BIND, by client ID or private address, and bind ID.
        #[arg(value_name = "CLIENT[/BIND]")]
        target: Target,
    },
    /// End the daemon, and wait until it is gone.
    Stop,
    /// Print the completions for a shell.
    #[command(after_help = "Examples:\n  rsipdctl completions bash > /etc/bash_completion.d/rsipdctl")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages.
    #[command(after_help = "Examples:\n  rsipdctl man --output /usr/local/share/man/man8")]
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

/// Which client, by whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientName {
    /// Client ID.
    Id(u32),
    /// Private address.
    Host(std::net::Ipv4Addr),
}

/// What to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose.
    pub client: ClientName,
    /// Which binding; nothing: all, and the registration.
    pub bind: Option<u32>,
}

/// A target that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("write CLIENT or CLIENT/BIND, for example 17, 17/3 or 10.0.0.2/3")]
pub struct BadTarget;

impl std::str::FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (client, bind) = match text.split_once('/') {
            Some((client, bind)) => (client, Some(bind.parse().map_err(|_| BadTarget)?)),
            None => (text, None),
        };
        let client = client
            .parse()
            .map(ClientName::Id)
            .or_else(|_| client.parse().map(ClientName::Host))
            .map_err(|_| BadTarget)?;
        Ok(Self { client, bind })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_lines_are_consistent() {
        Rsipd::command().debug_assert();
        Rsipdctl::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_or_after_the_command_or_without() {
        for line in [
            &["rsipd", "--config", "x"][..],
            &["rsipd", "run", "--config", "x"],
            &["rsipd", "--config", "x", "run"],
        ] {
            let parsed = Rsipd::try_parse_from(line).unwrap();
            assert_eq!(parsed.options.config, PathBuf::from("x"));
            assert!(matches!(parsed.command, None | Some(RsipdCommand::Run)));
        }
    }

    #[test]
    fn targets() {
        let target = |text: &str| text.parse::<Target>().ok();
        assert_eq!(target("17"), Some(Target { client: ClientName::Id(17), bind: None }));
        assert_eq!(target("17/3"), Some(Target { client: ClientName::Id(17), bind: Some(3) }));
        let host = ClientName::Host([10, 0, 0, 2].into());
        assert_eq!(target("10.0.0.2/3"), Some(Target { client: host, bind: Some(3) }));
        for bad in ["", "/", "17/", "/3", "-1", "host", "1/2/3", "4294967296"] {
            assert_eq!(target(bad), None, "{bad}");
        }
    }
}
