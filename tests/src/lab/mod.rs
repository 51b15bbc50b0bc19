//! Guards for everything that a test starts. See the crate's documentation for the map.

pub mod apache;
pub mod capture;
pub mod error;
pub mod exec;
pub mod link;
pub mod mountns;
pub mod netns;
pub mod process;
pub mod snapshot;
pub mod topology;
pub mod wait;

pub use error::{LabError, Result};
pub use topology::{Host, Lab};
