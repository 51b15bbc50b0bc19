//! A loaded gateway object with two hosts, and the form in which tests write their cases down.

pub(crate) use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::SchedClassifier;
use rsip_ebpf_common::gateway::{COUNTERS, Fragment, FragmentKey, Holder, Misuse, Remote, WHOLE, maps};
pub(crate) use rsip_ebpf_common::gateway::{
    Config, Counter, FLAG_GRE, FLAG_REMOTE, FLAG_REMOTE_MICRO, MisuseKind, programs,
};
pub(crate) use rsip_lab::bpf::packet::{
    DF, GRE, ICMP, IPIP, Ip, MF, SCTP, TCP, UDP, echo, gre, icmp_error, tcp, udp,
};
use rsip_lab::bpf::{self, Outcome};

/// To the next program, or the stack.
pub(crate) const PASS: i32 = -1;
pub(crate) const DROP: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;

pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A second public address: it must not share its ports with the first.
pub(crate) const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// A third one: host B holds all of it.
pub(crate) const WHOLE_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 4);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const OTHER_PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);

/// Of host A at [`PUBLIC`].
pub(crate) const PORT_A: u16 = 80;
/// Of host B at [`PUBLIC`].
pub(crate) const PORT_B: u16 = 8080;
/// Of nobody.
pub(crate) const FREE: u16 = 81;

pub(crate) struct Gateway {
    ebpf: Ebpf,
    counters: PerCpuArray<MapData, u64>,
    pub(crate) config: Array<MapData, Config>,
    pub(crate) ports: Array<MapData, u32>,
    remotes: Array<MapData, Remote>,
    holders: HashMap<MapData, Holder, u32>,
    reported: HashMap<MapData, Misuse, u64>,
    misuses: RingBuf<MapData>,
    tunnels: HashMap<MapData, u32, u32>,
    /// Datagrams from outside, and datagrams of hosts, of which the first fragment went through.
    pub(crate) fragments: [HashMap<MapData, FragmentKey, Fragment>; 2],
}

