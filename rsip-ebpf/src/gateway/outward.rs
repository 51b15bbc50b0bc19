//! From a host to the public realm, if the host holds the source port.

use aya_ebpf::{macros::classifier, programs::TcContext};
use rsip_ebpf::{
    gre, icmp,
    ipv4::{self, Tunnel},
};
use rsip_ebpf_common::gateway::{Config, Counter, FLAG_INTERNAL_L3, FLAG_REMOTE, MisuseKind};

use crate::{
    inward::{count_hop, host_for, verdict},
    maps::{self, Host},
    mtu,
    parse::{self, Datagram, Ports},
    report, tc,
    whole::{self, Way},
};

/// Ingress of the internal interface.
#[classifier]
pub(crate) fn rsip_outward(ctx: TcContext) -> i32 {
    let Some(config) = maps::config() else {
        return tc::PASS;
    };
    if config.flags & FLAG_INTERNAL_L3 == 0 {
        verdict(outward(&ctx, config, tc::ETHERNET))
    } else {
        verdict(outward(&ctx, config, tc::NO_LINK))
    }
}

#[inline(always)]
fn outward(ctx: &TcContext, config: &Config, link: u32) -> Result<i32, Counter> {
    if !tc::is_ipv4(ctx) || !tc::is_for_us(ctx) || config.internal_address == 0 {
        return Ok(tc::PASS);
    }
    let Some(outer) = tc::load::<ipv4::Header>(ctx, link) else {
        return Ok(tc::PASS);
    };
    if outer.destination() != config.internal_address {
        return Ok(tc::PASS);
    }
    let uses = match Host::new(outer.source()) {
        Some(host) => maps::tunnel(config, host),
        None => Tunnel::IpIp,
    };
    match outer.protocol() {
        ipv4::PROTOCOL_IPIP if uses == Tunnel::IpIp => {}
        ipv4::PROTOCOL_GRE if uses == Tunnel::Gre => {}
        ipv4::PROTOCOL_IPIP | ipv4::PROTOCOL_GRE => return foreign_tunnel(ctx, &outer, link),
        ipv4::PROTOCOL_ICMP => {
            mtu::hear(ctx, config, &outer, link);
            return Ok(tc::PASS);
        }
        _ => return Ok(tc::PASS),
    }
    if !outer.is_plain() || outer.is_fragment() {
        return Err(Counter::Unsupported);
    }
    let tunnelled = Datagram::check(ctx, outer, link, tc::length_from(ctx, link))?;
    let overhead = match uses {
        Tunnel::IpIp => ipv4::HEADER_LENGTH,
        Tunnel::Gre => ipv4::HEADER_LENGTH + gre_length(ctx, &tunnelled)?,
    };
    let at = link + overhead;
    let header: ipv4::Header = tc::load(ctx, at).ok_or(Counter::Malformed)?;
    let mut inner = Datagram::check(ctx, header, at, tunnelled.length.saturating_sub(overhead))?;

    let host = Host::new(outer.source()).ok_or(Counter::BadSource)?;
    let Some(index) = maps::address_index(header.source()) else {
        report::misuse(host, MisuseKind::LocalAddress);
        return Err(Counter::BadSource);
    };
    let destination = header.destination();
    if ipv4::is_not_a_host(destination) || ipv4::is_loopback(destination) {
        return Err(Counter::Unsupported);
    }
    if let Err(why) = may_send(ctx, config, &inner, index, host) {
        return Err(report::refused(config, index, host, why));
    }
    inner.header.merge_ecn(&outer).map_err(|ipv4::Congested| Counter::Failed)?;
    let length = inner.wire_length(ctx)?;
    let (limit, to) = match maps::address_index(destination) {
        None => (mtu::of_external(config), None),
        Some(index) => {
            let host = host_for(ctx, config, &inner, index)?.ok_or(Counter::Unsupported)?;
            (mtu::of_tunnel(config, host, length), Some(host))
        }
    };
    if length > limit {
        if overhead != uses.overhead() {
            // With a checksum over all of it.
            return Err(Counter::TooBig);
        }
        return mtu::Place { ctx, link, overhead, outer: Some((&outer, uses)) }
            .too_big(config, &inner, limit);
    }
    mtu::cut_to(ctx, at, &inner)?;
    count_hop(ctx, &mut inner)?;
    match to {
        None => leave(ctx, config, link, overhead, &inner),
        Some(host) => turn(ctx, config, link, overhead, &inner, host),
    }
}

/// Length of the GRE header in a packet of a host, if it is one that must be accepted.
#[inline(always)]
fn gre_length(ctx: &TcContext, tunnelled: &Datagram) -> Result<u32, Counter> {
    let gre: gre::Header = tunnelled.load_payload(ctx).ok_or(Counter::Malformed)?;
    let length = gre.length().ok_or(Counter::BadGre)?;
    if length != gre::HEADER_LENGTH {
        // RFC 2784, section 2.2: the sum over header and payload, which is nothing where it is right.
        let right = !tunnelled.is_super_packet()
            && mtu::sum(
                ctx,
                tunnelled.at + ipv4::HEADER_LENGTH,
                tunnelled.length.saturating_sub(ipv4::HEADER_LENGTH),
            )? == u16::MAX;
        if !right {
            return Err(Counter::BadGre);
        }
    }
    Ok(length)
}

