//! Packets as a test writes them down. The checksums are computed the long way, apart from the code under test.

use std::net::Ipv4Addr;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of IP-in-IP.
pub const IPIP: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of GRE.
pub const GRE: u8 = 47;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;
/// Fragment field: "don't fragment".
pub const DF: u16 = 0x4000;
/// Fragment field: "more fragments".
pub const MF: u16 = 0x2000;

/// An IPv4 datagram.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source.
    pub source: Ipv4Addr,
    /// Destination.
    pub destination: Ipv4Addr,
    /// What the payload is.
    pub protocol: u8,
    /// Time to live.
    pub ttl: u8,
    /// TOS octet, ECN in its two low bits.
    pub tos: u8,
    /// Identification.
    pub identification: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Options, a multiple of four octets.
    pub options: Vec<u8>,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Ip {
    /// A datagram without any particularity.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: 64,
            tos: 0,
            identification: 0x4242,
            fragment: 0,
            options: Vec::new(),
            payload,
        }
    }

    /// With another time to live.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// With another TOS octet.
    #[must_use]
    pub fn tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    /// With these flags and this fragment offset (in units of eight octets).
    #[must_use]
    pub fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    /// With another identification.
    #[must_use]
    pub fn identification(self, identification: u16) -> Self {
        Self { identification, ..self }
    }

    /// With four octets of options that do nothing.
    #[must_use]
    pub fn with_options(self) -> Self {
        Self { options: vec![1, 1, 1, 0], ..self }
    }

    /// The octets.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0; 20];
        bytes[0] = 0x40 | u8::try_from(header / 4).unwrap_or(15);
        bytes[1] = self.tos;
        let total = u16::try_from(header + self.payload.len()).unwrap_or(u16::MAX);
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.identification.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        bytes[8] = self.ttl;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.source.octets());
        bytes[16..20].copy_from_slice(&self.destination.octets());
        bytes.extend_from_slice(&self.options);
        let sum = checksum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The octets behind an Ethernet header to this machine.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        frame(&self.bytes())
    }

    /// The datagram in a tunnel.
    #[must_use]
    pub fn inside(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        // As RFC 2003 has it, and the way our own programs choose where it leaves a choice.
        Self::new(source, destination, IPIP, self.bytes()).fragment(DF).identification(0).tos(self.tos)
    }
}

impl Ip {
    /// The datagram in a GRE tunnel, without optional fields.
    #[must_use]
    pub fn inside_gre(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self { protocol: GRE, payload: gre(0, &self.bytes()), ..self.inside(source, destination) }
    }
}

/// IPv4 octets behind an Ethernet header. The address of the loopback device, which test runs borrow, is zero.
#[must_use]
pub fn frame(ipv4: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend_from_slice(&[0x08, 0x00]);
    frame.extend_from_slice(ipv4);
    frame
}

/// A UDP datagram without checksum.
#[must_use]
pub fn udp(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&source.to_be_bytes());
    bytes.extend_from_slice(&destination.to_be_bytes());
    let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(data);
    bytes
}

/// A TCP SYN; nobody here looks at its checksum.
#[must_use]
pub fn tcp(source: u16, destination: u16) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[0..2].copy_from_slice(&source.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination.to_be_bytes());
    bytes[12] = 0x50;
    bytes[13] = 0x02;
    bytes
}

/// An ICMP echo message: type 8 asks, type 0 answers.
#[must_use]
pub fn echo(kind: u8, identifier: u16, sequence: u16) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend_from_slice(&identifier.to_be_bytes());
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(b"ping");
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// An ICMP error that quotes the header and eight octets of a datagram.
#[must_use]
pub fn icmp_error(kind: u8, code: u8, quoted: &Ip) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0, 0, 0, 0, 0];
    let octets = quoted.bytes();
    bytes.extend_from_slice(&octets[..octets.len().min(28 + quoted.options.len())]);
    let sum = checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A GRE header with these flags (RFC 2784, RFC 2890) and what follows: the optional fields and an IPv4 datagram.
#[must_use]
pub fn gre(flags: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = flags.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0x08, 0x00]);
    bytes.extend_from_slice(rest);
    bytes
}

/// The Internet checksum (RFC 1071).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(u16::try_from(sum).unwrap_or(u16::MAX))
}
