//! The hooks on bind, connect, send and close, with real sockets.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rsip_ebpf_common::host::{
    Config, Counter, EVENT_RELEASED, EVENT_WANT_BLOCK, EVENT_WANT_PORT, FLAG_ENABLED, FLAG_EPHEMERAL,
    FLAG_WHOLE, WAIT_POLL,
};
use rsip_lab::bpf::host::{GRANTED, Host, IGNORED, V6ONLY, denied, ip};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const PUBLIC: [u8; 4] = [203, 0, 113, 1];
const PRIVATE: [u8; 4] = [10, 0, 0, 2];
/// An address of the host that is neither.
const THIRD: [u8; 4] = [192, 0, 2, 1];

/// Hooks that wait in the hook, for as long as no test needs.
fn host() -> Host {
    let mut host = Host::new(Config {
        public_address: u32::from_ne_bytes(PUBLIC),
        deadline_ns: 20_000_000,
        wait: WAIT_POLL,
        v6only_offset: V6ONLY.0,
        v6only_mask: V6ONLY.1,
        ..Config::default()
    })
    .unwrap();
    for [a, b, c, d] in [PUBLIC, PRIVATE, THIRD] {
        ip(&format!("address add {a}.{b}.{c}.{d}/32 dev lo")).unwrap();
    }
    host.add_local([10, 0, 0, 0], 8).unwrap();
    host
}

fn socket(address: SocketAddr, kind: Type) -> Socket {
    Socket::new(Domain::for_address(address), kind, None).unwrap()
}

fn bind(kind: Type, address: &str) -> io::Result<Socket> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = socket(address, kind);
    socket.bind(&address.into()).map(|()| socket)
}

fn errno(result: io::Result<Socket>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn asks_once_for_a_port_and_says_who_wants_it() {
    let mut host = host();
    let start = Instant::now();
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EADDRINUSE), "nobody answers");
    assert!(start.elapsed() >= Duration::from_millis(20), "it waited: {:?}", start.elapsed());
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EADDRINUSE));
    assert_eq!(host.pending(), [80]);
    assert_eq!(host.counter(Counter::BindTimeout).unwrap(), 2);
    let events = host.events();
    let [event] = events.as_slice() else { panic!("one event: {events:?}") };
    assert_eq!((event.kind, event.port), (EVENT_WANT_PORT, 80));
    assert_eq!((event.protocol, event.family), (libc::IPPROTO_TCP as u32, libc::AF_INET as u32));
    assert_eq!(event.tid, nix::unistd::gettid().as_raw() as u32);
    assert_eq!(event.tgid, std::process::id());
    assert_eq!(event.uid, 0);
    assert!(event.cookie != 0 && event.cgroup_id != 0);
    let own = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    let command: Vec<u8> = event.command.iter().copied().take_while(|&octet| octet != 0).collect();
    assert_eq!(String::from_utf8(command).unwrap(), own.trim_end());
}

#[test]
fn asks_again_when_the_agent_lost_the_question() {
    let mut host = host();
    bind(Type::DGRAM, "0.0.0.0:53").unwrap_err();
    assert_eq!(host.events().len(), 1);
    thread::sleep(Duration::from_millis(1100));
    bind(Type::DGRAM, "0.0.0.0:53").unwrap_err();
    let events = host.events();
    assert_eq!(events.len(), 1, "the entry is a second older than its deadline");
    assert_eq!((events[0].protocol, events[0].port), (libc::IPPROTO_UDP as u32, 53));
}

#[test]
fn asks_again_when_the_ring_was_full() {
    let mut host = host();
    host.change(|config| config.deadline_ns = 0).unwrap();
    for port in 10_000..14_000 {
        bind(Type::DGRAM, &format!("0.0.0.0:{port}")).unwrap_err();
    }
    let lost = host.counter(Counter::EventLost).unwrap();
    let heard = host.events().len() as u64;
    assert!(lost > 0 && heard > 0 && lost + heard == 4000, "{lost} lost, {heard} heard");
    bind(Type::DGRAM, "0.0.0.0:13999").unwrap_err();
    let events = host.events();
    assert_eq!(events.iter().map(|event| event.port).collect::<Vec<_>>(), [13_999]);
}

