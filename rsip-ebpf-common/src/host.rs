//! Host agent: hooks and tunnel.
//!
//! Each map has one writer for what it decides: user space writes [`maps::CONFIG`], [`maps::PORTS`] and [`maps::LOCAL`];
//! the programs write [`maps::USES`] and [`maps::SOCKETS`] (user space may fill both before it sets [`FLAG_ENABLED`], with
//! the cookies that sock_diag reports, so that sockets that were bound before are counted too); [`maps::PENDING`] is
//! filled by the programs and emptied by user space.
//!
//! Minimum kernel: 5.18 (`bpf_set_retval` in the bind hooks; `bpf_loop` is older, 5.17).

/// The maps are pinned, and used on by the next agent, which may be of another version. A map whose kind or sizes differ is
/// begun anew by itself. Raise this number whenever the *meaning* of what is in a map changes while its sizes do not: then
/// all of them are.
pub const LAYOUT: u32 = 1;

/// Names of the maps in the object.
pub mod maps {
    /// `Array<Config>`, one entry.
    pub const CONFIG: &str = "CONFIG";
    /// `Array<Port>`, 65,536 entries: the verdict per port. Written by user space only.
    pub const PORTS: &str = "PORTS";
    /// `HashMap<u32 port, Pending>`: ports that somebody waits for. The first waiter inserts (and sends the event), user
    /// space deletes after it wrote the verdict.
    pub const PENDING: &str = "PENDING";
    /// `Array<u32>`, 65,536 entries: sockets bound per port, counted by the programs.
    pub const USES: &str = "USES";
    /// `HashMap<u64 socket cookie, u32 port>`: sockets that count in `USES`.
    pub const SOCKETS: &str = "SOCKETS";
    /// `LpmTrie<[u8; 4] address, u8>`: addresses that are never intercepted (the host's own private addresses and
    /// networks, loopback, multicast, the gateway).
    pub const LOCAL: &str = "LOCAL";
    /// `HashMap<u64 pid_tgid, u32>`: threads on their way into a restart: the signal that is still to be sent, 0 when it was.
    /// The programs' own.
    pub const ARM: &str = "ARM";
    /// `Array<u32>`, one entry: how many callers hold a CPU because they cannot be restarted. The programs' own.
    pub const HOLDERS: &str = "HOLDERS";
    /// `Array<u64>`, one entry: when the last [`super::EVENT_WANT_BLOCK`] was sent. The programs' own.
    pub const LAST_WANT: &str = "LAST_WANT";
    /// `Array<Room>`, [`super::ROOM_SLOTS`] entries: ports taken without a number. The programs' own.
    pub const ROOM: &str = "ROOM";
    /// `Array<RoomBase>`, as many entries: what of that is over. Written by user space only.
    pub const ROOM_BASE: &str = "ROOM_BASE";
    /// `Array<u64 socket cookie>`, 65,536 entries: the unconnected socket that sent from a port last. The programs' own.
    pub const LAST_USER: &str = "LAST_USER";
    /// `Array<u64>`, one entry: until when the agent is to be taken for alive, CLOCK_MONOTONIC nanoseconds
    /// (`bpf_ktime_get_ns`); 0: for ever. Written by user space only, again and again: after a dead agent's time nobody
    /// waits for its answer.
    pub const HEARTBEAT: &str = "HEARTBEAT";
    /// `RingBuf` of [`super::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// `PerCpuArray<u64>`, indexed by [`super::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
}

