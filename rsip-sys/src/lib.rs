//! What both daemons need of the operating system, and nothing of RSIP.
//!
//! | module | for |
//! |---|---|
//! | [`rundir`] | the run directory, its single-instance lock, atomic files |
//! | [`control`] | control socket: one JSON line each way |
//! | [`logging`] | log set-up |
//! | [`exit`] | exit codes and the one line that says why |

pub mod control;
pub mod exit;
pub mod logging;
pub mod rundir;
