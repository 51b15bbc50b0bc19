//! bind(): what it names, and what follows.

use std::mem;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use socket2::{Domain, Socket};

use super::stage::{
    ANY, ANY6, Done, FOREIGN, IPV6, LEASED, LOOPBACK, OTHER, Outcome, PRIVATE, Stage, Way, bound, ensure,
    errno, mapped, port_of, tcp, udp,
};

const V4: Domain = Domain::IPV4;
const V6: Domain = Domain::IPV6;

pub(crate) const WAYS: &[Way] = &[
    Way { name: "bind4, any address, TCP", steps: |stage| leased_tcp(stage, V4, ANY) },
    Way { name: "bind4, any address, UDP", steps: |stage| leased_udp(stage, V4, ANY) },
    Way { name: "bind6, any address, dual stack, TCP", steps: |stage| leased_tcp(stage, V6, ANY6) },
    Way { name: "bind6, any address, dual stack, UDP", steps: |stage| leased_udp(stage, V6, ANY6) },
    Way { name: "bind6, any address, IPV6_V6ONLY, TCP", steps: v6only_tcp },
    Way { name: "bind6, any address, IPV6_V6ONLY, UDP", steps: v6only_udp },
    Way { name: "bind6, IPv4-mapped any address, TCP", steps: |stage| leased_tcp(stage, V6, mapped(ANY)) },
    Way { name: "bind6, IPv4-mapped any address, UDP", steps: |stage| leased_udp(stage, V6, mapped(ANY)) },
    Way { name: "bind4, the leased address, TCP", steps: |stage| leased_tcp(stage, V4, LEASED) },
    Way { name: "bind4, the leased address, UDP", steps: |stage| leased_udp(stage, V4, LEASED) },
    Way {
        name: "bind6, IPv4-mapped leased address, TCP",
        steps: |stage| leased_tcp(stage, V6, mapped(LEASED)),
    },
    Way {
        name: "bind6, IPv4-mapped leased address, UDP",
        steps: |stage| leased_udp(stage, V6, mapped(LEASED)),
    },
    Way { name: "bind4, a private address", steps: |stage| no_lease(stage, V4, PRIVATE) },
    Way { name: "bind6, IPv4-mapped private address", steps: |stage| no_lease(stage, V6, mapped(PRIVATE)) },
    Way { name: "bind4, loopback", steps: |stage| no_lease(stage, V4, LOOPBACK) },
    Way {
        name: "bind6, loopback",
        steps: |stage| no_lease(stage, V6, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])),
    },
    Way { name: "bind4, another address of the host", steps: |stage| no_lease(stage, V4, OTHER) },
    Way { name: "bind6, an IPv6 address", steps: |stage| no_lease(stage, V6, IPV6) },
    Way { name: "bind(0), any address, TCP", steps: |stage| chosen(stage, tcp(V4), ANY) },
    Way { name: "bind(0), any address, UDP", steps: |stage| chosen(stage, udp(V4), ANY) },
    Way { name: "bind(0), any address, dual stack", steps: |stage| chosen(stage, tcp(V6), ANY6) },
    Way { name: "bind(0), the leased address", steps: |stage| chosen(stage, tcp(V4), LEASED) },
    Way { name: "bind(0), a private address", steps: |stage| chosen_apart(stage, tcp(V4), PRIVATE) },
    Way { name: "bind(0), loopback", steps: |stage| chosen_apart(stage, udp(V4), LOOPBACK) },
    Way { name: "bind() of a port of the block, by number", steps: of_the_block },
    Way { name: "bind() and neither listen() nor connect(), TCP", steps: idle },
    Way { name: "bind() that the kernel refuses: a private server has the port", steps: taken_privately },
    Way { name: "bind() of a bound socket", steps: twice },
    Way { name: "bind() of an address that is not local", steps: not_local },
    Way { name: "bind() with the address of another family", steps: wrong_family },
];

fn leased_tcp(stage: &mut Stage<'_>, domain: Domain, ip: IpAddr) -> Done {
    let port = stage.port();
    let listener = bound(tcp(domain), ip, port)?;
    stage.in_use(port, 1)?;
    let (near, far) = stage.reached(&listener, port)?;
    stage.in_use(port, 2)?;
    // The peer ends first: TIME_WAIT is there.
    drop(near);
    stage.until("the end of the connection", || {
        let mut byte = [0];
        ensure(far.peek(&mut byte)? == 0, || "still open".to_owned())
    })?;
    drop(far);
    stage.until("one socket", || stage.in_use(port, 1))?;
    stage.free(port, listener);
    Ok(Outcome::Leased)
}

