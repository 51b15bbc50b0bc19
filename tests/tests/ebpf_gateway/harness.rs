//! A loaded gateway object with two hosts, and the form in which tests write their cases down.

pub(crate) use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::SchedClassifier;
use rsip_ebpf_common::gateway::{COUNTERS, Holder, maps};
pub(crate) use rsip_ebpf_common::gateway::{Config, Counter, programs};
pub(crate) use rsip_lab::bpf::packet::{DF, ICMP, IPIP, Ip, MF, TCP, UDP, echo, icmp_error, tcp, udp};
use rsip_lab::bpf::{self, Outcome};

/// To the next program, or the stack.
pub(crate) const PASS: i32 = -1;
pub(crate) const DROP: i32 = 2;
pub(crate) const REDIRECT: i32 = 7;

pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A second public address: it must not share its ports with the first.
pub(crate) const OTHER_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const HOST_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(crate) const HOST_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

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
        let mut ebpf = bpf::load("rsip-gateway", &[(maps::PORTS, 2 << 16)]).unwrap();
        for name in [programs::INWARD, programs::OUTWARD] {
            bpf::program::<SchedClassifier>(&mut ebpf, name).unwrap().load().unwrap();
        }
        let mut config: Array<_, Config> = bpf::map(&mut ebpf, maps::CONFIG).unwrap();
        config.set(0, CONFIG, 0).unwrap();
        let mut addresses: HashMap<_, u32, u32> = bpf::map(&mut ebpf, maps::ADDRESSES).unwrap();
        addresses.insert(raw(PUBLIC), 0, 0).unwrap();
        addresses.insert(raw(OTHER_PUBLIC), 1, 0).unwrap();
        let mut ports: Array<_, u32> = bpf::map(&mut ebpf, maps::PORTS).unwrap();
        ports.set(u32::from(PORT_A), raw(HOST_A), 0).unwrap();
        ports.set(u32::from(PORT_B), raw(HOST_B), 0).unwrap();
        ports.set((1 << 16) + u32::from(PORT_A), raw(HOST_B), 0).unwrap();
        let mut holders: HashMap<_, Holder, u32> = bpf::map(&mut ebpf, maps::HOLDERS).unwrap();
        for (index, host) in [(0, HOST_A), (0, HOST_B), (1, HOST_B)] {
            for remote in [Holder::ANYBODY, Holder::ALL] {
                holders.insert(Holder { index, host: raw(host), remote }, 1, 0).unwrap();
            }
        }
        let counters = bpf::map(&mut ebpf, maps::COUNTERS).unwrap();
        // The programs keep the other maps.
        Self { ebpf, counters, config, ports }
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
