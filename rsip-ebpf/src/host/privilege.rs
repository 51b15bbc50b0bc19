//! Privileged ports: what the kernel will say to a bind after the hook. A port that it will refuse must not be asked for: anybody
//! could take ports of other hosts that way.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_current_task;
use rsip_ebpf_common::layout::Layout;

use crate::{
    kernel::{address_of, member},
    maps,
};

/// CAP_NET_BIND_SERVICE, in the first word of a set.
const BIND_SERVICE: u32 = 1 << 10;

/// Whether the kernel refuses this port to the calling thread with EACCES: it is privileged, and the thread has no capability
/// for it in the user namespace that the socket's network belongs to. `false` where that cannot be seen.
#[inline(always)]
pub(crate) fn is_refused(sock: *const c_void, port: u32) -> bool {
    let Some(layout) = maps::layout() else {
        return false;
    };
    if layout.cred_known == 0 {
        return false;
    }
    let net: u64 = member(address_of(sock), layout.sock_net);
    port < member::<u32>(net, layout.net_port_start) && is_incapable(layout, net)
}

#[inline(always)]
fn is_incapable(layout: &Layout, net: u64) -> bool {
    // SAFETY: takes no pointer.
    let cred: u64 = member(unsafe { bpf_get_current_task() }, layout.task_cred);
    let (own, wanted): (u64, u64) = (member(cred, layout.cred_user_ns), member(net, layout.net_user_ns));
    if own == 0 || wanted == 0 {
        return false;
    }
    if own == wanted {
        return member::<u32>(cred, layout.cred_effective) & BIND_SERVICE == 0;
    }
    // Capabilities of a namespace above count in those below it; never the other way round.
    member::<u32>(own, layout.user_ns_level) >= member::<u32>(wanted, layout.user_ns_level)
}
