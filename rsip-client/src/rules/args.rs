//! The command line of `rsip-client rules`, and what `up` takes of rules.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::set::{ChangeError, RuleSet, by_port};
use super::{Action, Rule};
use crate::cli::{DEFAULT_IGNORES, RunDir};

/// Examples for `--help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client rules                                   # show them, with how many binds each has decided
  rsip-client rules add 'ignore 6010-6019'            # X11 forwarding stays private; as in 2002: I6010-6019
  rsip-client rules insert 1 'deny 25 tcp'            # nobody may bind port 25
  rsip-client rules add 'lease 80-443 program=apache2 user=root'
  rsip-client rules add 'ignore cgroup=/system.slice/printing.service'
  rsip-client rules policy ignore                     # what no rule names stays private
  rsip-client rules delete 2
  rsip-client rules replace rules.txt                 # a rule on each line

A rule is ACTION [PORTS] [tcp|udp] [program=NAME] [user=NAME] [cgroup=PATH]; ACTION is lease, ignore or deny, or its
letter (A, I, D) before the ports. The first rule that fits decides. Changes hold for binds from now on, until the agent
ends; the configuration file keeps rules.";

/// `rsip-client rules`.
#[derive(Clone, Debug, Args)]
pub struct Rules {
    /// What to do with them [default: list]
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Print data instead of a list.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}

/// What is done with the rules.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show them, with their numbers and how many binds each has decided.
    List,
    /// Add a rule after all others.
    Add {
        /// `ACTION [PORTS] [tcp|udp] [program=NAME] [user=NAME] [cgroup=PATH]`
        #[arg(required = true, value_name = "RULE")]
        rule: Vec<String>,
    },
    /// Put a rule before the one with this number.
    Insert {
        /// Counts from 1.
        #[arg(value_name = "NUMBER")]
        number: usize,
        /// As for `add`.
        #[arg(required = true, value_name = "RULE")]
        rule: Vec<String>,
    },
    /// Remove the rule with this number.
    Delete {
        /// Counts from 1.
        #[arg(value_name = "NUMBER")]
        number: usize,
    },
    /// Say what becomes of a bind that no rule fits.
    Policy {
        /// lease, ignore or deny.
        #[arg(value_name = "ACTION")]
        policy: Policy,
    },
    /// Remove all rules, also those that keep ssh and DHCP private; the policy stays.
    Flush,
    /// Put the rules of a file in the place of all others.
    Replace {
        /// A rule on each line; empty lines and what follows a # are passed over; `policy ACTION` sets the policy. `-`: standard
        /// input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// An action as an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The gateway is asked for the port.
    #[value(alias = "accept")]
    Lease,
    /// The bind passes without a lease.
    Ignore,
    /// The bind fails with EACCES.
    Deny,
}

impl From<Policy> for Action {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Lease => Self::Lease,
            Policy::Ignore => Self::Ignore,
            Policy::Deny => Self::Deny,
        }
    }
}

/// What `up` takes of rules.
#[derive(Clone, Debug, Args)]
pub struct RuleOptions {
    /// A rule about binds, as `'ignore 6010-6019'`, `'deny 25 tcp'` or `'lease 80 program=apache2'`; the first one that fits
    /// decides. May be given several times; `rsip-client rules --help` has more of them.
    #[arg(long = "rule", value_name = "RULE", value_parser = parse_rule)]
    pub rules: Vec<Rule>,
    /// What becomes of a bind that no rule fits.
    #[arg(long, value_enum, value_name = "ACTION", default_value = "lease")]
    pub policy: Policy,
    /// Let binds of these ports pass without a lease, beside 22, 67-68, 137-138, 1900, 5353 and 5355: `--rule 'ignore PORTS'`,
    /// after all rules. May be given several times.
    #[arg(long, value_name = "PORT[-PORT]", value_parser = super::text::ports)]
    pub ignore: Vec<RangeInclusive<u16>>,
    /// Let binds pass without a lease only as `--rule` and `--ignore` say.
    #[arg(long)]
    pub no_default_ignores: bool,
}

impl RuleOptions {
    /// The rules: those given, then what is ignored, then what a host needs on its private side.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub fn set(&self) -> Result<RuleSet, ChangeError> {
        let defaults = DEFAULT_IGNORES.into_iter().filter(|_| !self.no_default_ignores);
        let ignored = by_port(Action::Ignore, self.ignore.iter().cloned().chain(defaults));
        RuleSet::new(self.rules.iter().cloned().chain(ignored), self.policy.into())
    }
}

fn parse_rule(text: &str) -> Result<Rule, super::RuleError> {
    text.parse()
}
