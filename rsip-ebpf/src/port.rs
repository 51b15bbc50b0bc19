//! What the verdict on a port means at a given moment.

use rsip_ebpf_common::host::{PORT_DENIED, PORT_GRANTED, PORT_IGNORED, Port};

/// EACCES: what a program sees when the operator's rules deny it a port (bind(2): the address is protected).
pub const EACCES: i32 = 13;
/// EADDRINUSE: what a program sees when another one has the port.
pub const EADDRINUSE: i32 = 98;
/// EADDRNOTAVAIL: what a program sees when there is no port to connect from.
pub const EADDRNOTAVAIL: i32 = 99;
/// EHOSTUNREACH: what a program sees when its peer is not the one that the lease is for. Programs take it for a matter of this
/// one peer, and go on to its next address; EPERM would end many of them.
pub const EHOSTUNREACH: i32 = 113;
/// Highest errno that the kernel takes for one.
const MAX_ERRNO: u32 = 4095;

/// A verdict, read at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not known, or a refusal that has run out.
    Unknown,
    /// Leased.
    Granted,
    /// Refused with this errno (positive, always one that the kernel takes for an errno).
    Denied(i32),
    /// Not ours to decide.
    Ignored,
}

/// The verdict that `port` holds at `now_ns` (CLOCK_MONOTONIC).
///
/// User space writes an entry while programs read it, so its parts may be of different ages: a refusal without a sound errno
/// counts as EADDRINUSE, a state that nobody defined as unknown.
#[inline(always)]
#[must_use]
pub fn verdict(port: &Port, now_ns: u64) -> Verdict {
    match port.state {
        PORT_GRANTED => Verdict::Granted,
        PORT_IGNORED => Verdict::Ignored,
        PORT_DENIED if now_ns < port.until_ns => match port.errno {
            1..=MAX_ERRNO => Verdict::Denied(port.errno as i32),
            _ => Verdict::Denied(EADDRINUSE),
        },
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(errno: u32, until_ns: u64) -> Port {
        Port { state: PORT_DENIED, errno, until_ns }
    }

    #[test]
    fn refusal_runs_out() {
        assert_eq!(verdict(&denied(98, 100), 99), Verdict::Denied(98));
        assert_eq!(verdict(&denied(98, 100), 100), Verdict::Unknown);
        assert_eq!(verdict(&denied(98, 0), u64::MAX), Verdict::Unknown);
    }

    #[test]
    fn refusal_always_has_an_errno() {
        assert_eq!(verdict(&denied(0, 100), 0), Verdict::Denied(EADDRINUSE));
        assert_eq!(verdict(&denied(4095, 100), 0), Verdict::Denied(4095));
        assert_eq!(verdict(&denied(4096, 100), 0), Verdict::Denied(EADDRINUSE));
        assert_eq!(verdict(&denied(u32::MAX, 100), 0), Verdict::Denied(EADDRINUSE));
    }

    #[test]
    fn granted_and_ignored_do_not_run_out() {
        let granted = Port { state: PORT_GRANTED, errno: 0, until_ns: 0 };
        assert_eq!(verdict(&granted, u64::MAX), Verdict::Granted);
        let ignored = Port { state: PORT_IGNORED, errno: 0, until_ns: 0 };
        assert_eq!(verdict(&ignored, u64::MAX), Verdict::Ignored);
    }

    #[test]
    fn undefined_state_is_unknown() {
        assert_eq!(verdict(&Port { state: 4, errno: 1, until_ns: u64::MAX }, 0), Verdict::Unknown);
        assert_eq!(verdict(&Port::default(), 0), Verdict::Unknown);
    }
}
