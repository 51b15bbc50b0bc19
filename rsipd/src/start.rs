//! From a command line to a running daemon.
//!
//! The order is the promise: everything that can be wrong is found before the first program is attached, and attaching
//! is the last step that can fail. So a start that fails leaves the network as it was.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rsip_proto::gateway::Gateway;
use rsip_sys::caps::{self, Need};
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::Netlink;
use rsip_sys::rundir::{self, RunDir};
use rsip_sys::tc::EbpfError;
use rsip_sys::{control as socket, logging};
use tokio::sync::mpsc;

use crate::cli::RsipdOptions;
use crate::config::{Config, ConfigError};
use crate::control::{PROGRAM, STATUS_FILE};
use crate::daemon::{Context, Daemon, DaemonError, Sources};
use crate::datapath::ebpf::EbpfDatapath;
use crate::datapath::{Datapath as _, DatapathError};
use crate::discovery::Discovery;
use crate::listener::{self, Audience, Sockets, tcp};
use crate::plan::{Plan, System};
use crate::signals;

/// The programs of the data path; empty when they were not built.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rsip-gateway"));

/// Calls that wait for the machine, at most.
const CALLS: usize = 4;
/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// `rsipd run`.
///
/// # Errors
/// Why it did not start, or did not end cleanly; carries the exit code.
pub async fn run(options: RsipdOptions) -> anyhow::Result<()> {
    let config = Config::read(&options.config).map_err(ConfigError::into_failure)?;
    let level = options.log_level.as_deref().unwrap_or(&config.settings.log_level);
    let log = logging::init(level).map_err(|error| {
        let by_environment = std::env::var_os(logging::ENVIRONMENT).is_some_and(|given| !given.is_empty());
        let what = if by_environment { logging::ENVIRONMENT } else { "--log-level" };
        Failure::new(ExitCode::Usage, what).why(error.to_string())
    })?;
    require_capabilities(config.settings.port)?;
    let run_dir = claim_run_dir(options.run_dir)?;
    // From here on a signal to stop is kept until the loop runs.
    let signals = signals::listen().context("cannot catch signals")?;
    let netlink = Netlink::open()?;
    let plan = Plan::new(&config, &System::observe(&netlink).await?).map_err(ConfigError::into_failure)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    // Not the seed of client IDs: transaction IDs tell what they came from.
    let slp_seed = seed()?;
    let gateway = Gateway::new(plan.gateway.clone(), seed()?).map_err(|error| {
        Failure::new(ExitCode::Config, config.file.display().to_string()).why(error.to_string())
    })?;
    let loaded = EbpfDatapath::load(OBJECT, &plan.site).map_err(datapath_failure)?;
    let sockets = Sockets::bind(plan.listen, Some(&plan.site.internal.name))
        .map_err(listener::ListenError::into_failure)?;

    let (calls_in, calls) = mpsc::channel(CALLS);
    let _control = socket::serve(&run_dir.control_socket(), calls_in)
        .with_context(|| format!("cannot serve {}", run_dir.control_socket().display()))?;
    let datapath = loaded.attach(netlink, &plan.site).await.map_err(datapath_failure)?;

    // Nobody is heard before the data path is in place.
    let (inputs_in, inputs) = mpsc::channel(listener::WAITING);
    let wanted = tcp::Limits::new(&config.settings);
    let limits = wanted.capped(descriptors());
    if limits.total < wanted.total {
        tracing::warn!(
            "MAX_CONNECTIONS {} becomes {}, which is what the process may have: raise its limit of open files \
             (LimitNOFILE=, `ulimit -n`)",
            wanted.total,
            limits.total
        );
    }
    let udp = sockets.serve(inputs_in, limits, Audience::Hosts { not: plan.strangers.clone().into() });
    tracing::info!(
        listening = %plan.listen,
        internal = plan.site.internal.name,
        external = plan.site.external.name,
        pool = ?plan.site.pool,
        datapath = datapath.name(),
        "ready"
    );
    let status_file = run_dir.path().join(STATUS_FILE);
    let context = Context {
        config,
        log: options.log_level.is_none().then_some(log),
        default_status_file: status_file.clone(),
        listening: plan.listen,
        // Last: who finds the gateway may come at once.
        discovery: plan.discovery.map(|setup| Discovery::start(setup, slp_seed)),
    };
    Daemon::new(gateway, datapath, udp, Sources { inputs, calls, signals }, context).run().await.map_err(
        |error| match error {
            DaemonError::Datapath(error) => datapath_failure(error),
            DaemonError::Deaf => {
                Failure::new(ExitCode::Failure, error.to_string()).hint("please report this")
            }
        },
    )?;
    // Where it was written, it tells of leases that are no more.
    drop(std::fs::remove_file(status_file));
    Ok(())
}

