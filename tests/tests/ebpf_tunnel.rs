//! The host's end of the tunnel: packet by packet where the kernel can test-run the program, and with a real tun device.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType, tc};
use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use rsip_ebpf_common::host::{COUNTERS, Config, Counter, maps, programs};
use rsip_lab::bpf::host::ip;
use rsip_lab::bpf::packet::{DF, ICMP, IPIP, Ip, MF, TCP, UDP, echo, tcp, udp};
use rsip_lab::bpf::tun::Tun;
use rsip_lab::bpf::{self, Outcome};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const PASS: i32 = -1;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

struct Tunnel {
    ebpf: Ebpf,
    config: Array<MapData, Config>,
    counters: PerCpuArray<MapData, u64>,
}

fn raw(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

impl Tunnel {
    fn new(private_ifindex: u32, tunnel_ifindex: u32) -> Self {
        let mut ebpf = bpf::load("rsip-host", &[]).unwrap();
        for name in [programs::TUNNEL_IN, programs::TUNNEL_OUT] {
            bpf::program::<SchedClassifier>(&mut ebpf, name).unwrap().load().unwrap();
        }
        let mut config: Array<_, Config> = bpf::map(&mut ebpf, maps::CONFIG).unwrap();
        let settings = Config {
            public_address: raw(PUBLIC),
            tunnel_local: raw(HOST),
            tunnel_remote: raw(GATEWAY),
            private_ifindex,
            tunnel_ifindex,
            ..Config::default()
        };
        config.set(0, settings, 0).unwrap();
        let counters = bpf::map(&mut ebpf, maps::COUNTERS).unwrap();
        Self { ebpf, config, counters }
    }

    fn inward(&mut self, packet: &[u8]) -> Outcome {
        bpf::run(bpf::program(&mut self.ebpf, programs::TUNNEL_IN).unwrap(), packet).unwrap()
    }

    fn counters(&self) -> [u64; COUNTERS as usize] {
        bpf::counters(&self.counters).unwrap()
    }

    fn counter(&self, counter: Counter) -> u64 {
        self.counters()[counter as usize]
    }
}

#[test]
fn inward_takes_what_the_gateway_sends_and_nothing_else() {
    let inner = Ip::new(PEER, PUBLIC, TCP, tcp(443, 4000));
    let tunnelled = inner.inside(GATEWAY, HOST);
    let to_us = |inner: &Ip| inner.inside(GATEWAY, HOST).frame();
    let mut elsewhere = tunnelled.frame();
    elsewhere[0..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    let mut truncated = tunnelled.frame();
    truncated.truncate(14 + 20 + 30);
    let mut lies = inner.bytes();
    lies[2..4].copy_from_slice(&41u16.to_be_bytes());
    let mut padded = Ip::new(PEER, PUBLIC, UDP, udp(53, 4000, b"")).inside(GATEWAY, HOST).frame();
    padded.resize(80, 0xee);
    let mut padded_out = Ip::new(PEER, PUBLIC, UDP, udp(53, 4000, b"")).frame();
    padded_out.resize(60, 0xee);
    let capable = inner.clone().tos(2);
    let marked = |inner: &Ip| inner.inside(GATEWAY, HOST).tos(3).frame();
    let taken = |inner: &Ip| Some((REDIRECT, inner.frame()));
    let dropped = || Some((DROP, vec![]));
    // `None`: passes as it is.
    let cases = [
        ("TCP", to_us(&inner), taken(&inner)),
        ("TTL stays: the host is no hop", to_us(&inner.clone().ttl(1)), taken(&inner.clone().ttl(1))),
        ("IP options inside", to_us(&inner.clone().with_options()), taken(&inner.clone().with_options())),
        ("a fragment inside", to_us(&inner.clone().fragment(MF | 9)), taken(&inner.clone().fragment(MF | 9))),
        ("padding stays behind the packet", padded, Some((REDIRECT, padded_out))),
        ("the tunnel's congestion mark", marked(&capable), taken(&capable.clone().tos(3))),
        ("a mark that the inner packet cannot carry", marked(&inner), dropped()),
        ("not to the leased address", to_us(&Ip { destination: HOST, ..inner.clone() }), dropped()),
        ("truncated", truncated, dropped()),
        ("nothing inside", Ip::new(GATEWAY, HOST, IPIP, vec![]).frame(), dropped()),
        ("inner length beyond the outer one", Ip::new(GATEWAY, HOST, IPIP, lies).frame(), dropped()),
        ("outer options", tunnelled.clone().with_options().frame(), dropped()),
        ("outer fragment", tunnelled.clone().fragment(MF).frame(), dropped()),
        ("a tunnel of somebody else", inner.inside(PEER, HOST).frame(), None),
        ("a tunnel to somebody else", inner.inside(GATEWAY, PEER).frame(), None),
        ("plain traffic of the gateway", Ip::new(GATEWAY, HOST, ICMP, echo(8, 1, 1)).frame(), None),
        ("a frame for another machine", elsewhere, None),
    ];
    let mut tunnel = Tunnel::new(1, 1);
    for (name, packet, expected) in cases {
        let before = tunnel.counters();
        let outcome = tunnel.inward(&packet);
        let after = tunnel.counters();
        let counted: Vec<usize> = (0..after.len()).filter(|&i| after[i] != before[i]).collect();
        let (action, out) = expected.unwrap_or((PASS, packet));
        assert_eq!(outcome.action, action, "{name}: verdict");
        match action {
            REDIRECT => assert_eq!(counted, [Counter::TunnelIn as usize], "{name}"),
            DROP => assert_eq!(counted, [Counter::TunnelDropped as usize], "{name}"),
            _ => assert!(counted.is_empty(), "{name}: counted {counted:?}"),
        }
        if action != DROP {
            assert_eq!(outcome.packet, out, "{name}: packet");
        }
    }
    tunnel.config.set(0, Config::default(), 0).unwrap();
    assert_eq!(tunnel.inward(&tunnelled.frame()).action, PASS, "before it is set up");
}

#[test]
fn inward_takes_only_what_comes_from_the_peer_of_the_lease() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
    let from = |source, port| Ip::new(source, PUBLIC, UDP, udp(port, 4000, b"x"));
    // What a router on the way, or the peer itself, says about a datagram of ours.
    let about = |source, quoted: &Ip| {
        let mut payload = vec![3, 1, 0, 0, 0, 0, 0, 0];
        payload.extend(quoted.bytes());
        Ip::new(source, PUBLIC, ICMP, payload)
    };
    let sent = |to, port| Ip::new(PUBLIC, to, UDP, udp(4000, port, b""));
    let later = Ip::new(PEER, PUBLIC, UDP, vec![1; 16]).fragment(9);
    let echo_reply = Ip::new(PEER, PUBLIC, ICMP, echo(0, 1, 1));
    // Packet; under macro; under micro with port 53.
    let cases = [
        ("the peer", from(PEER, 53), true, true),
        ("the peer, TCP", Ip::new(PEER, PUBLIC, TCP, tcp(53, 4000)), true, true),
        ("IP options", from(PEER, 53).with_options(), true, true),
        ("the peer from another port", from(PEER, 54), true, false),
        ("somebody else", from(OTHER, 53), false, false),
        ("somebody else, TCP", Ip::new(OTHER, PUBLIC, TCP, tcp(53, 4000)), false, false),
        ("another protocol of the peer", Ip::new(PEER, PUBLIC, 132, vec![0; 16]), true, false),
        ("a later fragment of the peer", later.clone(), true, true),
        ("a later fragment of somebody else", Ip { source: OTHER, ..later }, false, false),
        ("too short for ports", Ip::new(PEER, PUBLIC, UDP, vec![0; 3]), true, false),
        ("an echo reply of the peer", echo_reply.clone(), true, false),
        ("an echo reply of somebody else", Ip { source: OTHER, ..echo_reply }, false, false),
        ("a router's error about the peer", about(ROUTER, &sent(PEER, 53)), true, true),
        ("the peer's error", about(PEER, &sent(PEER, 53)), true, true),
        ("an error about another port", about(PEER, &sent(PEER, 54)), true, false),
        ("an error about somebody else", about(ROUTER, &sent(OTHER, 53)), false, false),
        (
            "an error that quotes nothing",
            Ip::new(ROUTER, PUBLIC, ICMP, vec![3, 1, 0, 0, 0, 0, 0, 0]),
            false,
            false,
        ),
    ];
    for (port, micro) in [(0, false), (53, true)] {
        let mut tunnel = Tunnel::new(1, 1);
        let mut settings = tunnel.config.get(&0, 0).unwrap();
        (settings.remote_address, settings.remote_port) = (raw(PEER), port);
        tunnel.config.set(0, settings, 0).unwrap();
        for (name, inner, by_address, by_port) in &cases {
            let before = tunnel.counter(Counter::TunnelBadRemote);
            let outcome = tunnel.inward(&inner.inside(GATEWAY, HOST).frame());
            let dropped = tunnel.counter(Counter::TunnelBadRemote) - before;
            let passes = if micro { *by_port } else { *by_address };
            assert_eq!(
                (outcome.action, dropped),
                if passes { (REDIRECT, 0) } else { (DROP, 1) },
                "{name}, {port}"
            );
        }
    }
}

#[test]
fn who_asks_by_arp_for_the_leased_address_is_not_heard() {
    let arp = |operation: u16, target: Ipv4Addr| {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
        frame.extend(operation.to_be_bytes());
        frame.extend([2, 0, 0, 0, 0, 9, 10, 0, 0, 3, 0, 0, 0, 0, 0, 0]);
        frame.extend(target.octets());
        frame.resize(60, 0);
        frame
    };
    let mut tunnel = Tunnel::new(1, 1);
    let mut broadcast = arp(1, PUBLIC);
    broadcast[0..6].fill(0xff);
    for (name, frame) in [("unicast", arp(1, PUBLIC)), ("broadcast", broadcast)] {
        assert_eq!(tunnel.inward(&frame).action, DROP, "{name}");
    }
    assert_eq!(tunnel.counter(Counter::ArpSilenced), 2);
    for (name, frame) in [("the host's own address", arp(1, HOST)), ("a reply", arp(2, PUBLIC))] {
        assert_eq!(tunnel.inward(&frame).action, PASS, "{name}");
    }
    let mut short = arp(1, PUBLIC);
    short.truncate(14 + 27);
    assert_eq!(tunnel.inward(&short).action, PASS, "cut short");
    let mut settings = tunnel.config.get(&0, 0).unwrap();
    settings.public_address = 0;
    tunnel.config.set(0, settings, 0).unwrap();
    assert_eq!(tunnel.inward(&arp(1, Ipv4Addr::UNSPECIFIED)).action, PASS, "nothing is leased");
    assert_eq!(tunnel.counter(Counter::ArpSilenced), 2);
}

/// The gateway's side: all IP-in-IP packets that arrive in the calling thread's network namespace.
fn receive(socket: &Socket) -> Vec<u8> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    // SAFETY: the kernel has written that many.
    buffer[..length].iter().map(|octet| unsafe { octet.assume_init() }).collect()
}

