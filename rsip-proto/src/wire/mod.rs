//! Bytes to values and back (RFC 3103 sections 8 and 9). Knows no state.
//!
//! All integers are in network byte order (RFC 3103 does not say so; every implementation does it).
//!
//! # From bytes to a message, and back
//!
//! | step | module |
//! |---|---|
//! | a TCP stream is cut into messages by Overall Length; a datagram is one already | [`framer`] |
//! | header, and parameters as type, length, value | [`header`], `tlv` |
//! | each parameter's value | [`param`] (values), `codec` (their bytes) |
//! | which parameters a message has, how often, in which order: one table for both directions | [`table`] |
//! | a message's fields by name, and the message | `fields`, [`message`] |
//! | both ways through all of these | `parse` ([`Message::parse`]), `emit` ([`Message::encode`]) |
//! | what was wrong, and what a gateway answers to it | [`error`], [`error_code`] |
//! | one line for people | [`pretty`] |
//!
//! # What holds
//!
//! - Nothing here panics, whatever the bytes. What is allocated is bounded by the bytes that are there.
//! - What [`Message::parse`] accepts, [`Message::encode`] can write, and parsing that gives the same message. (But one-byte
//!   Indicators are written as two bytes, so a QUERY full of them may get longer than a message can be.)
//! - What [`Message::encode`] writes, [`Message::parse`] accepts, and gives the same message; except that a
//!   QUERY_REQUEST's tuples have no `local`, and that an `Other` value with a defined number comes back as what that
//!   number means.
//! - Which of several mistakes is reported does not depend on where in the message they stand.

mod codec;
mod emit;
pub mod error;
pub mod error_code;
mod fields;
pub mod framer;
pub mod header;
pub mod message;
mod numbered;
pub mod param;
mod parse;
pub mod pretty;
pub mod table;
mod tlv;

pub use error::{BadParam, EncodeError, ParseError, ParseErrorKind, Stage};
pub use error_code::ErrorCode;
pub use framer::{FrameError, FrameErrorKind, Framer};
pub use header::{HEADER_LEN, Header, MAX_MESSAGE_LEN, VERSION};
pub use message::{Body, Message};
pub use param::{Address, FlowPolicy, LocalPolicy, Ports, QueryTuple, RemotePolicy, RsipMethod, TunnelType};
pub use pretty::Pretty;
pub use table::{Field, MessageType, ParamType};
