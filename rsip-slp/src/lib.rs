//! Service Location Protocol, version 2 (RFC 2608) without IO, as far as RSIP needs it to find gateways (RFC 3105).
//!
//! # Layers
//!
//! | module | what it knows | what it does not know |
//! |---|---|---|
//! | [`wire`] | how messages look as bytes | what their strings mean |
//! | [`text`] | URLs, scopes, attributes, tags, predicates | messages |
#![forbid(unsafe_code)]

#[cfg(feature = "testing")]
pub mod strategies;
pub mod text;
pub mod wire;
