//! Bytes to values and back (RFC 3103 sections 8 and 9). Knows no state.
//!
//! All integers are in network byte order (RFC 3103 does not say so; every implementation does it).

pub mod message;
pub mod param;

pub use message::{Body, Message};
pub use param::{
    Address, ErrorCode, FlowPolicy, LocalPolicy, Ports, QueryTuple, RemotePolicy, RsipMethod, TunnelType,
};
