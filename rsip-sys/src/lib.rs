//! What both daemons need of the operating system, and nothing of RSIP.
//!
//! | module | for |
//! |---|---|
//! | [`rundir`] | the run directory, its single-instance lock, atomic files |
//! | [`config`] | what is wrong with a configuration file, and where |
//! | [`control`] | control socket: one JSON line each way |
//! | [`logging`] | log set-up |
//! | [`service`] | what a service manager is told |
//! | [`exit`] | exit codes and the one line that says why |
//! | [`bpf`] | which eBPF programs run for a cgroup, asked of the kernel |
//! | [`manual`] | manual pages and shell completions |
//! | [`caps`] | the capabilities that a daemon needs |
//! | [`netns`] | which network namespace this is |
//! | [`bpflink`], [`bpffs`] | links that are exchanged in place; where eBPF objects are pinned |
//! | [`cgroup`] | the root of the cgroup v2 tree |
//! | [`netlink`] | interfaces, addresses, routes, rules |
//! | [`sysctl`] | network sysctls |
//! | [`tc`] | the eBPF object, and its programs on interfaces |

pub mod bpf;
pub mod bpffs;
pub mod bpflink;
pub mod caps;
pub mod cgroup;
pub mod config;
pub mod control;
pub mod exit;
pub mod logging;
pub mod manual;
pub mod netlink;
pub mod netns;
pub mod rundir;
pub mod service;
pub mod sysctl;
pub mod tc;
