//! The way from the command line to a serving agent. Everything that can be wrong with the machine or the arguments is
//! found before the gateway is spoken to, and nothing of the host's network is changed before it has answered.

use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rsip_proto::host::{Host, HostConfig, SavedState};
use rsip_proto::lease::Remote;
use rsip_proto::wire::TunnelType;
use rsip_sys::caps::{self, CapabilityError, Need};
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::{Netlink, NetlinkError, Watch};
use rsip_sys::netns::{self, NetNs, NetNsError};
use rsip_sys::rundir::{self, RunDir, RunDirError};
use rsip_sys::service::Service;
use rsip_sys::tc::Method;
use rsip_sys::{control, logging};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::complaints::Complaints;
use super::effects::{Effects, Parts};
use super::ephemeral::Ephemeral;
use super::failure::{self, EffectError};
use super::holders::Holders;
use super::listeners::Listeners;
use super::network::Way;
use super::report::transport_name;
use super::trouble::Trouble;
use super::wants::Wants;
use super::{Agent, Settings, Stage, choice, served};
use crate::book::Book;
use crate::cli::{OnTimeout, PrivilegedPorts, Up};
use crate::clock;
use crate::ephemeral::planner::Planner;
use crate::hooks::any::Hooks;
use crate::hooks::pins::{self, Pins};
use crate::recovery;
use crate::rules::set::RuleSet;
use crate::state::{State, Terms};
use crate::tunnel::device::DeviceError;
use crate::tunnel::kernel;
use crate::tunnel::kind::DeviceKind;
use crate::tunnel::path::{self, Path, PathError};
use crate::tunnel::{self, Options, TunnelError};
use crate::usage::Usage;
use crate::usage::diag::Snapshot;

/// What the agent must be allowed to do, with hooks and without.
pub(crate) const NEEDS: [Need; 4] = [Need::NETWORK, Need::BPF, Need::TRACING, Need::SIGNALS];
const NEEDS_WITHOUT_PROGRAMS: [Need; 1] = [Need::NETWORK];
const NEEDS_WITHOUT_HOOKS: [Need; 3] = [Need::NETWORK, Need::BPF, Need::TRACING];
/// What it takes to undo what a dead agent left.
pub const NEEDS_TO_UNDO: [Need; 1] = [Need::NETWORK];
/// The program's name: run directory, exit line.
pub const PROGRAM: &str = "rsip-client";

/// Events and calls on their way to the agent; who sends more waits.
pub(super) const QUEUE: usize = 64;
/// With `--persist`: how often the way to the gateway is looked for.
const PATH_RETRY: Duration = Duration::from_secs(1);
/// How long the kernel may take to clean up after a killed agent.
const DYING: Duration = Duration::from_secs(5);
/// An answer to the last caller is written before the process ends.
pub(super) const FAREWELL: Duration = Duration::from_millis(50);

/// `rsip-client up`.
///
/// # Errors
///
/// A [`Failure`] with its exit code.
pub async fn up(arguments: Up) -> anyhow::Result<()> {
    if let Err(error) = logging::init(&arguments.log_level) {
        return Err(Failure::new(ExitCode::Usage, "--log-level").why(error.to_string()).into());
    }
    let kernel = arguments.tunnel_device == DeviceKind::Kernel;
    let needs: &[Need] = match (arguments.no_hooks, kernel) {
        (false, _) => &NEEDS,
        (true, false) => &NEEDS_WITHOUT_HOOKS,
        (true, true) => &NEEDS_WITHOUT_PROGRAMS,
    };
    require_capabilities(needs)?;
    if arguments.no_hooks && kernel && arguments.remote.is_some() {
        return Err(Failure::new(ExitCode::Usage, "--remote")
            .why("without any program nothing keeps this host's packets to one peer")
            .hint("leave out --no-hooks, or use --tunnel-device ebpf")
            .into());
    }
    let directory = run_directory(arguments.run_dir.path.as_deref())?;
    let ground = Ground { run_dir: claim(&directory)?, netns_cookie: netns_cookie(arguments.no_hooks)? };
    match arguments.gateway {
        Some(gateway) => {
            let patience = (!arguments.persist).then_some(arguments.timeout);
            serve(&arguments, gateway, patience, &ground).await
        }
        None => choice::serve_found(&arguments, &ground).await,
    }
}

/// What is ours before the gateway is known, and stays so whichever it will be.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The run directory.
    pub(crate) run_dir: RunDir,
    /// The network namespace (SO_NETNS_COOKIE).
    pub(crate) netns_cookie: u64,
}

