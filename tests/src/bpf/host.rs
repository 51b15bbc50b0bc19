//! The hooks on the test's own sockets: in a cgroup and a network namespace that nobody else uses, with an agent that
//! answers as the test says.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, RingBuf};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, FExit, RawTracePoint};
use aya::{Btf, Ebpf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};
use rsip_ebpf_common::host::{
    COUNTERS, Config, Counter, EVENT_WANT_PORT, Event, FLAG_ENABLED, PORT_DENIED, PORT_GRANTED, PORT_IGNORED,
    Pending, Port, SOCK_PREFIX, WAIT_PARK_FEXIT, WAIT_PARK_TRACEPOINT, maps, programs,
};

use rsip_client::hooks::layout::Places;
use rsip_ebpf_common::layout::{self, Layout};

use super::cgroup::TestCgroup;
use super::{BpfError, Result};

const SOCK_ADDR: [&str; 6] = [
    programs::BIND4,
    programs::BIND6,
    programs::CONNECT4,
    programs::CONNECT6,
    programs::SENDMSG4,
    programs::SENDMSG6,
];
const SOCK: [&str; 3] = [programs::SOCK_RELEASE, programs::POST_BIND4, programs::POST_BIND6];

/// A verdict: granted.
pub const GRANTED: Port = Port { until_ns: 0, state: PORT_GRANTED, errno: 0 };
/// A verdict: not ours to decide.
pub const IGNORED: Port = Port { until_ns: 0, state: PORT_IGNORED, errno: 0 };

/// A verdict: refused for this long.
#[must_use]
pub fn denied(errno: i32, lasting: Duration) -> Port {
    let until_ns = now_ns().saturating_add(u64::try_from(lasting.as_nanos()).unwrap_or(u64::MAX));
    Port { until_ns, state: PORT_DENIED, errno: errno.unsigned_abs() }
}

/// CLOCK_MONOTONIC, as the programs read it.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What decides and what is asked.
struct Desk {
    ports: Array<MapData, Port>,
    pending: HashMap<MapData, u32, Pending>,
    events: Vec<Event>,
}

/// The hooks in force. Everything is undone when dropped.
pub struct Host {
    ebpf: Ebpf,
    config: Array<MapData, Config>,
    settings: Config,
    desk: Arc<Mutex<Desk>>,
    uses: Array<MapData, u32>,
    sockets: HashMap<MapData, u64, u32>,
    local: LpmTrie<MapData, [u8; 4], u8>,
    counters: PerCpuArray<MapData, u64>,
    ring: Option<RingBuf<MapData>>,
    cgroup: TestCgroup,
}

