//! The gateway's state machine (RFC 3103 sections 6, 9, 10 and appendix D).
//!
//! A [`Gateway`] is a value. Its shell gives it what comes in and carries out what it says:
//!
//! ```text
//!   handle_input, handle_disconnect ---+                 +--> Send, Close        to hosts
//!   handle_done(op, outcome) ----------+--> [ Gateway ] -+--> Install, Remove    to the data path, answered by handle_done
//!   handle_timeout at poll_timeout ----+                 +--> Event              to the log and the counters
//!   release_*, shutdown ---------------+
//! ```
//!
//! After each call the shell drains [`Gateway::next_command`], in order. Requests that change the data path are answered
//! after `handle_done` for their operation, never before: a host that reads a response can rely on what it says.
//!
//! | file | what |
//! |---|---|
//! | [`command`], [`config`], [`view`] | the interface |
//! | `request` | the checks that every request goes through, and answers |
//! | `policy`, `query` | what may be asked for, and what is local: no state |
//! | `grant`, `ending` | how registrations and bindings begin and end |
//! | `client`, `binding` | what is known of hosts and of bindings |
//! | `lease_timer` | what ends when |
//! | `replay`, `limit` | duplicates, and how many errors a source may cause |
//!
//! RSA-IP (a whole address for one host) is optional and not offered: ASSIGN_REQUEST_RSA-IP gets 208.

mod binding;
mod client;
pub mod command;
pub mod config;
mod ending;
mod grant;
mod lease_timer;
mod limit;
pub mod misuse;
mod policy;
mod query;
mod replay;
mod request;
pub mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

pub use command::{Event, GatewayCommand, InstallFailed, Peer, RemovalReason, Rule, Transport};
pub use config::{GatewayConfig, RemoteDeny};
pub use misuse::Misuse;
pub use view::{BindingState, BindingView, ClientState, ClientView, GatewayView, PoolView, TransportKind};

use crate::ids::{ClientId, OpId};
use crate::pool::{Pool, PoolError};
use binding::{BindingKey, Bindings, Phase};
use client::Clients;
use ending::Departure;
use lease_timer::Timers;
use limit::ErrorLimiter;
use replay::Replay;

/// A gateway that leases addresses and ports to hosts.
pub struct Gateway {
    config: GatewayConfig,
    pool: Pool,
    clients: Clients,
    bindings: Bindings,
    /// Which binding an operation under way is about.
    ops: BTreeMap<OpId, BindingKey>,
    last_op: u64,
    departures: BTreeMap<ClientId, Departure>,
    timers: Timers,
    replay: Replay,
    limiter: ErrorLimiter,
    commands: VecDeque<GatewayCommand>,
    stopping: bool,
}

impl Gateway {
    /// A gateway with which nobody is registered. `seed` must be hard to guess: client IDs come from it.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if the pool makes no sense.
    pub fn new(config: GatewayConfig, seed: u64) -> Result<Self, PoolError> {
        Ok(Self {
            pool: Pool::new(&config.pool)?,
            config,
            clients: Clients::new(seed),
            bindings: Bindings::default(),
            ops: BTreeMap::new(),
            last_op: 0,
            departures: BTreeMap::new(),
            timers: Timers::default(),
            replay: Replay::default(),
            limiter: ErrorLimiter::default(),
            commands: VecDeque::new(),
            stopping: false,
        })
    }

    /// The outcome of an Install or Remove. An `op` that is not under way is ignored.
    pub fn handle_done(&mut self, op: OpId, result: Result<(), InstallFailed>, now: Instant) {
        self.expire(now);
        let Some(key) = self.ops.remove(&op) else { return };
        let Some(binding) = self.bindings.get(key) else { return };
        match binding.phase.clone() {
            Phase::Installing(then) => self.installed(key, then, result, now),
            Phase::Removing { reply, reason } => self.removed(key, reply, reason, result, now),
            Phase::Active | Phase::Stuck { .. } => {}
        }
    }

    /// To be called at [`Gateway::poll_timeout`]; at any other time it does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
    }

    /// What to do next; `None` until something else comes in.
    pub fn next_command(&mut self) -> Option<GatewayCommand> {
        self.commands.pop_front()
    }

    /// When [`Gateway::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether the data path holds nothing of ours any more, and no outcome is awaited.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.bindings.is_empty()
    }

    fn next_op(&mut self, key: BindingKey) -> OpId {
        self.last_op += 1;
        let op = OpId(self.last_op);
        self.ops.insert(op, key);
        op
    }
}