/// Names of the programs in the object.
pub mod programs {
    /// cgroup/bind4.
    pub const BIND4: &str = "rsip_bind4";
    /// cgroup/bind6.
    pub const BIND6: &str = "rsip_bind6";
    /// cgroup/post_bind4.
    pub const POST_BIND4: &str = "rsip_post_bind4";
    /// cgroup/post_bind6.
    pub const POST_BIND6: &str = "rsip_post_bind6";
    /// cgroup/connect4.
    pub const CONNECT4: &str = "rsip_connect4";
    /// cgroup/connect6.
    pub const CONNECT6: &str = "rsip_connect6";
    /// cgroup/sendmsg4.
    pub const SENDMSG4: &str = "rsip_sendmsg4";
    /// cgroup/sendmsg6.
    pub const SENDMSG6: &str = "rsip_sendmsg6";
    /// cgroup/sock_release.
    pub const SOCK_RELEASE: &str = "rsip_release";
    /// fexit on the helper `bpf_set_retval`: sends the park signals.
    pub const PARK_FEXIT: &str = "rsip_park_exit";
    /// raw tracepoint `bpf_trace_printk`: sends the park signals.
    pub const PARK_TRACEPOINT: &str = "rsip_park_tp";
    /// tc egress on the tunnel device: encapsulate and send to the gateway.
    pub const TUNNEL_OUT: &str = "rsip_tun_out";
    /// tc ingress on the private interface: decapsulate what comes from the gateway.
    pub const TUNNEL_IN: &str = "rsip_tun_in";
}

/// [`Config::wait`]: wait inside the hook only.
pub const WAIT_POLL: u32 = 0;
/// [`Config::wait`]: poll shortly, then restart the system call; the raw tracepoint program sends the signals.
///
/// In both ways of parking the sender runs while the hook calls it, and says what it has done: where it is not attached, or
/// fails, the hook finds out before it answers, and waits by itself.
pub const WAIT_PARK_TRACEPOINT: u32 = 1;
/// [`Config::wait`]: poll shortly, then restart the system call; the fexit program sends the signals.
pub const WAIT_PARK_FEXIT: u32 = 2;

/// [`Config::flags`]: after the deadline let the bind through instead of refusing it.
pub const FLAG_TIMEOUT_ALLOW: u32 = 1;
/// [`Config::flags`]: ephemeral ports are leased; clear: connect() to the public realm is refused.
pub const FLAG_EPHEMERAL: u32 = 2;
/// [`Config::flags`]: the hooks decide; clear (before start and while stopping): everything passes.
pub const FLAG_ENABLED: u32 = 4;
/// [`Config::flags`]: the private interface carries no link-layer header (tun, WireGuard, PPP).
pub const FLAG_PRIVATE_L3: u32 = 8;
/// [`Config::flags`]: the whole address is leased (RSA-IP): every bind passes at once, whatever `PORTS` says.
pub const FLAG_WHOLE: u32 = 16;

/// [`Config::flags`]: a leased port may be bound without CAP_NET_BIND_SERVICE, whatever its number.
pub const FLAG_PRIVILEGED: u32 = 32;
/// [`Config::flags`]: the tunnel is a device of the kernel's own: the programs look at packets, and let it carry them.
pub const FLAG_KERNEL_TUNNEL: u32 = 64;

/// [`Config::flags`]: the gateway gives no more ephemeral ports.
pub const FLAG_EXHAUSTED: u32 = 128;

/// What the programs need to know. One entry, index 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Sockets of any other network namespace pass (SO_NETNS_COOKIE).
    pub netns_cookie: u64,
    /// A waiting bind ends after this many nanoseconds.
    pub deadline_ns: u64,
    /// Poll this long before each restart of the system call; in `WAIT_POLL` the whole deadline is polled.
    pub poll_ns: u64,
    /// The leased public address, network byte order; 0: none yet.
    pub public_address: u32,
    /// `WAIT_*`.
    pub wait: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// The agent itself: never intercepted (thread group ID in the initial PID namespace).
    pub agent_tgid: u32,
    /// Offset of the system call number in `struct pt_regs` (120 on x86_64).
    pub syscall_nr_offset: u32,
    /// Number of the bind system call (49 on x86_64): only it, and its 32-bit forms, is ever restarted.
    pub bind_nr: u32,
    /// Outer source of the tunnel: the host's private address, network byte order.
    pub tunnel_local: u32,
    /// Outer destination of the tunnel: the gateway, network byte order.
    pub tunnel_remote: u32,
    /// Interface towards the gateway.
    pub private_ifindex: u32,
    /// The tunnel device `rsip`.
    pub tunnel_ifindex: u32,
    /// Offset in `struct sock` of the byte that holds `skc_ipv6only` (from BTF; below [`SOCK_PREFIX`]); 0: unknown, then
    /// every `[::]` socket counts as dual-stack.
    pub v6only_offset: u32,
    /// The bit of `skc_ipv6only` in that byte.
    pub v6only_mask: u32,
    /// The only peer that leased ports may be used with (remote flow policy, RFC 3103 section 7.2), network byte order; 0:
    /// everybody.
    pub remote_address: u32,
    /// The only port of that peer, host byte order; 0: any.
    pub remote_port: u32,
    /// So many callers at once that cannot be restarted may hold a CPU as long as they wait: one less than there are CPUs.
    pub holders_max: u32,
    /// Which set of rules holds, how many it has, and the default policy: `rules::WORD_*`.
    pub rules: u32,
    /// Largest packet that is sent to the gateway, outer header included; 0: nobody wants to hear of a smaller one.
    pub path_mtu: u32,
    /// IP protocol number of the tunnel: 47 is GRE, anything else IP-in-IP.
    pub tunnel_protocol: u32,
    /// So many ports are leased for the kernel's own choice, which is confined to them; 0: it is not confined.
    pub room: u32,
    /// Number of the connect system call.
    pub connect_nr: u32,
    /// Number of the sendto system call.
    pub sendto_nr: u32,
    /// Number of the sendmsg system call.
    pub sendmsg_nr: u32,
}

