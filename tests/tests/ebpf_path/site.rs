//! Host, gateway and peer, with routers between them where a test wants them.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{SchedClassifier, TcAttachType, tc};
use nix::net::if_::if_nametoindex;
use rsip_ebpf_common::{gateway, host};
use rsip_lab::bpf;
use rsip_lab::bpf::tun::Tun;
use rsip_lab::lab::netns::{Inside, NamesFolder, Netns};

pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// Of the host.
pub(crate) const PORT: u16 = 4000;
pub(crate) const AMOUNT: usize = 16 << 20;

/// Host, gateway and peer, with the programs in place:
///
/// ```text
/// host  rsip 203.0.113.1              gateway                      peer
///       priv0 10.0.0.2 ---- 10.0.0.1 int0  ext0 198.51.100.1 ---- eth0 198.51.100.7
/// ```
pub(crate) struct Site {
    pub(crate) host: Netns,
    pub(crate) peer: Netns,
    _routers: Vec<Netns>,
    counters: PerCpuArray<MapData, u64>,
    events: RingBuf<MapData>,
    pub(crate) gateway: Netns,
    _objects: [Ebpf; 2],
    _tunnel: Tun,
    // Dropped after the namespaces.
    _names: NamesFolder,
}

fn raw(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn attach(inside: &Inside, ebpf: &mut Ebpf, name: &str, device: &str, direction: TcAttachType) -> u32 {
    let program: &mut SchedClassifier = bpf::program(ebpf, name).unwrap();
    program.load().unwrap();
    inside
        .enter(|| {
            // Kernels before 6.6 attach to it, newer ones to the device itself.
            tc::qdisc_add_clsact(device).unwrap();
            program.attach(device, direction).unwrap();
            if_nametoindex(device).unwrap()
        })
        .unwrap()
}

fn ip(inside: &Inside, command: &str) {
    inside.ip(&command.split(' ').collect::<Vec<_>>()).unwrap();
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::wired(|host, gateway, peer, _| {
            ip(gateway, &format!("link add int0 type veth peer name priv0 netns {}", host.name()));
            ip(gateway, &format!("link add ext0 type veth peer name eth0 netns {}", peer.name()));
            for (inside, device, address) in [
                (host, "priv0", "10.0.0.2/24"),
                (gateway, "int0", "10.0.0.1/24"),
                (gateway, "ext0", "198.51.100.1/24"),
                (peer, "eth0", "198.51.100.7/24"),
            ] {
                ip(inside, &format!("address add {address} dev {device}"));
                ip(inside, &format!("link set {device} up"));
            }
            ip(peer, "route add 203.0.113.1/32 via 198.51.100.1");
            Vec::new()
        })
    }

    /// With routers between host and gateway, and between gateway and peer, that take packets of these sizes from each other:
    ///
    /// ```text
    /// host          router          router          gateway           router           peer
    ///  priv0 --1500-- a b --private-- a b --1500-- int0  ext0 --1500--  a b --public-- eth0
    /// 10.0.0.2     .0.254 10.0.9.1  .9.2 10.0.8.254 ...               .100.254      198.51.100.7/32
    /// ```
    pub(crate) fn routed(private: u32, public: u32) -> Self {
        Self::wired(|host, gateway, peer, name| {
            let routers: Vec<Netns> = ["r1", "r2", "r3"].map(|role| Netns::new(&name(role)).unwrap()).into();
            let [r1, r2, r3] = &routers[..] else { unreachable!() };
            for (one, device, other, far, mtu) in [
                (host, "priv0", r1 as &Inside, "near", 1500),
                (r1, "far", r2, "near", private),
                (r2, "far", gateway, "int0", 1500),
                (gateway, "ext0", r3, "near", 1500),
                (r3, "far", peer, "eth0", public),
            ] {
                ip(one, &format!("link add {device} type veth peer name {far} netns {}", other.name()));
                ip(one, &format!("link set {device} mtu {mtu}"));
                ip(other, &format!("link set {far} mtu {mtu}"));
            }
            for (inside, device, address) in [
                (host, "priv0", "10.0.0.2/32"),
                (r1 as &Inside, "near", "10.0.7.1/32"),
                (r1, "far", "10.0.9.1/24"),
                (r2, "near", "10.0.9.2/24"),
                (r2, "far", "10.0.8.1/32"),
                (gateway, "int0", "10.0.0.1/32"),
                (gateway, "ext0", "198.51.101.1/24"),
                (r3, "near", "198.51.101.254/24"),
                (r3, "far", "198.51.102.254/32"),
                (peer, "eth0", "198.51.100.7/32"),
            ] {
                ip(inside, &format!("address add {address} dev {device}"));
                ip(inside, &format!("link set {device} up"));
            }
            for router in &routers {
                router.sysctl("net/ipv4/ip_forward", "1").unwrap();
            }
            for (inside, route) in [
                (host, "10.0.7.1 dev priv0"),
                (host, "10.0.0.1 via 10.0.7.1 dev priv0 src 10.0.0.2"),
                (host, "10.0.9.0/24 via 10.0.7.1 dev priv0 src 10.0.0.2"),
                (r1 as &Inside, "10.0.0.2 dev near"),
                (r1, "10.0.0.1 via 10.0.9.2"),
                (r2, "10.0.0.1 dev far"),
                (r2, "10.0.0.2 via 10.0.9.1"),
                (gateway, "10.0.8.1 dev int0"),
                (gateway, "10.0.0.0/16 via 10.0.8.1 dev int0 src 10.0.0.1"),
                (gateway, "198.51.0.0/16 via 198.51.101.254"),
                (r3, "203.0.113.1 via 198.51.101.1"),
                (r3, "198.51.100.7 dev far"),
                (peer, "198.51.102.254 dev eth0"),
                (peer, "default via 198.51.102.254 dev eth0 src 198.51.100.7"),
            ] {
                ip(inside, &format!("route add {route}"));
            }
            routers
        })
    }

    fn wired(wire: impl Fn(&Inside, &Inside, &Inside, &dyn Fn(&str) -> String) -> Vec<Netns>) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("rsip-path-{role}-{}-{number}", std::process::id());
        let names = NamesFolder::find().unwrap();
        let [host, gateway, peer] = ["host", "gateway", "peer"].map(|role| Netns::new(&name(role)).unwrap());
        let routers = wire(&host, &gateway, &peer, &name);
        let tunnel = host.enter(|| Tun::new("rsip").unwrap()).unwrap();
        // Without it, newer kernels lose track of where the checksum is in a UDP super-packet when its head grows.
        tunnel.leave_checksums().unwrap();
        ip(&host, "address add 203.0.113.1/32 dev rsip");
        ip(&host, "link set rsip up");
        ip(&host, "link set rsip mtu 1480");
        ip(&host, "route add default dev rsip src 203.0.113.1");

        let mut host_object = bpf::load("rsip-host", &[]).unwrap();
        let object = &mut host_object;
        let tunnel_ifindex = attach(&host, object, host::programs::TUNNEL_OUT, "rsip", TcAttachType::Egress);
        let private_ifindex =
            attach(&host, object, host::programs::TUNNEL_IN, "priv0", TcAttachType::Ingress);
        let mut config: Array<_, host::Config> = bpf::map(object, host::maps::CONFIG).unwrap();
        let settings = host::Config {
            public_address: raw(PUBLIC),
            tunnel_local: raw(HOST),
            tunnel_remote: raw(GATEWAY),
            private_ifindex,
            tunnel_ifindex,
            path_mtu: 1500,
            ..host::Config::default()
        };
        config.set(0, settings, 0).unwrap();
        let events = bpf::map(object, host::maps::EVENTS).unwrap();

        let mut gateway_object = bpf::load("rsip-gateway", &[]).unwrap();
        let object = &mut gateway_object;
        let external_ifindex =
            attach(&gateway, object, gateway::programs::INWARD, "ext0", TcAttachType::Ingress);
        let internal_ifindex =
            attach(&gateway, object, gateway::programs::OUTWARD, "int0", TcAttachType::Ingress);
        let mut config: Array<_, gateway::Config> = bpf::map(object, gateway::maps::CONFIG).unwrap();
        let settings = gateway::Config {
            internal_address: raw(GATEWAY),
            internal_ifindex,
            external_ifindex,
            internal_mtu: 1500,
            external_mtu: 1500,
            flags: 0,
        };
        config.set(0, settings, 0).unwrap();
        let mut addresses: HashMap<_, u32, u32> = bpf::map(object, gateway::maps::ADDRESSES).unwrap();
        addresses.insert(raw(PUBLIC), 0, 0).unwrap();
        let mut ports: Array<_, u32> = bpf::map(object, gateway::maps::PORTS).unwrap();
        ports.set(u32::from(PORT), raw(HOST), 0).unwrap();
        let counters = bpf::map(object, gateway::maps::COUNTERS).unwrap();
        Self {
            host,
            peer,
            _routers: routers,
            counters,
            events,
            gateway,
            _objects: [host_object, gateway_object],
            _tunnel: tunnel,
            _names: names,
        }
    }

    /// What the gateway dropped, whatever for.
    pub(crate) fn dropped(&self) -> Vec<u64> {
        let counters = bpf::counters::<{ gateway::COUNTERS as usize }>(&self.counters).unwrap();
        counters[gateway::Counter::BadSource as usize..].to_vec()
    }

    /// One of the gateway's counters.
    pub(crate) fn counted(&self, counter: gateway::Counter) -> u64 {
        bpf::counters::<{ gateway::COUNTERS as usize }>(&self.counters).unwrap()[counter as usize]
    }

    /// What a router told the host's program about the path: the agent would make the tunnel as narrow.
    pub(crate) fn path_mtu(&mut self) -> Option<u32> {
        let item = self.events.next()?;
        // SAFETY: the programs write nothing but events, which hold integers only.
        let event = unsafe { item.as_ptr().cast::<host::Event>().read_unaligned() };
        (event.kind == host::EVENT_PATH_MTU).then_some(event.port)
    }

    pub(crate) fn packets(&self) -> [u64; 2] {
        let counters = bpf::counters::<{ gateway::COUNTERS as usize }>(&self.counters).unwrap();
        [counters[gateway::Counter::Inward as usize], counters[gateway::Counter::Outward as usize]]
    }
}
