//! The command line.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rsip_proto::host::{self, HostTransport};
use rsip_proto::lease::Remote;
use rsip_proto::wire::TunnelType;
use rsip_sys::netlink::Prefix;

use crate::bugreport::Bugreport;
use crate::config::Check;
use crate::discovery::args::{Discover, Search};
use crate::doctor::args::Doctor;
use crate::giveback::Free;
use crate::hooks::wait::Wish;
use crate::ping::args::Ping;
use crate::rules::args::{RuleOptions, Rules};
use crate::run::Run;
use crate::tunnel::kind::{DeviceKind, TunnelKind};

/// Ports that a host needs on its private side, and that no rule has to name: the administrator's way in, and protocols
/// that only make sense on the local network. A second host must not lose its address or its ssh because a first one has the
/// port. `--listen` leases them all the same.
pub const DEFAULT_IGNORES: [RangeInclusive<u16>; 6] = [
    22..=22,     // ssh
    67..=68,     // DHCP
    137..=138,   // NetBIOS names and datagrams
    1900..=1900, // SSDP
    5353..=5353, // multicast DNS
    5355..=5355, // LLMNR
];

/// More than all ports that are not reserved for servers cannot be leased.
const MOST_PORTS: i64 = 65_535 - 1023;
/// RSIP's port (RFC 3103 section 12).
const RSIP_PORT: u16 = 4555;

const EXIT_CODES: &str = "\
Exit codes:
  0 ok   1 failed while running   2 wrong command line   3 gateway out of reach, not RSIP, or none found
  4 refused by the gateway   5 missing capability or kernel feature   6 already running";

/// Lease a public address and ports from an RSIP gateway, and let unmodified programs use them.
#[derive(Debug, Parser)]
#[command(name = "rsip-client", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register, lease ports and serve this host until SIGTERM, SIGINT or `down`. Stays in the foreground.
    #[command(after_help = UP_EXAMPLES)]
    Up(Box<Up>),
    /// End the agent; where it is dead, restore the host and leave the gateway in its place.
    #[command(after_help = "Examples:\n  rsip-client down\n  ip netns exec hostA rsip-client down")]
    Down(RunDir),
    /// Show registration, leases, rules and hooks.
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        /// Print data instead of tables.
        #[arg(long)]
        json: bool,
        /// Show it again and again, every so many seconds, until Ctrl-C; with --json one object a line.
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
            value_parser = parse_positive_seconds)]
        watch: Option<Duration>,
        /// Where the agent is found.
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Lease ports now and keep them, whether a program uses them or not.
    #[command(
        after_help = "Examples:\n  rsip-client listen 80 443\n\nPrints one line per port; exits with 4 if one is refused."
    )]
    Listen(Ports),
    /// Let ports go again that `listen` keeps; one that a program uses stays until the program is done.
    #[command(after_help = "Examples:\n  rsip-client unlisten 443")]
    Unlisten(Ports),
    /// Say what is wrong with the configuration file.
    #[command(after_help = crate::config::CHECK_EXAMPLES)]
    Check(Check),
    /// Run a command whose programs are served by the agent, with all that it starts; for an agent with `--cgroup none`.
    #[command(after_help = crate::run::EXAMPLES)]
    Run(Run),
    /// Show or change the rules about which binds are asked for at the gateway, pass without a lease, or fail.
    #[command(after_help = crate::rules::args::EXAMPLES)]
    Rules(Rules),
    /// Look for gateways by SLP and print a line for each, the best first; exits with 3 if there is none.
    #[command(
        after_help = "Examples:\n  rsip-client discover\n  rsip-client discover --interface eth1 --scope LAB --json\n  rsip-client discover --da 10.0.0.9"
    )]
    Discover(Discover),
    /// Check one by one what can be wrong, and say what it means and what to do; works without an agent, too.
    #[command(after_help = crate::doctor::args::EXAMPLES)]
    Doctor(Box<Doctor>),
    /// Ask the gateway something that changes nothing, and measure how long it takes to answer.
    #[command(name = "ping-gateway", after_help = crate::ping::args::EXAMPLES)]
    PingGateway(Ping),
    /// Show who holds which leased port: program, process, since when.
    #[command(after_help = crate::held::EXAMPLES)]
    Ports(crate::held::Ports),
    /// Give leases back now, without waiting until nobody has used them for the linger time.
    #[command(after_help = crate::giveback::EXAMPLES)]
    Free(Free),
    /// Pack what somebody who is to help has to know: versions, settings, status, the doctor's findings. No secrets.
    #[command(after_help = crate::bugreport::EXAMPLES)]
    Bugreport(Bugreport),
    /// Print the completions for a shell.
    #[command(
        after_help = "Examples:\n  rsip-client completions bash > /etc/bash_completion.d/rsip-client\n  rsip-client completions zsh > /usr/local/share/zsh/site-functions/_rsip-client"
    )]
    Completions {
        /// The shell.
        shell: rsip_sys::manual::Shell,
    },
    /// Write the manual pages.
    #[command(after_help = "Examples:\n  rsip-client man --output /usr/local/share/man/man8")]
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "DIR")]
        output: PathBuf,
    },
}