/// Counters of [`Room`] for connections, by a hash of their destination; a power of two.
pub const ROOM_DESTINATIONS: u32 = 65_536;
/// Index into [`maps::ROOM`]: TCP sockets that are bound to port 0.
pub const ROOM_TCP: u32 = 65_536;
/// Index into [`maps::ROOM`]: UDP sockets.
pub const ROOM_UDP: u32 = 65_537;
/// Entries of [`maps::ROOM`].
pub const ROOM_SLOTS: u32 = 65_538;

/// Sockets that took a port without naming one, of one kind or to destinations of one hash.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// When the agent was told last.
    pub asked_ns: u64,
    /// When somebody began to wait; 0: nobody does.
    pub since_ns: u64,
    /// So many took a port, ever; wraps.
    pub begun: u32,
    /// Always 0.
    pub pad: u32,
}

/// What is known of the sockets in a [`Room`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomBase {
    /// When the kernel's list was looked at.
    pub tallied_ns: u64,
    /// So many of [`Room::begun`] do not take a port any more.
    pub over: u32,
    /// Always 0.
    pub pad: u32,
}

/// How much of `struct sock` the programs can look at.
pub const SOCK_PREFIX: u32 = 64;

/// [`Port::state`]: nothing is known: ask.
pub const PORT_UNKNOWN: u32 = 0;
/// [`Port::state`]: leased: bind passes.
pub const PORT_GRANTED: u32 = 1;
/// [`Port::state`]: refused with `errno` until `until_ns`, then unknown again.
pub const PORT_DENIED: u32 = 2;
/// [`Port::state`]: not ours to decide: bind passes.
pub const PORT_IGNORED: u32 = 3;

/// The verdict on one port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// End of a refusal, CLOCK_MONOTONIC nanoseconds (`bpf_ktime_get_ns`).
    pub until_ns: u64,
    /// `PORT_*`.
    pub state: u32,
    /// Positive errno of a refusal (98 is EADDRINUSE).
    pub errno: u32,
}

/// Somebody waits for a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// The waiting ends then, CLOCK_MONOTONIC nanoseconds.
    pub deadline_ns: u64,
    /// 0: the ring was full, and the next pass tries again; else the event was sent.
    pub asked: u32,
    /// Always 0.
    pub pad: u32,
}

