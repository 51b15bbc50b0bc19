//! The gateway's state machine (RFC 3103 appendix D and section 6).

pub mod command;
pub mod config;
pub mod view;

use std::collections::VecDeque;
use std::time::Instant;

pub use command::{Event, GatewayCommand, InstallFailed, Peer, RemovalReason, Rule, Transport};
pub use config::GatewayConfig;
pub use view::{BindingState, BindingView, ClientState, ClientView, GatewayView, PoolView, TransportKind};

use crate::ids::{BindId, ClientId, OpId};
use crate::pool::{Pool, PoolError};

/// A gateway that leases addresses and ports to hosts.
pub struct Gateway {
    pool: Pool,
    commands: VecDeque<GatewayCommand>,
}

impl Gateway {
    /// A gateway with which nobody is registered. `seed` must be hard to guess: client IDs come from it.
    ///
    /// # Errors
    ///
    /// [`PoolError`] if the pool makes no sense.
    pub fn new(config: GatewayConfig, _seed: u64) -> Result<Self, PoolError> {
        Ok(Self { pool: Pool::new(&config.pool)?, commands: VecDeque::new() })
    }

    /// Exactly one message, as it came.
    pub fn handle_input(&mut self, _from: Peer, _bytes: &[u8], _now: Instant) {}

    /// A TCP connection is gone. The registration stays (leases rule).
    pub fn handle_disconnect(&mut self, _connection: u64, _now: Instant) {}

    /// The outcome of an Install or Remove.
    pub fn handle_done(&mut self, _op: OpId, _result: Result<(), InstallFailed>, _now: Instant) {}

    /// Call at [`Gateway::poll_timeout`].
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Ends every registration; nobody registers any more.
    pub fn shutdown(&mut self, _now: Instant) {}

    /// Ends a registration by the administrator's will. False if there is none of this name.
    pub fn release_client(&mut self, _client_id: ClientId, _now: Instant) -> bool {
        false
    }

    /// Ends a binding by the administrator's will. False if there is none of this name.
    pub fn release_bind(&mut self, _client_id: ClientId, _bind_id: BindId, _now: Instant) -> bool {
        false
    }

    /// Whether the data path holds nothing any more and no outcome is awaited.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        true
    }

    /// What to do next.
    pub fn next_command(&mut self) -> Option<GatewayCommand> {
        self.commands.pop_front()
    }

    /// When to call [`Gateway::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The state, for people.
    #[must_use]
    pub fn view(&self, now: Instant) -> GatewayView {
        GatewayView { clients: Vec::new(), departing: Vec::new(), pool: self.pool.usage(now).collect() }
    }
}
