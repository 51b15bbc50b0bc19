//! What this process may do, where the cgroup tree is, and what the clocks say.

use rsip_sys::caps::{self, CapabilityError};
use rsip_sys::cgroup;

use super::finding::Finding;
use crate::agent::start::NEEDS;

/// Whether eBPF can be tried, and the findings.
pub(super) fn check() -> (bool, Vec<Finding>) {
    let capable = caps::require(&NEEDS);
    let may_load = capable.is_ok();
    (may_load, vec![capabilities(capable), cgroup_tree(), clock()])
}

fn capabilities(capable: Result<(), CapabilityError>) -> Finding {
    match capable {
        Ok(()) => Finding::ok("capabilities", "all that the agent needs"),
        Err(error) => Finding::fail(
            "capabilities",
            error.to_string(),
            "the agent would refuse to start with exit code 5, and some checks below see less",
            "run as root, or give the capabilities (AmbientCapabilities= of a unit, setpriv)",
        ),
    }
}

fn cgroup_tree() -> Finding {
    match cgroup::open_root() {
        Ok(cgroup) => Finding::ok(
            "cgroup",
            cgroup.path.map_or_else(
                || "cgroup v2, not mounted here; a mount of its own serves".to_owned(),
                |path| format!("cgroup v2 at {}", path.display()),
            ),
        ),
        Err(error) => Finding::fail(
            "cgroup",
            error.to_string(),
            "the hooks have nothing to be attached to",
            "the kernel needs CONFIG_CGROUPS and CONFIG_CGROUP_BPF; mount it: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

/// Leases are counted by a clock that nobody sets; the log's times and certificates are not.
fn clock() -> Finding {
    /// 2024-01-01: before this program existed.
    const PAST: u64 = 1_704_067_200;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut state = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: a zeroed timex is valid (integers only) and asks for nothing to be changed (`modes` is 0); the kernel writes
    // within it.
    let status = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    if now < PAST {
        return Finding::warn(
            "clock",
            format!("the system's clock says {now} seconds since 1970"),
            "leases do not care, but the log's times are wrong",
            "set the clock; let chrony or systemd-timesyncd keep it",
        );
    }
    let synchronized = status >= 0 && status != libc::TIME_ERROR;
    Finding::ok(
        "clock",
        if synchronized {
            "synchronized"
        } else {
            "not known to be synchronized; leases are counted by the monotonic clock"
        },
    )
}