fn raw(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

const CONFIG: Config = Config {
    internal_address: u32::from_ne_bytes(GATEWAY.octets()),
    internal_ifindex: 1,
    external_ifindex: 1,
    internal_mtu: 1500,
    external_mtu: 1500,
    flags: 0,
};

impl Gateway {
    pub(crate) fn new() -> Self {
        Self::with_flags(0)
    }

    /// With a remote policy; every port is for everybody until [`Self::confine`] says otherwise.
    pub(crate) fn with_flags(flags: u32) -> Self {
        let sizes = [(maps::PORTS, 3 << 16), (maps::REMOTES, 3 << 16)];
        let mut ebpf = bpf::load("rsip-gateway", &sizes).unwrap();
        for name in [programs::INWARD, programs::OUTWARD] {
            bpf::program::<SchedClassifier>(&mut ebpf, name).unwrap().load().unwrap();
        }
        let mut config: Array<_, Config> = bpf::map(&mut ebpf, maps::CONFIG).unwrap();
        config.set(0, Config { flags, ..CONFIG }, 0).unwrap();
        let mut addresses: HashMap<_, u32, u32> = bpf::map(&mut ebpf, maps::ADDRESSES).unwrap();
        for (address, index) in [(PUBLIC, 0), (OTHER_PUBLIC, 1), (WHOLE_PUBLIC, 2)] {
            addresses.insert(raw(address), index, 0).unwrap();
        }
        let mut ports: Array<_, u32> = bpf::map(&mut ebpf, maps::PORTS).unwrap();
        ports.set(u32::from(PORT_A), raw(HOST_A), 0).unwrap();
        ports.set(u32::from(PORT_B), raw(HOST_B), 0).unwrap();
        ports.set((1 << 16) + u32::from(PORT_A), raw(HOST_B), 0).unwrap();
        ports.set((2 << 16) + u32::from(WHOLE), raw(HOST_B), 0).unwrap();
        let mut holders: HashMap<_, Holder, u32> = bpf::map(&mut ebpf, maps::HOLDERS).unwrap();
        for (index, host) in [(0, HOST_A), (0, HOST_B), (1, HOST_B), (2, HOST_B)] {
            for remote in [Holder::ANYBODY, Holder::ALL] {
                holders.insert(Holder { index, host: raw(host), remote }, 1, 0).unwrap();
            }
        }
        Self {
            config,
            ports,
            remotes: bpf::map(&mut ebpf, maps::REMOTES).unwrap(),
            holders,
            reported: bpf::map(&mut ebpf, maps::REPORTED).unwrap(),
            misuses: bpf::map(&mut ebpf, maps::MISUSES).unwrap(),
            tunnels: bpf::map(&mut ebpf, maps::TUNNELS).unwrap(),
            counters: bpf::map(&mut ebpf, maps::COUNTERS).unwrap(),
            fragments: [maps::FRAGMENTS_IN, maps::FRAGMENTS_OUT].map(|map| bpf::map(&mut ebpf, map).unwrap()),
            // The programs keep the other maps.
            ebpf,
        }
    }

    /// What the host holds at this address and port (0: all of it) is for this peer alone (port 0: any), as the daemon would
    /// write it.
    pub(crate) fn confine(&mut self, index: u32, port: u16, host: Ipv4Addr, peer: Ipv4Addr, peer_port: u16) {
        let remote = Remote { address: raw(peer), port: peer_port.to_be(), pad: 0 };
        self.remotes.set((index << 16) + u32::from(port), remote, 0).unwrap();
        let before: Vec<Holder> = self.holders.keys().map(Result::unwrap).collect();
        let of_host =
            |key: &&Holder| (key.index, key.host) == (index, raw(host)) && key.remote != Holder::ALL;
        for key in before.iter().filter(of_host) {
            self.holders.remove(key).unwrap();
        }
        if peer_port == 0 {
            self.holders.insert(Holder { index, host: raw(host), remote: raw(peer) }, 1, 0).unwrap();
        }
    }

    /// The host holds nothing of this address any more.
    pub(crate) fn forget_holder(&mut self, index: u32, host: Ipv4Addr) {
        for remote in [Holder::ANYBODY, Holder::ALL] {
            self.holders.remove(&Holder { index, host: raw(host), remote }).unwrap();
        }
    }

    /// The host's tunnel is GRE from now on; the gateway has to be one with [`FLAG_GRE`].
    pub(crate) fn uses_gre(&mut self, host: Ipv4Addr) {
        self.tunnels.insert(raw(host), 1, 0).unwrap();
    }

    /// The reports since the last look, as (host, kind).
    pub(crate) fn misuses(&mut self) -> Vec<(Ipv4Addr, MisuseKind)> {
        let mut all = Vec::new();
        while let Some(item) = self.misuses.next() {
            let (host, kind) = item.split_first_chunk::<4>().unwrap();
            let kind = u32::from_ne_bytes(kind.try_into().unwrap());
            all.push((Ipv4Addr::from(*host), MisuseKind::ALL[kind as usize]));
        }
        all
    }

    /// Who was reported may be reported again.
    pub(crate) fn forget_reports(&mut self) {
        let keys: Vec<Misuse> = self.reported.keys().map(Result::unwrap).collect();
        for key in keys {
            self.reported.remove(&key).unwrap();
        }
    }

    pub(crate) fn run(&mut self, program: &str, packet: &[u8]) -> Outcome {
        bpf::run(bpf::program::<SchedClassifier>(&mut self.ebpf, program).unwrap(), packet).unwrap()
    }

    pub(crate) fn inward(&mut self, packet: &Ip) -> Outcome {
        self.run(programs::INWARD, &packet.frame())
    }

    pub(crate) fn outward(&mut self, packet: &Ip) -> Outcome {
        self.run(programs::OUTWARD, &packet.frame())
    }

    pub(crate) fn counters(&self) -> [u64; COUNTERS as usize] {
        bpf::counters(&self.counters).unwrap()
    }

    /// Runs each case on this gateway and compares verdict, packet and counters.
    pub(crate) fn check(&mut self, program: &str, cases: Vec<Case>) {
        for Case { name, packet, expected } in cases {
            let before = self.counters();
            let outcome = self.run(program, &packet);
            let after = self.counters();
            let counted: Vec<usize> = (0..after.len()).filter(|&i| after[i] != before[i]).collect();
            let (action, out, counters) = match expected {
                Expected::Pass => (PASS, packet, vec![]),
                Expected::Drop(counter) => (DROP, vec![], vec![counter as usize]),
                Expected::ToHost(out) => {
                    (REDIRECT, out, vec![Counter::Inward as usize, Counter::InwardBytes as usize])
                }
                Expected::Out(out) => {
                    (REDIRECT, out, vec![Counter::Outward as usize, Counter::OutwardBytes as usize])
                }
                Expected::Turned(out) => (REDIRECT, out, vec![0, 1, 2, 3]),
            };
            assert_eq!(outcome.action, action, "{name}: verdict; counted {counted:?}");
            assert_eq!(counted, counters, "{name}: counters");
            if action != DROP {
                assert_eq!(outcome.packet, out, "{name}: packet");
            }
        }
    }
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) packet: Vec<u8>,
    pub(crate) expected: Expected,
}

pub(crate) enum Expected {
    /// Untouched, to the stack.
    Pass,
    Drop(Counter),
    ToHost(Vec<u8>),
    Out(Vec<u8>),
    Turned(Vec<u8>),
}

pub(crate) fn case(name: &'static str, packet: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { name, packet: packet.into(), expected }
}

/// One hop later.
pub(crate) fn hop(packet: &Ip) -> Ip {
    packet.clone().ttl(packet.ttl - 1)
}

pub(crate) fn to_host(packet: &Ip, host: Ipv4Addr) -> Expected {
    Expected::ToHost(hop(packet).inside(GATEWAY, host).frame())
}

pub(crate) fn out(packet: &Ip) -> Expected {
    Expected::Out(hop(packet).frame())
}

pub(crate) fn from_a(packet: &Ip) -> Vec<u8> {
    packet.inside(HOST_A, GATEWAY).frame()
}
