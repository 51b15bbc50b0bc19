//! The tunnel between host and gateway: IP-in-IP (RFC 2003), without a tunnel device of the kernel's.
//!
//! What the host sends with its leased address leaves through the tun device `rsip`, whose egress program wraps it and sends
//! it through the private interface. What the gateway sends arrives at the private interface, whose ingress program
//! unwraps it and lets it arrive at `rsip`.

use aya_ebpf::{
    bindings::BPF_F_INGRESS, helpers::generated::bpf_redirect, macros::classifier, programs::TcContext,
};
use rsip_ebpf::{
    gre, icmp,
    ipv4::{self, Tunnel},
};
use rsip_ebpf_common::host::{
    Config, Counter, EVENT_PATH_MTU, FLAG_KERNEL_TUNNEL, FLAG_PRIVATE_L3, LEAST_PATH_MTU, UNSAID_PATH_MTU,
};

use crate::{
    arp, event,
    maps::{config, count},
    peer::{self, Direction},
    tc,
};

impl From<tc::Failed> for Counter {
    fn from(_: tc::Failed) -> Self {
        Self::TunnelDropped
    }
}

/// Egress of the tunnel device.
#[classifier]
pub(crate) fn rsip_tun_out(ctx: TcContext) -> i32 {
    verdict(outward(&ctx))
}

/// Ingress of the private interface.
#[classifier]
pub(crate) fn rsip_tun_in(ctx: TcContext) -> i32 {
    let Some(config) = config() else {
        return tc::PASS;
    };
    if config.flags & FLAG_PRIVATE_L3 == 0 {
        if arp::asks_for_leased(&ctx, config) {
            return verdict(Err(Counter::ArpSilenced));
        }
        verdict(inward(&ctx, config, tc::ETHERNET))
    } else {
        verdict(inward(&ctx, config, tc::NO_LINK))
    }
}

/// Its type.
#[inline(always)]
fn tunnel(config: &Config) -> Tunnel {
    if config.tunnel_protocol == u32::from(ipv4::PROTOCOL_GRE) { Tunnel::Gre } else { Tunnel::IpIp }
}

/// The one place where an error becomes a drop and a count.
#[inline(always)]
fn verdict(result: Result<i32, Counter>) -> i32 {
    match result {
        Ok(action) => action,
        Err(counter) => {
            count(counter);
            tc::DROP
        }
    }
}

#[inline(always)]
fn outward(ctx: &TcContext) -> Result<i32, Counter> {
    if !tc::is_ipv4(ctx) {
        // The kernel's own IPv6 neighbour discovery: no gateway wants it, and counting it would hide what matters.
        return Ok(tc::DROP);
    }
    let config = config().ok_or(Counter::TunnelDropped)?;
    let inner: ipv4::Header = tc::load(ctx, 0).ok_or(Counter::TunnelDropped)?;
    if config.public_address == 0 || inner.source() != config.public_address {
        return Err(Counter::TunnelBadSource);
    }
    if !peer::admits(ctx, config, &inner, 0, Direction::Out) {
        return Err(Counter::TunnelBadRemote);
    }
    if config.flags & FLAG_KERNEL_TUNNEL != 0 {
        count(Counter::TunnelOut);
        return Ok(tc::PASS);
    }
    let tunnel = tunnel(config);
    let (local, remote) = (config.tunnel_local, config.tunnel_remote);
    let outer = ipv4::Header::around(tunnel, &inner, ctx.len(), local, remote);
    tc::encapsulate(ctx, tc::NO_LINK, tunnel, &outer)?;
    let action = tc::send(ctx, tc::NO_LINK, config.private_ifindex)?;
    count(Counter::TunnelOut);
    Ok(action)
}

#[inline(always)]
fn inward(ctx: &TcContext, config: &Config, link: u32) -> Result<i32, Counter> {
    if !tc::is_ipv4(ctx) || !tc::is_for_us(ctx) || config.public_address == 0 {
        return Ok(tc::PASS);
    }
    let Some(outer) = tc::load::<ipv4::Header>(ctx, link) else {
        return Ok(tc::PASS);
    };
    let kernels = config.flags & FLAG_KERNEL_TUNNEL != 0;
    if outer.protocol() == ipv4::PROTOCOL_ICMP {
        if !kernels {
            hear(ctx, config, &outer, link);
        }
        return Ok(tc::PASS);
    }
    let tunnel = tunnel(config);
    if outer.protocol() != tunnel.protocol()
        || outer.source() != config.tunnel_remote
        || outer.destination() != config.tunnel_local
    {
        return Ok(tc::PASS);
    }
    if kernels && outer.is_fragment() {
        // The kernel puts it together.
        return Ok(tc::PASS);
    }
    if !outer.is_plain() || outer.is_fragment() {
        return Err(Counter::TunnelDropped);
    }
    if tunnel == Tunnel::Gre {
        // With options it is not what the gateway was asked for: a checksum that nobody checks is worse than none.
        let gre: gre::Header = tc::load(ctx, link + ipv4::HEADER_LENGTH).ok_or(Counter::TunnelDropped)?;
        if gre.length() != Some(gre::HEADER_LENGTH) {
            return Err(Counter::TunnelDropped);
        }
    }
    let overhead = tunnel.overhead();
    let at = link + overhead;
    let mut inner: ipv4::Header = tc::load(ctx, at).ok_or(Counter::TunnelDropped)?;
    let sane = if tc::segment_size(ctx) == 0 {
        outer.fits(tc::length_from(ctx, link)) && inner.fits(outer.total_length().saturating_sub(overhead))
    } else {
        inner.has_sane_header()
    };
    if !sane || inner.destination() != config.public_address {
        return Err(Counter::TunnelDropped);
    }
    if !peer::admits(ctx, config, &inner, at, Direction::In) {
        return Err(Counter::TunnelBadRemote);
    }
    if kernels {
        count(Counter::TunnelIn);
        return Ok(tc::PASS);
    }
    inner.merge_ecn(&outer).map_err(|ipv4::Congested| Counter::TunnelDropped)?;
    tc::store(ctx, at, &inner)?;
    tc::resize(ctx, -(overhead as i32))?;
    count(Counter::TunnelIn);
    // SAFETY: takes no pointer.
    Ok(unsafe { bpf_redirect(config.tunnel_ifindex, u64::from(BPF_F_INGRESS)) } as i32)
}

/// A router on the way to the gateway says that a packet of the tunnel did not fit (RFC 2003, section 5.1): the agent makes
/// the tunnel's own packets smaller. The stack may hear it too.
#[inline(always)]
fn hear(ctx: &TcContext, config: &Config, header: &ipv4::Header, link: u32) {
    if header.destination() != config.tunnel_local {
        return;
    }
    let Some(said) = icmp::told_by(header, |at| tc::load(ctx, at), |at| tc::load(ctx, at), link) else {
        return;
    };
    let tunnel = &said.tunnel;
    if tunnel.source() != config.tunnel_local || tunnel.destination() != config.tunnel_remote {
        return;
    }
    let mtu = if said.mtu == 0 { UNSAID_PATH_MTU } else { said.mtu };
    let mtu = mtu.max(LEAST_PATH_MTU);
    if mtu < config.path_mtu {
        event::tell(EVENT_PATH_MTU, mtu);
    }
}
