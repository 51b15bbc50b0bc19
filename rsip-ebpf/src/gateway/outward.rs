//! From a host to the public realm, if the host holds the source port.

use aya_ebpf::{macros::classifier, programs::TcContext};
use rsip_ebpf::{icmp, ipv4};
use rsip_ebpf_common::gateway::{Config, Counter, FLAG_INTERNAL_L3};

use crate::{
    inward::{check_tunnel_mtu, count_hop, host_for, verdict},
    maps::{self, Host},
    parse::{self, Datagram, Ports},
    tc,
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
    if outer.protocol() != ipv4::PROTOCOL_IPIP || outer.destination() != config.internal_address {
        return Ok(tc::PASS);
    }
    if !outer.is_plain() || outer.is_fragment() {
        return Err(Counter::Unsupported);
    }
    let at = link + ipv4::HEADER_LENGTH;
    let tunnelled = Datagram::check(ctx, outer, link, tc::length_from(ctx, link))?;
    let header: ipv4::Header = tc::load(ctx, at).ok_or(Counter::Malformed)?;
    let mut inner = Datagram::check(ctx, header, at, tunnelled.length.saturating_sub(ipv4::HEADER_LENGTH))?;

    let host = Host::new(outer.source()).ok_or(Counter::BadSource)?;
    let index = maps::address_index(header.source()).ok_or(Counter::BadSource)?;
    may_send(ctx, &inner, index, host)?;
    inner.header.merge_ecn(&outer).map_err(|ipv4::Congested| Counter::Failed)?;

    let destination = header.destination();
    if ipv4::is_not_a_host(destination) || ipv4::is_loopback(destination) {
        return Err(Counter::Unsupported);
    }
    match maps::address_index(destination) {
        None => leave(ctx, config, link, &mut inner),
        Some(index) => {
            let host = host_for(ctx, &inner, index)?.ok_or(Counter::Unsupported)?;
            turn(ctx, config, link, &mut inner, host)
        }
    }
}

/// Whether the host may send this with our public address of this index as its source.
#[inline(always)]
fn may_send(ctx: &TcContext, inner: &Datagram, index: u32, host: Host) -> Result<(), Counter> {
    let header = &inner.header;
    if header.is_later_fragment() {
        let first = maps::first_fragment(&maps::FRAGMENTS_OUT, &parse::fragment_key(header));
        return if first == Some(host) { Ok(()) } else { Err(Counter::Unsupported) };
    }
    match header.protocol() {
        ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP => {
            let ports: Ports = inner.load_payload(ctx).ok_or(Counter::Malformed)?;
            if maps::holder(index, ports.source) != Some(host) {
                return Err(Counter::BadSource);
            }
        }
        ipv4::PROTOCOL_ICMP => {
            let icmp: icmp::Header = inner.load_payload(ctx).ok_or(Counter::Malformed)?;
            match icmp.kind() {
                icmp::Kind::EchoRequest if maps::holds_any(index, host) => {
                    maps::remember_echo(&parse::echo_key(header.source(), header.destination(), &icmp), host);
                }
                icmp::Kind::Error if quoted_receiver(ctx, inner, index) == Some(host) => {}
                icmp::Kind::EchoRequest | icmp::Kind::Error => return Err(Counter::BadSource),
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

/// The host that received the datagram which an ICMP error quotes.
#[inline(always)]
fn quoted_receiver(ctx: &TcContext, error: &Datagram, index: u32) -> Option<Host> {
    let quoted = error.quoted(ctx)?;
    let header = &quoted.header;
    if header.destination() != error.header.source() {
        return None;
    }
    if header.is_later_fragment() {
        return maps::first_fragment(&maps::FRAGMENTS_IN, &parse::fragment_key(header));
    }
    if !icmp::has_ports(header.protocol()) {
        return None;
    }
    let ports: Ports = quoted.load_payload(ctx)?;
    maps::holder(index, ports.destination)
}

/// Out through the external interface, without the outer header.
#[inline(always)]
fn leave(ctx: &TcContext, config: &Config, link: u32, inner: &mut Datagram) -> Result<i32, Counter> {
    if config.external_mtu != 0 && inner.wire_length(ctx)? > config.external_mtu {
        return Err(Counter::TooBig);
    }
    count_hop(ctx, inner)?;
    tc::decapsulate(ctx)?;
    let action = tc::send(ctx, link, config.external_ifindex)?;
    maps::count(Counter::Outward, 1);
    maps::count(Counter::OutwardBytes, inner.length);
    Ok(action)
}

/// Back in through the internal interface: the destination is one of our own addresses. The outer header is replaced in place.
#[inline(always)]
fn turn(
    ctx: &TcContext,
    config: &Config,
    link: u32,
    inner: &mut Datagram,
    host: Host,
) -> Result<i32, Counter> {
    check_tunnel_mtu(ctx, config, inner)?;
    count_hop(ctx, inner)?;
    let outer = ipv4::Header::around(&inner.header, inner.length, config.internal_address, host.get());
    tc::store(ctx, link, &outer)?;
    let action = tc::send(ctx, link, config.internal_ifindex)?;
    maps::count(Counter::Outward, 1);
    maps::count(Counter::OutwardBytes, inner.length);
    maps::count(Counter::Inward, 1);
    maps::count(Counter::InwardBytes, inner.length);
    Ok(action)
}
