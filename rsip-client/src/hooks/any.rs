//! The hooks, or none of them: with `--no-hooks` nobody's bind() or connect() is looked at, and where the tunnel is a
//! device of the kernel's own, no eBPF at all is used.

use std::collections::BTreeSet;
use std::fs::File;
use std::future;

use rsip_ebpf_common::host::{self, Counter, Event};
use rsip_sys::netlink::{Link, Netlink, Prefix};
use rsip_sys::tc::{Attachment, EbpfError, Method};

use super::ebpf::{EbpfHooks, ProgramStatus};
use super::pins::Pins;
use super::wait::{Chosen, Wish};
use super::{HooksError, PortTable};
use crate::rules::compile::Compiled;

/// How far the agent goes into the kernel.
#[derive(Debug)]
pub enum Hooks {
    /// Programs on the cgroup and at the tunnel.
    Full(Box<EbpfHooks>),
    /// Programs at the tunnel alone (`--no-hooks`).
    TunnelOnly(Box<EbpfHooks>),
    /// No program (`--no-hooks`, and a tunnel device of the kernel's).
    None,
}

impl Hooks {
    /// Loads what is needed. Nothing is attached to any cgroup or interface.
    ///
    /// # Errors
    ///
    /// The object is missing, or the kernel lacks something that it needs.
    pub fn load(hooks: Option<Wish>, tunnel: bool, pins: Option<Pins>) -> Result<Self, HooksError> {
        match (hooks, tunnel) {
            (Some(wish), _) => Ok(Self::Full(Box::new(EbpfHooks::load(Some(wish), pins)?))),
            (None, true) => Ok(Self::TunnelOnly(Box::new(EbpfHooks::load(None, pins)?))),
            (None, false) => Ok(Self::None),
        }
    }

    /// Whether binds and connects are looked at.
    pub const fn are_on(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// The loaded object, where there is one.
    pub fn ebpf(&self) -> Option<&EbpfHooks> {
        match self {
            Self::Full(ebpf) | Self::TunnelOnly(ebpf) => Some(ebpf),
            Self::None => None,
        }
    }

    fn ebpf_mut(&mut self) -> Option<&mut EbpfHooks> {
        match self {
            Self::Full(ebpf) | Self::TunnelOnly(ebpf) => Some(ebpf),
            Self::None => None,
        }
    }

    /// How bind() waits, and why so; `None`: no bind waits.
    pub fn waiting_way(&self) -> Option<&Chosen> {
        self.ebpf().and_then(EbpfHooks::waiting_way)
    }

    /// See [`EbpfHooks::base_config`].
    pub fn base_config(&self, netns_cookie: u64) -> host::Config {
        self.ebpf().map_or_else(host::Config::default, |ebpf| ebpf.base_config(netns_cookie))
    }

    /// See [`EbpfHooks::set_config`].
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn set_config(&mut self, config: &host::Config) -> Result<(), HooksError> {
        self.ebpf_mut().map_or(Ok(()), |ebpf| ebpf.set_config(config))
    }

    /// Puts the cgroup programs on a cgroup, where there are any.
    ///
    /// # Errors
    ///
    /// The kernel refuses; those that were attached before stay until [`Hooks::detach`].
    pub fn attach(&mut self, cgroup: &File, name_of_cgroup: &str) -> Result<(), HooksError> {
        match self {
            Self::Full(ebpf) => ebpf.attach(cgroup, name_of_cgroup),
            Self::TunnelOnly(_) | Self::None => Ok(()),
        }
    }

    /// See [`EbpfHooks::beat`].
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn beat(&mut self) -> Result<(), HooksError> {
        self.ebpf_mut().map_or(Ok(()), EbpfHooks::beat)
    }

    /// See [`EbpfHooks::are_taken_over`].
    pub fn are_taken_over(&self) -> bool {
        self.ebpf().is_some_and(EbpfHooks::are_taken_over)
    }

    /// See [`EbpfHooks::verdicts`].
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn verdicts(&self) -> Result<Vec<(u16, host::Port)>, HooksError> {
        self.ebpf().map_or_else(|| Ok(Vec::new()), EbpfHooks::verdicts)
    }

    /// See [`EbpfHooks::replace_predecessor`].
    pub fn replace_predecessor(&mut self) {
        if let Some(ebpf) = self.ebpf_mut() {
            ebpf.replace_predecessor();
        }
    }

    /// Whether what is attached outlives the agent.
    pub fn are_pinned(&self) -> bool {
        self.ebpf().is_some_and(EbpfHooks::are_pinned)
    }

    /// Takes the cgroup programs off, and unpins everything.
    pub fn detach(&mut self) {
        if let Some(ebpf) = self.ebpf_mut() {
            ebpf.detach();
        }
    }

    /// See [`EbpfHooks::attach_outward`]. `None`: there are no programs.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn attach_outward(
        &mut self,
        netlink: &Netlink,
        tunnel: &Link,
        forced: Option<Method>,
    ) -> Result<Option<Attachment>, EbpfError> {
        match self.ebpf_mut() {
            Some(ebpf) => ebpf.attach_outward(netlink, tunnel, forced).await.map(Some),
            None => Ok(None),
        }
    }

