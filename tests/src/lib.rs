//! The lab: network namespaces on this machine as Rust values, and real programs that run in them.
//!
//! | module | what it is |
//! |---|---|
//! | [`lab::netns`], [`lab::mountns`] | a named network namespace, a private mount namespace; commands run inside |
//! | [`lab::link`] | virtual cables |
//! | [`lab::topology`] | [`lab::Lab`]: internet host, gateway, two private hosts (drawn there) |
//! | [`lab::exec`], [`lab::process`], [`lab::wait`] | programs that run and end in bounded time, with their output kept |
//! | [`lab::gateway`], [`lab::agent`] | `rsipd` and `rsip-client`, and what their control programs say |
//! | [`lab::system`] | both, running in a lab: what most tests start from |
//! | [`lab::apache`], [`lab::server`] | Debian's servers, with the configuration they are shipped with |
//! | [`lab::probe`] | a helper program with exactly the socket calls that a test wants |
//! | [`lab::slp`] | a stand-in for SLP programs of others, and SLP as tshark sees it |
//! | [`lab::snapshot`] | everything the kernel knows that a daemon might leave behind, compared before and after |
//! | [`lab::soak`] | binds without end, and what of the daemons grows with them |
//! | [`lab::arp`] | who answers on a link |
//! | [`lab::capture`] | packets of one leg, judged by tshark |
//!
//! Everything cleans up in `Drop`, also when a test panics. A lab that was killed with its owner is removed by the next
//! one. Nothing here touches the machine's own network: only namespaces that the lab made.
//!
//! The tests in `tests/` need root, and fail without it. Run them with `cargo xtask test`, which builds what they start.

pub mod bpf;
pub mod elf32;
pub mod lab;