#[test]
fn verdicts_decide_without_waiting() {
    let mut host = host();
    host.set(80, GRANTED).unwrap();
    host.set(81, denied(libc::EADDRINUSE, Duration::from_secs(60))).unwrap();
    host.set(82, denied(libc::EACCES, Duration::from_secs(60))).unwrap();
    host.set(83, denied(0, Duration::from_secs(60))).unwrap();
    host.set(84, IGNORED).unwrap();
    for (kind, any) in
        [(Type::STREAM, "0.0.0.0"), (Type::DGRAM, "0.0.0.0"), (Type::STREAM, "[::]"), (Type::DGRAM, "[::]")]
    {
        let bind = |port: u16| errno(bind(kind, &format!("{any}:{port}")));
        assert_eq!(bind(80), None, "{kind:?} {any}");
        assert_eq!(bind(81), Some(libc::EADDRINUSE), "{kind:?} {any}");
        assert_eq!(bind(82), Some(libc::EACCES), "{kind:?} {any}");
        assert_eq!(bind(83), Some(libc::EADDRINUSE), "an errno is always there: {kind:?} {any}");
        assert_eq!(bind(84), None, "{kind:?} {any}");
    }
    assert!(host.events().iter().all(|event| event.kind == EVENT_RELEASED), "nobody was asked");
    assert_eq!(host.counter(Counter::BindGranted).unwrap(), 4);
    assert_eq!(host.counter(Counter::BindDenied).unwrap(), 12);
}

#[test]
fn asks_nobody_for_a_port_that_another_program_has_refused() {
    let host = host();
    let second = host.second().unwrap();
    host.set(80, denied(libc::EACCES, Duration::from_secs(60))).unwrap();
    host.set(81, GRANTED).unwrap();
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EACCES));
    assert!(second.pending().is_empty());
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:81")), Some(libc::EADDRINUSE), "the second has no answer");
    assert_eq!(second.pending(), [81]);
}

#[test]
fn a_refusal_runs_out() {
    let mut host = host();
    host.set(80, denied(libc::EACCES, Duration::from_millis(50))).unwrap();
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EACCES));
    assert!(host.events().is_empty());
    thread::sleep(Duration::from_millis(60));
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EADDRINUSE), "asked, and not answered");
    assert_eq!(host.events().len(), 1);
}

#[test]
fn every_form_of_a_public_address_is_asked_for() {
    let host = host();
    for address in ["0.0.0.0", "203.0.113.1", "[::]", "[::ffff:203.0.113.1]", "[::ffff:0.0.0.0]"] {
        for kind in [Type::STREAM, Type::DGRAM] {
            bind(kind, &format!("{address}:80")).unwrap_err();
            assert_eq!(host.pending(), [80], "{address} {kind:?}");
            host.set(80, GRANTED).unwrap();
            let socket = bind(kind, &format!("{address}:80")).unwrap();
            assert_eq!(host.uses(80).unwrap(), 1, "{address} {kind:?}");
            drop(socket);
            host.set(80, denied(0, Duration::ZERO)).unwrap();
        }
    }
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let mut host = host();
    let raw = |kind, protocol| Socket::new(Domain::IPV4, kind, Some(Protocol::from(protocol))).unwrap();
    let any: SockAddr = "0.0.0.0:80".parse::<SocketAddr>().unwrap().into();
    let sockets = vec![
        bind(Type::STREAM, "127.0.0.1:80").unwrap(),
        bind(Type::STREAM, "127.1.2.3:80").unwrap(),
        bind(Type::STREAM, "10.0.0.2:80").unwrap(),
        bind(Type::STREAM, "192.0.2.1:80").unwrap(),
        bind(Type::STREAM, "[::1]:80").unwrap(),
        bind(Type::STREAM, "[::ffff:127.0.0.1]:81").unwrap(),
        bind(Type::DGRAM, "[::ffff:10.0.0.2]:81").unwrap(),
        {
            let socket = socket("[::]:82".parse().unwrap(), Type::STREAM);
            socket.set_only_v6(true).unwrap();
            socket.bind(&"[::]:82".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket
        },
        {
            let socket = raw(Type::RAW, libc::IPPROTO_UDP);
            socket.bind(&any).unwrap();
            socket
        },
        {
            let socket = raw(Type::DGRAM, libc::IPPROTO_UDPLITE);
            socket.bind(&any).unwrap();
            socket
        },
    ];
    assert_eq!((host.events().len(), host.sockets(), host.uses(80).unwrap()), (0, 0, 0));
    drop(sockets);

    host.change(|config| config.flags &= !FLAG_ENABLED).unwrap();
    drop(bind(Type::STREAM, "0.0.0.0:80").unwrap());
    host.change(|config| config.flags |= FLAG_ENABLED).unwrap();
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EADDRINUSE), "enabled again");
    assert_eq!(host.events().len(), 1);

    host.change(|config| config.agent_tgid = std::process::id()).unwrap();
    drop(bind(Type::STREAM, "0.0.0.0:81").unwrap());
    host.change(|config| config.agent_tgid = 1).unwrap();

    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        drop(bind(Type::STREAM, "0.0.0.0:82").unwrap());
    })
    .join()
    .unwrap();
    assert_eq!((host.events().len(), host.sockets()), (0, 0));
}

