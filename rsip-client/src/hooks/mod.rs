//! The programs that see bind(), connect() and close(), and the maps through which they are told what to do.
//!
//! [`PortTable`] is what the agent's decisions need of them; [`ebpf::EbpfHooks`] is the real thing, and [`any::Hooks`] lets
//! the agent do without (`--no-hooks`).

pub mod any;
mod btf;
pub mod ebpf;
pub mod layout;
mod links;
pub mod pins;
mod room;
mod rules;
mod trial;
pub mod wait;

use rsip_ebpf_common::host;
use rsip_sys::tc::EbpfError;

/// Something about the hooks does not work.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// Object, programs, attachment.
    #[error(transparent)]
    Ebpf(#[from] EbpfError),
    /// A map does not take or give a value.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Which map.
        name: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// `--wait=park…`, and there is no such way to park.
    #[error("this kernel cannot restart a waiting bind(): {0}")]
    CannotPark(String),
    /// Something cannot be pinned.
    #[error("cannot pin: {0}")]
    Pin(std::io::Error),
    /// The event ring cannot be waited for.
    #[error("cannot wait for events: {0}")]
    Events(std::io::Error),
}

/// The verdict per port, and who waits for one.
pub trait PortTable {
    /// From now on this is the verdict on a port.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    fn set_port(&mut self, port: u16, verdict: host::Port) -> Result<(), HooksError>;

    /// Whoever waits for this port finds a verdict now: the next one who has to wait asks again.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    fn answered(&mut self, port: u16) -> Result<(), HooksError>;

    /// Ports that somebody waits for, or waited for until a moment ago.
    ///
    /// # Errors
    ///
    /// The map does not give them.
    fn waiting(&self) -> Result<Vec<u16>, HooksError>;

    /// How many sockets the programs count on a port.
    ///
    /// # Errors
    ///
    /// The map does not give it.
    fn uses(&self, port: u16) -> Result<u32, HooksError>;
}
