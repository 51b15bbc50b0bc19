//! The eBPF object: its maps, its programs, their attachment to a cgroup.

mod attach;
mod tables;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, MapError, PerCpuArray, RingBuf};
use rsip_ebpf_common::host::{self, EVENT_WANT_PORT, Event, maps, programs};
use rsip_ebpf_common::layout::Layout;
use rsip_sys::netlink::{Link, Netlink, Prefix};
use rsip_sys::tc::{self, Attachment, Direction, EbpfError, Method};
use tokio::io::unix::AsyncFd;

use self::attach::{CGROUP_PROGRAMS, hold_program, load_program};
use super::pins::{Held, Pins};
use super::room::Rooms;
use super::rules::RuleMaps;
use super::wait::{self, Chosen, Way, Wish};
use super::{HooksError, layout::Places, links};
use crate::clock;

/// Written by `cargo xtask build-ebpf`; empty where that was not run before this crate was built.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/rsip-host"));

/// Events taken from the ring before anything else gets its turn.
const BUDGET: usize = 256;

/// After so long without a sign of life of the agent nobody waits for it any more. It gives one each second.
const SILENCE: Duration = Duration::from_secs(5);

/// A program of ours, and whether the kernel runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name in the object.
    pub name: &'static str,
    /// The kernel's number for it; 0: not attached.
    pub id: u32,
    /// The kernel confirms that it is attached to a living cgroup.
    pub attached: bool,
}

/// The loaded object.
pub struct EbpfHooks {
    ebpf: Ebpf,
    config: Array<MapData, host::Config>,
    ports: Array<MapData, host::Port>,
    pending: HashMap<MapData, u32, host::Pending>,
    uses: Array<MapData, u32>,
    sockets: HashMap<MapData, u64, u32>,
    local: LpmTrie<MapData, [u8; 4], u8>,
    counters: PerCpuArray<MapData, u64>,
    rooms: Rooms,
    heartbeat: Array<MapData, u64>,
    rules: RuleMaps,
    events: AsyncFd<RingBuf<MapData>>,
    /// Events that a dead agent did not hear.
    left: Vec<Event>,
    /// What outlives the agent; `None`: nothing does.
    pins: Option<Pins>,
    /// Pins of this agent beside those in `links`.
    pinned: BTreeSet<PathBuf>,
    /// By the number of the cgroup and the name of the program.
    links: Vec<(u64, &'static str, Held)>,
    waiting: Option<Chosen>,
    v6only: (u32, u32),
    known_local: BTreeSet<Prefix>,
}

impl std::fmt::Debug for EbpfHooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // aya's maps have no Debug.
        f.debug_struct("EbpfHooks")
            .field("waiting", &self.waiting)
            .field("links", &self.links)
            .field("known_local", &self.known_local)
            .finish_non_exhaustive()
    }
}

