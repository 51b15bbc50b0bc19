//! Gateway: encapsulation, decapsulation, choice of the host by port, source check.

/// Names of the maps in the object.
pub mod maps {
    /// `Array<Config>`, one entry.
    pub const CONFIG: &str = "CONFIG";
    /// `HashMap<u32 public address, u32 index>`: which public addresses are ours; index times 65,536 is the address's
    /// first entry in `PORTS`.
    pub const ADDRESSES: &str = "ADDRESSES";
    /// `Array<u32>`, 65,536 entries per public address: the holder's private address, 0: nobody. The whole state of the
    /// forwarding decision. Entry [`super::WHOLE`] of an address is who holds all of it. The object declares one address;
    /// the loader sets `max_entries` for more.
    pub const PORTS: &str = "PORTS";
    /// `Array<Remote>`, entry for entry beside `PORTS`: with whom a port may be used. Looked at under
    /// [`super::FLAG_REMOTE`] only; without it the loader leaves it at one entry. Written before the holder, so that whoever
    /// sees a holder sees his remote too.
    pub const REMOTES: &str = "REMOTES";
    /// `HashMap<Holder, u32>`: hosts that hold ports of an address (a whole address counts as one), with whom they may be
    /// used, and how many. Written by user space beside `PORTS`; it answers in one look-up whether a host may send ICMP from
    /// that address, which has no port.
    pub const HOLDERS: &str = "HOLDERS";
    /// `PerCpuArray<u64>`, indexed by [`super::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// `LruHashMap<EchoKey, u32 private address>`: echo requests of hosts, so that the reply finds back.
    pub const ECHOES: &str = "ECHOES";
    /// `LruHashMap<FragmentKey, Fragment>`: datagrams from outside of which the first fragment went to a host. The
    /// programs' own.
    pub const FRAGMENTS_IN: &str = "FRAGMENTS_IN";
    /// `LruHashMap<FragmentKey, Fragment>`: datagrams of hosts of which the first fragment was let out. The programs' own.
    pub const FRAGMENTS_OUT: &str = "FRAGMENTS_OUT";
    /// `HashMap<u32 private address, u32>`: hosts whose tunnel is GRE. Looked at under [`super::FLAG_GRE`] only. Written by user
    /// space before the host's first port.
    pub const TUNNELS: &str = "TUNNELS";
    /// `LruHashMap<u32 private address, Path>`: hosts to which a path is narrower than the internal interface. The programs'
    /// own.
    pub const PATHS: &str = "PATHS";
    /// `PerCpuArray<Budget>`, one entry: ICMP errors of the running second. The programs' own.
    pub const ERRORS: &str = "ERRORS";
    /// `RingBuf` of [`super::Misuse`]: hosts that sent what they may not (RFC 3103, section 10.4).
    pub const MISUSES: &str = "MISUSES";
    /// `LruHashMap<Misuse, u64 CLOCK_MONOTONIC nanoseconds>`: when a host was last reported. The programs' own.
    pub const REPORTED: &str = "REPORTED";
    /// `PerCpuArray<Budget>`, one entry: reports of the running second. The programs' own.
    pub const BUDGET: &str = "BUDGET";
}

/// Names of the programs in the object.
pub mod programs {
    /// tc ingress on the external interface: choose the host by port, encapsulate.
    pub const INWARD: &str = "rsip_inward";
    /// tc ingress on the internal interface: decapsulate, check the source, send.
    pub const OUTWARD: &str = "rsip_outward";
}

/// Public addresses that one gateway can serve.
pub const MAX_ADDRESSES: u32 = 256;

/// [`Config::flags`]: the external interface carries no link-layer header (PPP, tun).
pub const FLAG_EXTERNAL_L3: u32 = 1;
/// [`Config::flags`]: the internal interface carries no link-layer header (WireGuard, tun).
pub const FLAG_INTERNAL_L3: u32 = 2;

/// [`Config::flags`]: there is a remote flow policy (RFC 3103, section 7.2): `REMOTES` counts.
pub const FLAG_REMOTE: u32 = 4;
/// [`Config::flags`]: the remote flow policy is micro, which is what a host that breaks it is told.
pub const FLAG_REMOTE_MICRO: u32 = 8;

/// [`Config::flags`]: GRE is on offer: `TUNNELS` counts.
pub const FLAG_GRE: u32 = 16;

/// Which of an address's entries in `PORTS` and `REMOTES` stands for all of it. As a port it is nobody's: port 0 cannot be
/// leased.
pub const WHOLE: u16 = 0;

/// What the programs need to know. One entry, index 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The gateway's private address: outer source inward, outer destination outward. Network byte order.
    pub internal_address: u32,
    /// Internal interface.
    pub internal_ifindex: u32,
    /// External interface.
    pub external_ifindex: u32,
    /// MTU of the internal interface: what an encapsulated packet may have; 0: not checked.
    pub internal_mtu: u32,
    /// MTU of the external interface: what a decapsulated packet may have; 0: not checked.
    pub external_mtu: u32,
    /// `FLAG_*`.
    pub flags: u32,
}

/// With whom a port may be used, in both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The peer's address, network byte order; 0: any.
    pub address: u32,
    /// The peer's port, network byte order; 0: any.
    pub port: u16,
    /// Always 0.
    pub pad: u16,
}

impl Remote {
    /// Everybody.
    pub const ANY: Self = Self { address: 0, port: 0, pad: 0 };
}

