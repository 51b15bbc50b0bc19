//! What is too big for the way that it has to go: whoever said "don't fragment" is told what fits (RFC 1191), everything else
//! goes on in fragments (RFC 791, section 3.2).
//!
//! The kernel has no helper that fragments. So a datagram is split in two, and both parts come in at the same interface again:
//! a copy whose header says that it is the first part (what follows its end is cut off before it is sent), and the packet
//! itself without that part. A rest that is still too big is split again when its turn comes.
//!
//! Tunnels have a path of their own: routers between gateway and host tell the gateway what fits there (RFC 2003, section
//! 5.1), which is remembered for a while.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, bpf_adj_room_mode},
    helpers::generated::{
        bpf_csum_diff, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    macros::map,
    maps::{LruHashMap, PerCpuArray},
    programs::TcContext,
};
use rsip_ebpf::{
    icmp,
    ipv4::{self, Tunnel},
};
use rsip_ebpf_common::{
    gateway::{Budget, Config, Counter, Path},
    host::{LEAST_PATH_MTU, UNSAID_PATH_MTU},
};

use crate::{
    maps::{self, Host},
    parse::Datagram,
    tc,
};

const PATHS_MAX: u32 = 1 << 12;
/// How long a path is taken to be so narrow (RFC 1191, section 6.3).
const PATH_NS: u64 = 600_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// ICMP errors of one CPU in a second, at most (RFC 1812, section 4.3.2.8).
const ERRORS_PER_SECOND: u64 = 500;
/// How much of a datagram an error quotes: its header with all options, and much more than eight octets of its payload. What
/// is too big for anything is longer.
const QUOTE: u32 = 128;
/// The longest part that one call of the helper can take off.
const LONGEST_PART: u32 = 0xff8;
/// Ethernet pads what is shorter. What stands behind a longer datagram is the rest of which another packet consists.
const SHORTEST: u32 = 46;
/// The longest payload whose checksum is computed here, in pieces.
const LONGEST_SUM: u32 = 9216;
const PIECE: u32 = 128;

#[map]
static PATHS: LruHashMap<u32, Path> = LruHashMap::with_max_entries(PATHS_MAX, 0);
#[map]
static ERRORS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(1, 0);
// A program's stack has 512 octets.
#[map]
static SCRATCH: PerCpuArray<[u8; QUOTE as usize]> = PerCpuArray::with_max_entries(1, 0);

/// Where a packet goes that has to be split or complained of.
pub(crate) struct Place<'a> {
    pub(crate) ctx: &'a TcContext,
    /// Length of the link-layer header.
    pub(crate) link: u32,
    /// The outer header that the datagram came in, if it came in a tunnel, and the tunnel's type.
    pub(crate) outer: Option<(&'a ipv4::Header, Tunnel)>,
    /// Length of all that stands before the datagram on account of the tunnel.
    pub(crate) overhead: u32,
}

/// The longest datagram that the tunnel to this host takes, where the datagram at hand has this length.
#[inline(always)]
pub(crate) fn of_tunnel(config: &Config, host: Host, length: u32) -> u32 {
    let overhead = maps::tunnel(config, host).overhead();
    let mtu = if config.internal_mtu == 0 { u32::from(u16::MAX) } else { config.internal_mtu };
    // Short ones fit whatever the path is.
    if length + overhead <= LEAST_PATH_MTU {
        return mtu.saturating_sub(overhead);
    }
    // SAFETY: two words that user space never writes; at worst a datagram is told the wrong one once.
    let path = unsafe { PATHS.get(host.get()) };
    match path {
        Some(path) if maps::now() < path.until_ns && path.mtu < mtu => path.mtu.saturating_sub(overhead),
        _ => mtu.saturating_sub(overhead),
    }
}

/// The longest datagram that the external interface takes.
#[inline(always)]
pub(crate) fn of_external(config: &Config) -> u32 {
    if config.external_mtu == 0 { u32::from(u16::MAX) } else { config.external_mtu }
}

/// A router between gateway and host says that a packet of a tunnel of ours did not fit. The stack may hear it too.
#[inline(always)]
pub(crate) fn hear(ctx: &TcContext, config: &Config, header: &ipv4::Header, link: u32) {
    let Some(said) = icmp::told_by(header, |at| tc::load(ctx, at), |at| tc::load(ctx, at), link) else {
        return;
    };
    if said.tunnel.source() != config.internal_address {
        return;
    }
    let mtu = if said.mtu == 0 { UNSAID_PATH_MTU } else { said.mtu };
    let path = Path { until_ns: maps::now().saturating_add(PATH_NS), mtu: mtu.max(LEAST_PATH_MTU), pad: 0 };
    // Where there is no room the next packet is lost too, and told of again.
    PATHS.insert(said.tunnel.destination(), path, 0).ok();
}

