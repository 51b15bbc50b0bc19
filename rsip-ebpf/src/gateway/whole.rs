//! A public address that one host holds whole: everything with it is the host's, whatever the protocol. Only a remote policy
//! looks into the packet, the same way in both directions.

use aya_ebpf::{maps::LruHashMap, programs::TcContext};
use rsip_ebpf::{icmp, ipv4, remote};
use rsip_ebpf_common::gateway::{Config, Counter, Fragment, FragmentKey, Remote};

use crate::{
    maps::{self, Host},
    parse::{self, Datagram, Ports},
};

/// The way of a datagram through the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the peer to the host.
    In,
    /// From the host to the peer.
    Out,
}

impl Way {
    #[inline(always)]
    fn back(self) -> Self {
        match self {
            Self::In => Self::Out,
            Self::Out => Self::In,
        }
    }

    #[inline(always)]
    fn local(self, header: &ipv4::Header) -> u32 {
        self.back().peer(header)
    }

    #[inline(always)]
    fn peer(self, header: &ipv4::Header) -> u32 {
        match self {
            Self::In => header.source(),
            Self::Out => header.destination(),
        }
    }

    #[inline(always)]
    fn peer_port(self, ports: &Ports) -> u16 {
        match self {
            Self::In => ports.source,
            Self::Out => ports.destination,
        }
    }

    #[inline(always)]
    fn fragments(self) -> &'static LruHashMap<FragmentKey, Fragment> {
        match self {
            Self::In => &maps::FRAGMENTS_IN,
            Self::Out => &maps::FRAGMENTS_OUT,
        }
    }
}

/// Whether the host that holds all of this address may send or receive the datagram.
///
/// # Errors
///
/// Why not.
#[inline(always)]
pub(crate) fn check(
    ctx: &TcContext,
    config: &Config,
    way: Way,
    datagram: &Datagram,
    index: u32,
    host: Host,
) -> Result<(), Counter> {
    let Some(remote) = maps::remote(config, maps::whole(index)) else {
        return Ok(());
    };
    let header = &datagram.header;
    let peer = way.peer(header);
    let allowed = if header.is_later_fragment() {
        remote::takes_portless(&remote, peer) || follows(way, header, host)
    } else if icmp::has_ports(header.protocol()) {
        let ports: Ports = datagram.load_payload(ctx).ok_or(Counter::Malformed)?;
        remote::takes(&remote, peer, way.peer_port(&ports))
    } else if header.protocol() == ipv4::PROTOCOL_ICMP {
        let icmp: icmp::Header = datagram.load_payload(ctx).ok_or(Counter::Malformed)?;
        match icmp.kind() {
            // Any router on the way may have sent it; what a host sends goes to the peer.
            icmp::Kind::Error => {
                (way == Way::In || remote::takes_address(&remote, peer))
                    && quotes(ctx, way, datagram, &remote, host)
            }
            _ => remote::takes_portless(&remote, peer),
        }
    } else {
        remote::takes_portless(&remote, peer)
    };
    if !allowed {
        return Err(Counter::BadRemote);
    }
    if header.is_fragment() && !header.is_later_fragment() {
        maps::remember_fragment(way.fragments(), &parse::fragment_key(header), host);
    }
    Ok(())
}

/// Whether the first fragment was let through.
#[inline(always)]
fn follows(way: Way, header: &ipv4::Header, host: Host) -> bool {
    maps::first_fragment(way.fragments(), &parse::fragment_key(header)) == Some(host)
}

/// Whether an ICMP error is about a datagram between the host and the peer that it may talk to.
#[inline(always)]
fn quotes(ctx: &TcContext, way: Way, error: &Datagram, remote: &Remote, host: Host) -> bool {
    let Some(quoted) = error.quoted(ctx) else {
        return false;
    };
    let header = &quoted.header;
    let way_of_quoted = way.back();
    if way_of_quoted.local(header) != way.local(&error.header) {
        return false;
    }
    let peer = way_of_quoted.peer(header);
    if header.is_later_fragment() {
        return remote::takes_portless(remote, peer) || follows(way_of_quoted, header, host);
    }
    if !icmp::has_ports(header.protocol()) {
        return remote::takes_portless(remote, peer);
    }
    quoted
        .load_payload::<Ports>(ctx)
        .is_some_and(|ports| remote::takes(remote, peer, way_of_quoted.peer_port(&ports)))
}