impl Host {
    /// Moves the calling thread into a network namespace of its own, and puts the hooks on its sockets. Nobody answers yet.
    ///
    /// # Errors
    /// Where the kernel refuses something.
    pub fn new(settings: Config) -> Result<Self> {
        let cgroup = TestCgroup::enter()?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| refused("network namespace", errno.into()))?;
        ip("link set lo up")?;
        let mut ebpf = super::load("rsip-host", &[])?;
        let settings = Config {
            netns_cookie: netns_cookie()?,
            flags: FLAG_ENABLED | settings.flags,
            syscall_nr_offset: 120,
            bind_nr: 49,
            ..settings
        };
        let mut config: Array<_, Config> = super::map(&mut ebpf, maps::CONFIG)?;
        config.set(0, settings, 0)?;
        let mut layout: Array<_, Layout> = super::map(&mut ebpf, layout::MAP)?;
        layout.set(0, Places::of_this_kernel().layout, 0)?;
        match settings.wait {
            WAIT_PARK_TRACEPOINT => {
                let program: &mut RawTracePoint = super::program(&mut ebpf, programs::PARK_TRACEPOINT)?;
                let attached = program.load().and_then(|()| program.attach("bpf_trace_printk"));
                attached.map_err(failed(programs::PARK_TRACEPOINT))?;
            }
            WAIT_PARK_FEXIT => {
                let program = load_fexit(&mut ebpf)?;
                program.attach().map_err(failed(programs::PARK_FEXIT))?;
            }
            _ => {}
        }
        let directory = cgroup.open()?;
        for name in SOCK {
            let program: &mut CgroupSock = super::program(&mut ebpf, name)?;
            let attached = program.load().and_then(|()| program.attach(&directory, CgroupAttachMode::Single));
            attached.map_err(failed(name))?;
        }
        for name in SOCK_ADDR {
            let program: &mut CgroupSockAddr = super::program(&mut ebpf, name)?;
            let attached = program.load().and_then(|()| program.attach(&directory, CgroupAttachMode::Single));
            attached.map_err(failed(name))?;
        }
        let desk = Desk {
            ports: super::map(&mut ebpf, maps::PORTS)?,
            pending: super::map(&mut ebpf, maps::PENDING)?,
            events: Vec::new(),
        };
        Ok(Self {
            config,
            settings,
            desk: Arc::new(Mutex::new(desk)),
            uses: super::map(&mut ebpf, maps::USES)?,
            sockets: super::map(&mut ebpf, maps::SOCKETS)?,
            local: super::map(&mut ebpf, maps::LOCAL)?,
            counters: super::map(&mut ebpf, maps::COUNTERS)?,
            ring: Some(super::map(&mut ebpf, maps::EVENTS)?),
            ebpf,
            cgroup,
        })
    }

    /// Takes the sender of the signals away, as when the agent dies.
    ///
    /// # Errors
    /// Where it has none.
    pub fn detach_sender(&mut self) -> Result<()> {
        if self.settings.wait == WAIT_PARK_FEXIT {
            let program: &mut FExit = super::program(&mut self.ebpf, programs::PARK_FEXIT)?;
            program.unload().map_err(failed(programs::PARK_FEXIT))
        } else {
            let program: &mut RawTracePoint = super::program(&mut self.ebpf, programs::PARK_TRACEPOINT)?;
            program.unload().map_err(failed(programs::PARK_TRACEPOINT))
        }
    }

    /// Takes the hooks off their cgroup, and then the sender of their signals.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub fn detach_hooks(&mut self) -> Result<()> {
        for name in SOCK_ADDR {
            let program: &mut CgroupSockAddr = super::program(&mut self.ebpf, name)?;
            program.unload().map_err(failed(name))?;
        }
        for name in SOCK {
            let program: &mut CgroupSock = super::program(&mut self.ebpf, name)?;
            program.unload().map_err(failed(name))?;
        }
        match self.settings.wait {
            WAIT_PARK_FEXIT | WAIT_PARK_TRACEPOINT => self.detach_sender(),
            _ => Ok(()),
        }
    }

    /// Changes the settings.
    ///
    /// # Errors
    /// Where the map does not take them.
    pub fn change(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        change(&mut self.settings);
        Ok(self.config.set(0, self.settings, 0)?)
    }

    /// Sets the verdict on a port.
    ///
    /// # Errors
    /// Where the map does not take it.
    pub fn set(&self, port: u16, verdict: Port) -> Result<()> {
        Ok(lock(&self.desk).ports.set(u32::from(port), verdict, 0)?)
    }

    /// Adds a private network.
    ///
    /// # Errors
    /// Where the map does not take it.
    pub fn add_local(&mut self, address: [u8; 4], prefix: u32) -> Result<()> {
        Ok(self.local.insert(&Key::new(prefix, address), 1, 0)?)
    }

    /// Sockets counted on a port.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn uses(&self, port: u16) -> Result<u32> {
        Ok(self.uses.get(&u32::from(port), 0)?)
    }

    /// All sockets that count.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.keys().count()
    }

    /// Ports that somebody waits for.
    #[must_use]
    pub fn pending(&self) -> Vec<u32> {
        lock(&self.desk).pending.keys().filter_map(std::result::Result::ok).collect()
    }

    /// What was counted.
    ///
    /// # Errors
    /// Where the map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        Ok(super::counters::<{ COUNTERS as usize }>(&self.counters)?[counter as usize])
    }

    /// The events since the last call, where no agent takes them.
    #[must_use]
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut lock(&self.desk).events);
        if let Some(ring) = &mut self.ring {
            drain(ring, &mut events);
        }
        events
    }

    /// Puts a second object's bind hook behind the first, with the same settings, and gives the ports that somebody waits for
    /// in it: as another program on the cgroup would see what the first has decided.
    ///
    /// # Errors
    /// Where the kernel refuses something.
    pub fn second(&self) -> Result<Second> {
        let mut ebpf = super::load("rsip-host", &[])?;
        let mut config: Array<_, Config> = super::map(&mut ebpf, maps::CONFIG)?;
        config.set(0, self.settings, 0)?;
        let program: &mut CgroupSockAddr = super::program(&mut ebpf, programs::BIND4)?;
        let directory = self.cgroup.open()?;
        let attached = program.load().and_then(|()| program.attach(&directory, CgroupAttachMode::Single));
        attached.map_err(failed(programs::BIND4))?;
        Ok(Second { pending: super::map(&mut ebpf, maps::PENDING)?, _ebpf: ebpf })
    }

    /// Starts an agent that answers each wanted port with `verdict`, this long after it was asked, one after the other. `None`:
    /// no answer. Its events are kept for [`Host::events`]. It ends with the value.
    pub fn agent(
        &mut self,
        delay: Duration,
        verdict: impl Fn(u16) -> Option<Port> + Send + 'static,
    ) -> Option<Agent> {
        let mut ring = self.ring.take()?;
        let desk = Arc::clone(&self.desk);
        let over = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, PollTimeout::from(20_u8)).is_err() {
                    continue;
                }
                let mut events = Vec::new();
                drain(&mut ring, &mut events);
                for event in events {
                    lock(&desk).events.push(event);
                    let wanted = u16::try_from(event.port).ok().filter(|_| event.kind == EVENT_WANT_PORT);
                    let Some(port) = wanted else { continue };
                    thread::sleep(delay);
                    let mut desk = lock(&desk);
                    if let Some(verdict) = verdict(port)
                        && let Err(error) = desk.ports.set(event.port, verdict, 0)
                    {
                        eprintln!("agent: {error}");
                    }
                    // Another waiter's event may have been answered meanwhile.
                    desk.pending.remove(&event.port).ok();
                }
            }
        });
        Some(Agent { over, thread: Some(thread) })
    }
}