/// [`Event::kind`]: a program binds a port whose verdict is unknown.
pub const EVENT_WANT_PORT: u32 = 1;
/// [`Event::kind`]: the last counted socket of a port is gone.
pub const EVENT_RELEASED: u32 = 2;
/// [`Event::kind`]: connect() or send towards the public realm while no ephemeral port is leased.
pub const EVENT_WANT_BLOCK: u32 = 3;
/// [`Event::kind`]: a stopped thread could not be continued: send it SIGCONT.
pub const EVENT_CONTINUE: u32 = 4;
/// [`Event::kind`]: a router between host and gateway says that a packet of the tunnel did not fit: [`Event::port`] is what
/// fits, outer header included. Told as long as it is less than [`Config::path_mtu`].
pub const EVENT_PATH_MTU: u32 = 5;
/// [`Event::kind`]: three quarters of the leased ephemeral ports seem to be taken, or all of them. [`Event::slot`] says for
/// whom; of a connection, [`Event::cookie`] and [`Event::cgroup_id`] are the destination's address (IPv6, or IPv4 in its mapped
/// form, as in memory), and [`Event::port`] its port.
pub const EVENT_WANT_ROOM: u32 = 6;
/// No path that a router tells of is smaller (Linux's `net.ipv4.route.min_pmtu`): who would make it smaller wants to do harm.
pub const LEAST_PATH_MTU: u32 = 552;
/// What a router that does not say what fits is taken to mean (RFC 1191, section 5).
pub const UNSAID_PATH_MTU: u32 = 576;

/// What the programs tell the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Cookie of the socket; 0 where there is none.
    pub cookie: u64,
    /// Cgroup of the calling thread.
    pub cgroup_id: u64,
    /// `EVENT_*`.
    pub kind: u32,
    /// The port; 0 where there is none.
    pub port: u32,
    /// IPPROTO_TCP or IPPROTO_UDP; 0 where there is none.
    pub protocol: u32,
    /// AF_INET or AF_INET6; 0 where there is none.
    pub family: u32,
    /// Thread group ID (what user space calls PID).
    pub tgid: u32,
    /// Thread ID.
    pub tid: u32,
    /// Real user ID.
    pub uid: u32,
    /// Index into [`maps::ROOM`]; 0 where there is none.
    pub slot: u32,
    /// Command name, NUL-padded.
    pub command: [u8; 16],
}

/// What the programs count; index into `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// bind() passed because the port is leased.
    BindGranted = 0,
    /// bind() refused by verdict.
    BindDenied = 1,
    /// bind() ended by the deadline.
    BindTimeout = 2,
    /// A system call was restarted to wait.
    Parked = 3,
    /// A signal of a restart could not be sent.
    ParkFailed = 4,
    /// The event ring was full.
    EventLost = 5,
    /// connect() or send refused: no ephemeral port is leased.
    ConnectRefused = 6,
    /// Packet encapsulated.
    TunnelOut = 7,
    /// Packet decapsulated.
    TunnelIn = 8,
    /// Packet dropped: could not be encapsulated or decapsulated.
    TunnelDropped = 9,
    /// Packet dropped: its source is not the leased address.
    TunnelBadSource = 10,
    /// A bound socket is not counted: `SOCKETS` is full.
    CountLost = 11,
    /// connect() or send refused: not with the peer that the lease is for, or with it from another address.
    RemoteRefused = 12,
    /// Packet dropped: not with the peer that the lease is for.
    TunnelBadRemote = 13,
    /// ARP request for the leased address dropped (RFC 3102 section 3.1: it must not be answered).
    ArpSilenced = 14,
    /// bind() ended because its program was told to end.
    BindAbandoned = 15,
    /// A caller that cannot be restarted waited inside the hook.
    Held = 16,
    /// connect() or bind() to port 0 refused: every leased port is taken, and the gateway gives no more.
    RoomRefused = 17,
    /// connect(), bind() to port 0 or a first send had to wait for a free port.
    RoomAwaited = 18,
}

/// Entries of `COUNTERS`.
pub const COUNTERS: u32 = 19;

const _: () = assert!(size_of::<Config>() == 112);
const _: () = assert!(size_of::<Port>() == 16);
const _: () = assert!(size_of::<Pending>() == 16);
const _: () = assert!(size_of::<Event>() == 64);
const _: () = assert!(size_of::<Room>() == 24);
const _: () = assert!(size_of::<RoomBase>() == 16);
const _: () = assert!(Counter::RoomAwaited as u32 + 1 == COUNTERS);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding (sizes asserted above), any bit pattern valid.
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Port {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Pending {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Room {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::RoomBase {}
}
