//! Host and gateway whose interfaces carry no link-layer header (tun, WireGuard, PPP), all in the test's own hands.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Array, HashMap};
use aya::programs::{SchedClassifier, TcAttachType, tc};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use rsip_ebpf_common::{gateway, host};
use rsip_lab::bpf;
use rsip_lab::bpf::host::ip;
use rsip_lab::bpf::packet::{Ip, UDP, udp};
use rsip_lab::bpf::tun::Tun;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn raw(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn attach(ebpf: &mut Ebpf, name: &str, device: &str, direction: TcAttachType) {
    // Kernels before 6.6 attach to it, newer ones to the device itself.
    tc::qdisc_add_clsact(device).unwrap();
    let program: &mut SchedClassifier = bpf::program(ebpf, name).unwrap();
    program.load().unwrap();
    program.attach(device, direction).unwrap();
}

#[test]
fn a_host_reaches_its_gateway() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut private = Tun::new("priv0").unwrap();
    let _tunnel = Tun::new("rsip").unwrap();
    for command in [
        "address add 10.0.0.2/24 dev priv0",
        "link set priv0 up",
        "address add 203.0.113.1/32 dev rsip",
        "link set rsip up",
        "route add default dev rsip src 203.0.113.1",
    ] {
        ip(command).unwrap();
    }
    let mut ebpf = bpf::load("rsip-host", &[]).unwrap();
    attach(&mut ebpf, host::programs::TUNNEL_OUT, "rsip", TcAttachType::Egress);
    attach(&mut ebpf, host::programs::TUNNEL_IN, "priv0", TcAttachType::Ingress);
    let mut config: Array<_, host::Config> = bpf::map(&mut ebpf, host::maps::CONFIG).unwrap();
    let settings = host::Config {
        public_address: raw(PUBLIC),
        tunnel_local: raw(HOST),
        tunnel_remote: raw(GATEWAY),
        private_ifindex: if_nametoindex("priv0").unwrap(),
        tunnel_ifindex: if_nametoindex("rsip").unwrap(),
        flags: host::FLAG_PRIVATE_L3,
        ..host::Config::default()
    };
    config.set(0, settings, 0).unwrap();

    let socket = UdpSocket::bind((PUBLIC, 4000)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.send_to(b"question", (PEER, 53)).unwrap();
    let sent = private.receive().unwrap().unwrap();
    let inner = Ip::new(PUBLIC, PEER, UDP, vec![0; 16]);
    assert_eq!(sent[..20], inner.inside(HOST, GATEWAY).bytes()[..20]);
    assert_eq!(sent[20 + 28..], b"question"[..]);

    let answer = Ip::new(PEER, PUBLIC, UDP, udp(53, 4000, b"answer"));
    private.send(&answer.inside(GATEWAY, HOST).bytes()).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], SocketAddr::from((PEER, 53))));
}

#[test]
fn a_gateway_forwards_both_ways() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut internal = Tun::new("int0").unwrap();
    let mut external = Tun::new("ext0").unwrap();
    for command in [
        "address add 10.0.0.1/24 dev int0",
        "link set int0 up",
        "address add 203.0.113.1/32 dev ext0",
        "link set ext0 up",
        "route add default dev ext0",
    ] {
        ip(command).unwrap();
    }
    let mut ebpf = bpf::load("rsip-gateway", &[]).unwrap();
    attach(&mut ebpf, gateway::programs::INWARD, "ext0", TcAttachType::Ingress);
    attach(&mut ebpf, gateway::programs::OUTWARD, "int0", TcAttachType::Ingress);
    let mut config: Array<_, gateway::Config> = bpf::map(&mut ebpf, gateway::maps::CONFIG).unwrap();
    let settings = gateway::Config {
        internal_address: raw(GATEWAY),
        internal_ifindex: if_nametoindex("int0").unwrap(),
        external_ifindex: if_nametoindex("ext0").unwrap(),
        internal_mtu: 1500,
        external_mtu: 1500,
        flags: gateway::FLAG_INTERNAL_L3 | gateway::FLAG_EXTERNAL_L3,
    };
    config.set(0, settings, 0).unwrap();
    let mut addresses: HashMap<_, u32, u32> = bpf::map(&mut ebpf, gateway::maps::ADDRESSES).unwrap();
    addresses.insert(raw(PUBLIC), 0, 0).unwrap();
    let mut ports: Array<_, u32> = bpf::map(&mut ebpf, gateway::maps::PORTS).unwrap();
    ports.set(4000, raw(HOST), 0).unwrap();
    ports.set(4001, raw(Ipv4Addr::new(10, 0, 0, 3)), 0).unwrap();

    let hop = |packet: &Ip| packet.clone().ttl(packet.ttl - 1);
    let question = Ip::new(PUBLIC, PEER, UDP, udp(4000, 53, b"question"));
    internal.send(&question.inside(HOST, GATEWAY).bytes()).unwrap();
    assert_eq!(external.receive().unwrap().unwrap(), hop(&question).bytes());

    let answer = Ip::new(PEER, PUBLIC, UDP, udp(53, 4000, b"answer"));
    external.send(&answer.bytes()).unwrap();
    assert_eq!(internal.receive().unwrap().unwrap(), hop(&answer).inside(GATEWAY, HOST).bytes());

    let across = Ip::new(PUBLIC, PUBLIC, UDP, udp(4000, 4001, b"neighbour"));
    internal.send(&across.inside(HOST, GATEWAY).bytes()).unwrap();
    let turned = hop(&across).inside(GATEWAY, Ipv4Addr::new(10, 0, 0, 3));
    assert_eq!(internal.receive().unwrap().unwrap(), turned.bytes());

    let stolen = Ip::new(PUBLIC, PEER, UDP, udp(4001, 53, b"stolen"));
    internal.send(&stolen.inside(HOST, GATEWAY).bytes()).unwrap();
    assert_eq!(external.receive().unwrap(), None);
}