const STATUS_EXAMPLES: &str = "\
Examples:
  rsip-client status
  rsip-client status --json | jq .leases
  rsip-client status --watch             # every 2 seconds
  rsip-client status --watch 0.5 --json | jq -c .counters";

const UP_EXAMPLES: &str = "\
Examples:
  rsip-client up                                       # the least busy gateway that SLP finds
  rsip-client up --gateway 10.0.0.1
  rsip-client up --gateway 10.0.0.1:4555 --transport udp --block 64 --linger 5
  rsip-client up --gateway 10.0.0.1 --listen 22 --ignore 6010 --ignore 8000-8099
  rsip-client up --gateway 10.0.0.1 --privileged-ports leased   # port 80 for a web server without root
  rsip-client up --gateway 10.0.0.1 --persist          # for a unit at boot: keep trying
  rsip-client up --gateway 10.0.0.1 --tunnel gre       # where the gateway offers several types
  rsip-client up --gateway 10.0.0.1 --method rsa-ip    # a whole public address, with all its ports
  rsip-client up --gateway 10.0.0.1 --no-hooks --ports 255 --listen 80   # no program is looked at
  rsip-client up --gateway 10.0.0.1 --remote 198.51.100.7:443   # for this peer alone (remote flow policy)

Exit codes: see `rsip-client --help`.";

/// Where a running agent is found.
#[derive(Clone, Debug, Args)]
pub struct RunDir {
    /// Run directory [default: /run/rsip-client, or /run/rsip-client/netns-INODE outside of the first network namespace]
    #[arg(long = "run-dir", value_name = "DIR", env = "RSIP_CLIENT_RUN_DIR")]
    pub path: Option<PathBuf>,
}