    /// See [`EbpfHooks::attach_inward`]. `None`: there are no programs.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn attach_inward(
        &mut self,
        netlink: &Netlink,
        private: &Link,
        forced: Option<Method>,
    ) -> Result<Option<Attachment>, EbpfError> {
        match self.ebpf_mut() {
            Some(ebpf) => ebpf.attach_inward(netlink, private, forced).await.map(Some),
            None => Ok(None),
        }
    }

    /// See [`EbpfHooks::set_local`].
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn set_local(&mut self, wanted: BTreeSet<Prefix>) -> Result<(), HooksError> {
        self.ebpf_mut().map_or(Ok(()), |ebpf| ebpf.set_local(wanted))
    }

    /// Waits for events and takes what is there, up to a budget; without programs there never are any. Cancel safe.
    ///
    /// # Errors
    ///
    /// The ring cannot be waited for.
    pub async fn events(&mut self) -> Result<Vec<Event>, HooksError> {
        match self.ebpf_mut() {
            Some(ebpf) => ebpf.events().await,
            None => future::pending().await,
        }
    }

    /// See [`EbpfHooks::room_begun`].
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn room_begun(&self, slot: u32) -> Result<u32, HooksError> {
        self.ebpf().map_or(Ok(0), |ebpf| ebpf.room_begun(slot))
    }

    /// See [`EbpfHooks::set_room_over`].
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn set_room_over(&mut self, slot: u32, over: u32, tallied_ns: u64) -> Result<(), HooksError> {
        self.ebpf_mut().map_or(Ok(()), |ebpf| ebpf.set_room_over(slot, over, tallied_ns))
    }

    /// What the programs counted, over all CPUs.
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn counter(&self, counter: Counter) -> Result<u64, HooksError> {
        self.ebpf().map_or(Ok(0), |ebpf| ebpf.counter(counter))
    }

    /// See [`EbpfHooks::write_rules`].
    ///
    /// # Errors
    ///
    /// A map does not take it; what held before holds.
    pub fn write_rules(&mut self, compiled: &Compiled, now: u32) -> Result<u32, HooksError> {
        match self {
            Self::Full(ebpf) => ebpf.write_rules(compiled, now),
            Self::TunnelOnly(_) | Self::None => Ok(now),
        }
    }

    /// See [`EbpfHooks::rule_hits`].
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn rule_hits(&self, slot: u32) -> Result<u64, HooksError> {
        self.ebpf().map_or(Ok(0), |ebpf| ebpf.rule_hits(slot))
    }

    /// See [`EbpfHooks::empty_rule_hits`].
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn empty_rule_hits(&mut self, slot: u32) -> Result<(), HooksError> {
        self.ebpf_mut().map_or(Ok(()), |ebpf| ebpf.empty_rule_hits(slot))
    }

    /// See [`EbpfHooks::counts`].
    pub fn counts(&self, cookie: u64) -> bool {
        self.ebpf().is_some_and(|ebpf| ebpf.counts(cookie))
    }

    /// See [`EbpfHooks::detach_from`].
    pub fn detach_from(&mut self, cgroup: u64) {
        if let Some(ebpf) = self.ebpf_mut() {
            ebpf.detach_from(cgroup);
        }
    }

    /// The programs on a cgroup, as the kernel sees them; none where none are wanted.
    pub fn program_status(&self, cgroup: u64) -> Vec<ProgramStatus> {
        match self {
            Self::Full(ebpf) => ebpf.program_status(cgroup),
            Self::TunnelOnly(_) | Self::None => Vec::new(),
        }
    }
}

/// Without hooks nobody waits, and no verdict is needed.
impl PortTable for Hooks {
    fn set_port(&mut self, port: u16, verdict: host::Port) -> Result<(), HooksError> {
        match self {
            Self::Full(ebpf) => ebpf.set_port(port, verdict),
            Self::TunnelOnly(_) | Self::None => Ok(()),
        }
    }

    fn answered(&mut self, port: u16) -> Result<(), HooksError> {
        match self {
            Self::Full(ebpf) => ebpf.answered(port),
            Self::TunnelOnly(_) | Self::None => Ok(()),
        }
    }

    fn waiting(&self) -> Result<Vec<u16>, HooksError> {
        match self {
            Self::Full(ebpf) => ebpf.waiting(),
            Self::TunnelOnly(_) | Self::None => Ok(Vec::new()),
        }
    }

    fn uses(&self, port: u16) -> Result<u32, HooksError> {
        match self {
            Self::Full(ebpf) => ebpf.uses(port),
            Self::TunnelOnly(_) | Self::None => Ok(0),
        }
    }
}