#[test]
fn carries_packets_both_ways_through_a_real_device() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let (ready, is_ready) = mpsc::channel();
    let (linked, is_linked) = mpsc::channel::<()>();
    let gateway = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ready.send(nix::unistd::gettid()).unwrap();
        is_linked.recv().unwrap();
        ip("link set lo up").unwrap();
        ip("address add 10.0.0.1/24 dev gw").unwrap();
        ip("link set gw up").unwrap();
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_IPIP))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        ready.send(nix::unistd::gettid()).unwrap();
        let got = receive(&socket);
        let answer = Ip::new(PEER, PUBLIC, UDP, udp(53, 4000, b"answer")).bytes();
        let host: SockAddr = SocketAddr::from((HOST, 0)).into();
        socket.send_to(&answer, &host).unwrap();
        got
    });
    let gateway_thread = is_ready.recv().unwrap();
    ip("link set lo up").unwrap();
    ip(&format!("link add priv0 type veth peer name gw netns {gateway_thread}")).unwrap();
    ip("address add 10.0.0.2/24 dev priv0").unwrap();
    ip("link set priv0 up").unwrap();
    linked.send(()).unwrap();
    let device = Tun::new("rsip").unwrap();
    ip("address add 203.0.113.1/32 dev rsip").unwrap();
    ip("link set rsip up").unwrap();
    ip("route add default dev rsip src 203.0.113.1").unwrap();
    let (private, tunnel_device) = (if_nametoindex("priv0").unwrap(), if_nametoindex("rsip").unwrap());
    let mut tunnel = Tunnel::new(private, tunnel_device);
    // Kernels before 6.6 attach to it, newer ones to the device itself.
    for device in ["rsip", "priv0"] {
        tc::qdisc_add_clsact(device).unwrap();
    }
    let out: &mut SchedClassifier = bpf::program(&mut tunnel.ebpf, programs::TUNNEL_OUT).unwrap();
    out.attach("rsip", TcAttachType::Egress).unwrap();
    let inward: &mut SchedClassifier = bpf::program(&mut tunnel.ebpf, programs::TUNNEL_IN).unwrap();
    inward.attach("priv0", TcAttachType::Ingress).unwrap();
    is_ready.recv().unwrap();

    // From another address of the host nothing leaves through the tunnel.
    let stray = UdpSocket::bind("10.0.0.2:4001").unwrap();
    stray.send_to(b"stray", (PEER, 53)).unwrap();
    assert_eq!(tunnel.counter(Counter::TunnelBadSource), 1);
    // A lease for one peer: what gets past the hooks, as raw sockets do, does not leave either.
    let mut settings = tunnel.config.get(&0, 0).unwrap();
    (settings.remote_address, settings.remote_port) = (raw(PEER), 53);
    tunnel.config.set(0, settings, 0).unwrap();
    let leased = UdpSocket::bind((PUBLIC, 4001)).unwrap();
    leased.send_to(b"another host", ("198.51.100.8", 53)).unwrap();
    leased.send_to(b"another port", (PEER, 54)).unwrap();
    assert_eq!(tunnel.counter(Counter::TunnelBadRemote), 2);

    let socket = UdpSocket::bind((PUBLIC, 4000)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let option: libc::c_int = 0x28;
    // SAFETY: the descriptor is open; the option is an int.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, (&raw const option).cast(), 4)
    };
    assert_eq!(set, 0);
    socket.send_to(b"question", (PEER, 53)).unwrap();
    let mut answer = [0; 64];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from), (&b"answer"[..], SocketAddr::from((PEER, 53))));

    let got = gateway.join().unwrap();
    let (outer, inner) = got.split_at(20);
    let question = Ip::new(PUBLIC, PEER, UDP, vec![0; 16]).tos(0x28);
    let expected = question.inside(HOST, GATEWAY);
    assert_eq!(expected.fragment, DF);
    assert_eq!(outer, &expected.bytes()[..20], "the outer header is what RFC 2003 says");
    assert_eq!(&inner[12..20], &question.bytes()[12..20], "the inner addresses are as they were");
    assert_eq!(&inner[28..], b"question");

    let start = Instant::now();
    while (tunnel.counter(Counter::TunnelOut), tunnel.counter(Counter::TunnelIn)) != (1, 1) {
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", tunnel.counters());
    }
    assert_eq!(tunnel.counter(Counter::TunnelDropped), 0);
    drop(device);
}