/// Registers at a gateway and serves until told to stop; fails where the gateway cannot be used within `patience` (`None`:
/// as long as it takes). Restores the host in any case.
///
/// # Errors
///
/// A [`Failure`] with its exit code.
pub(crate) async fn serve(
    arguments: &Up,
    gateway: SocketAddrV4,
    patience: Option<Duration>,
    ground: &Ground,
) -> anyhow::Result<()> {
    let mut signals = [listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?];
    let directory = ground.run_dir.path().to_owned();
    let netns_cookie = ground.netns_cookie;
    let places = if arguments.no_hooks { Vec::new() } else { served::places(&arguments.cgroup)? };
    let kernel = arguments.tunnel_device == DeviceKind::Kernel;
    if !kernel {
        check_tun()?;
    }
    let served = Snapshot::take().map_err(|error| {
        missing(&error, "the kernel needs CONFIG_INET_DIAG and CONFIG_INET_UDP_DIAG")
            .context("cannot list sockets by sock_diag")
    })?;
    let forced = Method::forced().map_err(|e| Failure::new(ExitCode::Usage, e.to_string()))?;
    let netlink = Netlink::open().map_err(|error| Failure::new(ExitCode::Failure, error.to_string()))?;
    let Some(path) = find_path(&netlink, arguments, gateway, patience, &mut signals).await? else {
        return Ok(());
    };
    let wait = (!arguments.no_hooks).then_some(arguments.wait);
    let tunnels = usable_tunnels(&netlink, arguments).await?;
    let previous = previous_state(&netlink, &directory, netns_cookie, gateway).await?;
    let needs_programs = !(arguments.no_hooks && kernel);
    let pins = match needs_programs.then(|| Pins::open(netns_cookie)) {
        None => None,
        Some(Ok(pins)) => Some(pins),
        Some(Err(error)) => {
            tracing::warn!(%error, "nothing is pinned: hooks and tunnel will end with the agent");
            None
        }
    };
    let hooks = Hooks::load(wait, !kernel, pins).map_err(|error| failure::hooks_failure(&error))?;
    match hooks.waiting_way() {
        Some(waiting) => tracing::info!(way = %waiting.way, why = waiting.why, "binds wait"),
        None => tracing::info!("no hooks: binds and connects are not looked at"),
    }

    let transport = transport_name(arguments.transport.into()).to_owned();
    let resumed = previous.is_some();
    let mut state = previous.unwrap_or_else(|| {
        let mut state = State::new(netns_cookie, gateway, transport.clone());
        state.served_before = served.through(None).servers(Ipv4Addr::UNSPECIFIED).collect();
        state.served_before.sort_unstable();
        state.served_before.dedup();
        state
    });
    let settings = settings(arguments, gateway, patience);
    let terms = Terms {
        method: settings.method.to_string(),
        remote: settings.remote.to_string(),
        tunnel: arguments.tunnel.map_or_else(Terms::any_tunnel, |kind| TunnelType::from(kind).to_string()),
    };
    if (&state.transport, &state.terms) != (&transport, &terms) {
        // A registration keeps its transport for life (RFC 3103 section 5), and its bindings what they were asked for: this
        // will be another one.
        state.registration = crate::state::Registration::default();
        state.transport = transport;
        state.terms = terms;
    }
    let way = Way::resumed(state.private_address);
    let public = state.registration.address();
    let now = clock::now();
    let saved = SavedState::from(&state.registration);
    let host = if resumed {
        Host::resume(host_config(arguments, tunnels), saved, now)
    } else {
        Host::new(host_config(arguments, tunnels), now)
    };
    let (to_agent, from_transport) = mpsc::channel(QUEUE);
    let (call_sender, calls) = mpsc::channel(QUEUE);
    let watch = Watch::open().map_err(|error| Failure::new(ExitCode::Failure, error.to_string()))?;
    let control = control::serve(&ground.run_dir.control_socket(), call_sender)
        .with_context(|| format!("cannot serve {}", ground.run_dir.control_socket().display()))?;
    let cgroups = served::managed(places, &state, arguments.no_hooks);
    let agent = Agent {
        usage: Usage::new(arguments.linger, now),
        stage: Stage::Starting { until: settings.start_timeout.map(|timeout| now + timeout) },
        effects: Effects::new(Parts {
            netlink,
            hooks,
            book: Book::new(rules(arguments, &state)?),
            state,
            path,
            cgroups,
            gateway: *gateway.ip(),
            interface: arguments.interface.clone(),
            private_nets: arguments.private_net.clone(),
            remote: settings.remote,
            directory,
            options: Options { forced, mtu: arguments.mtu.map(u32::from), kernel },
            bind_timeout: settings.bind_timeout,
            allow_on_timeout: settings.allow_on_timeout,
            privileges_are_leased: arguments.privileged_ports == PrivilegedPorts::Leased,
        }),
        settings,
        host,
        transport: None,
        transports: 0,
        to_agent,
        from_transport,
        calls,
        signals,
        watch,
        wants: Wants::default(),
        listeners: Listeners::default(),
        trouble: Trouble::default(),
        tick: now,
        network_changed: None,
        resumed,
        unreachable_told: false,
        complaints: Complaints::default(),
        ephemeral: Ephemeral::new(Planner::new(arguments.blocks(), arguments.linger)),
        path_mtu: None,
        holders: Holders::default(),
        service: Service::default(),
        way,
        public,
        abandoned: false,
        done: false,
    };
    let outcome = agent.run().await;
    tokio::time::sleep(FAREWELL).await;
    drop(control);
    outcome
}

