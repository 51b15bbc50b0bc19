//! ICMP (RFC 792): which messages concern a datagram of ours, and where they quote it.

use crate::ipv4;

const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;

/// Length of an ICMP header, octets.
pub const HEADER_LENGTH: u32 = 8;

/// The first eight octets of a message, as in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    code: u8,
    checksum: u16,
    /// Identifier of an echo message, as in the packet.
    pub identifier: u16,
    /// Sequence number of an echo message, as in the packet.
    pub sequence: u16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LENGTH as usize);

/// What a message is, as far as its way through the gateway goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Echo reply: for who asked.
    EchoReply,
    /// Echo request.
    EchoRequest,
    /// Destination unreachable, source quench, time exceeded, parameter problem: for who sent the quoted datagram.
    Error,
    /// Anything else, redirects among them: they are about a neighbour's routes and never forwarded.
    Other,
}

impl Header {
    /// What the message is.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.kind {
            0 => Kind::EchoReply,
            8 => Kind::EchoRequest,
            3 | 4 | 11 | 12 => Kind::Error,
            _ => Kind::Other,
        }
    }
}

impl Header {
    /// "Fragmentation needed and DF set" with the size that fits (RFC 1191, section 4), before a quote with this sum.
    #[inline(always)]
    #[must_use]
    pub fn fragmentation_needed(mtu: u32, quote_sum: u16) -> Self {
        let mut header = Self {
            kind: DESTINATION_UNREACHABLE,
            code: FRAGMENTATION_NEEDED,
            checksum: 0,
            identifier: 0,
            sequence: (mtu.min(0xffff) as u16).to_be(),
        };
        let begin = u16::from_ne_bytes([header.kind, header.code]);
        header.checksum = !ipv4::fold(u32::from(begin) + u32::from(header.sequence) + u32::from(quote_sum));
        header
    }

    /// The size that fits, if it is such a message; 0: the router does not say.
    #[inline(always)]
    #[must_use]
    pub fn needed_mtu(&self) -> Option<u32> {
        if self.kind == DESTINATION_UNREACHABLE && self.code == FRAGMENTATION_NEEDED {
            Some(u32::from(u16::from_be(self.sequence)))
        } else {
            None
        }
    }
}

/// A router says that a packet of a tunnel was too big for it.
#[derive(Clone, Copy, Debug)]
pub struct Narrow {
    /// The outer header of that packet.
    pub tunnel: ipv4::Header,
    /// What fits; 0: it does not say.
    pub mtu: u32,
}

/// Reads that from a datagram with this header that begins at `at`; `None`: it is something else. The two functions read from
/// the packet.
#[inline(always)]
pub fn told_by(
    header: &ipv4::Header,
    icmp: impl Fn(u32) -> Option<Header>,
    ipv4: impl Fn(u32) -> Option<ipv4::Header>,
    at: u32,
) -> Option<Narrow> {
    if header.is_fragment() || !header.has_sane_header() {
        return None;
    }
    let message = at + header.header_length();
    let mtu = icmp(message)?.needed_mtu()?;
    let tunnel = ipv4(quoted_at(message))?;
    let ours = tunnel.is_plain() && ipv4::is_tunnel(tunnel.protocol());
    ours.then_some(Narrow { tunnel, mtu })
}

/// Where the datagram quoted by an error begins, if the error itself begins at `offset`.
#[inline(always)]
#[must_use]
pub fn quoted_at(offset: u32) -> u32 {
    offset + HEADER_LENGTH
}

/// Whether ports stand at the beginning of the payload of `protocol`.
#[inline(always)]
#[must_use]
pub fn has_ports(protocol: u8) -> bool {
    protocol == ipv4::PROTOCOL_TCP || protocol == ipv4::PROTOCOL_UDP
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8) -> Header {
        Header { kind, ..Header::default() }
    }

    #[test]
    fn errors_are_those_that_quote_a_datagram() {
        for kind in [3, 4, 11, 12] {
            assert_eq!(header(kind).kind(), Kind::Error, "type {kind}");
        }
        for kind in [5, 9, 10, 13, 14, 15, 17, 42, 255] {
            assert_eq!(header(kind).kind(), Kind::Other, "type {kind}");
        }
        assert_eq!(header(0).kind(), Kind::EchoReply);
        assert_eq!(header(8).kind(), Kind::EchoRequest);
    }
}
