//! What a run is about: all of it comes from the seed.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_proto::gateway::GatewayConfig;
use rsip_proto::host::{HostConfig, HostTransport, Method};
use rsip_proto::lease::Remote;
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::{FlowPolicy, LocalPolicy, RemotePolicy};

/// How long a program may wait for its port.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// The longest a host rests between two attempts.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// Lease of everything in most runs: nothing runs out before the end, so that a binding that was forgotten by its host is
/// still there to be found.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Lease of everything in the others: it runs out in an outage.
const SHORT_LEASE: Duration = Duration::from_secs(10);

/// Ports that programs fight over.
pub(crate) const FOUGHT_OVER: std::ops::Range<u16> = 80..86;

/// Ports that administrators ask for.
pub(crate) const STATIC: std::ops::Range<u16> = 90..92;

/// The peer that everybody may talk to, where that is restricted.
const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 443);

/// What the gateway calls local.
pub(crate) const LOCAL: [(Ipv4Addr, u8); 2] =
    [(Ipv4Addr::new(10, 0, 0, 0), 24), (Ipv4Addr::new(192, 168, 5, 0), 24)];

/// The gateway's terms, and what hosts ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    /// Blocks of ports and single ports of one address.
    Ports,
    /// The same, one port per request (local micro).
    OnePort,
    /// Everybody wants a whole address, and there is one too few.
    Addresses,
    /// One host wants a whole address, the others ports, and an address may become either.
    Both,
    /// Ports for one peer address (remote macro).
    Peer,
    /// Ports for one peer address and port (remote micro).
    PeerPort,
}

impl Terms {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ports, Self::OnePort, Self::Addresses, Self::Both, Self::Peer, Self::PeerPort];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ports => "terms: ports",
            Self::OnePort => "terms: one port",
            Self::Addresses => "terms: addresses",
            Self::Both => "terms: both",
            Self::Peer => "terms: peer",
            Self::PeerPort => "terms: peer and port",
        }
    }

    const fn policy(self) -> FlowPolicy {
        let (local, remote) = match self {
            Self::Ports | Self::Addresses | Self::Both => (LocalPolicy::Macro, RemotePolicy::None),
            Self::OnePort => (LocalPolicy::Micro, RemotePolicy::None),
            Self::Peer => (LocalPolicy::Macro, RemotePolicy::Macro),
            Self::PeerPort => (LocalPolicy::Macro, RemotePolicy::Micro),
        };
        FlowPolicy { local, remote }
    }

    pub(crate) const fn method(self, node: usize) -> Method {
        match (self, node) {
            (Self::Addresses, _) | (Self::Both, 0) => Method::RsaIp,
            _ => Method::RsapIp,
        }
    }
}

/// A fault built into the world, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// The data path survives the gateway that it belongs to.
    PathSurvives,
    /// A shell does not take out of use what it is told to.
    DeafShell,
    /// The data path says that it took a rule, and did not.
    PathLies,
}

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) transport: HostTransport,
    pub(crate) terms: Terms,
    /// Agents are killed and started again, with what they saved or without.
    pub(crate) agents: bool,
    /// The gateway is killed and started again, and its administrator takes things back.
    pub(crate) gateway: bool,
    pub(crate) lease: Duration,
    pub(crate) sabotage: Sabotage,
}

impl Plan {
    /// Every combination comes round.
    pub(crate) fn of(seed: u64, sabotage: Sabotage) -> Self {
        let terms = usize::try_from(seed % 6).ok().and_then(|index| Terms::ALL.get(index));
        let rest = seed / 6;
        Self {
            terms: *terms.expect("six of them"),
            transport: if rest.is_multiple_of(2) { HostTransport::Udp } else { HostTransport::Tcp },
            agents: (rest / 2).is_multiple_of(2),
            gateway: (rest / 4).is_multiple_of(2),
            lease: if (rest / 8).is_multiple_of(3) { SHORT_LEASE } else { LEASE },
            sabotage,
        }
    }

    pub(crate) fn host(&self, node: usize) -> HostConfig {
        HostConfig {
            transport: self.transport,
            method: self.terms.method(node),
            // Named only where the gateway demands it.
            remote: Remote::Port(PEER),
            block_size: if self.terms == Terms::OnePort { 5 } else { 32 },
            request_timeout: PATIENCE,
            probe_interval: Duration::from_secs(5),
            query_interval: Duration::from_secs(20),
            retry_max: LONGEST_PAUSE,
            ..HostConfig::default()
        }
    }

    pub(crate) fn gateway(&self) -> GatewayConfig {
        let [first, second] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        let whole = match self.terms {
            Terms::Ports | Terms::OnePort | Terms::Peer | Terms::PeerPort => Vec::new(),
            Terms::Addresses | Terms::Both => vec![first, second],
        };
        let mut config = GatewayConfig::new(PoolConfig {
            addresses: vec![first],
            whole,
            // Too few for everybody's wishes: blocks are refused and halved.
            port_range: 10_000..=10_099,
            listen_range: 1..=1023,
            reserved: vec![22],
            rest: Duration::from_secs(5),
        });
        config.lease_time = self.lease;
        config.flow_policy = self.terms.policy();
        config.private_nets = LOCAL.to_vec();
        config
    }
}

/// SplitMix64: small, and the same on every machine and in every version.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    pub(crate) fn in_thousand(&mut self, count: u64) -> bool {
        self.below(1000) < count
    }

    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from((to - from).as_micros()).expect("times of a run are short");
        from + Duration::from_micros(self.below(span.max(1)))
    }
}
