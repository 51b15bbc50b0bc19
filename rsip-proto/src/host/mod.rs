//! The host's state machine (RFC 3103 appendix D, with LISTEN, EXTEND and asynchronous messages added from the text).

pub mod command;
pub mod config;
pub mod resume;
pub mod view;

use std::collections::VecDeque;
use std::time::Instant;

pub use command::{
    BindingKind, DenyReason, HostBinding, HostCommand, InstallFailed, RegistrationChange, WithdrawReason,
};
pub use config::{HostConfig, HostTransport};
pub use resume::{SavedBinding, SavedState};
pub use view::{BindingState, BindingView, GatewayState, HostView, PendingView};

use crate::ids::{BindId, OpId};
use crate::wire::Message;

/// A host that leases addresses and ports from one gateway.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    saved: SavedState,
    commands: VecDeque<HostCommand>,
    stopped: bool,
}

impl Host {
    /// A host that is not registered. Nothing happens before [`Host::start`].
    #[must_use]
    pub fn new(config: HostConfig, now: Instant) -> Self {
        Self::resume(config, SavedState::default(), now)
    }

    /// A host that goes on where an earlier run of the agent ended. Nothing happens before [`Host::start`]. Bindings
    /// that the gateway confirms are given by `Publish`, as if they were new, each without a `Verdict`.
    #[must_use]
    pub fn resume(config: HostConfig, saved: SavedState, _now: Instant) -> Self {
        Self { config, saved, commands: VecDeque::new(), stopped: false }
    }

    /// What the shell should keep for [`Host::resume`].
    #[must_use]
    pub fn saved(&self) -> SavedState {
        self.saved.clone()
    }

    /// Connects, registers and leases the block.
    pub fn start(&mut self, _now: Instant) {
        self.commands.push_back(HostCommand::Connect);
    }

    /// The transport that `Connect` asked for is open.
    pub fn handle_transport_up(&mut self, _now: Instant) {}

    /// The transport could not be opened, or was lost. For UDP an error that passes (ICMP port unreachable) is none.
    pub fn handle_transport_down(&mut self, _now: Instant) {}

    /// A message from the gateway. The shell drops silently what it cannot parse.
    pub fn handle_message(&mut self, _message: Message, _now: Instant) {}

    /// The outcome of `Publish`. After `Err` nothing of the binding is in use.
    pub fn handle_done(&mut self, _op: OpId, _result: Result<(), InstallFailed>, _now: Instant) {}

    /// To be called when [`Host::poll_timeout`] is reached; calling it early does no harm.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// A program binds this port: answered by one `Verdict`, shared by all who wait for the port.
    pub fn want_port(&mut self, port: u16, _now: Instant) {
        self.commands.push_back(HostCommand::Verdict { port, outcome: Err(DenyReason::Unreachable) });
    }

    /// No program uses this port any more.
    pub fn release_port(&mut self, _port: u16, _now: Instant) {}

    /// The administrator wants this port: answered by one `Verdict`; once granted it is kept until [`Host::unlisten`].
    pub fn listen(&mut self, port: u16, now: Instant) {
        self.want_port(port, now);
    }

    /// The administrator does not want this port any more; it is given back once no program uses it either.
    pub fn unlisten(&mut self, _port: u16, _now: Instant) {}

    /// One more block of ephemeral ports.
    pub fn want_block(&mut self, _now: Instant) {}

    /// Nobody uses this block any more.
    pub fn release_block(&mut self, _bind_id: BindId, _now: Instant) {}

    /// Takes everything out of use and leaves the gateway; ends with `Stopped`, within two seconds.
    pub fn shutdown(&mut self, _now: Instant) {
        self.stopped = true;
        self.commands.push_back(HostCommand::Stopped);
    }

    /// The next thing to do; `None`: all done until the next input.
    pub fn next_command(&mut self) -> Option<HostCommand> {
        self.commands.pop_front()
    }

    /// When [`Host::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The state, for people.
    #[must_use]
    pub fn view(&self, _now: Instant) -> HostView {
        HostView {
            gateway: if self.stopped { GatewayState::Stopped } else { GatewayState::Idle },
            client_id: self.saved.client_id,
            lease_time: None,
            lease_left: None,
            flow_policy: None,
            methods: Vec::new(),
            tunnel_types: Vec::new(),
            block_size: self.config.block_size,
            bindings: Vec::new(),
            pending: Vec::new(),
        }
    }
}