impl Place<'_> {
    /// Where the datagram begins.
    #[inline(always)]
    fn at(&self) -> u32 {
        self.link + self.overhead
    }

    /// Treats a datagram that is longer than `limit`.
    ///
    /// # Errors
    ///
    /// It can neither be fragmented nor complained of.
    #[inline(always)]
    pub(crate) fn too_big(&self, config: &Config, datagram: &Datagram, limit: u32) -> Result<i32, Counter> {
        if datagram.header.may_be_fragmented() && !datagram.is_super_packet() {
            return self.split(datagram, limit);
        }
        maps::count(Counter::TooBig, 1);
        self.complain(config, datagram, limit)
    }

    /// Answers "fragmentation needed" instead.
    #[inline(always)]
    fn complain(&self, config: &Config, datagram: &Datagram, limit: u32) -> Result<i32, Counter> {
        let ctx = self.ctx;
        let header = &datagram.header;
        // RFC 1122, section 3.2.2: never about an error, never about a later fragment.
        let deserves = !header.is_later_fragment()
            && (header.protocol() != ipv4::PROTOCOL_ICMP
                || datagram
                    .load_payload::<icmp::Header>(ctx)
                    .is_some_and(|icmp| icmp.kind() != icmp::Kind::Error));
        if !deserves || datagram.length < QUOTE || !within_budget() {
            return Ok(tc::DROP);
        }
        let quote = SCRATCH.get_ptr_mut(0).ok_or(Counter::Failed)?;
        // SAFETY: the destination is as long as said.
        if unsafe { bpf_skb_load_bytes(ctx.as_ptr(), self.at(), quote.cast(), QUOTE) } != 0 {
            return Err(Counter::Malformed);
        }
        // SAFETY: as above.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, quote.cast(), QUOTE, 0) };
        let error = icmp::Header::fragmentation_needed(limit, ipv4::fold(sum as u32));
        let around = ipv4::HEADER_LENGTH + icmp::HEADER_LENGTH;
        // "From" where the datagram was to go: no other address is sure to be taken for one beyond the tunnel, or beyond
        // the gateway, by hosts that check the reverse path.
        let answer = ipv4::Header::answering(header, around + QUOTE);
        // SAFETY: the context is valid; a failing call leaves the packet as it was.
        if unsafe { bpf_skb_change_tail(ctx.skb.skb, self.at() + QUOTE, 0) } != 0 {
            return Err(Counter::Failed);
        }
        forget_unfinished_checksum(ctx, self.link)?;
        ctx.adjust_room(around as i32, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, 0)
            .map_err(|_| Counter::Failed)?;
        let at = self.at();
        let interface = if let Some((outer, tunnel)) = self.outer {
            let back = ipv4::Header::around(
                tunnel,
                &answer,
                around + QUOTE,
                config.internal_address,
                outer.source(),
            );
            tc::store_outer(ctx, self.link, tunnel, &back)?;
            config.internal_ifindex
        } else {
            config.external_ifindex
        };
        tc::store(ctx, at, &answer)?;
        tc::store(ctx, at + ipv4::HEADER_LENGTH, &error)?;
        let action = tc::send(ctx, self.link, interface)?;
        maps::count(Counter::TooBigTold, 1);
        Ok(action)
    }

    /// Makes two packets of one, which both come in again.
    #[inline(always)]
    fn split(&self, datagram: &Datagram, limit: u32) -> Result<i32, Counter> {
        let ctx = self.ctx;
        let header = &datagram.header;
        let payload = datagram.length.saturating_sub(ipv4::HEADER_LENGTH);
        let part = (limit.saturating_sub(ipv4::HEADER_LENGTH) & !7).min(LONGEST_PART);
        if !header.is_plain() || part == 0 || payload <= part {
            return Err(Counter::TooBig);
        }
        if !header.is_fragment() {
            finish_checksum(ctx, self.link, datagram)?;
        }
        let at = self.at();
        let first = header.first_part(part);
        tc::store(ctx, at, &first)?;
        if let Some((outer, tunnel)) = self.outer {
            tc::store_outer(
                ctx,
                self.link,
                tunnel,
                &outer.with_length(self.overhead + first.total_length()),
            )?;
        }
        // SAFETY: the context is valid as long as the program runs.
        let interface = unsafe { (*ctx.skb.skb).ifindex };
        ctx.clone_redirect(interface, u64::from(BPF_F_INGRESS)).map_err(|_| Counter::Failed)?;
        // Takes the octets behind the outermost header; the headers that it takes with them are written again.
        ctx.adjust_room(
            -(part as i32),
            bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
            u64::from(BPF_F_ADJ_ROOM_FIXED_GSO),
        )
        .map_err(|_| Counter::Failed)?;
        let rest = header.rest_after(part, payload - part);
        if let Some((outer, tunnel)) = self.outer {
            tc::store_outer(ctx, self.link, tunnel, &outer.with_length(self.overhead + rest.total_length()))?;
        }
        tc::store(ctx, at, &rest)?;
        maps::count(Counter::Split, 1);
        // SAFETY: takes no pointer.
        Ok(unsafe { bpf_redirect(interface, u64::from(BPF_F_INGRESS)) } as i32)
    }
}