/// Ports by number.
#[derive(Clone, Debug, Args)]
pub struct Ports {
    /// Ports, each for TCP and UDP alike.
    #[arg(required = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}

/// Settings of the agent.
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// Take options from this file; those of the command line win [default: /etc/rsip/rsip-client.conf, where it is there]
    #[arg(long, value_name = "FILE", env = "RSIP_CLIENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// The gateway's private address, and its port if it is not 4555 [default: the least busy one that SLP finds]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = parse_gateway, env = "RSIP_GATEWAY")]
    pub gateway: Option<SocketAddrV4>,
    /// Without a gateway's address: which ones are looked for, and how.
    #[command(flatten)]
    pub search: Search,
    /// What carries RSIP.
    #[arg(long, value_enum, default_value = "tcp")]
    pub transport: Transport,
    /// What is leased: a whole address, or ports of one.
    #[arg(long, value_enum, default_value = "rsap-ip")]
    pub method: Method,
    /// The only peer that the lease is used with, both ways; a gateway with a remote flow policy demands it. Other public
    /// addresses cannot be reached then (EHOSTUNREACH).
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = parse_remote)]
    pub remote: Option<Remote>,
    /// Ephemeral ports to lease in one block, 1 to 255; 0: none, so that no program can connect to the public realm. Of no
    /// meaning with rsa-ip.
    #[arg(long, value_name = "COUNT", default_value_t = 255)]
    pub block: u8,
    /// Lease another block whenever three quarters of the ports are in use, up to so many blocks; blocks that are not needed are
    /// given back. The default is more than a gateway has. For example: --block 64 --blocks 8
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=65_535))]
    pub blocks: u16,
    /// Be the user-mode client: lease ports at start and confine the kernel's own choice of ports to them, but look at nobody's
    /// bind() or connect(). A server's port has to be named with --listen.
    #[arg(long)]
    pub no_hooks: bool,
    /// Ephemeral ports to lease at start, in blocks of at most 255 each; a number that does not divide is rounded up. Without
    /// hooks they are all that there will be.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["block", "blocks"], value_parser = clap::value_parser!(u16).range(..=MOST_PORTS))]
    pub ports: Option<u16>,
    /// The tunnel's type [default: the gateway's favourite]
    #[arg(long, value_enum)]
    pub tunnel: Option<TunnelKind>,
    /// What the tunnel is made of
    #[arg(long, value_enum, default_value = "auto")]
    pub tunnel_device: DeviceKind,
    /// Largest packet in the tunnel, as `1400`; never more than fits into the private network's [default: what fits]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(68..))]
    pub mtu: Option<u16>,
    /// Give a port back after nobody used it for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub linger: Duration,
    /// Let a bind() wait for the gateway's answer for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_positive_seconds)]
    pub bind_timeout: Duration,
    /// Fail if the first registration takes longer than so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_positive_seconds)]
    pub timeout: Duration,
    /// Do not fail if the gateway cannot be reached at start: keep trying.
    #[arg(long)]
    pub persist: bool,
    /// What a bind() gets for which no answer came in time: EADDRINUSE, or a port without a lease.
    #[arg(long, value_enum, default_value = "deny")]
    pub on_timeout: OnTimeout,
    /// How a bind() waits.
    #[arg(long, value_enum, default_value = "auto")]
    pub wait: Wish,
    /// Whether programs without CAP_NET_BIND_SERVICE may bind ports below 1024: those that are leased, or none.
    #[arg(long, value_enum, default_value = "no")]
    pub privileged_ports: PrivilegedPorts,
    /// Serve the programs of this cgroup (v2) and below only, as `/sys/fs/cgroup/system.slice`; may be given several times. `none`:
    /// only what `rsip-client run` starts [default: all]
    #[arg(long, value_name = "PATH|all|none", value_parser = parse_cgroup)]
    pub cgroup: Vec<CgroupChoice>,
    /// Lease this port at start and keep it, as `80` or `80,443`. May be given several times.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub listen: Vec<u16>,
    /// What is asked for, what passes, what fails.
    #[command(flatten)]
    pub rules: RuleOptions,
    /// Ask for leases of so many seconds [default: as the gateway likes]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub lease: Option<u32>,
    /// The interface towards the gateway [default: as the routing table says]
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Reach this network without the tunnel, though no route of its own leads there. May be given several times.
    #[arg(long, value_name = "CIDR", value_parser = parse_private_net)]
    pub private_net: Vec<Prefix>,
    /// Do not reach networks without the tunnel because the gateway calls them local (QUERY).
    #[arg(long)]
    pub no_query: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
    /// off, error, warn, info, debug, trace, or module=level,…; the variable RSIP_LOG wins.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Ephemeral ports are leased in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Ports in each.
    pub size: u8,
    /// So many at start.
    pub first: u16,
    /// So many at most.
    pub most: u16,
}

impl Up {
    /// Tunnel types that may be asked for.
    #[must_use]
    pub fn tunnels(&self) -> Vec<TunnelType> {
        match self.tunnel {
            Some(kind) => vec![kind.into()],
            None => vec![TunnelType::IpIp, TunnelType::Gre],
        }
    }