impl EbpfHooks {
    /// Loads the object and its programs, and finds a way of waiting. Nothing is attached to any cgroup or interface. `None`:
    /// the programs of the tunnel alone, which nobody waits for. With `pins`, the maps of a predecessor are used on, and what
    /// is attached later outlives the process.
    ///
    /// # Errors
    ///
    /// The object is missing, or the kernel lacks something that it needs.
    pub fn load(wish: Option<Wish>, pins: Option<Pins>) -> Result<Self, HooksError> {
        let mut ebpf = match &pins {
            Some(pins) => {
                let (ebpf, used_on) = tc::load_object_pinned(OBJECT, pins.maps())?;
                if pins.taken_over() {
                    tracing::info!(
                        maps = used_on.len(),
                        "the last agent's hooks are at work: taking them over"
                    );
                }
                ebpf
            }
            None => tc::load_object(OBJECT)?,
        };
        // Who waits since a predecessor's time waits on while its successor starts.
        let mut heartbeat: Array<MapData, u64> = tc::take_map(&mut ebpf, maps::HEARTBEAT)?;
        beat(&mut heartbeat)?;
        for (name, kind) in CGROUP_PROGRAMS.into_iter().filter(|_| wish.is_some()) {
            load_program(&mut ebpf, name, kind)?;
        }
        for name in [programs::TUNNEL_OUT, programs::TUNNEL_IN] {
            tc::load_program(&mut ebpf, name)?;
        }
        let places = Places::of_this_kernel();
        let mut layout: Array<MapData, Layout> = tc::take_map(&mut ebpf, rsip_ebpf_common::layout::MAP)?;
        layout.set(0, places.layout, 0).map_err(map_error(rsip_ebpf_common::layout::MAP))?;
        let config: Array<MapData, host::Config> = tc::take_map(&mut ebpf, maps::CONFIG)?;
        let proven = match config.get(&0, 0) {
            Ok(left) if pins.as_ref().is_some_and(Pins::taken_over) => Way::of_code(left.wait),
            _ => None,
        };
        let mut waiting = wish.map(|wish| wait::choose(&mut ebpf, wish, proven)).transpose()?;
        let mut pinned = BTreeSet::new();
        if let (Some(waiting), Some(pins)) = (&mut waiting, &pins) {
            pinned.extend(waiting.pin(pins).map_err(HooksError::Pin)?);
        }
        let mut ring: RingBuf<MapData> = tc::take_map(&mut ebpf, maps::EVENTS)?;
        let mut pending: HashMap<MapData, u32, host::Pending> = tc::take_map(&mut ebpf, maps::PENDING)?;
        // Of those who asked a dead agent some have an answer by now: their time was over.
        forget_the_answered(&mut pending);
        let is_of_use = |event: &Event| event.kind != EVENT_WANT_PORT || pending.get(&event.port, 0).is_ok();
        let left = std::iter::from_fn(|| ring.next().map(|item| read_event(&item))).flatten();
        let left: Vec<Event> = left.filter(is_of_use).collect();
        // SAFETY: the ring owns its map's descriptor, keeps it open until it is dropped, and always gives the same one.
        let events = unsafe { AsyncFd::register(ring) }.map_err(|error| HooksError::Events(error.into()))?;
        let local: LpmTrie<MapData, [u8; 4], u8> = tc::take_map(&mut ebpf, maps::LOCAL)?;
        let known_local = local.keys().filter_map(|key| prefix(key.ok()?)).collect();
        let mut hooks = Self {
            config,
            ports: tc::take_map(&mut ebpf, maps::PORTS)?,
            pending,
            left,
            uses: tc::take_map(&mut ebpf, maps::USES)?,
            sockets: tc::take_map(&mut ebpf, maps::SOCKETS)?,
            local,
            counters: tc::take_map(&mut ebpf, maps::COUNTERS)?,
            rooms: Rooms::of(&mut ebpf)?,
            heartbeat,
            rules: RuleMaps::take(&mut ebpf)?,
            events,
            ebpf,
            waiting,
            v6only: places.v6only,
            pins,
            pinned,
            links: Vec::new(),
            known_local,
        };
        hooks.beat()?;
        Ok(hooks)
    }