/// Cuts off what follows a datagram that begins at `at`, if it is no padding.
#[inline(always)]
pub(crate) fn cut_to(ctx: &TcContext, at: u32, datagram: &Datagram) -> Result<(), Counter> {
    if datagram.is_super_packet() || tc::length_from(ctx, at) <= datagram.length.max(SHORTEST) {
        return Ok(());
    }
    // SAFETY: the context is valid; a failing call leaves the packet as it was.
    if unsafe { bpf_skb_change_tail(ctx.skb.skb, at + datagram.length, 0) } != 0 {
        return Err(Counter::Failed);
    }
    Ok(())
}

/// A packet that was made on this machine, or on one of the same hypervisor, has its checksum left to the interface that it
/// leaves through: the field holds the sum over the pseudo-header alone. No interface could do that for fragments.
#[inline(always)]
fn finish_checksum(ctx: &TcContext, link: u32, datagram: &Datagram) -> Result<(), Counter> {
    let header = &datagram.header;
    let field = match header.protocol() {
        ipv4::PROTOCOL_UDP => 6,
        ipv4::PROTOCOL_TCP => 16,
        _ => return Ok(()),
    };
    let begin = datagram.at + ipv4::HEADER_LENGTH;
    let length = datagram.length.saturating_sub(ipv4::HEADER_LENGTH);
    let Some(unfinished) = tc::load::<u16>(ctx, begin + field) else {
        return Err(Counter::Malformed);
    };
    if unfinished != header.pseudo_sum(length) {
        return Ok(());
    }
    let finished = !sum(ctx, begin, length)?;
    let finished = if finished == 0 { u16::MAX } else { finished };
    tc::store(ctx, begin + field, &finished)?;
    forget_unfinished_checksum(ctx, link)
}

/// The sum of 16-bit words over so many octets of the packet.
///
/// # Errors
///
/// They are not there, or too many.
#[inline(always)]
pub(crate) fn sum(ctx: &TcContext, begin: u32, length: u32) -> Result<u16, Counter> {
    if length > LONGEST_SUM {
        return Err(Counter::TooBig);
    }
    let octets = SCRATCH.get_ptr_mut(0).ok_or(Counter::Failed)?;
    let mut sum = 0u32;
    let mut at = begin;
    let mut rest = length;
    for _ in 0..LONGEST_SUM / PIECE {
        if rest < PIECE {
            break;
        }
        sum = sum_of(ctx, at, PIECE, octets, sum)?;
        at += PIECE;
        rest -= PIECE;
    }
    if rest > 0 {
        // So that also older kernels see that this is neither nothing nor too much.
        let size = ((rest - 1) & (PIECE - 1)) + 1;
        for word in 0..(PIECE / 8) as usize {
            // SAFETY: the entry is this CPU's own and as long as a piece.
            unsafe { octets.cast::<u64>().add(word).write_volatile(0) };
        }
        sum = sum_of(ctx, at, size, octets, sum)?;
    }
    Ok(ipv4::fold(sum))
}

/// Adds `size` octets of the packet, 1 to [`PIECE`], to a sum. Behind them `octets` is zero up to the length of a piece.
#[inline(always)]
fn sum_of(
    ctx: &TcContext,
    at: u32,
    size: u32,
    octets: *mut [u8; QUOTE as usize],
    sum: u32,
) -> Result<u32, Counter> {
    // SAFETY: the destination is not shorter than said.
    if unsafe { bpf_skb_load_bytes(ctx.as_ptr(), at, octets.cast(), size) } != 0 {
        return Err(Counter::Malformed);
    }
    // SAFETY: the entry is longer than a piece.
    Ok(unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, octets.cast(), PIECE, sum) } as u32)
}

/// The kernel takes a checksum for unfinished no longer once the header that it begins in was taken away. So it is, and put
/// back.
#[inline(always)]
fn forget_unfinished_checksum(ctx: &TcContext, link: u32) -> Result<(), Counter> {
    // Two IPv4 headers and the beginning of what follows.
    const TAKEN: u32 = 80;
    let saved = SCRATCH.get_ptr_mut(0).ok_or(Counter::Failed)?;
    // SAFETY: the destination is longer than said.
    if unsafe { bpf_skb_load_bytes(ctx.as_ptr(), link, saved.cast(), TAKEN) } != 0 {
        return Err(Counter::Failed);
    }
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
    for change in [-(TAKEN as i32), TAKEN as i32] {
        ctx.adjust_room(change, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, flags).map_err(|_| Counter::Failed)?;
    }
    // SAFETY: the source is longer than said.
    if unsafe {
        bpf_skb_store_bytes(ctx.skb.skb, link, saved.cast(), TAKEN, u64::from(BPF_F_INVALIDATE_HASH))
    } != 0
    {
        return Err(Counter::Failed);
    }
    Ok(())
}

#[inline(always)]
fn within_budget() -> bool {
    let Some(budget) = ERRORS.get_ptr_mut(0) else {
        return false;
    };
    let now = maps::now();
    // SAFETY: the entry is this CPU's own; tc programs do not interrupt each other.
    let budget = unsafe { &mut *budget };
    if now.wrapping_sub(budget.since_ns) >= SECOND_NS {
        *budget = Budget { since_ns: now, reports: 0 };
    }
    budget.reports += 1;
    budget.reports <= ERRORS_PER_SECOND
}
