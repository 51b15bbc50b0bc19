//! The gateway lets itself be found (RFC 3105): the shell around [`rsip_slp::service::ServiceAgent`].
//!
//! ```text
//!            ┌──► a daemon of this host listens at 127.0.0.1:427 ──► it gets the registration and does the rest
//!   probe ───┤                                                          │ gone, or has forgotten
//!     ▲      └──► nobody does ──► port 427 of the internal interface ◄──┘
//!     └──────────────────────────────┘ a daemon came, or the port cannot be had
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`status`] | what the administrator sees of it |
//! | [`load`] | how busy the gateway says it is |
//! | `probe` | whether a daemon listens |
//! | `session` | the event loop that owns the agent |
//! | `sockets` | datagrams, on the internal interface and nowhere else |
//! | `streams` | connections, likewise |
//!
//! Nothing here is needed to serve hosts that know their gateway: whatever fails is logged and tried again.

pub mod load;
mod probe;
mod session;
mod sockets;
pub mod status;
mod streams;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_slp::service::{Role, ServiceConfig};
use rsip_slp::template::{self, Load};
use rsip_slp::text::{AttributeError, AttributeList, ScopeList};
use rsip_slp::wire::PORT;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use session::{End, Session};
use sockets::Sockets;
use status::{Mode, Status};

/// What cannot be had now may be had later.
const AGAIN: Duration = Duration::from_secs(60);
/// A daemon that does not answer may be starting anew.
const PAUSE: Duration = Duration::from_secs(5);
/// Registrations get so long to be taken back.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Where daemons listen for the programs of their host.
const DAEMON: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);

/// What is advertised, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The internal interface: nothing is sent or heard elsewhere. Nothing in tests alone.
    pub device: Option<String>,
    /// The gateway's address on it.
    pub address: Ipv4Addr,
    /// The broadcast address of its network there, if it has one.
    pub broadcast: Option<Ipv4Addr>,
    /// Where to listen: 427.
    pub port: u16,
    /// Where a daemon may listen: port 427 of loopback.
    pub daemon: SocketAddrV4,
    /// All addresses of the gateway.
    pub own: Vec<Ipv4Addr>,
    /// Port of the RSIP service.
    pub service_port: u16,
    /// Tunnels on offer, in RFC 3105's words.
    pub tunnel_types: Vec<String>,
    /// `SLP_SCOPES`.
    pub scopes: ScopeList,
    /// `SLP_DA`.
    pub directories: Vec<Ipv4Addr>,
    /// `SLP_LIFETIME`, seconds.
    pub lifetime: u16,
    /// How often is looked whether a daemon has come, has gone or has forgotten.
    pub probe_interval: Duration,
}

impl Setup {
    /// The setup of a gateway that is found at `service` on `device`, in the default scope.
    #[must_use]
    pub fn new(device: &str, service: SocketAddrV4, tunnel_types: Vec<String>) -> Self {
        Self {
            device: Some(device.to_owned()),
            address: *service.ip(),
            broadcast: None,
            port: PORT,
            daemon: DAEMON,
            own: vec![*service.ip()],
            service_port: service.port(),
            tunnel_types,
            scopes: ScopeList::default_scope(),
            directories: Vec::new(),
            lifetime: 3600,
            probe_interval: AGAIN,
        }
    }

    fn attributes(&self, load: Load) -> Result<AttributeList, AttributeError> {
        template::attributes(self.tunnel_types.iter().map(String::as_str), load)
    }

    fn service(&self, role: Role, load: Load) -> Result<ServiceConfig, AttributeError> {
        let url = template::url(self.address, self.service_port);
        Ok(ServiceConfig {
            scopes: self.scopes.clone(),
            lifetime: self.lifetime,
            ..ServiceConfig::rsip(url, self.attributes(load)?, role)
        })
    }