/// `rsipd check`: every problem and warning on a line of its own; answers whether there was no problem.
///
/// # Errors
/// When the system cannot be looked at.
pub async fn check(options: &RsipdOptions) -> anyhow::Result<bool> {
    let system = System::observe(&Netlink::open()?).await?;
    let checked = Config::read(&options.config).and_then(|config| Plan::new(&config, &system));
    match checked {
        Ok(plan) => {
            for warning in plan.warnings {
                eprintln!("{PROGRAM}: warning: {warning}");
            }
            writeln!(std::io::stdout(), "{}: good", options.config.display())?;
            Ok(true)
        }
        Err(error) => {
            for line in error.lines() {
                eprintln!("{PROGRAM}: {line}");
            }
            Ok(false)
        }
    }
}

/// `rsipd show-config`.
///
/// # Errors
/// What is wrong with the configuration.
pub fn show_config(options: &RsipdOptions) -> anyhow::Result<()> {
    let config = Config::read(&options.config).map_err(ConfigError::into_failure)?;
    std::io::stdout().write_all(config.settings.to_toml().as_bytes())?;
    Ok(())
}

fn require_capabilities(port: u16) -> Result<(), Failure> {
    let mut needs = vec![Need::NETWORK, Need::BPF];
    if port < 1024 {
        needs.push(Need::LOW_PORTS);
    }
    caps::require(&needs).map_err(|error| {
        Failure::new(ExitCode::Missing, error.to_string())
            .hint("run as root, or grant them (AmbientCapabilities=)")
    })
}

fn claim_run_dir(wanted: Option<PathBuf>) -> Result<RunDir, Failure> {
    let path = match wanted {
        Some(path) => Ok(path),
        None => rundir::default_path(PROGRAM),
    };
    path.and_then(|path| RunDir::claim(&path)).map_err(rundir::RunDirError::into_failure)
}

fn datapath_failure(error: DatapathError) -> Failure {
    let what = error.to_string();
    match error {
        // Its own words say what to do.
        DatapathError::Ebpf(EbpfError::NotBuilt) => Failure::new(ExitCode::Missing, what),
        DatapathError::Ebpf(EbpfError::Load(source)) => {
            missing_feature(Failure::new(ExitCode::Missing, what), &*source)
        }
        DatapathError::Ebpf(EbpfError::Program { source, .. } | EbpfError::Attach { source, .. }) => {
            missing_feature(Failure::new(ExitCode::Missing, what), &*source)
        }
        _ => Failure::new(ExitCode::Failure, what),
    }
}

/// Adds what the kernel itself said, which hides at the end of the chain.
fn missing_feature(failure: Failure, source: &dyn std::error::Error) -> Failure {
    let causes = std::iter::successors(source.source(), |cause| cause.source());
    let why: Vec<String> = causes.map(ToString::to_string).collect();
    let failure = if why.is_empty() { failure } else { failure.why(why.join(": ")) };
    failure.hint("the eBPF data path needs Linux 5.10 or newer with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF")
}

/// From the kernel, since client IDs must be hard to guess.
fn seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(u64::from_ne_bytes(bytes))
}

/// How many connections the process may have, after its limit was raised as far as it may.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, hard)| {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        }
    });
    usize::try_from(limit.saturating_sub(OTHER_DESCRIPTORS)).unwrap_or(usize::MAX)
}
