//! IPv4 headers (RFC 791), IP-in-IP headers (RFC 2003), the ECN field of tunnels (RFC 6040), the Internet checksum.

use crate::gre;

/// Length of a header without options, octets.
pub const HEADER_LENGTH: u32 = 20;
/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of IP-in-IP (RFC 2003).
pub const PROTOCOL_IPIP: u8 = 4;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of GRE (RFC 2784).
pub const PROTOCOL_GRE: u8 = 47;

/// Time to live of the outer header.
const TUNNEL_TTL: u8 = 64;
/// Version 4, five words of header.
const VERSION_IHL: u8 = 0x45;
/// TOS octet with precedence 6.
const INTERNETWORK_CONTROL: u8 = 0xc0;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
const ECN: u8 = 3;
const ECN_NOT_ECT: u8 = 0;
const ECN_ECT1: u8 = 1;
const ECN_ECT0: u8 = 2;
const ECN_CE: u8 = 3;

/// The fixed part of an IPv4 header, octet for octet as in the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LENGTH as usize);

/// What is between outer and inner header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// Nothing (RFC 2003).
    IpIp,
    /// A GRE header without optional fields (RFC 2784).
    Gre,
}

impl Tunnel {
    /// Protocol of the outer header.
    #[inline(always)]
    #[must_use]
    pub fn protocol(self) -> u8 {
        match self {
            Self::IpIp => PROTOCOL_IPIP,
            Self::Gre => PROTOCOL_GRE,
        }
    }

    /// What it takes of each packet.
    #[inline(always)]
    #[must_use]
    pub fn overhead(self) -> u32 {
        match self {
            Self::IpIp => HEADER_LENGTH,
            Self::Gre => HEADER_LENGTH + gre::HEADER_LENGTH,
        }
    }
}

/// The congestion marks of outer and inner header contradict each other: the packet must be dropped (RFC 6040, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congested;

impl Header {
    /// The outer header around `inner` (RFC 2003, section 3.1), of which `inner_length` octets follow; with the GRE header
    /// between them where the tunnel is of that type.
    ///
    /// The TOS octet is copied with its ECN field (RFC 6040, section 4.1). "Don't fragment" is always set: the tunnel's
    /// MTU is known on both sides, and a datagram that is never fragmented needs no identification (RFC 6864).
    /// Addresses are in network byte order.
    #[inline(always)]
    #[must_use]
    pub fn around(tunnel: Tunnel, inner: &Self, inner_length: u32, source: u32, destination: u32) -> Self {
        // A GSO super-packet may exceed 16 bits here; each of its segments gets its own length when it is cut.
        let total_length = inner_length.wrapping_add(tunnel.overhead()) as u16;
        let mut header = Self {
            version_ihl: VERSION_IHL,
            tos: inner.tos,
            total_length: total_length.to_be(),
            identification: 0,
            fragment: DONT_FRAGMENT.to_be(),
            ttl: TUNNEL_TTL,
            protocol: tunnel.protocol(),
            checksum: 0,
            source,
            destination,
        };
        header.checksum = header.compute_checksum();
        header
    }

