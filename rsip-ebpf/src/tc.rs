//! What both objects do to packets. Not part of the library, because aya-ebpf brings a `memset` of its own, which must not
//! get into the library's tests on the build machine; each binary includes this file.
//!
//! Everything is read and written by helpers instead of through packet pointers: they take care of packets whose data is
//! not in one piece (AF_PACKET rings, GRO), and the verifier has nothing to follow.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_INVALIDATE_HASH, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_redirect_neigh, bpf_skb_change_head},
    programs::TcContext,
};
use rsip_ebpf::{gre, ipv4};

/// Let the packet go on: to the next program, and to the stack after the last.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;
/// Drop the packet.
pub(crate) const DROP: i32 = TC_ACT_SHOT;

/// Length of an Ethernet header, octets.
pub(crate) const ETHERNET: u32 = 14;
/// Length of the link-layer header on an interface that has none.
pub(crate) const NO_LINK: u32 = 0;
/// `__sk_buff::protocol` of IPv4.
const ETHERTYPE_IPV4: u16 = 0x0800;
/// `__sk_buff::protocol` of ARP.
const ETHERTYPE_ARP: u16 = 0x0806;
/// `__sk_buff::pkt_type` of a frame that is for this machine.
const PACKET_HOST: u32 = 0;

/// The kernel would not change the packet's shape: no room, or out of memory.
pub(crate) struct Failed;

/// Whether the packet is IPv4, and of this interface. A packet of a VLAN passes here on its way to the VLAN's own interface,
/// its tag set aside; it would keep that tag wherever it were sent.
#[inline(always)]
pub(crate) fn is_ipv4(ctx: &TcContext) -> bool {
    is_of_type(ctx, ETHERTYPE_IPV4)
}

/// Whether the packet is ARP, and of this interface.
#[inline(always)]
#[allow(dead_code, reason = "the gateway has no use for it")]
pub(crate) fn is_arp(ctx: &TcContext) -> bool {
    is_of_type(ctx, ETHERTYPE_ARP)
}

#[inline(always)]
fn is_of_type(ctx: &TcContext, ethertype: u16) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    let tagged = unsafe { (*ctx.skb.skb).vlan_present } != 0;
    !tagged && ctx.skb.protocol() == u32::from(ethertype.to_be())
}

/// Whether the frame was sent to this machine alone (not seen in promiscuous mode, not by broadcast).
#[inline(always)]
pub(crate) fn is_for_us(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST }
}

/// Payload of each segment if the packet is a super-packet of several; 0: it is an ordinary one.
#[inline(always)]
pub(crate) fn segment_size(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid as long as the program runs.
    unsafe { (*ctx.skb.skb).gso_size }
}

/// Octets from `offset` to the end.
#[inline(always)]
pub(crate) fn length_from(ctx: &TcContext, offset: u32) -> u32 {
    ctx.len().saturating_sub(offset)
}

/// A header at `offset`, if the packet is long enough.
#[inline(always)]
pub(crate) fn load<T>(ctx: &TcContext, offset: u32) -> Option<T> {
    ctx.load(offset as usize).ok()
}

/// Overwrite the octets at `offset`.
#[inline(always)]
pub(crate) fn store<T>(ctx: &TcContext, offset: u32, value: &T) -> Result<(), Failed> {
    ctx.store(offset as usize, value, u64::from(BPF_F_INVALIDATE_HASH)).map_err(|_| Failed)
}

/// Insert `outer`, and what belongs to it, between the link-layer header of `link` octets and the IPv4 header. The segments of
/// a super-packet keep their size.
#[inline(always)]
pub(crate) fn encapsulate(
    ctx: &TcContext,
    link: u32,
    tunnel: ipv4::Tunnel,
    outer: &ipv4::Header,
) -> Result<(), Failed> {
    let flags = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_FIXED_GSO;
    let flags = match tunnel {
        ipv4::Tunnel::IpIp => flags,
        ipv4::Tunnel::Gre => flags | BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
    };
    ctx.adjust_room(tunnel.overhead() as i32, BPF_ADJ_ROOM_MAC, u64::from(flags)).map_err(|_| Failed)?;
    store_outer(ctx, link, tunnel, outer)
}

/// Overwrite an outer header, and what belongs to it.
#[inline(always)]
pub(crate) fn store_outer(
    ctx: &TcContext,
    link: u32,
    tunnel: ipv4::Tunnel,
    outer: &ipv4::Header,
) -> Result<(), Failed> {
    store(ctx, link, outer)?;
    if tunnel == ipv4::Tunnel::Gre {
        store(ctx, link + ipv4::HEADER_LENGTH, &gre::Header::PLAIN)?;
    }
    Ok(())
}

/// Insert so many octets behind the link-layer header, or take so many away.
#[inline(always)]
pub(crate) fn resize(ctx: &TcContext, change: i32) -> Result<(), Failed> {
    ctx.adjust_room(change, BPF_ADJ_ROOM_MAC, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO)).map_err(|_| Failed)
}

/// Send the packet through an interface; the kernel finds the next hop and its link-layer address.
///
/// `link` is the length of the link-layer header that the packet has. One that has none gets an empty Ethernet header
/// first: `bpf_redirect_neigh` silently drops packets without.
#[inline(always)]
pub(crate) fn send(ctx: &TcContext, link: u32, interface: u32) -> Result<i32, Failed> {
    if link == NO_LINK {
        // SAFETY: the context is valid; a failing call leaves the packet as it was.
        if unsafe { bpf_skb_change_head(ctx.as_ptr().cast(), ETHERNET, 0) } != 0 {
            return Err(Failed);
        }
        let mut header = [0u8; ETHERNET as usize];
        header[12..].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        store(ctx, 0, &header)?;
    }
    // SAFETY: without parameters the helper looks up the next hop itself.
    Ok(unsafe { bpf_redirect_neigh(interface, core::ptr::null_mut(), 0, 0) } as i32)
}
