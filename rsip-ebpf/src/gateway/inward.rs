//! From the public realm to the host that holds the destination port.

use aya_ebpf::{macros::classifier, programs::TcContext};
use rsip_ebpf::{icmp, ipv4};
use rsip_ebpf_common::gateway::{Config, Counter, FLAG_EXTERNAL_L3};

use crate::{
    maps::{self, Host},
    mtu,
    parse::{self, Datagram, Ports},
    tc,
    whole::{self, Way},
};

impl From<tc::Failed> for Counter {
    fn from(_: tc::Failed) -> Self {
        Self::Failed
    }
}

/// Ingress of the external interface.
#[classifier]
pub(crate) fn rsip_inward(ctx: TcContext) -> i32 {
    let Some(config) = maps::config() else {
        return tc::PASS;
    };
    if config.flags & FLAG_EXTERNAL_L3 == 0 {
        verdict(inward(&ctx, config, tc::ETHERNET))
    } else {
        verdict(inward(&ctx, config, tc::NO_LINK))
    }
}

/// The one place where an error becomes a drop and a count.
#[inline(always)]
pub(crate) fn verdict(result: Result<i32, Counter>) -> i32 {
    match result {
        Ok(action) => action,
        Err(counter) => {
            maps::count(counter, 1);
            tc::DROP
        }
    }
}

/// A leased port masks the gateway's own; what no host holds is the gateway's stack's.
#[inline(always)]
fn inward(ctx: &TcContext, config: &Config, link: u32) -> Result<i32, Counter> {
    if !tc::is_ipv4(ctx) || !tc::is_for_us(ctx) {
        return Ok(tc::PASS);
    }
    let Some(header) = tc::load::<ipv4::Header>(ctx, link) else {
        return Ok(tc::PASS);
    };
    let Some(index) = maps::address_index(header.destination()) else {
        return Ok(tc::PASS);
    };
    let mut datagram = Datagram::check(ctx, header, link, tc::length_from(ctx, link))?;
    let Some(host) = host_for(ctx, config, &datagram, index)? else {
        return Ok(tc::PASS);
    };
    // The stack would check this for what passes through it.
    let source = header.source();
    if ipv4::is_not_a_host(source) || ipv4::is_loopback(source) || maps::address_index(source).is_some() {
        return Err(Counter::Martian);
    }
    let length = datagram.wire_length(ctx)?;
    let limit = mtu::of_tunnel(config, host, length);
    if length > limit {
        return mtu::Place { ctx, link, overhead: 0, outer: None }.too_big(config, &datagram, limit);
    }
    mtu::cut_to(ctx, link, &datagram)?;
    count_hop(ctx, &mut datagram)?;
    let tunnel = maps::tunnel(config, host);
    let (local, remote) = (config.internal_address, host.get());
    let outer = ipv4::Header::around(tunnel, &datagram.header, datagram.length, local, remote);
    tc::encapsulate(ctx, link, tunnel, &outer)?;
    let action = tc::send(ctx, link, config.internal_ifindex)?;
    maps::count(Counter::Inward, 1);
    maps::count(Counter::InwardBytes, datagram.length);
    Ok(action)
}

/// The host that a datagram to our public address of this index is for; `None`: nobody.
///
/// # Errors
///
/// It has a host which may not receive it, or contradicts itself.
#[inline(always)]
pub(crate) fn host_for(
    ctx: &TcContext,
    config: &Config,
    datagram: &Datagram,
    index: u32,
) -> Result<Option<Host>, Counter> {
    let header = &datagram.header;
    if let Some(host) = maps::holder(maps::whole(index)) {
        whole::check(ctx, config, Way::In, datagram, index, host)?;
        return Ok(Some(host));
    }
    if header.is_later_fragment() {
        return Ok(maps::first_fragment(&maps::FRAGMENTS_IN, &parse::fragment_key(header)));
    }
    let host = match header.protocol() {
        ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP => {
            let ports: Ports = datagram.load_payload(ctx).ok_or(Counter::Malformed)?;
            let slot = maps::slot(index, ports.destination);
            let host = maps::holder(slot);
            if host.is_some() {
                maps::check_remote(config, slot, header.source(), ports.source)?;
            }
            host
        }
        ipv4::PROTOCOL_ICMP => {
            let icmp: icmp::Header = datagram.load_payload(ctx).ok_or(Counter::Malformed)?;
            match icmp.kind() {
                icmp::Kind::EchoReply => {
                    let key = parse::echo_key(header.destination(), header.source(), &icmp);
                    // The lease may have ended since.
                    maps::echo_sender(&key)
                        .filter(|&host| maps::holds_for(config, index, host, header.source()))
                }
                icmp::Kind::Error => quoted_sender(ctx, config, datagram, index)?,
                icmp::Kind::EchoRequest | icmp::Kind::Other => None,
            }
        }
        _ => None,
    };
    if let Some(host) = host
        && header.is_fragment()
    {
        maps::remember_fragment(&maps::FRAGMENTS_IN, &parse::fragment_key(header), host);
    }
    Ok(host)
}

/// The host that sent the datagram which an ICMP error quotes.
#[inline(always)]
fn quoted_sender(
    ctx: &TcContext,
    config: &Config,
    error: &Datagram,
    index: u32,
) -> Result<Option<Host>, Counter> {
    let Some(quoted) = error.quoted(ctx) else {
        return Ok(None);
    };
    let header = &quoted.header;
    if header.source() != error.header.destination() {
        return Ok(None);
    }
    if header.is_later_fragment() {
        return Ok(maps::first_fragment(&maps::FRAGMENTS_OUT, &parse::fragment_key(header)));
    }
    if icmp::has_ports(header.protocol()) {
        let Some(ports) = quoted.load_payload::<Ports>(ctx) else {
            return Ok(None);
        };
        let slot = maps::slot(index, ports.source);
        let host = maps::holder(slot);
        if host.is_some() {
            maps::check_remote(config, slot, header.destination(), ports.destination)?;
        }
        return Ok(host);
    }
    if header.protocol() == ipv4::PROTOCOL_ICMP
        && let Some(icmp) = quoted.load_payload::<icmp::Header>(ctx)
        && icmp.kind() == icmp::Kind::EchoRequest
    {
        let key = parse::echo_key(header.source(), header.destination(), &icmp);
        return Ok(maps::echo_sender(&key)
            .filter(|&host| maps::holds_for(config, index, host, header.destination())));
    }
    Ok(None)
}

/// The gateway is a hop like any router (RFC 2003, section 3.1): one off the time to live, in the packet too.
#[inline(always)]
pub(crate) fn count_hop(ctx: &TcContext, datagram: &mut Datagram) -> Result<(), Counter> {
    if datagram.header.ttl() <= 1 {
        return Err(Counter::TtlExceeded);
    }
    datagram.header.decrement_ttl();
    tc::store(ctx, datagram.at, &datagram.header)?;
    Ok(())
}