    /// Source address, network byte order.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> u32 {
        self.source
    }

    /// Destination address, network byte order.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> u32 {
        self.destination
    }

    /// Protocol of what follows the header.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Time to live.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Identification, as in the packet.
    #[inline(always)]
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.identification
    }

    /// Length of the header with its options, octets.
    #[inline(always)]
    #[must_use]
    pub fn header_length(&self) -> u32 {
        u32::from(self.version_ihl & 0x0f) * 4
    }

    /// Length of the datagram, octets.
    #[inline(always)]
    #[must_use]
    pub fn total_length(&self) -> u32 {
        u32::from(u16::from_be(self.total_length))
    }

    /// Whether the header makes sense where `available` octets are there from its first one on.
    #[inline(always)]
    #[must_use]
    pub fn fits(&self, available: u32) -> bool {
        self.has_sane_header()
            && self.total_length() >= self.header_length()
            && self.total_length() <= available
            && self.header_length() <= available
    }

    /// Version and header length alone: all that can be said of a GSO super-packet (whose length may not fit in the field)
    /// or of a quoted datagram (of which only the beginning is there).
    #[inline(always)]
    #[must_use]
    pub fn has_sane_header(&self) -> bool {
        self.version_ihl >> 4 == 4 && self.version_ihl & 0x0f >= 5
    }

    /// No options.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.version_ihl == VERSION_IHL
    }

    /// A fragment of any position.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        u16::from_be(self.fragment) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// A fragment other than the first: it holds no ports.
    #[inline(always)]
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        u16::from_be(self.fragment) & FRAGMENT_OFFSET != 0
    }

    /// Not "don't fragment".
    #[inline(always)]
    #[must_use]
    pub fn may_be_fragmented(&self) -> bool {
        u16::from_be(self.fragment) & DONT_FRAGMENT == 0
    }

    /// The header of the first `part` octets (a multiple of eight) of the payload, where more follow. For headers without
    /// options.
    #[inline(always)]
    #[must_use]
    pub fn first_part(&self, part: u32) -> Self {
        let fragment = u16::from_be(self.fragment) | MORE_FRAGMENTS;
        Self { fragment: fragment.to_be(), ..*self }.with_length(HEADER_LENGTH + part)
    }

    /// The header of what is left after that: `left` octets.
    #[inline(always)]
    #[must_use]
    pub fn rest_after(&self, part: u32, left: u32) -> Self {
        let fragment = u16::from_be(self.fragment).wrapping_add((part / 8) as u16);
        Self { fragment: fragment.to_be(), ..*self }.with_length(HEADER_LENGTH + left)
    }

    /// The same header before another payload. For headers without options.
    #[inline(always)]
    #[must_use]
    pub fn with_length(&self, total_length: u32) -> Self {
        let mut header = Self { total_length: (total_length as u16).to_be(), checksum: 0, ..*self };
        header.checksum = header.compute_checksum();
        header
    }

    /// The header of an ICMP message of `total_length` octets to who sent the datagram with this header, from where that was to
    /// go (RFC 1812, section 4.3.2.5: precedence 6 for errors).
    #[inline(always)]
    #[must_use]
    pub fn answering(about: &Self, total_length: u32) -> Self {
        Self {
            version_ihl: VERSION_IHL,
            tos: INTERNETWORK_CONTROL,
            total_length: 0,
            identification: 0,
            fragment: DONT_FRAGMENT.to_be(),
            ttl: TUNNEL_TTL,
            protocol: PROTOCOL_ICMP,
            checksum: 0,
            source: about.destination,
            destination: about.source,
        }
        .with_length(total_length)
    }

    /// Sum over the pseudo-header of TCP and UDP (RFC 793, section 3.1) for this many octets of payload, as in the packet; not
    /// complemented.
    #[inline(always)]
    #[must_use]
    pub fn pseudo_sum(&self, length: u32) -> u16 {
        let words = [
            self.source as u16,
            (self.source >> 16) as u16,
            self.destination as u16,
            (self.destination >> 16) as u16,
            u16::from(self.protocol).to_be(),
            (length as u16).to_be(),
        ];
        let mut sum = 0u32;
        for word in words {
            sum += u32::from(word);
        }
        fold(sum)
    }

    /// Count the hop (RFC 791, section 3.2) and correct the checksum. The caller has made sure that the time to live is not 0.
    #[inline(always)]
    pub fn decrement_ttl(&mut self) {
        let old = u16::from_ne_bytes([self.ttl, self.protocol]);
        self.ttl = self.ttl.wrapping_sub(1);
        let new = u16::from_ne_bytes([self.ttl, self.protocol]);
        self.checksum = update_checksum(self.checksum, old, new);
    }

    /// Take over the congestion mark of the outer header (RFC 6040, section 4.2) and correct the checksum.
    ///
    /// # Errors
    ///
    /// [`Congested`] when the outer header is marked and the inner transport does not know such marks.
    #[inline(always)]
    pub fn merge_ecn(&mut self, outer: &Self) -> Result<(), Congested> {
        let ecn = match (self.tos & ECN, outer.tos & ECN) {
            (ECN_NOT_ECT, ECN_CE) => return Err(Congested),
            (ECN_ECT0, ECN_ECT1) => ECN_ECT1,
            (ECN_ECT0 | ECN_ECT1, ECN_CE) => ECN_CE,
            (inner, _) => inner,
        };
        let old = u16::from_ne_bytes([self.version_ihl, self.tos]);
        self.tos = self.tos & !ECN | ecn;
        let new = u16::from_ne_bytes([self.version_ihl, self.tos]);
        self.checksum = update_checksum(self.checksum, old, new);
        Ok(())
    }

    /// Checksum over the fixed part, the checksum field taken as 0. Right for headers without options only.
    #[inline(always)]
    fn compute_checksum(&self) -> u16 {
        let words = [
            u16::from_ne_bytes([self.version_ihl, self.tos]),
            self.total_length,
            self.identification,
            self.fragment,
            u16::from_ne_bytes([self.ttl, self.protocol]),
            self.source as u16,
            (self.source >> 16) as u16,
            self.destination as u16,
            (self.destination >> 16) as u16,
        ];
        let mut sum = 0u32;
        for word in words {
            sum += u32::from(word);
        }
        !fold(sum)
    }
}

/// The checksum after one 16-bit word of the data changed (RFC 1624, equation 3). The words are as in the packet: the sum does
/// not depend on byte order.
#[inline(always)]
#[must_use]
pub fn update_checksum(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// A sum of 16-bit words in 16 bits.
#[inline(always)]
#[must_use]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Whether the protocol is that of a tunnel between gateway and host.
#[inline(always)]
#[must_use]
pub fn is_tunnel(protocol: u8) -> bool {
    protocol == PROTOCOL_IPIP || protocol == PROTOCOL_GRE
}

/// Whether an address in network byte order is of 127.0.0.0/8.
#[inline(always)]
#[must_use]
pub fn is_loopback(address: u32) -> bool {
    address.to_ne_bytes()[0] == 127
}

/// Whether no single host can have the address: 0.0.0.0/8, multicast, reserved, broadcast.
#[inline(always)]
#[must_use]
pub fn is_not_a_host(address: u32) -> bool {
    let first = address.to_ne_bytes()[0];
    first == 0 || first >= 224
}

#[cfg(test)]
mod tests;
