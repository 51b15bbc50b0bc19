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
//! | `policy`, `remote`, `query` | what may be asked for, with whom, and what is local: no state |
//! | `grant`, `assign`, `ending` | registrations and leases, how bindings begin, how all of them end |
//! | `client`, `binding` | what is known of hosts and of bindings |
//! | `lease_timer` | what ends when |
//! | `replay`, `limit` | duplicates, and how many errors a source may cause |
//! | [`misuse`] | data that a host may not send |
//!
//! # The order of the checks
//!
//! The RFC gives no order for a request with which several things are wrong, and an error names one of them (RFC 3103
//! section 9.1.1). Here the first that applies, from the top, is told; the sections are those of RFC 3103.
//!
//! | error | when | section |
//! |---|---|---|
//! | 207, 106 | no header of four bytes; a version other than 1 | 9, A |
//! | 207 | Overall Length is not that of the message | 9 |
//! | 206 | unknown message type, or a response (an ERROR_RESPONSE is never answered) | 9.1.3, A |
//! | 208 | ASSIGN_REQUEST_RSA-IP without `RSA_POOL`, LISTEN where it is off, RSIPSEC | A |
//! | 207 | the parameters do not end where the message does | A |
//! | 105 | no message counter over UDP | 10.1 |
//! | 204, 203, 202, 205, 201, 207 | parameters: unknown, misplaced, repeated, malformed, missing, out of order | A |
//! | 205 | the counter is 0, which is the gateway's own | 10.1 |
//! | silence | a duplicate: its answer again, or nothing while that is not known; an older datagram | 10.1 |
//! | 302 | REGISTER_REQUEST of a registered host | 9.2.3 |
//! | 304 | REGISTER_REQUEST while `MAX_CLIENTS` hosts are registered, or the gateway is going down | 9.2.3 |
//! | 301 | any other request of a host that is not registered, or registered over UDP and now speaking TCP | 9.4.3 and on |
//! | 102 | a request over UDP of a host that is registered over TCP | 5, A |
//! | 305 | not the host's client ID | 9.4.3 and on |
//! | 306 | EXTEND, FREE: not a binding of the host | 9.10.3, 9.12.3 |
//! | 205 | ASSIGN, LISTEN: a name as remote address under a remote policy | 8.1 |
//! | 307 | no tunnel type that the gateway has | 9.6.3, 9.8.3, 9.16.3 |
//! | 103 | local micro-flow policy: a whole address, or not exactly one port | 7.1, 9.6.3, 9.8.3, 9.16.3 |
//! | 103 | remote policy: the remote address (macro), or address and one port (micro), not named | 7.2, 9.6.3, 9.8.3, 9.16.3 |
//! | 314, 315 | remote macro, micro: a peer with whom nobody may talk | 9.6.3, 9.8.3, 9.16.3 |
//! | 308 | no public address has anything to give: no port, or for RSA-IP no address that is nobody's | 9.6.3, 9.8.3, 9.16.3 |
//! | 312 | the named address is not in the pool, or not leased in this way | 9.6.3, 9.8.3, 9.16.3 |
//! | 310 | the named address is leased whole; for RSA-IP: or ports of it are held. Also by the host itself | 9.6.3, 9.8.3, 9.16.3, 10.5 |
//! | 313 | a named port is reserved, or in no range | 9.8.3, 9.16.3 |
//! | 311 | a named port is held, at the named address or at each that could be had. Also by the host itself | 9.8.3, 9.16.3, 10.5 |
//! | 309 | not as many ports at any one address, also if it is one (all or nothing) | 9.8.3 |
//! | 309 | more ports than `MAX_PORTS_PER_CLIENT` | 11 |
//! | 308 | more whole addresses than `MAX_ADDRESSES_PER_CLIENT` | 11 |
//! | 104 | the data path could not do it | 10.4 |

mod assign;
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
mod remote;
mod replay;
mod request;
pub mod view;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
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
use query::LocalNets;
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
    local_nets: LocalNets,
    /// Who had which address whole last: an address of the pool each, so no more than there are.
    had_whole: BTreeMap<Ipv4Addr, Ipv4Addr>,
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
            local_nets: LocalNets::new(&config.private_nets),
            config,
            clients: Clients::new(seed),
            bindings: Bindings::default(),
            ops: BTreeMap::new(),
            last_op: 0,
            departures: BTreeMap::new(),
            timers: Timers::default(),
            replay: Replay::default(),
            limiter: ErrorLimiter::default(),
            had_whole: BTreeMap::new(),
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
