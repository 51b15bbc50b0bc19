//! The private network must not hear that the leased address is here (RFC 3102 section 3.1): left alone, Linux answers an
//! ARP request for any of its addresses on any of its interfaces. The request is dropped, so that no setting of the host
//! has to be changed.

use aya_ebpf::programs::TcContext;
use rsip_ebpf::arp::Packet;
use rsip_ebpf_common::host::Config;

use crate::tc;

/// Whether the frame asks who has the leased address.
#[inline(always)]
pub(crate) fn asks_for_leased(ctx: &TcContext, config: &Config) -> bool {
    config.public_address != 0
        && tc::is_arp(ctx)
        && tc::load::<Packet>(ctx, tc::ETHERNET).is_some_and(|packet| packet.asks_for(config.public_address))
}
