//! RSIP (RFC 3102, RFC 3103) without IO: bytes in, values out, and two state machines that are plain values.
//!
//! # Layers
//!
//! | module | what it knows | what it does not know |
//! |---|---|---|
//! | [`wire`] | how messages and parameters look as bytes | who sent them, and when |
//! | [`pool`] | which public addresses and ports are free, held or resting | hosts, leases by time, messages |
//! | [`gateway`] | registrations, bindings, leases, policies, duplicates | sockets, data path, clocks |
//! | [`host`] | registration, bindings, renewals, retransmission | sockets, hooks, tunnel, clocks |
//!
//! # How the state machines are driven
//!
//! [`gateway::Gateway`] and [`host::Host`] take messages, results and the time (`now`), and give commands. The rule is:
//! call a `handle_*` method, then call `next_command` until it answers `None` and carry each command out, then sleep
//! until `poll_timeout` or until the next input. A command that changes the data path carries an [`ids::OpId`]; its
//! outcome comes back through `handle_done`, and only then is the peer (or the program) answered.
//!
//! # The invariant above all
//!
//! No two hosts hold the same (public address, port) at the same time, be it by port or with the whole address.
#![forbid(unsafe_code)]

pub mod gateway;
pub mod host;
pub mod ids;
pub mod lease;
pub mod pool;
#[cfg(feature = "testing")]
pub mod strategies;
pub mod wire;
