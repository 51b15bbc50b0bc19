//! Guards for everything that a test starts. See the crate's documentation for the map.

pub mod agent;
pub mod apache;
pub mod arp;
pub mod binaries;
pub mod capture;
pub mod error;
pub mod exec;
pub mod gateway;
pub mod interrupt;
pub mod link;
pub mod manual;
pub mod mountns;
pub mod netns;
pub mod pins;
pub mod probe;
pub mod process;
pub mod server;
pub mod slp;
pub mod snapshot;
pub mod soak;
pub mod swarm;
pub mod system;
pub mod talk;
pub mod topology;
pub mod wait;

pub use error::{LabError, Result};
pub use topology::{Host, Lab};
