//! What a packet tells about whom it concerns.

use aya_ebpf::programs::TcContext;
use rsip_ebpf::{icmp, ipv4};
use rsip_ebpf_common::gateway::{Counter, EchoKey, FragmentKey};

use crate::tc;

/// Offset of the octet that holds the header length in a TCP header.
const TCP_DATA_OFFSET: u32 = 12;
const UDP_HEADER_LENGTH: u32 = 8;

/// Source and destination port, network byte order: what TCP and UDP begin with.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) source: u16,
    pub(crate) destination: u16,
}

/// An IPv4 datagram within a packet.
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    pub(crate) header: ipv4::Header,
    /// Where it begins.
    pub(crate) at: u32,
    /// Its length, octets; that of all its segments for a super-packet.
    pub(crate) length: u32,
    /// Payload of each segment of a super-packet; 0: an ordinary packet.
    segment: u32,
}

impl Datagram {
    /// The datagram with this header at `at`, of which `available` octets are there.
    #[inline(always)]
    pub(crate) fn check(
        ctx: &TcContext,
        header: ipv4::Header,
        at: u32,
        available: u32,
    ) -> Result<Self, Counter> {
        let segment = tc::segment_size(ctx);
        let (sane, length) = if segment == 0 {
            (header.fits(available), header.total_length())
        } else {
            (header.has_sane_header(), available)
        };
        if sane { Ok(Self { header, at, length, segment }) } else { Err(Counter::Malformed) }
    }

    /// Something at the beginning of the payload.
    #[inline(always)]
    pub(crate) fn load_payload<T>(&self, ctx: &TcContext) -> Option<T> {
        let header = self.header.header_length();
        if self.length < header + size_of::<T>() as u32 {
            return None;
        }
        tc::load(ctx, self.at + header)
    }

    /// The datagram that an ICMP error quotes.
    #[inline(always)]
    pub(crate) fn quoted(&self, ctx: &TcContext) -> Option<Quoted> {
        let at = icmp::quoted_at(self.at + self.header.header_length());
        let header: ipv4::Header = tc::load(ctx, at)?;
        header.has_sane_header().then_some(Quoted { header, at })
    }

    /// Several segments, which the kernel cuts late.
    #[inline(always)]
    pub(crate) fn is_super_packet(&self) -> bool {
        self.segment != 0
    }

    /// Length of the longest packet that this becomes on the wire.
    #[inline(always)]
    pub(crate) fn wire_length(&self, ctx: &TcContext) -> Result<u32, Counter> {
        if self.segment == 0 {
            return Ok(self.length);
        }
        let transport = if self.header.protocol() == ipv4::PROTOCOL_TCP {
            let at = self.at + self.header.header_length() + TCP_DATA_OFFSET;
            let octet: u8 = tc::load(ctx, at).ok_or(Counter::Malformed)?;
            u32::from(octet >> 4) * 4
        } else {
            UDP_HEADER_LENGTH
        };
        Ok(self.header.header_length() + transport + self.segment)
    }
}

/// A datagram quoted by an ICMP error: its header and at least eight octets more (RFC 792).
pub(crate) struct Quoted {
    pub(crate) header: ipv4::Header,
    at: u32,
}

impl Quoted {
    /// Something at the beginning of the payload.
    #[inline(always)]
    pub(crate) fn load_payload<T>(&self, ctx: &TcContext) -> Option<T> {
        tc::load(ctx, self.at + self.header.header_length())
    }
}

/// What the fragments of the datagram have in common.
#[inline(always)]
pub(crate) fn fragment_key(header: &ipv4::Header) -> FragmentKey {
    FragmentKey {
        source: header.source(),
        destination: header.destination(),
        identification: header.identification(),
        protocol: u16::from(header.protocol()),
    }
}

/// What an echo request and its reply have in common.
#[inline(always)]
pub(crate) fn echo_key(local: u32, remote: u32, icmp: &icmp::Header) -> EchoKey {
    EchoKey { local, remote, identifier: icmp.identifier, sequence: icmp.sequence }
}