#[test]
fn an_unknown_place_of_v6only_counts_as_dual_stack() {
    let mut host = host();
    host.change(|config| config.v6only_offset = 0).unwrap();
    let socket = socket("[::]:82".parse().unwrap(), Type::STREAM);
    socket.set_only_v6(true).unwrap();
    socket.bind(&"[::]:82".parse::<SocketAddr>().unwrap().into()).unwrap_err();
    assert_eq!(host.events().len(), 1);
}

#[test]
fn counts_sockets_from_bind_to_close() {
    let mut host = host();
    host.set(80, GRANTED).unwrap();
    let reuse = |kind: Type| {
        let socket = socket("0.0.0.0:80".parse().unwrap(), kind);
        socket.set_reuse_port(true).unwrap();
        socket.bind(&"0.0.0.0:80".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket
    };
    let (first, second, third) = (reuse(Type::STREAM), reuse(Type::STREAM), reuse(Type::DGRAM));
    let copy = first.try_clone().unwrap();
    assert_eq!(host.uses(80).unwrap(), 3);
    drop(first);
    assert_eq!(host.uses(80).unwrap(), 3, "another descriptor holds the socket");
    drop((copy, second));
    assert_eq!(host.uses(80).unwrap(), 1);
    assert!(host.events().is_empty());
    drop(third);
    assert_eq!((host.uses(80).unwrap(), host.sockets()), (0, 0));
    let events = host.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].port), (EVENT_RELEASED, 80));
}

#[test]
fn counts_the_port_that_the_kernel_chose() {
    let mut host = host();
    for kind in [Type::STREAM, Type::DGRAM] {
        let socket = bind(kind, "0.0.0.0:0").unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert_eq!(host.uses(port).unwrap(), 1);
        drop(socket);
        assert_eq!(host.uses(port).unwrap(), 0);
        let events = host.events();
        assert_eq!(events.len(), 1, "released, never asked for: {events:?}");
        assert_eq!((events[0].kind, events[0].port), (EVENT_RELEASED, u32::from(port)));
    }
}

#[test]
fn counts_what_is_bound_whatever_let_it_pass_and_no_bind_that_failed() {
    let mut host = host();
    host.set(80, GRANTED).unwrap();
    host.set(81, IGNORED).unwrap();
    let holder = bind(Type::STREAM, "0.0.0.0:80").unwrap();
    assert_eq!(errno(bind(Type::STREAM, "0.0.0.0:80")), Some(libc::EADDRINUSE), "taken on this very host");
    assert_eq!(host.uses(80).unwrap(), 1);
    let ignored = bind(Type::STREAM, "0.0.0.0:81").unwrap();
    assert_eq!(host.uses(81).unwrap(), 1, "it may be leased a moment later");
    host.set(81, GRANTED).unwrap();
    assert_eq!(host.uses(81).unwrap(), 1);
    drop((holder, ignored));
    assert_eq!((host.sockets(), host.uses(80).unwrap(), host.uses(81).unwrap()), (0, 0, 0));
    assert_eq!(host.events().len(), 2);
}

