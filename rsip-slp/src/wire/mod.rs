//! How messages look as bytes (RFC 2608 section 8): [`Message::parse`], [`Message::encode`], and [`Framer`] for streams.
//!
//! All numbers are big-endian. Extensions and authentication blocks are checked for their form and passed over: this
//! agent has no keys.

mod emit;
mod error_code;
mod framer;
pub mod message;
mod parse;
mod reader;

pub use emit::EncodeError;
pub use error_code::ErrorCode;
pub use framer::{Broken, Framer};
pub use message::{Body, Flags, Function, Message};
pub use parse::{Header, ParseError, ParseErrorKind};

/// The version that this crate speaks.
pub const VERSION: u8 = 2;
/// UDP and TCP port of all agents.
pub const PORT: u16 = 427;
/// The Administratively Scoped SLP Multicast address (RFC 2608 section 6.1).
pub const GROUP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(239, 255, 255, 253);
/// The time to live of what is multicast, unless configured otherwise.
pub const MULTICAST_TTL: u32 = 255;
/// Bytes of a datagram, UDP and IP headers not counted, unless configured otherwise (RFC 2608 section 6.1).
pub const DATAGRAM_LIMIT: usize = 1400;

/// Where the length stands in the header.
const LENGTH_AT: usize = 2;
/// The greatest length of a message.
const MAX_LENGTH: u32 = 0x00ff_ffff;
/// Bytes of the header without its language tag.
const HEADER_LENGTH: usize = 14;
