//! What the agent does to the host: everything that has to be undone, in one place.
//!
//! [`Effects::sync`] makes the host what the book says. It looks at what is there, so that it may be called at any time. What
//! it changes is in `state.json` before it is changed.

pub(super) mod cgroups;
mod choice;
mod narrow;
mod rules;
mod sockets;
mod sync;
mod tunnel_kind;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use rsip_ebpf_common::host::{self, FLAG_PRIVILEGED, FLAG_TIMEOUT_ALLOW};
use rsip_proto::host::{BindingKind, HostBinding, SavedState};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::Remote;
use rsip_sys::netlink::{Netlink, Prefix};
use rsip_sys::rundir::RunDirError;

use self::cgroups::Managed;
use self::narrow::Narrow;
use self::rules::Written;
use self::sync::Synced;
pub use self::tunnel_kind::restore_arp;
use super::failure::EffectError;
use crate::book::Book;
use crate::doctor::arp;
use crate::hooks::any::Hooks;
use crate::hooks::ebpf::address_word;
use crate::hooks::wait::Way;
use crate::ports;
use crate::state::{Registration, State};
use crate::tunnel::direct::Direct;
use crate::tunnel::path::{self, Path, PathError};
use crate::tunnel::{Options, Tunnel, device, local};
use crate::usage::diag;

/// Poll so long in the hook before each restart of a system call: most answers of a near gateway come within it, and
/// the restarts stay few.
const PARK_POLL: Duration = Duration::from_micros(50);

/// The host's side of things.
#[derive(Debug)]
pub struct Effects {
    pub(super) netlink: Netlink,
    pub(super) hooks: Hooks,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) book: Book,
    /// Blocks that are out of the kernel's choice.
    pub(super) reserved: BTreeSet<(ClientId, BindId)>,
    pub(super) state: State,
    pub(super) path: Path,
    pub(super) cgroups: Vec<Managed>,
    config: host::Config,
    fixed: local::Fixed,
    written: Written,
    gateway: Ipv4Addr,
    interface: Option<String>,
    directory: PathBuf,
    options: Options,
    active: bool,
    /// Programs may take ephemeral ports.
    choosing: bool,
    /// So many ports are the kernel's to choose from; 0: its choice is not confined.
    room: u32,
    /// The gateway gives no more ports.
    exhausted: bool,
    /// A dead agent's hooks are at work until ours are.
    takes_over: bool,
    /// `--private-net`.
    private_nets: BTreeSet<Prefix>,
    remote: Remote,
    /// What the gateway calls local.
    answer: Vec<(Ipv4Addr, u8)>,
    /// What of it is believed.
    direct: Direct,
    /// What a router on the way to the gateway said fits, and until when that holds.
    narrow: Option<Narrow>,
    /// The kernel lists sockets that are bound and do nothing yet.
    lists_idle: bool,
    /// What [`Effects::sync`] made of the host last.
    synced: Option<Synced>,
}

/// What [`Effects::new`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// A socket in the agent's namespace.
    pub netlink: Netlink,
    /// Loaded, not attached.
    pub hooks: Hooks,
    /// Holds the rules.
    pub book: Book,
    /// As far as it was read.
    pub state: State,
    /// The way to the gateway.
    pub path: Path,
    /// Whose programs are served; `None` without hooks.
    pub(super) cgroups: Vec<Managed>,
    /// The gateway.
    pub gateway: Ipv4Addr,
    /// `--interface`.
    pub interface: Option<String>,
    /// `--private-net`.
    pub private_nets: Vec<Prefix>,
    /// `--remote`: what is leased is used with this peer alone.
    pub remote: Remote,
    /// The run directory.
    pub directory: PathBuf,
    /// How the tunnel is to be.
    pub options: Options,
    /// Longest wait of a bind.
    pub bind_timeout: Duration,
    /// A bind passes after it.
    pub allow_on_timeout: bool,
    /// A leased port may be bound without CAP_NET_BIND_SERVICE.
    pub privileges_are_leased: bool,
}

impl Effects {
    /// Nothing is done to the host yet.
    pub fn new(parts: Parts) -> Self {
        let mut config = parts.hooks.base_config(parts.state.netns_cookie);
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        config.deadline_ns = nanoseconds(parts.bind_timeout);
        config.poll_ns = match parts.hooks.waiting_way().map(|waiting| waiting.way) {
            Some(Way::ParkFexit | Way::ParkTracepoint) => nanoseconds(PARK_POLL),
            Some(Way::Poll) | None => config.deadline_ns,
        };
        config.tunnel_remote = address_word(parts.gateway);
        if parts.privileges_are_leased {
            config.flags |= FLAG_PRIVILEGED;
        }
        if parts.allow_on_timeout {
            config.flags |= FLAG_TIMEOUT_ALLOW;
        }
        config.remote_address = parts.remote.address().map_or(0, address_word);
        config.remote_port = parts.remote.port().map_or(0, u32::from);
        Self {
            takes_over: parts.hooks.are_taken_over(),
            netlink: parts.netlink,
            hooks: parts.hooks,
            tunnel: None,
            book: parts.book,
            reserved: BTreeSet::new(),
            state: parts.state,
            path: parts.path,
            cgroups: parts.cgroups,
            config,
            fixed: local::Fixed::default(),
            written: Written::default(),
            gateway: parts.gateway,
            interface: parts.interface,
            directory: parts.directory,
            options: parts.options,
            active: false,
            choosing: false,
            room: 0,
            exhausted: false,
            private_nets: parts.private_nets.into_iter().collect(),
            remote: parts.remote,
            answer: Vec::new(),
            direct: Direct::default(),
            narrow: None,
            lists_idle: diag::lists_idle_sockets(),
            synced: None,
        }
    }

