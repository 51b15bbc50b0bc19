//! What can happen to a gateway, at random: several hosts, a bad network, a data path that fails, an administrator.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rsip_proto::gateway::{GatewayConfig, Misuse, Peer, RemoteDeny};
use rsip_proto::lease::Remote;
use rsip_proto::pool::PoolConfig;
use rsip_proto::strategies;
use rsip_proto::wire::{FlowPolicy, LocalPolicy, Message, Ports, RemotePolicy};

use crate::rig::*;

/// With whom nobody may talk.
pub(crate) const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// With whom everybody may.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// Few ports and few places, so that hosts are in each other's way. One address by port, one both ways, one whole.
pub(crate) fn scarce(remote: RemotePolicy) -> GatewayConfig {
    GatewayConfig {
        flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote },
        remote_deny: vec![RemoteDeny { network: (DENIED, 32), ports: 0..=65_535 }],
        max_clients: 3,
        max_ports_per_client: 12,
        lease_time: Duration::from_secs(60),
        max_lease_time: Duration::from_secs(100),
        ..GatewayConfig::new(PoolConfig {
            addresses: vec![PUBLIC, SECOND_PUBLIC],
            whole: vec![SECOND_PUBLIC, WHOLE],
            port_range: 10_000..=10_007,
            listen_range: 80..=83,
            reserved: vec![81, 10_003],
            rest: Duration::from_secs(20),
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Register,
    Leave,
    Whole(Option<Ipv4Addr>, Remote),
    Assign(u8, Remote),
    Listen(Ports, Remote),
    Extend(u32, Option<u32>),
    Free(u32),
    Query,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A request with the next counter of its peer, and the host's client ID (or, if it has none, its last).
    Ask(Peer, Ask),
    /// The last request of the peer, once more.
    Again(Peer),
    /// Any datagram of the peer that the network may still have, once more.
    Old(Peer, Index),
    /// A request of somebody who makes everything up.
    Stranger(Peer, Message),
    /// Bytes that are nothing, or a request with some bytes changed.
    Bytes(Peer, Vec<u8>),
    Damaged(Peer, Ask, Vec<(Index, u8)>),
    /// One of the operations under way ends.
    Done(Index, bool),
    /// An outcome that nobody waits for.
    DoneByMistake(u64),
    /// The data path reports what a host may not send.
    Misuse(u8, Misuse),
    Wait(u64),
    Disconnect(u64),
    ReleaseClient(u8),
    ReleaseBind(u8, u32),
}

pub(crate) fn peer() -> impl Strategy<Value = Peer> {
    // The same few peers again and again: two UDP ports and two connections for each of four hosts.
    (1..=4u8, 0..6u8).prop_map(|(host, way)| match way {
        0..=2 => udp(host),
        3 => udp_from(host, 6000),
        4 => tcp(host, u64::from(host)),
        _ => tcp(host, 10 + u64::from(host)),
    })
}

pub(crate) fn ask() -> impl Strategy<Value = Ask> {
    let port = || prop_oneof![80..=84u16, 9_999..=10_008u16];
    prop_oneof![
        4 => Just(Ask::Register),
        1 => Just(Ask::Leave),
        3 => (proptest::option::of(select(vec![PUBLIC, SECOND_PUBLIC, WHOLE])), remote())
            .prop_map(|(address, remote)| Ask::Whole(address, remote)),
        4 => (1..=8u8, remote()).prop_map(|(count, remote)| Ask::Assign(count, remote)),
        4 => (port(), remote()).prop_map(|(port, remote)| Ask::Listen(Ports::single(port), remote)),
        1 => (port(), 2..=4u8, remote())
            .prop_map(|(first, count, remote)| Ask::Listen(Ports::Range { first, count }, remote)),
        1 => (proptest::collection::btree_set(port(), 2..4), remote())
            .prop_map(|(ports, remote)| Ask::Listen(Ports::List(ports.into_iter().collect()), remote)),
        2 => (1..5u32, proptest::option::of(select(vec![0, 1, 30, 1000]))).prop_map(|(b, l)| Ask::Extend(b, l)),
        4 => (1..6u32).prop_map(Ask::Free),
        1 => Just(Ask::Query),
    ]
}

/// The peer that a request names; most name one that is good under every policy.
pub(crate) fn remote() -> impl Strategy<Value = Remote> {
    let port = |address| Remote::Port(SocketAddrV4::new(address, 80));
    prop_oneof![
        6 => Just(port(PEER)),
        1 => Just(Remote::Address(PEER)),
        1 => Just(Remote::Any),
        1 => Just(port(DENIED)),
    ]
}

pub(crate) fn remote_policy() -> impl Strategy<Value = RemotePolicy> {
    select(vec![RemotePolicy::None, RemotePolicy::Macro, RemotePolicy::Micro])
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (peer(), ask()).prop_map(|(peer, ask)| Step::Ask(peer, ask)),
        3 => peer().prop_map(Step::Again),
        2 => (1..=4u8, any::<Index>()).prop_map(|(host, index)| Step::Old(udp(host), index)),
        1 => (peer(), strategies::request()).prop_map(|(peer, message)| Step::Stranger(peer, message)),
        1 => (peer(), vec(any::<u8>(), 0..64)).prop_map(|(peer, bytes)| Step::Bytes(peer, bytes)),
        1 => (peer(), ask(), vec((any::<Index>(), any::<u8>()), 1..4))
            .prop_map(|(peer, ask, changes)| Step::Damaged(peer, ask, changes)),
        14 => (any::<Index>(), prop::bool::weighted(0.85)).prop_map(|(index, good)| Step::Done(index, good)),
        1 => any::<u64>().prop_map(Step::DoneByMistake),
        2 => (1..=4u8, select(&Misuse::ALL[..])).prop_map(|(host, misuse)| Step::Misuse(host, misuse)),
        3 => (0..40u64).prop_map(Step::Wait),
        1 => prop_oneof![1..=4u64, 11..=14u64].prop_map(Step::Disconnect),
        1 => (1..=4u8).prop_map(Step::ReleaseClient),
        1 => (1..=4u8, 1..4u32).prop_map(|(host, bind)| Step::ReleaseBind(host, bind)),
    ]
}
