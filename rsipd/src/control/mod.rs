//! What the administrator sees and asks while the daemon runs.

pub mod table;
pub mod view;

/// Name of the program, of its run directory, and of the status file's stem.
pub const PROGRAM: &str = "rsipd";
/// The status file in the run directory, unless `STATUS_FILE` says otherwise.
pub const STATUS_FILE: &str = "rsipd.status";