#[test]
fn a_socket_that_is_bound_again_counts_once() {
    let mut host = host();
    host.change(|config| config.flags |= FLAG_EPHEMERAL).unwrap();
    host.set(80, GRANTED).unwrap();
    let socket = bind(Type::DGRAM, "0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    socket.connect(&"127.0.0.1:9".parse::<SocketAddr>().unwrap().into()).unwrap();
    // AF_UNSPEC: disconnects, and gives a port back that the kernel chose.
    let unspecified = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    // SAFETY: the descriptor is open; the address is as long as said.
    let answer = unsafe {
        libc::connect(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &raw const unspecified,
            size_of::<libc::sockaddr>() as u32,
        )
    };
    assert_eq!(answer, 0);
    socket.bind(&"0.0.0.0:80".parse::<SocketAddr>().unwrap().into()).unwrap();
    assert_eq!((host.uses(port).unwrap(), host.uses(80).unwrap(), host.sockets()), (0, 1, 1));
    drop(socket);
    assert_eq!((host.uses(80).unwrap(), host.sockets()), (0, 0));
    let released: Vec<u32> = host.events().iter().map(|event| event.port).collect();
    assert_eq!(released, [u32::from(port), 80]);
}

#[test]
fn connects_only_with_a_block_or_without_need_of_one() {
    let mut host = host();
    host.set(80, GRANTED).unwrap();
    ip("route add default dev lo").unwrap();
    let connect = |kind, from: Option<&str>, to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        let socket = socket(to, kind);
        if let Some(from) = from {
            socket.bind(&from.parse::<SocketAddr>().unwrap().into()).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        socket.connect(&to.into()).err().and_then(|error| error.raw_os_error())
    };
    let refused = Some(libc::EADDRNOTAVAIL);
    assert_eq!(connect(Type::STREAM, None, "198.51.100.1:443"), refused);
    let events = host.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].kind, events[0].protocol), (EVENT_WANT_BLOCK, libc::IPPROTO_TCP as u32));
    assert_eq!(connect(Type::DGRAM, None, "198.51.100.1:53"), refused);
    assert_eq!(connect(Type::STREAM, None, "[::ffff:198.51.100.1]:443"), refused);
    assert_eq!(connect(Type::DGRAM, None, "[::ffff:198.51.100.1]:443"), refused);
    assert_eq!(
        connect(Type::DGRAM, Some("0.0.0.0:0"), "198.51.100.1:53"),
        refused,
        "a port that is not leased"
    );
    assert_eq!(host.counter(Counter::ConnectRefused).unwrap(), 5);

    let unbound = UdpSocket::from(socket("0.0.0.0:0".parse().unwrap(), Type::DGRAM));
    assert_eq!(unbound.send_to(b"x", "198.51.100.1:53").unwrap_err().raw_os_error(), refused);
    let mapped = UdpSocket::from(socket("[::]:0".parse().unwrap(), Type::DGRAM));
    assert_eq!(mapped.send_to(b"x", "[::ffff:198.51.100.1]:53").unwrap_err().raw_os_error(), refused);
    unbound.send_to(b"x", "127.0.0.1:53").unwrap();
    unbound.send_to(b"x", "10.9.9.9:53").unwrap();

    for to in
        ["127.0.0.1:9", "10.9.9.9:9", "224.0.0.1:9", "[::1]:9", "[2001:db8::1]:9", "[::ffff:10.9.9.9]:9"]
    {
        assert_ne!(connect(Type::DGRAM, None, to), refused, "{to}");
    }
    assert_eq!(connect(Type::DGRAM, Some("203.0.113.1:80"), "198.51.100.1:53"), None, "a leased port");
    assert_eq!(connect(Type::DGRAM, Some("10.0.0.2:0"), "198.51.100.1:53"), None, "a private source");
    assert_eq!(connect(Type::DGRAM, Some("[::ffff:10.0.0.2]:0"), "[::ffff:198.51.100.1]:53"), None);

    host.change(|config| config.flags |= FLAG_EPHEMERAL).unwrap();
    assert_eq!(connect(Type::DGRAM, None, "198.51.100.1:53"), None, "a block is leased");
    let send = || unbound.send_to(b"x", "198.51.100.1:53").map_err(|error| error.raw_os_error());
    assert_eq!(send(), Err(refused), "its port is not of it");
    assert_eq!(host.counter(Counter::ConnectRefused).unwrap(), 8);
    host.set(unbound.local_addr().unwrap().port(), GRANTED).unwrap();
    assert_eq!(send(), Ok(1));
    assert_eq!(
        connect(Type::DGRAM, Some("0.0.0.0:0"), "198.51.100.1:53"),
        refused,
        "chosen out of nothing leased"
    );
}

