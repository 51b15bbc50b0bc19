//! The gateway machine from outside, as dialogues with virtual time: an input, then the exact list of commands, then the
//! next wake-up. At the end: properties over random dialogues.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod addresses;
mod bindings;
mod checks;
mod duplicates;
mod effects;
mod ending;
mod leases;
mod listen;
mod misuse;
mod model;
mod order;
mod policies;
mod properties;
mod registration;
mod resync;
mod rig;
mod steps;
mod whole;
