//! Maps of the host object; `rsip_ebpf_common::host::maps` says who writes which.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
};
use rsip_ebpf_common::{
    host::{self, Config, Counter, Pending, Port, ROOM_SLOTS, Room, RoomBase},
    layout::Layout,
};

const EVERY_PORT: u32 = 65_536;
const SOCKETS_MAX: u32 = 1 << 20;
const LOCAL_MAX: u32 = 1024;
const PARKED_MAX: u32 = 8192;
const EVENTS_BYTES: u32 = 256 * 1024;

#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static LAYOUT: Array<Layout> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static HOLDERS: Array<u32> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static PORTS: Array<Port> = Array::with_max_entries(EVERY_PORT, 0);
#[map]
pub(crate) static PENDING: HashMap<u32, Pending> = HashMap::with_max_entries(EVERY_PORT, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static USES: Array<u32> = Array::with_max_entries(EVERY_PORT, 0);
#[map]
pub(crate) static SOCKETS: HashMap<u64, u32> = HashMap::with_max_entries(SOCKETS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static LOCAL: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(LOCAL_MAX, 0);
// Looked at by tracing programs, which must not allocate.
#[map]
pub(crate) static ARM: HashMap<u64, u32> = HashMap::with_max_entries(PARKED_MAX, 0);
#[map]
pub(crate) static LAST_WANT: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static ROOM: Array<Room> = Array::with_max_entries(ROOM_SLOTS, 0);
#[map]
pub(crate) static ROOM_BASE: Array<RoomBase> = Array::with_max_entries(ROOM_SLOTS, 0);
#[map]
pub(crate) static LAST_USER: Array<u64> = Array::with_max_entries(EVERY_PORT, 0);
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(host::COUNTERS, 0);

/// Count one.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the entry is this CPU's own, and programs of these types do not interrupt each other.
        unsafe { *value += 1 };
    }
}

/// The agent's settings.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// Where this kernel keeps what the programs look at.
#[inline(always)]
pub(crate) fn layout() -> Option<&'static Layout> {
    LAYOUT.get(0)
}

/// Whether somebody is there who answers. While nobody is, what is known goes on to hold, and what is not is refused.
#[inline(always)]
pub(crate) fn agent_lives() -> bool {
    let until = HEARTBEAT.get(0).copied().unwrap_or(0);
    // SAFETY: takes no pointer.
    until == 0 || unsafe { bpf_ktime_get_ns() } < until
}
