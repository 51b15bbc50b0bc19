//! Options that say what an address or an interface means, and protocols beside TCP and UDP.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::libc;
use rsip_lab::lab::Host;
use rsip_lab::lab::agent::TUNNEL;
use socket2::{Domain, Protocol, Socket, Type};

use super::stage::{
    ANY, ANY6, Done, FOREIGN, LEASED, Outcome, PRIVATE, Stage, Way, bound, ensure, port_of, tcp, udp,
};
use super::{PRIVATE_IF, SERVER};

const V4: Domain = Domain::IPV4;

pub(crate) const WAYS: &[Way] = &[
    Way { name: "IP_FREEBIND, an address that is not local", steps: |stage| anywhere(stage, freebind) },
    Way { name: "IP_TRANSPARENT, an address that is not local", steps: |stage| anywhere(stage, transparent) },
    Way { name: "IP_FREEBIND, the leased address", steps: |stage| leased(stage, freebind(tcp(V4)?), LEASED) },
    Way {
        name: "SO_BINDTODEVICE, the private interface, TCP",
        steps: |stage| tied_apart(stage, tcp(V4), ANY, PRIVATE_IF),
    },
    Way {
        name: "SO_BINDTODEVICE, the private interface, UDP",
        steps: |stage| tied_apart(stage, udp(V4), ANY, PRIVATE_IF),
    },
    Way {
        name: "SO_BINDTODEVICE, the private interface, dual stack",
        steps: |stage| tied_apart(stage, tcp(Domain::IPV6), ANY6, PRIVATE_IF),
    },
    Way { name: "SO_BINDTODEVICE, loopback", steps: |stage| tied_apart(stage, tcp(V4), ANY, "lo") },
    Way {
        name: "SO_BINDTODEVICE, the tunnel, TCP",
        steps: |stage| leased(stage, tied(tcp(V4), TUNNEL), ANY),
    },
    Way {
        name: "SO_BINDTODEVICE, the tunnel, UDP",
        steps: |stage| leased(stage, tied(udp(V4), TUNNEL), ANY),
    },
    Way {
        name: "SO_BINDTODEVICE, the tunnel, dual stack",
        steps: |stage| leased(stage, tied(tcp(Domain::IPV6), TUNNEL), ANY6),
    },
    Way { name: "SO_BINDTODEVICE, the private interface, connect()", steps: tied_connects },
    Way { name: "SO_BINDTODEVICE after bind()", steps: tied_later },
    Way {
        name: "Multipath TCP (IPPROTO_MPTCP)",
        steps: |stage| leased(stage, other(Type::STREAM, Protocol::MPTCP), ANY),
    },
    Way { name: "SCTP", steps: |stage| not_ours(stage, Type::STREAM, Protocol::SCTP) },
    Way { name: "UDP-Lite", steps: |stage| not_ours(stage, Type::DGRAM, Protocol::UDPLITE) },
    Way { name: "raw socket", steps: |stage| not_ours(stage, Type::RAW, Protocol::UDP) },
];

fn freebind(socket: Socket) -> io::Result<Socket> {
    socket.set_freebind_v4(true)?;
    Ok(socket)
}

fn transparent(socket: Socket) -> io::Result<Socket> {
    socket.set_ip_transparent_v4(true)?;
    Ok(socket)
}

fn tied(socket: io::Result<Socket>, interface: &str) -> io::Result<Socket> {
    let socket = socket?;
    socket.bind_device(Some(interface.as_bytes()))?;
    Ok(socket)
}

fn other(kind: Type, protocol: Protocol) -> io::Result<Socket> {
    Socket::new(V4, kind, Some(protocol))
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT | libc::ENOPROTOOPT))
}

fn anywhere(stage: &mut Stage<'_>, option: fn(Socket) -> io::Result<Socket>) -> Done {
    let port = stage.port();
    let _tcp = bound(option(tcp(V4)?), FOREIGN, port)?;
    let _udp = bound(option(udp(V4)?), FOREIGN, port)?;
    stage.not_leased(port)?;
    Ok(Outcome::NoLease)
}

fn leased(stage: &mut Stage<'_>, socket: io::Result<Socket>, ip: IpAddr) -> Done {
    let socket = match socket {
        Err(error) if is_unknown(&error) => return Ok(Outcome::NotInKernel),
        socket => socket?,
    };
    let port = stage.port();
    let socket = bound(Ok(socket), ip, port)?;
    stage.in_use(port, 1)?;
    if socket.r#type()? == Type::STREAM {
        let (near, far) = stage.reached(&socket, port)?;
        socket2::SockRef::from(&near).set_linger(Some(std::time::Duration::ZERO))?;
        drop(near);
        drop(far);
    }
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

fn tied_apart(stage: &mut Stage<'_>, socket: io::Result<Socket>, ip: IpAddr, interface: &str) -> Done {
    let port = stage.port();
    let socket = bound(tied(socket, interface), ip, port)?;
    stage.not_leased(port)?;
    // The port is free for the public side.
    let public = bound(tied(tcp(V4), TUNNEL), ANY, port)?;
    stage.counted(port, 1)?;
    stage.free(port, public);
    stage.linger_on(socket);
    Ok(Outcome::NoLease)
}

fn tied_connects(stage: &mut Stage<'_>) -> Done {
    let socket = tied(udp(V4), PRIVATE_IF)?;
    socket.connect(&SERVER.into())?;
    let from = socket.local_addr()?.as_socket().map(|name| name.ip());
    ensure(from == Some(PRIVATE), || format!("from {from:?}"))?;
    let port = stage.port();
    let socket = bound(tied(udp(V4), PRIVATE_IF), ANY, port)?;
    socket.send_to(b"?", &SERVER.into())?;
    socket.send_to(b"?", &SocketAddr::new(IpAddr::V4(Host::B.address()), 9).into())?;
    stage.not_leased(port)?;
    Ok(Outcome::NoLease)
}

/// The port was asked for when nobody knew yet; who still has it is seen by its end.
fn tied_later(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = bound(tcp(V4), ANY, port)?;
    stage.in_use(port, 1)?;
    socket.bind_device(Some(PRIVATE_IF.as_bytes()))?;
    ensure(port_of(&socket)? == port, || "another port".to_owned())?;
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

fn not_ours(stage: &mut Stage<'_>, kind: Type, protocol: Protocol) -> Done {
    let port = stage.port();
    let socket = match other(kind, protocol) {
        Err(error) if is_unknown(&error) => return Ok(Outcome::NotInKernel),
        socket => socket?,
    };
    socket.bind(&SocketAddr::new(ANY, port).into())?;
    stage.not_leased(port)?;
    Ok(Outcome::NoLease)
}
