//! The only peer that leased ports may be used with, where a remote flow policy names one (RFC 3103 section 7.2).

use rsip_ebpf_common::host::Config;

/// Source and destination port: what TCP and UDP begin with, as in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    source: u16,
    destination: u16,
}

impl Ports {
    /// Source port.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> u16 {
        u16::from_be(self.source)
    }

    /// Destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> u16 {
        u16::from_be(self.destination)
    }
}

/// Whether there is a peer, and it has this address (network byte order).
#[inline(always)]
#[must_use]
pub fn is_peer_address(config: &Config, address: u32) -> bool {
    config.remote_address != 0 && config.remote_address == address
}

/// Whether there is a peer, and it is at this address (network byte order) and port.
#[inline(always)]
#[must_use]
pub fn is_peer(config: &Config, address: u32, port: u16) -> bool {
    is_peer_address(config, address) && (config.remote_port == 0 || config.remote_port == u32::from(port))
}

/// Whether a socket may send to this address (network byte order) and port: `from_leased`: with a leased address and port,
/// else with an address of its own.
///
/// Where a peer is named, it is reached with what is leased for it and with nothing else, and what is leased reaches nobody
/// else (sections 7.2.1 and 7.2.2: "MUST only", "MUST NOT").
#[inline(always)]
#[must_use]
pub fn may_send(config: &Config, from_leased: bool, address: u32, port: u16) -> bool {
    config.remote_address == 0 || from_leased == is_peer(config, address, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: u32 = 0x0102_0304;
    const OTHER: u32 = 0x0102_0305;

    fn policy(remote_address: u32, remote_port: u32) -> Config {
        Config { remote_address, remote_port, ..Config::default() }
    }

    #[test]
    fn without_a_peer_everybody_may_be_reached() {
        for from_leased in [true, false] {
            assert!(may_send(&policy(0, 0), from_leased, PEER, 80));
        }
        assert!(!is_peer(&policy(0, 0), 0, 0), "nobody is not a peer");
    }

    #[test]
    fn remote_macro_is_about_the_address() {
        let policy = policy(PEER, 0);
        for port in [1, 80, 65_535] {
            assert!(may_send(&policy, true, PEER, port));
            assert!(!may_send(&policy, false, PEER, port), "not with other local parameters");
            assert!(!may_send(&policy, true, OTHER, port));
            assert!(may_send(&policy, false, OTHER, port), "not a matter of the lease");
        }
    }

    #[test]
    fn remote_micro_is_about_the_port_too() {
        let policy = policy(PEER, 80);
        assert!(may_send(&policy, true, PEER, 80));
        assert!(!may_send(&policy, false, PEER, 80));
        assert!(!may_send(&policy, true, PEER, 81));
        assert!(may_send(&policy, false, PEER, 81));
        assert!(!may_send(&policy, true, OTHER, 80));
    }

    #[test]
    fn ports_are_read_as_in_the_packet() {
        let ports = Ports { source: 80_u16.to_be(), destination: 443_u16.to_be() };
        assert_eq!((ports.source(), ports.destination()), (80, 443));
    }
}