/// The rules of the command line; after a crash as they were changed while the last agent ran.
fn rules(arguments: &Up, state: &State) -> anyhow::Result<RuleSet> {
    let configured = arguments.rules.set();
    let set = match &state.rules {
        None => configured,
        Some(saved) => {
            let rules: Result<Vec<_>, _> = saved.rules.iter().map(|rule| rule.parse()).collect();
            match rules {
                Ok(rules) => {
                    tracing::info!(
                        rules = saved.rules.len(),
                        "rules as they were changed while the last agent ran"
                    );
                    RuleSet::new(rules, saved.policy)
                }
                Err(error) => {
                    tracing::warn!(%error, "the rules of the last agent cannot be read any more");
                    configured
                }
            }
        }
    };
    set.map_err(|error| Failure::new(ExitCode::Usage, error.to_string()).into())
}

pub(super) fn listen_for(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}

/// Claims the run directory. A process that was killed holds its lock until the kernel has closed its descriptors, which
/// takes a moment with programs among them; whoever restarts it at once is not to be told that it runs. Blocks.
///
/// # Errors
///
/// An agent runs, or what the file system says.
pub fn claim(directory: &FilePath) -> anyhow::Result<RunDir> {
    let deadline = Instant::now() + DYING;
    loop {
        match RunDir::claim(directory) {
            Ok(run_dir) => return Ok(run_dir),
            Err(RunDirError::AlreadyRunning { pid: Some(pid), .. })
                if is_dying(pid) && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(error.into_failure().into()),
        }
    }
}

/// A process lets go of its program before it closes its descriptors.
fn is_dying(pid: i32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    program.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Checks what the agent must be allowed to do.
///
/// # Errors
///
/// Names what is missing.
pub fn require_capabilities(needs: &[Need]) -> anyhow::Result<()> {
    caps::require(needs).map_err(|error| {
        let failure = Failure::new(ExitCode::Missing, error.to_string());
        match error {
            CapabilityError::Missing(_) => failure.hint("run as root"),
            CapabilityError::Unknown(_) => failure,
        }
        .into()
    })
}

/// The run directory by argument or by network namespace.
///
/// # Errors
///
/// /proc does not tell the namespace.
pub fn run_directory(given: Option<&FilePath>) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None => Ok(rundir::default_path(PROGRAM).map_err(RunDirError::into_failure)?),
    }
}

/// The name of the network namespace, which never comes again. Kernels before 5.14 have none: there the inode must do, which
/// is good enough to tell a state file's namespace where nothing in the kernel compares it.
///
/// # Errors
///
/// The kernel tells neither, or hooks need the cookie.
pub fn netns_cookie(no_hooks: bool) -> anyhow::Result<u64> {
    match netns::cookie() {
        Ok(cookie) => Ok(cookie),
        Err(NetNsError::Cookie(_)) if no_hooks => {
            Ok(NetNs::current().map_err(|error| missing(&error, "mount /proc"))?.inode)
        }
        Err(error) => Err(missing(&error, "needs Linux 5.18 or later, or --no-hooks")),
    }
}

fn missing(error: &dyn std::error::Error, hint: &'static str) -> anyhow::Error {
    Failure::new(ExitCode::Missing, super::describe(error)).hint(hint).into()
}

/// Found before the gateway is asked for anything.
fn check_tun() -> anyhow::Result<()> {
    match OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(ExitCode::Missing, "cannot open /dev/net/tun")
            .why(error.to_string())
            .hint("the kernel needs CONFIG_TUN, and the device file must exist")
            .into()),
    }
}