#[test]
fn wants_a_block_once_in_a_while() {
    let mut host = host();
    ip("route add default dev lo").unwrap();
    let socket = UdpSocket::from(socket("0.0.0.0:0".parse().unwrap(), Type::DGRAM));
    let start = Instant::now();
    for _ in 0..1000 {
        socket.send_to(b"x", "198.51.100.1:53").unwrap_err();
    }
    let allowed = start.elapsed().as_millis() as usize + 2;
    let events = host.events().len();
    assert!((1..=allowed).contains(&events), "{events} events in {:?}", start.elapsed());
    assert_eq!(host.counter(Counter::ConnectRefused).unwrap(), 1000);
}

#[test]
fn with_a_whole_address_every_bind_passes_at_once_and_is_counted() {
    let mut host = host();
    host.set(81, denied(libc::EADDRINUSE, Duration::from_secs(60))).unwrap();
    host.set(84, IGNORED).unwrap();
    host.change(|config| config.flags |= FLAG_WHOLE | FLAG_EPHEMERAL).unwrap();
    for address in ["0.0.0.0:80", "203.0.113.1:80", "[::]:80", "[::ffff:203.0.113.1]:80", "0.0.0.0:81"] {
        for kind in [Type::STREAM, Type::DGRAM] {
            let socket = bind(kind, address).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            assert_eq!(host.uses(port).unwrap(), 1, "{address} {kind:?}");
        }
    }
    let ignored = bind(Type::STREAM, "0.0.0.0:84").unwrap();
    assert_eq!(host.uses(84).unwrap(), 1);
    drop(ignored);
    assert!(host.pending().is_empty());
    assert!(host.events().iter().all(|event| event.kind == EVENT_RELEASED), "nobody was asked");
    assert_eq!(host.counter(Counter::BindGranted).unwrap(), 11);

    host.change(|config| config.flags &= !FLAG_WHOLE).unwrap();
    assert_eq!(
        errno(bind(Type::STREAM, "0.0.0.0:80")),
        Some(libc::EADDRINUSE),
        "it has to be asked for again"
    );
    assert_eq!(host.pending(), [80]);
}

