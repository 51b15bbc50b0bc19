//! Events for the agent.

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
    generated::bpf_get_current_cgroup_id,
};
use rsip_ebpf_common::host::{Counter, Event};

use crate::maps::{EVENTS, count};

/// What an event is about.
pub(crate) struct Subject {
    /// Cookie of the socket; 0: none.
    pub(crate) cookie: u64,
    /// The port; 0: none.
    pub(crate) port: u32,
    /// IPPROTO_*; 0: none.
    pub(crate) protocol: u32,
    /// AF_*; 0: none.
    pub(crate) family: u32,
}

/// Tell the agent, with who runs the calling thread. `false` (and counted) when the ring is full.
#[inline(always)]
pub(crate) fn send(kind: u32, subject: &Subject) -> bool {
    emit(Event {
        cookie: subject.cookie,
        // SAFETY: takes no pointer.
        cgroup_id: unsafe { bpf_get_current_cgroup_id() },
        kind,
        port: subject.port,
        protocol: subject.protocol,
        family: subject.family,
        ..Event::default()
    })
}

/// Tell the agent this, with who runs the calling thread. `false` (and counted) when the ring is full.
#[inline(always)]
pub(crate) fn emit(event: Event) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(Counter::EventLost);
        return false;
    };
    let id = bpf_get_current_pid_tgid();
    entry.write(Event {
        tgid: (id >> 32) as u32,
        tid: id as u32,
        uid: bpf_get_current_uid_gid() as u32,
        command: bpf_get_current_comm().unwrap_or_default(),
        ..event
    });
    entry.submit(0);
    true
}

/// Tell the agent of a packet: no thread has to do with it. Nothing comes of it when the ring is full.
#[inline(always)]
pub(crate) fn tell(kind: u32, value: u32) {
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(Event { kind, port: value, ..Event::default() });
            entry.submit(0);
        }
        None => count(Counter::EventLost),
    }
}
