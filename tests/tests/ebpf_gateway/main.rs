//! The gateway's programs, packet by packet: what comes in, what the program answers, what goes out.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod both;
mod gre;
mod harness;
mod inward;
mod misuse;
mod mtu;
mod outward;
mod portless;
mod remote;
mod whole;
