//! The gateway's state machine.

pub mod command;
pub mod config;

pub use command::{Event, GatewayCommand, Peer, RemovalReason, Rule, Transport};
pub use config::GatewayConfig;
