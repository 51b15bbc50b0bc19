//! Which capabilities a daemon needs, checked before anything is touched.

use caps::{CapSet, Capability};

/// One thing that a daemon must be allowed to do. Any of the named capabilities will do.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    any_of: &'static [Capability],
    what_for: &'static str,
}

impl Need {
    /// Devices, addresses, routes, rules, tc and the network sysctls.
    pub const NETWORK: Self =
        Self { any_of: &[Capability::CAP_NET_ADMIN], what_for: "to set up devices, addresses and routes" };
    /// Maps and programs. CAP_BPF is of Linux 5.8; CAP_SYS_ADMIN has always included it.
    pub const BPF: Self = Self {
        any_of: &[Capability::CAP_BPF, Capability::CAP_SYS_ADMIN],
        what_for: "to load eBPF programs and maps",
    };
    /// Programs that read kernel memory or trace. CAP_PERFMON is of Linux 5.8.
    pub const TRACING: Self = Self {
        any_of: &[Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN],
        what_for: "to load eBPF programs that trace system calls",
    };
    /// Sockets on ports below 1024.
    pub const LOW_PORTS: Self =
        Self { any_of: &[Capability::CAP_NET_BIND_SERVICE], what_for: "to listen on a port below 1024" };
    /// Signals to processes of other users.
    pub const SIGNALS: Self =
        Self { any_of: &[Capability::CAP_KILL], what_for: "to continue programs that wait for a port" };
}

/// The needs that are not met.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    /// The kernel did not tell.
    #[error("cannot read this process's capabilities: {0}")]
    Unknown(#[from] caps::errors::CapsError),
    /// Some are missing.
    #[error("{}", describe(.0))]
    Missing(Vec<Need>),
}

/// Checks that the calling thread's effective capabilities meet every need.
///
/// # Errors
///
/// Names all that are missing at once, so that they need not be found one by one.
pub fn require(needs: &[Need]) -> Result<(), CapabilityError> {
    let have = caps::read(None, CapSet::Effective)?;
    let missing: Vec<Need> =
        needs.iter().filter(|need| !need.any_of.iter().any(|cap| have.contains(cap))).copied().collect();
    if missing.is_empty() { Ok(()) } else { Err(CapabilityError::Missing(missing)) }
}

fn describe(missing: &[Need]) -> String {
    let parts: Vec<String> = missing
        .iter()
        .map(|need| {
            let names: Vec<String> = need.any_of.iter().map(ToString::to_string).collect();
            format!("{} ({})", names.join(" or "), need.what_for)
        })
        .collect();
    let noun = if missing.len() == 1 { "missing capability" } else { "missing capabilities" };
    format!("{noun}: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_every_missing_capability_and_what_it_is_for() {
        let text = CapabilityError::Missing(vec![Need::NETWORK, Need::BPF]).to_string();
        assert_eq!(
            text,
            "missing capabilities: CAP_NET_ADMIN (to set up devices, addresses and routes), \
             CAP_BPF or CAP_SYS_ADMIN (to load eBPF programs and maps)"
        );
    }

    /// In a thread of its own: capabilities belong to threads.
    #[test]
    fn notices_a_dropped_capability() {
        let outcome = std::thread::spawn(|| {
            caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN)
                .expect("dropping is always allowed");
            require(&[Need::NETWORK])
        })
        .join()
        .expect("the thread ends");
        assert!(matches!(outcome, Err(CapabilityError::Missing(missing)) if missing.len() == 1));
    }
}