    /// The agent lives: programs may wait for it a while longer.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn beat(&mut self) -> Result<(), HooksError> {
        beat(&mut self.heartbeat)
    }

    /// Whether a predecessor's hooks are at work until this agent's take their place.
    pub fn are_taken_over(&self) -> bool {
        self.pins.as_ref().is_some_and(Pins::taken_over)
    }

    /// Whether what is attached outlives the agent.
    pub const fn are_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Ports in the table that have a verdict of their own, with it: what a predecessor has left.
    ///
    /// # Errors
    ///
    /// The map does not give it.
    pub fn verdicts(&self) -> Result<Vec<(u16, host::Port)>, HooksError> {
        (0..=u16::MAX)
            .filter_map(|port| match self.ports.get(&u32::from(port), 0) {
                Ok(verdict) if verdict.state == host::PORT_UNKNOWN => None,
                Ok(verdict) => Some(Ok((port, verdict))),
                Err(error) => Some(Err(map_error(maps::PORTS)(error))),
            })
            .collect()
    }

    /// How bind() waits, and why so.
    pub const fn waiting_way(&self) -> Option<&Chosen> {
        self.waiting.as_ref()
    }

    /// What of the configuration does not change: the namespace, the machine, the agent, the way of waiting.
    pub fn base_config(&self, netns_cookie: u64) -> host::Config {
        let (v6only_offset, v6only_mask) = self.v6only;
        host::Config {
            netns_cookie,
            wait: self.waiting.as_ref().map_or(host::WAIT_POLL, |waiting| waiting.way.code()),
            agent_tgid: std::process::id(),
            v6only_offset,
            v6only_mask,
            // Those of a dead agent hold until ours stand beside them.
            rules: self.config.get(&0, 0).map_or(0, |left| left.rules),
            ..machine_config()
        }
    }

    /// What the programs go by from now on.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn set_config(&mut self, config: &host::Config) -> Result<(), HooksError> {
        self.config.set(0, config, 0).map_err(map_error(maps::CONFIG))
    }

    /// Puts the cgroup programs on a cgroup, beside whatever else is there.
    ///
    /// # Errors
    ///
    /// The kernel refuses; those that were attached before stay until [`EbpfHooks::detach`].
    pub fn attach(&mut self, cgroup: &File, name_of_cgroup: &str) -> Result<(), HooksError> {
        // The kernel's number for a cgroup.
        let number = cgroup.metadata().map_err(HooksError::Pin)?.ino();
        for (name, kind) in CGROUP_PROGRAMS {
            let path = self.pins.as_ref().map(|pins| pins.hook(number, name));
            let link = hold_program(&mut self.ebpf, name, kind, cgroup, path.as_deref());
            let link = link.map_err(|source| EbpfError::Attach {
                name: name.to_owned(),
                target: name_of_cgroup.to_owned(),
                source: Box::new(source),
            })?;
            self.links.push((number, name, link));
        }
        Ok(())
    }

    /// Takes the cgroup programs off one cgroup, whether it is still there or not.
    pub fn detach_from(&mut self, cgroup: u64) {
        while let Some(at) = self.links.iter().rposition(|(number, ..)| *number == cgroup) {
            let (.., link) = self.links.remove(at);
            link.detach();
        }
    }

    /// Everything that this agent needs is attached: what a predecessor has left beside it is taken off.
    pub fn replace_predecessor(&mut self) {
        let Some(pins) = &self.pins else { return };
        let links = self.links.iter().filter_map(|(.., link)| link.path().map(Path::to_owned));
        let ours: Vec<PathBuf> = links.chain(self.pinned.iter().cloned()).collect();
        pins.let_go_of_all_but(&ours);
    }

    /// Takes the cgroup programs off, and unpins everything.
    pub fn detach(&mut self) {
        // In reverse: who lets pass goes before who counts.
        while let Some((.., link)) = self.links.pop() {
            link.detach();
        }
        if let Some(pins) = &self.pins
            && let Err(error) = pins.remove()
        {
            tracing::warn!(%error, "what is pinned stays");
        }
    }

    /// Puts the program that encapsulates on the tunnel device.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn attach_outward(
        &mut self,
        netlink: &Netlink,
        tunnel: &Link,
        forced: Option<Method>,
    ) -> Result<Attachment, EbpfError> {
        let pin = self.pin_of(tunnel, programs::TUNNEL_OUT);
        let how = (forced, pin.as_deref());
        tc::attach_pinned(&mut self.ebpf, netlink, programs::TUNNEL_OUT, tunnel, Direction::Egress, how).await
    }

    /// Puts the program that decapsulates on the private interface.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn attach_inward(
        &mut self,
        netlink: &Netlink,
        private: &Link,
        forced: Option<Method>,
    ) -> Result<Attachment, EbpfError> {
        let pin = self.pin_of(private, programs::TUNNEL_IN);
        let how = (forced, pin.as_deref());
        tc::attach_pinned(&mut self.ebpf, netlink, programs::TUNNEL_IN, private, Direction::Ingress, how)
            .await
    }

    fn pin_of(&mut self, interface: &Link, program: &str) -> Option<PathBuf> {
        let path = self.pins.as_ref()?.tunnel(interface.index, program);
        self.pinned.insert(path.clone());
        Some(path)
    }

    /// Makes `LOCAL` say exactly this. What is to be added comes before what is to be removed.
    ///
    /// # Errors
    ///
    /// The map does not take it (it is full, for one).
    pub fn set_local(&mut self, wanted: BTreeSet<Prefix>) -> Result<(), HooksError> {
        for prefix in wanted.difference(&self.known_local) {
            self.local.insert(&key(*prefix), 1, 0).map_err(map_error(maps::LOCAL))?;
        }
        for prefix in self.known_local.difference(&wanted) {
            match self.local.remove(&key(*prefix)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(map_error(maps::LOCAL)(error)),
            }
        }
        self.known_local = wanted;
        Ok(())
    }

    /// Waits for events and takes what is there, up to a budget. Cancel safe.
    ///
    /// # Errors
    ///
    /// The ring cannot be waited for.
    pub async fn events(&mut self) -> Result<Vec<Event>, HooksError> {
        if !self.left.is_empty() {
            return Ok(std::mem::take(&mut self.left));
        }
        let mut ready = self.events.readable_mut().await.map_err(HooksError::Events)?;
        let mut events = Vec::new();
        let ring = ready.get_inner_mut();
        while events.len() < BUDGET {
            let Some(item) = ring.next() else {
                ready.clear_ready();
                break;
            };
            match read_event(&item) {
                Some(event) => events.push(event),
                None => tracing::error!(length = item.len(), "an event of another size"),
            }
        }
        Ok(events)
    }

    /// Whether the programs count the socket with this cookie: it was bound under their eyes.
    pub fn counts(&self, cookie: u64) -> bool {
        self.sockets.get(&cookie, 0).is_ok()
    }

    /// The programs on a cgroup, as the kernel sees them.
    pub fn program_status(&self, cgroup: u64) -> Vec<ProgramStatus> {
        let cgroups = links::cgroups();
        CGROUP_PROGRAMS
            .iter()
            .map(|&(name, _)| {
                let link = self.links.iter().find(|(number, n, _)| (*number, *n) == (cgroup, name));
                let (id, attached) = match link.map(|(.., link)| link) {
                    None => (0, false),
                    Some(Held::Pinned(link, _)) => {
                        let info = link.info().unwrap_or_default();
                        (info.program, info.target != 0)
                    }
                    Some(Held::Loose(link)) => link.info().map_or((0, false), |info| {
                        let cgroup = cgroups.get(&info.id());
                        (info.program_id(), cgroup.is_some_and(|cgroup| *cgroup != 0))
                    }),
                };
                ProgramStatus { name, id, attached }
            })
            .collect()
    }
}

