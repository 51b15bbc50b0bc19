//! The remote flow policy (RFC 3103 section 7.2): with whom leased ports may be used. connect() and sends are refused before
//! any packet is made (see `connect`); here is what holds for every packet, whoever made it.

use aya_ebpf::programs::TcContext;
use rsip_ebpf::{
    icmp, ipv4,
    peer::{Ports, is_peer, is_peer_address},
};
use rsip_ebpf_common::host::Config;

use crate::tc;

/// Which way a datagram travels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the gateway: the peer is its destination.
    Out,
    /// From the gateway: the peer is its source.
    In,
}

impl Direction {
    /// The far end's address.
    #[inline(always)]
    fn address(self, header: &ipv4::Header) -> u32 {
        match self {
            Self::Out => header.destination(),
            Self::In => header.source(),
        }
    }

    /// The far end's port.
    #[inline(always)]
    fn port(self, ports: &Ports) -> u16 {
        match self {
            Self::Out => ports.destination(),
            Self::In => ports.source(),
        }
    }

    /// The way of the datagram that an error on this way is about.
    #[inline(always)]
    fn back(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

/// Whether the datagram with this header at `at` is with the peer. Of a fragment without ports the address alone decides: it
/// is of no use without the first one.
#[inline(always)]
pub(crate) fn admits(
    ctx: &TcContext,
    config: &Config,
    header: &ipv4::Header,
    at: u32,
    direction: Direction,
) -> bool {
    if config.remote_address == 0 {
        return true;
    }
    if header.protocol() == ipv4::PROTOCOL_ICMP && !header.is_later_fragment() {
        return admits_icmp(ctx, config, header, at, direction);
    }
    concerns(ctx, config, header, at, direction)
}

#[inline(always)]
fn concerns(ctx: &TcContext, config: &Config, header: &ipv4::Header, at: u32, direction: Direction) -> bool {
    let address = direction.address(header);
    if config.remote_port == 0 || header.is_later_fragment() {
        return is_peer_address(config, address);
    }
    if !icmp::has_ports(header.protocol()) {
        return false;
    }
    tc::load::<Ports>(ctx, at + header.header_length())
        .is_some_and(|ports| is_peer(config, address, direction.port(&ports)))
}

/// An error is about a datagram with the peer, and comes from whoever on the way could not deliver it. Everything else has
/// no port, so that it passes with an address alone.
#[inline(always)]
fn admits_icmp(
    ctx: &TcContext,
    config: &Config,
    header: &ipv4::Header,
    at: u32,
    direction: Direction,
) -> bool {
    let from_peer = is_peer_address(config, direction.address(header));
    let message = at + header.header_length();
    let Some(icmp) = tc::load::<icmp::Header>(ctx, message) else {
        return false;
    };
    if icmp.kind() != icmp::Kind::Error {
        return from_peer && config.remote_port == 0;
    }
    if direction == Direction::Out && !from_peer {
        return false;
    }
    let quoted_at = icmp::quoted_at(message);
    tc::load::<ipv4::Header>(ctx, quoted_at).is_some_and(|quoted| {
        quoted.has_sane_header() && concerns(ctx, config, &quoted, quoted_at, direction.back())
    })
}
