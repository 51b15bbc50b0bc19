//! The agent on a private host, as a library for its own binary and its tests.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`], [`calls`] | command line; the sub-commands that ask a running agent |
//! | [`config`] | the configuration file: options of `up` by their names |
//! | [`agent`] | the event loop around `rsip_proto::host`, and what it does to the host |
//! | [`hooks`] | the programs on bind(), connect() and close(), and their maps |
//! | [`discovery`] | which gateways there are: the user agent of SLP |
//! | [`doctor`] | what can be wrong, one thing after the other |
//! | [`ping`] | questions to a gateway that change nothing |
//! | [`held`], [`giveback`], [`watch`], [`bugreport`] | `ports`, `free`, `status --watch`, `bugreport` |
//! | [`tunnel`] | device, routes, rules; which addresses are left alone |
//! | [`ports`] | the kernel's own port choice, confined to what is leased |
//! | [`rules`] | the operator's rules: what is asked for, what passes, what fails |
//! | [`run`] | one program that is served, in a cgroup of its own |
//! | [`usage`] | when a port can be given back |
//! | [`transport`], [`farewell`] | the way to the gateway, TCP or UDP; ending a registration of an address that is left |
//! | [`clock`] | time that goes on while the machine is suspended |
//! | [`book`] | which binding holds which port |
//! | [`state`], [`recovery`] | what outlives a crash, and how it is undone |
//! | [`control`], [`status`] | what is said over the control socket |

pub mod agent;
pub mod book;
pub mod bugreport;
pub mod calls;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod discovery;
pub mod doctor;
pub mod ephemeral;
pub mod farewell;
pub mod giveback;
pub mod held;
pub mod hooks;
pub mod ping;
pub mod ports;
pub mod recovery;
pub mod rules;
pub mod run;
pub mod state;
pub mod status;
pub mod transport;
pub mod tunnel;
pub mod usage;
pub mod watch;
