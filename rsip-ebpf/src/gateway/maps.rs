//! Maps of the gateway object; `rsip_ebpf_common::gateway::maps` says who writes which.

use core::num::NonZeroU32;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use rsip_ebpf::{ipv4::Tunnel, remote};
use rsip_ebpf_common::gateway::{
    self, Config, Counter, EchoKey, FLAG_GRE, FLAG_REMOTE, Fragment, FragmentKey, Holder, MAX_ADDRESSES,
    Remote, WHOLE,
};

const PORTS_PER_ADDRESS: u32 = 65_536;
const HOLDERS_MAX: u32 = 1 << 16;
const ECHOES_MAX: u32 = 1 << 16;
const FRAGMENTS_MAX: u32 = 1 << 14;
/// How long later fragments are let through after the first: what receivers wait for them (RFC 1122, section 3.3.2,
/// allows 60 s, Linux takes 30).
const REASSEMBLY_NS: u64 = 30_000_000_000;

#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static ADDRESSES: HashMap<u32, u32> = HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
static PORTS: Array<u32> = Array::with_max_entries(PORTS_PER_ADDRESS, 0);
// The loader makes it as big as `PORTS` under a remote policy.
#[map]
static REMOTES: Array<Remote> = Array::with_max_entries(1, 0);
#[map]
static HOLDERS: HashMap<Holder, u32> = HashMap::with_max_entries(HOLDERS_MAX, BPF_F_NO_PREALLOC);
#[map]
static TUNNELS: HashMap<u32, u32> = HashMap::with_max_entries(HOLDERS_MAX, BPF_F_NO_PREALLOC);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(gateway::COUNTERS, 0);
#[map]
static ECHOES: LruHashMap<EchoKey, u32> = LruHashMap::with_max_entries(ECHOES_MAX, 0);
#[map]
pub(crate) static FRAGMENTS_IN: LruHashMap<FragmentKey, Fragment> =
    LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);
#[map]
pub(crate) static FRAGMENTS_OUT: LruHashMap<FragmentKey, Fragment> =
    LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);

/// A host's private address, network byte order. Zero is nobody's: `Option<Host>` is one register, half of which the
/// verifier would otherwise find uninitialised.
pub(crate) type Host = NonZeroU32;

/// The daemon's settings.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Count `amount`.
#[inline(always)]
pub(crate) fn count(counter: Counter, amount: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the entry is this CPU's own; tc programs do not interrupt each other.
        unsafe { *value += u64::from(amount) };
    }
}

/// The index of one of our public addresses (network byte order).
#[inline(always)]
pub(crate) fn address_index(address: u32) -> Option<u32> {
    // SAFETY: the value is one word, which user space replaces as a whole.
    unsafe { ADDRESSES.get(address) }.copied()
}

/// Where a port (network byte order) of the public address of this index stands in `PORTS` and `REMOTES`.
#[inline(always)]
pub(crate) fn slot(index: u32, port: u16) -> u32 {
    index.wrapping_mul(PORTS_PER_ADDRESS).wrapping_add(u32::from(u16::from_be(port)))
}

/// Where the whole address of this index stands there.
#[inline(always)]
pub(crate) fn whole(index: u32) -> u32 {
    slot(index, WHOLE.to_be())
}

/// Who holds what stands at this place.
#[inline(always)]
pub(crate) fn holder(slot: u32) -> Option<Host> {
    PORTS.get(slot).copied().and_then(Host::new)
}

/// With whom what stands at this place may be used; `None`: the remote policy is none. What has no entry is for nobody.
#[inline(always)]
pub(crate) fn remote(config: &Config, slot: u32) -> Option<Remote> {
    const NOBODY: Remote = Remote { address: u32::MAX, port: u16::MAX, pad: 0 };
    if config.flags & FLAG_REMOTE == 0 {
        return None;
    }
    Some(REMOTES.get(slot).copied().unwrap_or(NOBODY))
}

/// Whether what stands at this place may be used with this peer (address and port in network byte order).
///
/// # Errors
///
/// [`Counter::BadRemote`].
#[inline(always)]
pub(crate) fn check_remote(config: &Config, slot: u32, address: u32, port: u16) -> Result<(), Counter> {
    match remote(config, slot) {
        Some(remote) if !remote::takes(&remote, address, port) => Err(Counter::BadRemote),
        _ => Ok(()),
    }
}

/// Whether the host holds anything of the public address of this index.
#[inline(always)]
pub(crate) fn holds_any(index: u32, host: Host) -> bool {
    holds(index, host, Holder::ALL)
}

/// Whether the host may exchange with this peer (network byte order) what has no port, from the public address of this index.
#[inline(always)]
pub(crate) fn holds_for(config: &Config, index: u32, host: Host, peer: u32) -> bool {
    holds(index, host, Holder::ANYBODY) || config.flags & FLAG_REMOTE != 0 && holds(index, host, peer)
}

#[inline(always)]
fn holds(index: u32, host: Host, remote: u32) -> bool {
    // SAFETY: as in `address_index`.
    unsafe { HOLDERS.get(Holder { index, host: host.get(), remote }) }.is_some_and(|&ports| ports != 0)
}

/// The type of a host's tunnel. Who holds nothing has none, and is taken for one of the usual type.
#[inline(always)]
pub(crate) fn tunnel(config: &Config, host: Host) -> Tunnel {
    // SAFETY: as in `address_index`.
    if config.flags & FLAG_GRE != 0 && unsafe { TUNNELS.get(host.get()) }.is_some() {
        Tunnel::Gre
    } else {
        Tunnel::IpIp
    }
}

/// A host sends an echo request.
#[inline(always)]
pub(crate) fn remember_echo(key: &EchoKey, host: Host) {
    // A full table forgets the oldest; if even that fails the reply goes to the gateway's stack, which ignores it.
    ECHOES.insert(key, host.get(), 0).ok();
}

/// Who sent an echo request.
#[inline(always)]
pub(crate) fn echo_sender(key: &EchoKey) -> Option<Host> {
    // SAFETY: as in `address_index`.
    unsafe { ECHOES.get(key) }.copied().and_then(Host::new)
}

/// The first fragment of a datagram went to or came from a host.
#[inline(always)]
pub(crate) fn remember_fragment(map: &LruHashMap<FragmentKey, Fragment>, key: &FragmentKey, host: Host) {
    let fragment = Fragment { until_ns: now().saturating_add(REASSEMBLY_NS), host: host.get(), pad: 0 };
    // As in `remember_echo`; later fragments are then treated like those that overtook the first.
    map.insert(key, fragment, 0).ok();
}

/// Where the first fragment of a datagram went or came from.
#[inline(always)]
pub(crate) fn first_fragment(map: &LruHashMap<FragmentKey, Fragment>, key: &FragmentKey) -> Option<Host> {
    // SAFETY: the worst that a reused entry can do is to give one fragment to a host that discards it.
    let fragment = unsafe { map.get(key) }?;
    if now() < fragment.until_ns { Host::new(fragment.host) } else { None }
}

/// CLOCK_MONOTONIC, nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_ktime_get_ns() }
}
