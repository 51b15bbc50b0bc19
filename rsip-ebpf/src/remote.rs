//! With whom a port may be used: the remote flow policy (RFC 3103, section 7.2).

use rsip_ebpf_common::gateway::Remote;

/// Whether `remote` allows a peer's port. Both in network byte order.
#[inline(always)]
#[must_use]
pub fn takes(remote: &Remote, address: u32, port: u16) -> bool {
    takes_address(remote, address) && (remote.port == 0 || remote.port == port)
}

/// Whether `remote` allows any port of this address (network byte order).
#[inline(always)]
#[must_use]
pub fn takes_address(remote: &Remote, address: u32) -> bool {
    remote.address == 0 || remote.address == address
}

/// Whether `remote` allows what has no port: where a port is demanded, nothing else fits.
#[inline(always)]
#[must_use]
pub fn takes_portless(remote: &Remote, address: u32) -> bool {
    takes_address(remote, address) && remote.port == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACRO: Remote = Remote { address: 7, port: 0, pad: 0 };
    const MICRO: Remote = Remote { address: 7, port: 80, pad: 0 };

    #[test]
    fn without_a_remote_everybody_is_right() {
        assert!(
            takes(&Remote::ANY, 9, 1) && takes_address(&Remote::ANY, 9) && takes_portless(&Remote::ANY, 9)
        );
    }

    #[test]
    fn macro_takes_every_port_of_one_address() {
        assert!(takes(&MACRO, 7, 1) && takes_portless(&MACRO, 7));
        assert!(!takes(&MACRO, 8, 1) && !takes_portless(&MACRO, 8) && !takes_address(&MACRO, 8));
    }

    #[test]
    fn micro_takes_one_port_and_nothing_without_ports() {
        assert!(takes(&MICRO, 7, 80) && takes_address(&MICRO, 7));
        assert!(!takes(&MICRO, 7, 81) && !takes(&MICRO, 8, 80) && !takes_portless(&MICRO, 7));
    }
}