/// A packet to us in a tunnel of a type that is not offered, or not this host's. What is in it is not ours to forward; a tunnel of the
/// administrator's own, which carries no address of ours, is left alone.
#[inline(always)]
fn foreign_tunnel(ctx: &TcContext, outer: &ipv4::Header, link: u32) -> Result<i32, Counter> {
    if let Some(host) = Host::new(outer.source()) {
        report::misuse(host, MisuseKind::Tunnel);
    }
    if !outer.has_sane_header() || outer.is_later_fragment() {
        return Ok(tc::PASS);
    }
    let at = link + outer.header_length();
    let inner = if outer.protocol() == ipv4::PROTOCOL_GRE {
        tc::load::<gre::Header>(ctx, at).and_then(|gre| gre.payload_at(at))
    } else {
        Some(at)
    };
    match inner.and_then(|at| tc::load::<ipv4::Header>(ctx, at)) {
        Some(inner) if maps::address_index(inner.source()).is_some() => Err(Counter::BadTunnel),
        _ => Ok(tc::PASS),
    }
}

/// Whether the host may send this with our public address of this index as its source.
#[inline(always)]
fn may_send(
    ctx: &TcContext,
    config: &Config,
    inner: &Datagram,
    index: u32,
    host: Host,
) -> Result<(), Counter> {
    let header = &inner.header;
    if maps::holder(maps::whole(index)) == Some(host) {
        return whole::check(ctx, config, Way::Out, inner, index, host);
    }
    if header.is_later_fragment() {
        let first = maps::first_fragment(&maps::FRAGMENTS_OUT, &parse::fragment_key(header));
        return if first == Some(host) { Ok(()) } else { Err(Counter::Unsupported) };
    }
    match header.protocol() {
        ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP => {
            let ports: Ports = inner.load_payload(ctx).ok_or(Counter::Malformed)?;
            let slot = maps::slot(index, ports.source);
            if maps::holder(slot) != Some(host) {
                return Err(Counter::BadSource);
            }
            maps::check_remote(config, slot, header.destination(), ports.destination)?;
        }
        ipv4::PROTOCOL_ICMP => {
            let icmp: icmp::Header = inner.load_payload(ctx).ok_or(Counter::Malformed)?;
            match icmp.kind() {
                icmp::Kind::EchoRequest => {
                    may_ask(config, index, host, header.destination())?;
                    maps::remember_echo(&parse::echo_key(header.source(), header.destination(), &icmp), host);
                }
                icmp::Kind::Error => check_quoted(ctx, config, inner, index, host)?,
                icmp::Kind::EchoReply | icmp::Kind::Other => return Err(Counter::Unsupported),
            }
        }
        _ => return Err(Counter::Unsupported),
    }
    if header.is_fragment() {
        maps::remember_fragment(&maps::FRAGMENTS_OUT, &parse::fragment_key(header), host);
    }
    Ok(())
}

/// Whether the host may send this peer an echo request.
#[inline(always)]
fn may_ask(config: &Config, index: u32, host: Host, peer: u32) -> Result<(), Counter> {
    if maps::holds_for(config, index, host, peer) {
        Ok(())
    } else if config.flags & FLAG_REMOTE != 0 && maps::holds_any(index, host) {
        Err(Counter::BadRemote)
    } else {
        Err(Counter::BadSource)
    }
}

/// Whether the host received the datagram which its ICMP error quotes, and from the one to whom it sends the error.
#[inline(always)]
fn check_quoted(
    ctx: &TcContext,
    config: &Config,
    error: &Datagram,
    index: u32,
    host: Host,
) -> Result<(), Counter> {
    let quoted = error.quoted(ctx).ok_or(Counter::BadSource)?;
    let header = &quoted.header;
    if header.destination() != error.header.source() {
        return Err(Counter::BadSource);
    }
    let receiver = if header.is_later_fragment() {
        maps::first_fragment(&maps::FRAGMENTS_IN, &parse::fragment_key(header))
    } else if icmp::has_ports(header.protocol()) {
        let ports: Ports = quoted.load_payload(ctx).ok_or(Counter::BadSource)?;
        let slot = maps::slot(index, ports.destination);
        let receiver = maps::holder(slot);
        if receiver == Some(host) {
            maps::check_remote(config, slot, header.source(), ports.source)?;
        }
        receiver
    } else {
        None
    };
    if receiver != Some(host) {
        return Err(Counter::BadSource);
    }
    if config.flags & FLAG_REMOTE != 0 && header.source() != error.header.destination() {
        return Err(Counter::BadRemote);
    }
    Ok(())
}

/// Out through the external interface, without the outer header.
#[inline(always)]
fn leave(
    ctx: &TcContext,
    config: &Config,
    link: u32,
    overhead: u32,
    inner: &Datagram,
) -> Result<i32, Counter> {
    tc::resize(ctx, -(overhead as i32))?;
    let action = tc::send(ctx, link, config.external_ifindex)?;
    maps::count(Counter::Outward, 1);
    maps::count(Counter::OutwardBytes, inner.length);
    Ok(action)
}

/// Back in through the internal interface: the destination is one of our own addresses. The outer header is replaced in place,
/// made longer or shorter where the tunnels of both hosts differ.
#[inline(always)]
fn turn(
    ctx: &TcContext,
    config: &Config,
    link: u32,
    overhead: u32,
    inner: &Datagram,
    host: Host,
) -> Result<i32, Counter> {
    let tunnel = maps::tunnel(config, host);
    let change = tunnel.overhead() as i32 - overhead as i32;
    if change != 0 {
        tc::resize(ctx, change)?;
    }
    let (local, remote) = (config.internal_address, host.get());
    let outer = ipv4::Header::around(tunnel, &inner.header, inner.length, local, remote);
    tc::store_outer(ctx, link, tunnel, &outer)?;
    let action = tc::send(ctx, link, config.internal_ifindex)?;
    maps::count(Counter::Outward, 1);
    maps::count(Counter::OutwardBytes, inner.length);
    maps::count(Counter::Inward, 1);
    maps::count(Counter::InwardBytes, inner.length);
    Ok(action)
}