#[test]
fn a_lease_for_one_peer_reaches_nobody_else() {
    let mut host = host();
    ip("route add default dev lo").unwrap();
    host.set(80, GRANTED).unwrap();
    let refused = Some(libc::EHOSTUNREACH);
    let connect = |kind, from: Option<&str>, to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        let socket = socket(to, kind);
        if let Some(from) = from {
            socket.bind(&from.parse::<SocketAddr>().unwrap().into()).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        socket.connect(&to.into()).err().and_then(|error| error.raw_os_error())
    };
    let unbound = UdpSocket::from(socket("0.0.0.0:0".parse().unwrap(), Type::DGRAM));
    let mapped = UdpSocket::from(socket("[::]:0".parse().unwrap(), Type::DGRAM));
    let send = |to: &str| unbound.send_to(b"x", to).err().and_then(|error| error.raw_os_error());
    let send6 = |to: &str| mapped.send_to(b"x", to).err().and_then(|error| error.raw_os_error());
    // Remote macro: any port of the peer.
    host.change(|config| {
        config.flags |= FLAG_EPHEMERAL;
        config.remote_address = u32::from_ne_bytes([198, 51, 100, 1]);
    })
    .unwrap();
    for socket in [&unbound, &mapped] {
        socket
            .send_to(b"x", if socket.local_addr().unwrap().is_ipv4() { "127.0.0.1:9" } else { "[::1]:9" })
            .unwrap();
        host.set(socket.local_addr().unwrap().port(), GRANTED).unwrap();
    }
    for port in [53, 443] {
        assert_eq!(connect(Type::DGRAM, None, &format!("198.51.100.1:{port}")), None);
        assert_eq!(connect(Type::DGRAM, None, &format!("[::ffff:198.51.100.1]:{port}")), None);
        assert_eq!(connect(Type::DGRAM, Some("203.0.113.1:80"), &format!("198.51.100.1:{port}")), None);
        assert_eq!(send(&format!("198.51.100.1:{port}")), None);
        assert_eq!(send6(&format!("[::ffff:198.51.100.1]:{port}")), None);
    }
    let mut count = 0;
    for to in ["198.51.100.2:53", "8.8.8.8:53"] {
        for kind in [Type::STREAM, Type::DGRAM] {
            assert_eq!(connect(kind, None, to), refused, "{to}");
            assert_eq!(connect(kind, Some("0.0.0.0:0"), to), refused, "{to}");
            assert_eq!(
                connect(kind, Some("203.0.113.1:80"), to),
                refused,
                "a leased port is no exception: {to}"
            );
            assert_eq!(connect(kind, None, &format!("[::ffff:{}]:53", &to[..to.len() - 3])), refused, "{to}");
            count += 4;
        }
        assert_eq!(send(to), refused, "{to}");
        assert_eq!(send6(&format!("[::ffff:{}]:53", &to[..to.len() - 3])), refused, "{to}");
        count += 2;
    }
    // With an address of the host's own: the peer is not reached, everybody else is none of our business.
    assert_eq!(connect(Type::DGRAM, Some("10.0.0.2:0"), "198.51.100.1:53"), refused);
    assert_eq!(connect(Type::DGRAM, Some("10.0.0.2:0"), "198.51.100.2:53"), None);
    count += 1;
    for private in ["127.0.0.1:9", "10.9.9.9:9", "[::1]:9"] {
        assert_ne!(connect(Type::DGRAM, None, private), refused, "{private}");
    }
    assert_eq!(host.counter(Counter::RemoteRefused).unwrap(), count);

    // Remote micro: that port alone.
    host.change(|config| config.remote_port = 53).unwrap();
    assert_eq!(connect(Type::DGRAM, None, "198.51.100.1:53"), None);
    assert_eq!(send("198.51.100.1:53"), None);
    assert_eq!(connect(Type::DGRAM, None, "198.51.100.1:54"), refused);
    assert_eq!(connect(Type::STREAM, None, "[::ffff:198.51.100.1]:443"), refused);
    assert_eq!(send("198.51.100.1:54"), refused);
    assert_eq!(connect(Type::DGRAM, Some("10.0.0.2:0"), "198.51.100.1:53"), refused);
    assert_eq!(connect(Type::DGRAM, Some("10.0.0.2:0"), "198.51.100.1:54"), None);
    assert_eq!(host.counter(Counter::RemoteRefused).unwrap(), count + 4);
    assert_eq!(host.counter(Counter::ConnectRefused).unwrap(), 0);

    // Without a block the peer's own answer is another one.
    host.change(|config| config.flags &= !FLAG_EPHEMERAL).unwrap();
    assert_eq!(connect(Type::DGRAM, None, "198.51.100.1:53"), Some(libc::EADDRNOTAVAIL));
    assert_eq!(connect(Type::DGRAM, None, "198.51.100.1:54"), refused);
}