/// A second object behind the first.
pub struct Second {
    pending: HashMap<MapData, u32, Pending>,
    _ebpf: Ebpf,
}

impl Second {
    /// Ports that somebody waits for.
    #[must_use]
    pub fn pending(&self) -> Vec<u32> {
        self.pending.keys().filter_map(std::result::Result::ok).collect()
    }
}

/// A running agent.
pub struct Agent {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the agent panicked");
        }
    }
}

/// The ways in which this kernel lets a bind be restarted: by raw tracepoint everywhere, by fexit where trampolines load.
///
/// # Errors
/// Where the object is not there.
pub fn parking_ways() -> Result<Vec<u32>> {
    let mut ways = vec![WAIT_PARK_TRACEPOINT];
    if load_fexit(&mut super::load("rsip-host", &[])?).is_ok() {
        ways.push(WAIT_PARK_FEXIT);
    }
    Ok(ways)
}

fn load_fexit(ebpf: &mut Ebpf) -> Result<&mut FExit> {
    let program: &mut FExit = super::program(ebpf, programs::PARK_FEXIT)?;
    let btf = Btf::from_sys_fs().map_err(aya::programs::ProgramError::Btf);
    btf.and_then(|btf| program.load("bpf_set_retval", &btf)).map_err(failed(programs::PARK_FEXIT))?;
    Ok(program)
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn drain(ring: &mut RingBuf<MapData>, events: &mut Vec<Event>) {
    while let Some(item) = ring.next() {
        if item.len() >= size_of::<Event>() {
            // SAFETY: long enough; integers only, any bytes are valid, and no alignment is asked for.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
    }
}

fn failed(name: &str) -> impl Fn(aya::programs::ProgramError) -> BpfError {
    move |source| BpfError::Program { name: name.to_owned(), source }
}

fn refused(what: &'static str, source: std::io::Error) -> BpfError {
    BpfError::System { what: what.to_owned(), source }
}

/// Runs `ip` in the calling thread's network namespace.
///
/// # Errors
/// Where it does not end with 0.
pub fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(BpfError::System {
            what: format!("ip {arguments}"),
            source: std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()),
        }),
        Err(source) => Err(BpfError::System { what: format!("ip {arguments}"), source }),
    }
}

/// What the programs know the calling thread's network namespace by.
///
/// # Errors
/// Before Linux 5.14.
pub fn netns_cookie() -> Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").map_err(|error| refused("socket", error))?;
    let mut cookie = 0_u64;
    let mut length = 8;
    // SAFETY: the descriptor is open; the option is as long as said.
    let answer = unsafe {
        nix::libc::getsockopt(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            nix::libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if answer == 0 { Ok(cookie) } else { Err(refused("SO_NETNS_COOKIE", std::io::Error::last_os_error())) }
}

/// Where kernels keep `skc_ipv6only` in `struct sock`, byte and bit: the same since 4.6. The agent asks the kernel's type
/// information.
pub const V6ONLY: (u32, u32) = (19, 1 << 5);
const _: () = assert!(V6ONLY.0 < SOCK_PREFIX);