/// Somebody who holds ports of a public address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The public address's index, as in `ADDRESSES`.
    pub index: u32,
    /// The host's private address, network byte order.
    pub host: u32,
    /// The peer, network byte order: counted here are the ports that may be used with any port of this address.
    /// [`Holder::ANYBODY`]: those that may be used with everybody. [`Holder::ALL`]: all that the host holds.
    pub remote: u32,
}

impl Holder {
    /// See [`Holder::remote`].
    pub const ANYBODY: u32 = 0;
    /// See [`Holder::remote`]. As an address: broadcast, which is nobody's.
    pub const ALL: u32 = u32::MAX;
}

/// A report: a host sent what it may not.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misuse {
    /// The host's private address, network byte order.
    pub host: u32,
    /// A [`MisuseKind`].
    pub kind: u32,
}

/// What a host did, [`Misuse::kind`]; in the words of RFC 3103, section 10.4.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MisuseKind {
    /// Its source address is not allocated to it.
    LocalAddress = 0,
    /// Its source port is not allocated to it.
    LocalPort = 1,
    /// The remote policy is macro, and it sent to another address.
    RemoteAddress = 2,
    /// The remote policy is micro, and it sent to another address or port.
    RemotePort = 3,
    /// It used a tunnel of another type than the one offered.
    Tunnel = 4,
}

impl MisuseKind {
    /// All, by number.
    pub const ALL: [Self; 5] =
        [Self::LocalAddress, Self::LocalPort, Self::RemoteAddress, Self::RemotePort, Self::Tunnel];
}

/// Reports of one CPU in a second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// When the second began, CLOCK_MONOTONIC nanoseconds.
    pub since_ns: u64,
    /// How many since then.
    pub reports: u64,
}

/// What the fragments of one datagram have in common (RFC 791, section 3.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Source address, network byte order.
    pub source: u32,
    /// Destination address, network byte order.
    pub destination: u32,
    /// Identification, as in the packet.
    pub identification: u16,
    /// Protocol, as in the packet.
    pub protocol: u16,
}

/// Where a datagram's first fragment went or came from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Later fragments follow until then, CLOCK_MONOTONIC nanoseconds.
    pub until_ns: u64,
    /// The host's private address, network byte order.
    pub host: u32,
    /// Always 0.
    pub pad: u32,
}

/// What fits on the way to a host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// It is forgotten then, CLOCK_MONOTONIC nanoseconds.
    pub until_ns: u64,
    /// Largest packet, outer header included.
    pub mtu: u32,
    /// Always 0.
    pub pad: u32,
}

/// An echo request of a host on its way.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EchoKey {
    /// The public address it was sent from, network byte order.
    pub local: u32,
    /// The peer, network byte order.
    pub remote: u32,
    /// Its identifier, as in the packet.
    pub identifier: u16,
    /// Its sequence number, as in the packet.
    pub sequence: u16,
}

/// What the programs count; index into `COUNTERS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Packets sent to a host.
    Inward = 0,
    /// Bytes sent to hosts (inner packets).
    InwardBytes = 1,
    /// Packets sent to the public realm.
    Outward = 2,
    /// Bytes sent to the public realm (inner packets).
    OutwardBytes = 3,
    /// Dropped: the host does not hold the inner source address and port.
    BadSource = 4,
    /// Dropped: truncated or with fields that contradict each other.
    Malformed = 5,
    /// Dropped: inner time to live is used up.
    TtlExceeded = 6,
    /// Dropped: protocol or fragment that cannot be given to a holder.
    Unsupported = 7,
    /// Dropped: the kernel would not encapsulate or redirect.
    Failed = 8,
    /// Dropped: too big for the tunnel or for the external interface, and not to be fragmented.
    TooBig = 9,
    /// Dropped: from outside with a source address that no host outside can have (one of ours, loopback, multicast).
    Martian = 10,
    /// Dropped: from or to somebody with whom the port may not be used (remote flow policy).
    BadRemote = 11,
    /// Dropped: of a host in a tunnel of another type than its own.
    BadTunnel = 12,
    /// Of those that were too big: answered with "fragmentation needed".
    TooBigTold = 13,
    /// Datagrams that were split in two because they were too big; both parts count again.
    Split = 14,
    /// Dropped: a GRE header with a wrong checksum, or with what a tunnel of ours does not have (key, sequence number, another
    /// version or protocol).
    BadGre = 15,
}

/// Entries of `COUNTERS`.
pub const COUNTERS: u32 = 16;

const _: () = assert!(size_of::<Config>() == 24);
const _: () = assert!(size_of::<EchoKey>() == 12);
const _: () = assert!(size_of::<Holder>() == 12);
const _: () = assert!(size_of::<Remote>() == 8);
const _: () = assert!(size_of::<Misuse>() == 8);
const _: () = assert!(size_of::<Budget>() == 16);
const _: () = assert!(size_of::<FragmentKey>() == 12);
const _: () = assert!(size_of::<Fragment>() == 16);
const _: () = assert!(size_of::<Path>() == 16);
const _: () = assert!(Counter::BadGre as u32 + 1 == COUNTERS);

#[cfg(feature = "user")]
mod user {
    // SAFETY: `repr(C)`, integers only, no padding (sizes asserted above), any bit pattern valid.
    unsafe impl aya::Pod for super::Config {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::EchoKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Holder {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Remote {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Misuse {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Budget {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::FragmentKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Fragment {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Path {}
}
