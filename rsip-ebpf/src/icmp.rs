//! ICMP (RFC 792): which messages concern a datagram of ours, and where they quote it.

use crate::ipv4;

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