    /// Whether tunnel and hooks are in place.
    pub const fn is_active(&self) -> bool {
        self.active
    }

    /// Whether a dead agent's hooks are at work.
    pub const fn takes_over(&self) -> bool {
        self.takes_over
    }

    /// Keeps what the state machine wants kept, if it changed.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn keep(&mut self, saved: &SavedState) -> Result<(), RunDirError> {
        let registration = Registration::from(saved);
        if registration == self.state.registration {
            return Ok(());
        }
        self.state.registration = registration;
        self.store()
    }

    fn store(&self) -> Result<(), RunDirError> {
        self.state.store(&self.directory)
    }

    /// Takes a binding into use: after `Ok` its ports pass.
    ///
    /// # Errors
    ///
    /// Nothing of it is in use then.
    pub async fn publish(&mut self, binding: HostBinding) -> Result<(), EffectError> {
        self.check(&binding).await?;
        let key = (binding.client_id, binding.bind_id);
        let ports: Vec<u16> = binding.leased.iter().collect();
        self.exhausted &= binding.kind != BindingKind::Block;
        self.book.add(binding);
        match self.put_into_use(&ports).await {
            Ok(()) => Ok(()),
            Err(error) => {
                if let Err(second) = self.withdraw(key).await {
                    tracing::warn!(error = %second, "cannot undo what was begun");
                }
                Err(error)
            }
        }
    }

    async fn put_into_use(&mut self, ports: &[u16]) -> Result<(), EffectError> {
        self.activate_tunnel().await?;
        self.change_tunnel().await?;
        self.sync().await?;
        self.book.open(&mut self.hooks, ports.iter().copied())?;
        self.activate_hooks().await
    }

    async fn check(&self, binding: &HostBinding) -> Result<(), EffectError> {
        self.check_tunnel(binding)?;
        match self.book.public() {
            Some(old) if old != binding.address => {
                return Err(EffectError::OtherAddress { old, new: binding.address });
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let tunnel = match &self.tunnel {
            Some(tunnel) => Some(tunnel.link().index),
            // That of a dead agent; whether it is ours shows when it is taken over.
            None => self.netlink.link(device::NAME).await.ok().map(|link| link.index),
        };
        let addresses = self.netlink.addresses().await?;
        if addresses.iter().any(|a| a.address == binding.address && Some(a.index) != tunnel) {
            return Err(EffectError::AddressTaken(binding.address));
        }
        Ok(())
    }

    /// Takes a binding out of use. Goes on after an error.
    ///
    /// # Errors
    ///
    /// The first of them.
    pub async fn withdraw(&mut self, key: (ClientId, BindId)) -> Result<(), EffectError> {
        let Some(binding) = self.book.remove(key) else { return Ok(()) };
        self.reserved.remove(&key);
        let synced = self.sync().await;
        let closed = self.book.close(&mut self.hooks, binding.leased.iter());
        synced.and(closed.map_err(EffectError::from))
    }

    /// The tunnel device and its programs, where they are not there yet.
    async fn activate_tunnel(&mut self) -> Result<(), EffectError> {
        if self.tunnel.is_some() {
            return Ok(());
        }
        // The way may have changed since it was looked up.
        self.path = path::find(&self.netlink, self.gateway, self.interface.as_deref()).await?;
        self.keep_path()?;
        let tunnel = Tunnel::create(
            &self.netlink,
            &mut self.hooks,
            &self.path,
            self.gateway,
            self.book.tunnel(),
            self.options,
        )
        .await?;
        self.tunnel = Some(tunnel);
        self.silence_arp()
    }

    /// Tunnel and hooks, also while there is no binding.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn activate(&mut self) -> Result<(), EffectError> {
        self.activate_tunnel().await?;
        self.sync().await?;
        self.activate_hooks().await
    }

    async fn activate_hooks(&mut self) -> Result<(), EffectError> {
        if self.active {
            return Ok(());
        }
        self.book.write_rules(&mut self.hooks)?;
        self.write_rules()?;
        self.attach_cgroups()?;
        self.active = true;
        self.write_config()?;
        self.hooks.replace_predecessor();
        Ok(())
    }

    /// Closes what a dead agent had opened and is not leased or ignored any more; to be called once, when all is settled
    /// that was to be taken over.
    pub(super) fn close_what_was_left(&mut self) {
        if !std::mem::take(&mut self.takes_over) {
            return;
        }
        let closed = self.hooks.verdicts().and_then(|verdicts| {
            let (book, whole) = (&self.book, self.book.is_whole());
            let stale = verdicts.into_iter().filter(|(port, verdict)| match verdict.state {
                host::PORT_GRANTED => whole || book.holder(*port).is_none(),
                host::PORT_IGNORED => !book.ignores(*port),
                _ => false,
            });
            let stale: Vec<u16> = stale.map(|(port, _)| port).collect();
            if !stale.is_empty() {
                tracing::info!(ports = %ports::as_text(&stale.iter().copied().collect()), "not leased any more");
            }
            self.book.close(&mut self.hooks, stale)
        });
        if let Err(error) = closed {
            tracing::error!(%error, "the port table is not written");
        }
    }

    /// Follows the host's addresses and routes, and puts back what somebody else removed.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn follow(&mut self) -> Result<(), EffectError> {
        self.refresh_local().await?;
        let found = path::find(&self.netlink, self.gateway, self.interface.as_deref()).await?;
        let key = |path: &Path| (path.source, path.next_hop, path.interface.index, path.interface.mtu);
        let same = key(&self.path) == key(&found);
        match &mut self.tunnel {
            Some(tunnel) if same && tunnel.is_attached() => return Ok(tunnel.repair(&self.netlink).await?),
            None if same && !self.active => return Ok(()),
            _ => {}
        }
        let (old, new) = (&self.path, &found);
        tracing::info!(
            interface = new.interface.name, address = %new.source, mtu = new.interface.mtu,
            old_interface = old.interface.name, old_address = %old.source, "the gateway is reached another way"
        );
        if self.tunnel.as_ref().is_none_or(Tunnel::is_kernels) && self.active {
            if let Some(arp) = self.state.arp.take() {
                restore_arp(&arp)?;
            }
            self.renew_tunnel().await?;
            self.announce();
            return Ok(());
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.move_to(&self.netlink, &mut self.hooks, &found).await?;
            self.narrow = None;
        }
        self.path = found;
        self.keep_path()?;
        self.write_config()?;
        self.announce();
        Ok(())
    }

    /// Whoever knows the host's address at another interface sends the tunnel's packets there, where no program waits for them.
    fn announce(&self) {
        let Path { interface, source, next_hop } = &self.path;
        if let Err(error) = arp::announce(interface, *source, *next_hop) {
            tracing::debug!(%error, "cannot announce the address at its interface");
        }
    }

    fn keep_path(&mut self) -> Result<(), RunDirError> {
        self.state.private_interface = Some(self.path.interface.name.clone());
        self.state.private_address = Some(self.path.source);
        self.store()
    }

    /// Where the way to the gateway begins, while nothing depends on it yet.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn look_for_the_way(&self) -> Result<Ipv4Addr, PathError> {
        Ok(path::find(&self.netlink, self.gateway, self.interface.as_deref()).await?.source)
    }

    /// From now on every bind and connect passes, also those that wait.
    pub fn open_wide(&mut self) {
        use crate::hooks::PortTable as _;
        self.active = false;
        self.takes_over = false;
        let outcome = self.write_config().and_then(|()| {
            for port in self.hooks.waiting()? {
                self.book.pass(&mut self.hooks, port)?;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot let waiting programs go on");
        }
    }

    /// Undoes everything that was done to the host. Goes on after an error. The file stays if something could not be
    /// undone, so that `down` can try again.
    ///
    /// # Errors
    ///
    /// The first of them.
    pub async fn undo(mut self, keep_registration: bool) -> Result<(), EffectError> {
        if keep_registration && self.takes_over {
            // Nothing was changed, and the next start takes it over.
            return Ok(());
        }
        // Who waits inside a hook that is taken off goes on at once, too.
        self.active = false;
        let mut outcome = self.write_config();
        self.hooks.detach();
        if let Some(original) = &self.state.sysctls {
            outcome = outcome.and(ports::restore(original).map_err(EffectError::from));
        }
        if let Some(arp) = &self.state.arp {
            outcome = outcome.and(restore_arp(arp).map_err(EffectError::from));
        }
        if let Some(tunnel) = self.tunnel.take() {
            outcome = outcome.and(tunnel.destroy(&self.netlink).await.map_err(EffectError::from));
        }
        if outcome.is_ok() {
            self.state.sysctls = None;
            self.state.arp = None;
            self.state.private_interface = None;
            outcome = if keep_registration && self.state.registration.is_worth_keeping() {
                self.store()
            } else {
                State::remove(&self.directory)
            }
            .map_err(EffectError::from);
        }
        outcome
    }
}
