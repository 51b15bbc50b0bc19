//! Ephemeral ports on demand: how many are needed, and which blocks are leased or given back for it.
//!
//! A port serves any number of TCP connections as long as each goes to another destination (address and port). So what is
//! needed is decided by the destination that has the most of them; by UDP sockets and sockets of bind(0), which take a port
//! each; and by nothing else.
//!
//! | file | what |
//! |---|---|
//! | [`tally`] | what is in use, by the kernel's own list, TIME_WAIT included |
//! | [`planner`] | what follows from it; pure, with virtual time |

pub mod planner;
pub mod tally;