fn leased_udp(stage: &mut Stage<'_>, domain: Domain, ip: IpAddr) -> Done {
    let port = stage.port();
    let socket = bound(udp(domain), ip, port)?;
    stage.in_use(port, 1)?;
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

fn v6only(socket: std::io::Result<Socket>) -> std::io::Result<Socket> {
    let socket = socket?;
    socket.set_only_v6(true)?;
    Ok(socket)
}

fn v6only_tcp(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = bound(v6only(tcp(V6)), ANY6, port)?;
    stage.not_leased(port)?;
    // The other half of the port is free.
    let second = bound(tcp(V4), ANY, port)?;
    drop(socket);
    stage.in_use(port, 1)?;
    stage.free(port, second);
    Ok(Outcome::NoLease)
}

fn v6only_udp(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let _socket = bound(v6only(udp(V6)), ANY6, port)?;
    stage.not_leased(port)?;
    Ok(Outcome::NoLease)
}

fn no_lease(stage: &mut Stage<'_>, domain: Domain, ip: IpAddr) -> Done {
    let port = stage.port();
    let _tcp = bound(tcp(domain), ip, port)?;
    let _udp = bound(udp(domain), ip, port)?;
    stage.not_leased(port)?;
    Ok(Outcome::NoLease)
}

fn chosen(stage: &mut Stage<'_>, socket: std::io::Result<Socket>, ip: IpAddr) -> Done {
    let socket = bound(socket, ip, 0)?;
    let port = port_of(&socket)?;
    stage.of_the_block(port)?;
    Ok(Outcome::Block)
}

/// The kernel's choice is the same for all addresses.
fn chosen_apart(stage: &mut Stage<'_>, socket: std::io::Result<Socket>, ip: IpAddr) -> Done {
    chosen(stage, socket, ip)?;
    Ok(Outcome::NoLease)
}

fn of_the_block(stage: &mut Stage<'_>) -> Done {
    // The last one that is free.
    let mut ports = stage.block.clone();
    while let Some(port) = ports.pop() {
        let socket = bound(tcp(V4), ANY, port);
        if errno(&socket) == Some(Errno::EADDRINUSE) {
            continue;
        }
        let socket = socket?;
        stage.of_the_block(port)?;
        let (near, far) = stage.reached(&socket, port)?;
        far.set_nonblocking(true)?;
        socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO))?;
        drop((near, far));
        return Ok(Outcome::Block);
    }
    Err("no port of the block is free".into())
}

fn idle(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = tcp(V4)?;
    socket.bind(&std::net::SocketAddr::new(ANY, port).into())?;
    stage.in_use_with(port, 1, 1)?;
    stage.keep(port, socket);
    Ok(Outcome::Leased)
}

fn taken_privately(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let server = bound(tcp(V4), PRIVATE, port)?;
    let refused = bound(tcp(V4), ANY, port);
    ensure(errno(&refused) == Some(Errno::EADDRINUSE), || format!("{refused:?}"))?;
    stage.forgotten(port);
    // As long as the private server runs there is no use of the lease.
    stage.linger_on(server);
    Ok(Outcome::Refused(Errno::EADDRINUSE))
}

fn twice(stage: &mut Stage<'_>) -> Done {
    let (first, second) = (stage.port(), stage.port());
    let socket = bound(udp(V4), ANY, first)?;
    let refused = socket.bind(&std::net::SocketAddr::new(ANY, second).into());
    ensure(errno(&refused) == Some(Errno::EINVAL), || format!("{refused:?}"))?;
    stage.not_leased(second)?;
    stage.in_use(first, 1)?;
    stage.free(first, socket);
    Ok(Outcome::Refused(Errno::EINVAL))
}

fn not_local(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let refused = bound(tcp(V4), FOREIGN, port);
    ensure(errno(&refused) == Some(Errno::EADDRNOTAVAIL), || format!("{refused:?}"))?;
    stage.not_leased(port)?;
    Ok(Outcome::Refused(Errno::EADDRNOTAVAIL))
}

fn wrong_family(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let refused = tcp(V4)?.bind(&std::net::SocketAddr::new(ANY6, port).into());
    ensure(errno(&refused) == Some(Errno::EAFNOSUPPORT), || format!("{refused:?}"))?;
    stage.not_leased(port)?;
    // AF_UNSPEC with the any address is what AF_INET is (ip(7)).
    let socket = udp(V4)?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_UNSPEC.cast_unsigned() as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    let length = libc::socklen_t::try_from(mem::size_of_val(&address))?;
    // SAFETY: the descriptor is open; the address is as long as said.
    let answer = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure(answer == 0, || format!("AF_UNSPEC: {}", std::io::Error::last_os_error()))?;
    stage.in_use(port, 1)?;
    stage.free(port, socket);
    Ok(Outcome::Refused(Errno::EAFNOSUPPORT))
}
