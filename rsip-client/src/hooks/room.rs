//! What the programs count of ports taken without a number, and what the agent knows better.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use rsip_ebpf_common::host::{Room, RoomBase, maps};
use rsip_sys::tc;

use super::HooksError;
use super::ebpf::map_error;

/// Both sides of the count.
pub(super) struct Rooms {
    begun: Array<MapData, Room>,
    over: Array<MapData, RoomBase>,
}

impl Rooms {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, HooksError> {
        Ok(Self { begun: tc::take_map(ebpf, maps::ROOM)?, over: tc::take_map(ebpf, maps::ROOM_BASE)? })
    }

    pub(super) fn begun(&self, slot: u32) -> Result<u32, HooksError> {
        self.begun.get(&slot, 0).map(|room| room.begun).map_err(map_error(maps::ROOM))
    }

    pub(super) fn set_over(&mut self, slot: u32, over: u32, tallied_ns: u64) -> Result<(), HooksError> {
        self.over.set(slot, RoomBase { tallied_ns, over, pad: 0 }, 0).map_err(map_error(maps::ROOM_BASE))
    }
}