fn beat(heartbeat: &mut Array<MapData, u64>) -> Result<(), HooksError> {
    let until = clock::monotonic() + SILENCE;
    let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
    heartbeat.set(0, until, 0).map_err(map_error(maps::HEARTBEAT))
}

/// What of the configuration is the machine's.
pub(super) fn machine_config() -> host::Config {
    host::Config {
        syscall_nr_offset: SYSCALL_NR_OFFSET,
        bind_nr: number(libc::SYS_bind),
        connect_nr: number(libc::SYS_connect),
        sendto_nr: number(libc::SYS_sendto),
        sendmsg_nr: number(libc::SYS_sendmsg),
        holders_max: processors().saturating_sub(1),
        ..host::Config::default()
    }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

/// Offset of the system call's number in `struct pt_regs`: `orig_ax` on x86_64, `syscallno` on arm64.
const SYSCALL_NR_OFFSET: u32 = if cfg!(target_arch = "aarch64") { 280 } else { 120 };

/// How many CPUs there are to run programs on, whichever of them the agent itself may use.
fn processors() -> u32 {
    // SAFETY: takes no pointer.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(online).unwrap_or(1)
}

fn forget_the_answered(pending: &mut HashMap<MapData, u32, host::Pending>) {
    let now = u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX);
    let over = pending.iter().flatten().filter(|(_, entry)| entry.deadline_ns <= now);
    let over: Vec<u32> = over.map(|(port, _)| port).collect();
    for port in over {
        // Gone already is as good.
        drop(pending.remove(&port));
    }
}

pub(super) fn map_error(name: &'static str) -> impl Fn(MapError) -> HooksError {
    move |source| HooksError::Map { name, source: Box::new(source) }
}

fn key(prefix: Prefix) -> Key<[u8; 4]> {
    Key::new(u32::from(prefix.length), prefix.address.octets())
}

fn prefix(key: Key<[u8; 4]>) -> Option<Prefix> {
    Some(Prefix { address: key.data().into(), length: u8::try_from(key.prefix_len()).ok()? })
}

/// An address as the programs see it: in network byte order.
pub fn address_word(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn read_event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: the length was checked; `Event` holds integers only, for which any bytes are valid (`aya::Pod`), and
    // read_unaligned asks for no alignment.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_no_event_that_is_cut_short() {
        assert!(read_event(&[0; size_of::<Event>() - 1]).is_none());
        let mut bytes = [0; size_of::<Event>()];
        bytes[20..24].copy_from_slice(&80_u32.to_ne_bytes());
        assert_eq!(read_event(&bytes).map(|event| event.port), Some(80));
    }
}
