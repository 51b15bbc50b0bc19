//! How full a program's eBPF maps are. Which it has open the kernel tells; each is known by its number.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::maps::{Array, Map, MapData, MapInfo, MapType};
use nix::libc;
use nix::unistd::Pid;

use crate::lab::error::{IoContext, LabError, Result};

/// The map of the host's programs that counts sockets by port.
const USES: &str = rsip_ebpf_common::host::maps::USES;
/// The bpf system call's command.
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
/// More than any key of ours has bytes.
const KEY_ROOM: usize = 64;

/// Entries of the maps that a process has open, by name; of those whose entries come and go. Of the counts of sockets: their
/// sum.
pub(super) fn entries(pid: Pid) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for id in open(pid)? {
        let info = MapInfo::from_id(id).map_err(|error| unreadable(id, &error))?;
        let name = info.name_as_str().unwrap_or("?").to_owned();
        let kind = info.map_type().map_err(|error| unreadable(id, &error))?;
        match kind {
            MapType::Hash | MapType::LruHash | MapType::PerCpuHash | MapType::LpmTrie => {
                let key = usize::try_from(info.key_size()).unwrap_or(KEY_ROOM);
                let fd = info.fd().map_err(|error| unreadable(id, &error))?;
                let count = count(&fd, key).cannot(|| format!("walk through map {name}"))?;
                *found.entry(name).or_default() += count;
            }
            MapType::Array if name == USES => {
                let data = MapData::from_id(id).map_err(|error| unreadable(id, &error))?;
                let uses: Array<MapData, u32> =
                    Map::Array(data).try_into().map_err(|error| unreadable(id, &error))?;
                let sum = uses.iter().map(|count| u64::from(count.unwrap_or(u32::MAX))).sum::<u64>();
                *found.entry(format!("{name}, sum")).or_default() += sum;
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The numbers of the maps that a process has open.
fn open(pid: Pid) -> Result<Vec<u32>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut ids = Vec::new();
    for entry in fs::read_dir(&folder).cannot(|| format!("read {folder}"))?.flatten() {
        // A descriptor may be closed while we look.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        ids.extend(id.and_then(|id| id.trim().parse::<u32>().ok()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// How many keys a map has. A key that goes while we stand on it begins the walk anew: so there is an end to it.
fn count(map: &impl AsFd, key_size: usize) -> io::Result<u64> {
    /// The part of `union bpf_attr`.
    #[repr(C)]
    struct Next {
        map_fd: u32,
        pad: u32,
        key: u64,
        next_key: u64,
    }
    const MOST: u64 = 10_000_000;
    assert!(key_size <= KEY_ROOM, "a key of {key_size} bytes");
    let (mut key, mut next) = ([0_u8; KEY_ROOM], [0_u8; KEY_ROOM]);
    for seen in 0..MOST {
        let address = |bytes: *const u8| u64::try_from(bytes.expose_provenance()).map_err(io::Error::other);
        let attribute = Next {
            map_fd: u32::try_from(map.as_fd().as_raw_fd()).map_err(io::Error::other)?,
            pad: 0,
            key: if seen == 0 { 0 } else { address(key.as_ptr())? },
            next_key: address(next.as_mut_ptr())?,
        };
        // SAFETY: the attribute and both keys live until the call has returned; the kernel reads and writes as many bytes of
        // the keys as the map's keys have, which is not more than there is room for.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_GET_NEXT_KEY,
                &raw const attribute,
                std::mem::size_of::<Next>(),
            )
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(seen) } else { Err(error) };
        }
        key = next;
    }
    Ok(MOST)
}

fn unreadable(id: u32, error: &dyn std::fmt::Display) -> LabError {
    LabError::Unexpected {
        what: format!("eBPF map {id}"),
        expected: "that it can be read".into(),
        seen: error.to_string(),
    }
}
