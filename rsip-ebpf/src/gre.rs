//! GRE headers (RFC 2784, with the key and sequence number of RFC 2890).

/// Length of a header without optional fields, and of each of these, octets.
pub const HEADER_LENGTH: u32 = 4;

const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;
/// Bits 1 to 5: whoever does not know what they mean discards the packet (RFC 2784, section 2.3). Key and sequence number
/// (RFC 2890) are among them: a tunnel of ours has neither.
const MUST_BE_ZERO: u16 = 0x7c00;
const VERSION: u16 = 0x0007;
const IPV4: u16 = 0x0800;

/// The beginning of a header, as in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    flags: u16,
    protocol: u16,
}

const _: () = assert!(size_of::<Header>() == HEADER_LENGTH as usize);

impl Header {
    /// Before an IPv4 datagram, without optional fields: what is sent.
    pub const PLAIN: Self = Self { flags: 0, protocol: IPV4.to_be() };

    /// Length of a header before an IPv4 datagram that must be accepted: with nothing optional, or with a checksum. `None`: to
    /// be discarded. Bits 6 to 12 are ignored (RFC 2784, section 2.3).
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> Option<u32> {
        let flags = u16::from_be(self.flags);
        if flags & (MUST_BE_ZERO | VERSION) != 0 || u16::from_be(self.protocol) != IPV4 {
            None
        } else if flags & CHECKSUM != 0 {
            Some(2 * HEADER_LENGTH)
        } else {
            Some(HEADER_LENGTH)
        }
    }

    /// Where the IPv4 datagram in it begins, if there is one and this header begins at `at`, whatever else is in it.
    #[inline(always)]
    #[must_use]
    pub fn payload_at(&self, at: u32) -> Option<u32> {
        let flags = u16::from_be(self.flags);
        if u16::from_be(self.protocol) != IPV4 {
            return None;
        }
        let mut length = HEADER_LENGTH;
        for option in [CHECKSUM, KEY, SEQUENCE] {
            if flags & option != 0 {
                length += HEADER_LENGTH;
            }
        }
        Some(at + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u16, protocol: u16) -> Header {
        Header { flags: flags.to_be(), protocol: protocol.to_be() }
    }

    #[test]
    fn takes_what_must_be_taken() {
        assert_eq!(Header::PLAIN.length(), Some(4));
        assert_eq!(header(CHECKSUM, IPV4).length(), Some(8));
        assert_eq!(header(0x03f8, IPV4).length(), Some(4), "bits that are to be ignored");
        for flags in [KEY, SEQUENCE, 0x4000, 0x0800, 0x0400, 0x0001, CHECKSUM | KEY] {
            assert_eq!(header(flags, IPV4).length(), None, "{flags:04x}");
        }
        assert_eq!(header(0, 0x86dd).length(), None);
    }

    #[test]
    fn finds_the_datagram_behind_every_field() {
        for (flags, at) in [(0, 24), (CHECKSUM, 28), (KEY | SEQUENCE, 32), (CHECKSUM | KEY | SEQUENCE, 36)] {
            assert_eq!(header(flags, IPV4).payload_at(20), Some(at), "{flags:04x}");
        }
        assert_eq!(header(0, 0x86dd).payload_at(20), None);
    }
}