    /// What `--ports`, or `--block` and `--blocks`, come to.
    #[must_use]
    pub fn blocks(&self) -> Blocks {
        match self.ports {
            None => Blocks { size: self.block, first: 1, most: self.blocks },
            Some(ports) => {
                let first = ports.div_ceil(u8::MAX.into()).max(1);
                let size = u8::try_from(ports.div_ceil(first)).unwrap_or(u8::MAX);
                let most = if self.no_hooks { first } else { first.max(self.blocks) };
                Blocks { size, first, most }
            }
        }
    }
}

/// `--cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupChoice {
    /// The whole tree.
    All,
    /// No cgroup but those of `rsip-client run`.
    None,
    /// The cgroup with this folder.
    Folder(PathBuf),
}

/// `--transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// A block of ports for connections, and each port that a program binds by number; other hosts may have other ports of the
    /// address.
    RsapIp,
    /// A whole address: every port at once, ICMP and all other protocols. Nothing of it is kept from outside but by a
    /// firewall of this host.
    RsaIp,
}

impl From<Method> for host::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::RsapIp => Self::RsapIp,
            Method::RsaIp => Self::RsaIp,
        }
    }
}

/// `--privileged-ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrivilegedPorts {
    /// Each that the gateway leases: the lease is as good as the capability.
    Leased,
    /// None: bind() fails with EACCES, as without an agent, and the gateway is not asked.
    No,
}

/// `--on-timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnTimeout {
    /// EADDRINUSE.
    Deny,
    /// The bind passes; the port gets a lease when the gateway is back.
    Allow,
}

impl From<Transport> for HostTransport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

pub(crate) fn parse_gateway(text: &str) -> Result<SocketAddrV4, String> {
    let gateway = SocketAddrV4::from_str(text)
        .or_else(|_| Ipv4Addr::from_str(text).map(|address| SocketAddrV4::new(address, RSIP_PORT)))
        .map_err(|_| "not an IPv4 address, with or without :PORT".to_owned())?;
    let address = gateway.ip();
    if gateway.port() == 0 {
        return Err("port 0 is no port".to_owned());
    }
    if !is_one_machine(*address) {
        return Err(format!("{address} is not the address of one machine"));
    }
    Ok(gateway)
}

fn parse_remote(text: &str) -> Result<Remote, String> {
    let remote = SocketAddrV4::from_str(text)
        .map(Remote::Port)
        .or_else(|_| Ipv4Addr::from_str(text).map(Remote::Address))
        .map_err(|_| "not an IPv4 address, with or without :PORT".to_owned())?;
    if remote.port() == Some(0) {
        return Err("port 0 is no port".to_owned());
    }
    match remote.address() {
        Some(a) if a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback() => {
            Err(format!("{a} is not the address of one machine in the public realm"))
        }
        _ => Ok(remote),
    }
}

fn parse_cgroup(text: &str) -> Result<CgroupChoice, String> {
    match text {
        "all" => Ok(CgroupChoice::All),
        "none" => Ok(CgroupChoice::None),
        path if path.starts_with('/') => Ok(CgroupChoice::Folder(PathBuf::from(path))),
        other => Err(format!("{other:?} is neither all, nor none, nor the path of a folder")),
    }
}

fn parse_private_net(text: &str) -> Result<Prefix, String> {
    match text.parse()? {
        Prefix { length: 0, .. } => {
            Err("that is everything: nothing would be left for the tunnel".to_owned())
        }
        network => Ok(network),
    }
}

/// Whether something can listen there, and nothing else.
pub(crate) const fn is_one_machine(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
}

pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a number of seconds from 0 to 86400");
    let seconds: f64 = text.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= Duration::from_secs(86_400)).ok_or_else(bad)
}

pub(crate) fn parse_positive_seconds(text: &str) -> Result<Duration, String> {
    parse_seconds(text).and_then(|duration| {
        if duration < Duration::from_millis(100) { Err("at least 0.1 s".to_owned()) } else { Ok(duration) }
    })
}

#[cfg(test)]
mod tests;