/// `None`: told to stop meanwhile.
async fn find_path(
    netlink: &Netlink,
    arguments: &Up,
    gateway: SocketAddrV4,
    patience: Option<Duration>,
    signals: &mut [Signal; 2],
) -> anyhow::Result<Option<Path>> {
    let mut told = false;
    loop {
        let found = path::find(netlink, *gateway.ip(), arguments.interface.as_deref()).await;
        let error = match found {
            Ok(path) => return Ok(Some(path)),
            Err(error) => error,
        };
        let may_come = matches!(
            error,
            PathError::NoRoute(_)
                | PathError::DeadEnd(_)
                | PathError::Down(_)
                | PathError::OtherInterface { .. }
                | PathError::Netlink(NetlinkError::NoSuchInterface(_))
        );
        if patience.is_some() || !may_come {
            return Err(failure::path_failure(error));
        }
        if !told {
            tracing::warn!(%error, "waiting for the network");
            told = true;
        }
        let [terminate, interrupt] = signals;
        tokio::select! {
            _ = terminate.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
            () = tokio::time::sleep(PATH_RETRY) => {}
        }
    }
}

/// What a predecessor that crashed has left: its registration is taken over if it was at the same gateway, and with it
/// hooks, tunnel and rules, if they are at work; everything else of it is undone.
async fn previous_state(
    netlink: &Netlink,
    directory: &FilePath,
    netns_cookie: u64,
    gateway: SocketAddrV4,
) -> anyhow::Result<Option<State>> {
    let state = recovery::load(directory, netns_cookie)?;
    match state {
        Some(state) if state.gateway == gateway => {
            if !pins::are_left(netns_cookie) {
                let cleaned = tunnel::remove_leftovers(netlink, state.private_interface.as_deref()).await;
                cleaned.map_err(|error: TunnelError| failure::failure(EffectError::Tunnel(error)))?;
            }
            tracing::info!("going on where the last agent ended");
            Ok(Some(state))
        }
        Some(state) => {
            tracing::info!(old = %state.gateway, new = %gateway, "another gateway: undoing what the last agent left");
            recovery::undo(&state, netlink, directory).await?;
            Ok(None)
        }
        None => recovery::remove_unknown(netlink, netns_cookie).await.map(|()| None),
    }
}

fn settings(arguments: &Up, gateway: SocketAddrV4, patience: Option<Duration>) -> Settings {
    Settings {
        gateway,
        transport: arguments.transport.into(),
        method: arguments.method.into(),
        remote: arguments.remote.unwrap_or(Remote::Any),
        query: !arguments.no_query,
        hooks: !arguments.no_hooks,
        block: arguments.blocks().size,
        first_blocks: arguments.blocks().first,
        blocks: arguments.blocks().most,
        listen: arguments.listen.clone(),
        allow_on_timeout: arguments.on_timeout == OnTimeout::Allow,
        bind_timeout: arguments.bind_timeout,
        start_timeout: patience,
    }
}

/// Tunnel types that this host can have: with one of the kernel's own devices, those that the kernel has.
async fn usable_tunnels(netlink: &Netlink, arguments: &Up) -> anyhow::Result<Vec<TunnelType>> {
    let mut wanted = arguments.tunnels();
    if arguments.tunnel_device != DeviceKind::Kernel {
        return Ok(wanted);
    }
    let mut lacking = None;
    for kind in std::mem::take(&mut wanted) {
        let has = kernel::has(netlink, kind).await;
        if has.map_err(|error| failure::failure(EffectError::Tunnel(error.into())))? {
            wanted.push(kind);
        } else {
            lacking.get_or_insert(kind);
        }
    }
    match lacking {
        Some(kind) if wanted.is_empty() => {
            Err(failure::failure(EffectError::Tunnel(DeviceError::Unsupported(kind).into())))
        }
        _ => Ok(wanted),
    }
}

fn host_config(arguments: &Up, tunnels: Vec<TunnelType>) -> HostConfig {
    let defaults = HostConfig::default();
    HostConfig {
        transport: arguments.transport.into(),
        method: arguments.method.into(),
        remote: arguments.remote.unwrap_or(Remote::Any),
        tunnels,
        block_size: arguments.blocks().size,
        lease_wish: arguments.lease.map(|seconds| Duration::from_secs(seconds.into())),
        // The program must hear the reason, not the end of its patience.
        request_timeout: defaults.request_timeout.min(arguments.bind_timeout.mul_f64(0.6)),
        ..defaults
    }
}
