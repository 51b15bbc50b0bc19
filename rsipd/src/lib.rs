//! The RSIP gateway daemon: the shell around [`rsip_proto::gateway::Gateway`].
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the command lines of `rsipd` and `rsipdctl` |
//! | [`config`] | the configuration file |
//! | [`plan`] | what the configuration means on this system |
//! | [`listener`] | bytes from hosts |
//! | [`datapath`] | packets of hosts |
//! | [`discovery`] | how hosts find the gateway |
//! | [`daemon`] | the event loop that owns the machine |
//! | [`control`] | what the administrator sees and asks |
//! | [`start`] | from a command line to a running daemon |
//!
//! No protocol decision is made here.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod datapath;
pub mod discovery;
mod journal;
pub mod listener;
pub mod plan;
pub mod signals;
pub mod start;
