//! Service Location Protocol, version 2 (RFC 2608) without IO, as far as RSIP needs it to find gateways (RFC 3105).
//!
//! # Layers
//!
//! | module | what it knows | what it does not know |
//! |---|---|---|
//! | [`wire`] | how messages look as bytes | what their strings mean |
//! | [`text`] | URLs, scopes, attributes, tags, predicates | messages |
//! | [`template`] | what RSIP gateways register | who asks |
//! | [`service`] | how to advertise a service | sockets, clocks |
//! | [`user`] | how to find services | sockets, clocks |
//!
//! # How an agent is driven
//!
//! Call a `handle_*` method, then call `next_command` until it answers `None` and carry each command out, then sleep until
//! `poll_timeout` or until the next message.
#![forbid(unsafe_code)]

pub mod agent;
mod exchange;
mod random;
pub mod service;
#[cfg(feature = "testing")]
pub mod strategies;
pub mod template;
pub mod text;
pub mod user;
pub mod wire;
