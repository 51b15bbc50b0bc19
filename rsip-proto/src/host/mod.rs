//! The host's state machine.

pub mod command;
pub mod config;

pub use command::{BindingKind, DenyReason, HostBinding, HostCommand, WithdrawReason};
pub use config::HostConfig;