    /// The part of an agent that is alone.
    fn alone(&self) -> Role {
        // SAAdverts name the first.
        let others = self.own.iter().copied().filter(|own| *own != self.address);
        let addresses = std::iter::once(self.address).chain(others).collect();
        Role::Alone { addresses, directories: self.directories.clone() }
    }
}

/// The gateway is being advertised.
#[derive(Debug)]
pub struct Discovery {
    load: watch::Sender<Load>,
    stop: watch::Sender<bool>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Discovery {
    /// Begins, in a task of its own. `seed` should differ from host to host.
    #[must_use]
    pub fn start(setup: Setup, seed: u64) -> Self {
        let (load, loads) = watch::channel(Load::default());
        let (stop, stops) = watch::channel(false);
        let (statuses, status) = watch::channel(Status::new(Mode::Starting));
        let task = tokio::spawn(Task { setup, seed, loads, stops, statuses, told: String::new() }.run());
        Self { load, stop, status, task }
    }

    /// The gateway is so busy now.
    pub fn set_load(&self, load: Load) {
        self.load.send_if_modified(|before| std::mem::replace(before, load) != load);
    }

    /// What is being done.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Takes the registrations back, as far as that can be done soon.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        let abort = self.task.abort_handle();
        if timeout(FAREWELL * 2, self.task).await.is_err() {
            abort.abort();
        }
    }
}

struct Task {
    setup: Setup,
    seed: u64,
    loads: watch::Receiver<Load>,
    stops: watch::Receiver<bool>,
    statuses: watch::Sender<Status>,
    /// The last line in the log: what goes on and on is told once.
    told: String,
}

impl Task {
    async fn run(mut self) {
        loop {
            let pause = match self.session().await {
                Ok(End::Stop) => break,
                Ok(End::DaemonCame) => Duration::ZERO,
                Ok(End::DaemonForgot) => {
                    tracing::info!(daemon = %self.setup.daemon, "the SLP daemon has forgotten this gateway: registering again");
                    Duration::ZERO
                }
                Ok(End::DaemonGone) => {
                    self.failed(format!("the SLP daemon at {} does not answer", self.setup.daemon));
                    PAUSE
                }
                Err(problem) => {
                    self.failed(problem);
                    AGAIN
                }
            };
            tokio::select! {
                _ = self.stops.wait_for(|stop| *stop) => break,
                () = sleep(pause) => {}
            }
            self.seed = self.seed.wrapping_add(1);
        }
        self.statuses.send_replace(Status::new(Mode::Off));
    }

    fn failed(&mut self, problem: String) {
        let status = Status { problem: Some(problem.clone()), ..Status::new(Mode::Failed) };
        self.statuses.send_replace(status);
        if self.told != problem {
            tracing::warn!(problem, "hosts cannot find this gateway by SLP");
            self.told = problem;
        }
    }

    fn works(&mut self, how: &str) {
        if self.told != how {
            tracing::info!(address = %self.setup.address, how, "hosts can find this gateway by SLP");
            how.clone_into(&mut self.told);
        }
    }

    /// One life of the agent.
    async fn session(&mut self) -> Result<End, String> {
        let stop = async { self.stops.clone().wait_for(|stop| *stop).await.map(drop) };
        let daemon = tokio::select! {
            _ = stop => return Ok(End::Stop),
            found = probe::find(self.setup.daemon) => found,
        };
        let load = *self.loads.borrow_and_update();
        let (role, sockets) = match daemon {
            Some(way) => {
                let stream = way == probe::Way::Stream;
                (Role::Daemon { at: self.setup.daemon, stream }, Sockets::to_daemon())
            }
            None => (self.setup.alone(), Sockets::bind(&self.setup)),
        };
        let sockets = sockets.map_err(|error| error.to_string())?;
        let config = self.setup.service(role, load).map_err(|error| error.to_string())?;
        let session = Session::new(config, self.seed, &self.setup, daemon, sockets)
            .map_err(|error| error.to_string())?;
        if daemon.is_none() {
            self.works("it answers itself");
        }
        Ok(session.run(self).await)
    }
}
