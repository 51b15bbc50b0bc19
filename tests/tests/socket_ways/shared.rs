//! One port, several sockets.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use rsip_lab::lab::{Host, binaries};
use socket2::{Domain, Socket};

use super::stage::{
    ANY, ANY6, Done, Helper, LEASED, Outcome, PRIVATE, Stage, Way, bound, ensure, errno, tcp, udp,
};

pub(crate) const WAYS: &[Way] = &[
    Way { name: "TCP and UDP on one port", steps: both_protocols },
    Way { name: "IPv4 and IPv6 alone on one port", steps: both_families },
    Way { name: "SO_REUSEPORT group, one process, TCP", steps: |stage| group(stage, tcp) },
    Way { name: "SO_REUSEPORT group, one process, UDP", steps: |stage| group(stage, udp) },
    Way { name: "SO_REUSEPORT group, several processes", steps: processes },
    Way {
        name: "SO_REUSEPORT group with a program that chooses (SO_ATTACH_REUSEPORT_CBPF)",
        steps: chosen_by_program,
    },
    Way { name: "SO_REUSEADDR, UDP sockets share", steps: shared_udp },
    Way { name: "SO_REUSEADDR, the leased and a private address", steps: two_addresses },
    Way { name: "a second bind of a leased port, nothing shared", steps: second },
    Way { name: "closed and bound again at once", steps: again },
];

fn both_protocols(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let stream = bound(tcp(Domain::IPV4), ANY, port)?;
    stage.in_use(port, 1)?;
    let datagrams = bound(udp(Domain::IPV6), ANY6, port)?;
    stage.in_use(port, 2)?;
    drop(stream);
    stage.in_use(port, 1)?;
    stage.keep(port, datagrams);
    Ok(Outcome::Leased)
}

fn both_families(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let v6 = tcp(Domain::IPV6)?;
    v6.set_only_v6(true)?;
    let v4 = bound(tcp(Domain::IPV4), ANY, port)?;
    let v6 = bound(Ok(v6), ANY6, port)?;
    end(stage.reached(&v4, port)?)?;
    drop(v6);
    stage.free(port, v4);
    Ok(Outcome::Leased)
}

fn group(stage: &mut Stage<'_>, open: fn(Domain) -> io::Result<Socket>) -> Done {
    let port = stage.port();
    let mut sockets = Vec::new();
    for number in 1..=3 {
        let socket = open(Domain::IPV4)?;
        socket.set_reuse_port(true)?;
        sockets.push(bound(Ok(socket), ANY, port)?);
        stage.in_use(port, number)?;
    }
    for number in (1..=2).rev() {
        sockets.pop();
        stage.in_use(port, number)?;
    }
    stage.free(port, sockets);
    Ok(Outcome::Leased)
}

fn processes(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let start = || {
        let mut command = stage.system.lab.host(Host::A).command(binaries::own("probe")?);
        Helper::start_well(command.args(["bind", "--reuse-port", &format!("0.0.0.0:{port}")]))
    };
    let (first, second) = (start()?, start()?);
    stage.in_use(port, 2)?;
    drop(first);
    stage.in_use(port, 1)?;
    stage.free(port, second);
    Ok(Outcome::Leased)
}

fn chosen_by_program(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let member = || {
        let socket = tcp(Domain::IPV4)?;
        socket.set_reuse_port(true)?;
        bound(Ok(socket), ANY, port)
    };
    let (first, second) = (member()?, member()?);
    // BPF_RET | BPF_K, 1: always the second.
    let mut code = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: 1 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    set(&first, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)?;
    stage.in_use(port, 2)?;
    end(stage.reached(&second, port)?)?;
    drop(first);
    stage.free(port, second);
    Ok(Outcome::Leased)
}

/// Ends a connection so that nothing of it is left.
fn end((near, far): (TcpStream, TcpStream)) -> io::Result<()> {
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
    drop(far);
    drop(near);
    Ok(())
}

/// setsockopt(2) with a value that the libraries do not know.
pub(crate) fn set<T>(socket: &Socket, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; the value is as long as said.
    let answer = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn shared_udp(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let member = || {
        let socket = udp(Domain::IPV4)?;
        socket.set_reuse_address(true)?;
        bound(Ok(socket), ANY, port)
    };
    let (first, second) = (member()?, member()?);
    stage.in_use(port, 2)?;
    drop(first);
    stage.in_use(port, 1)?;
    stage.free(port, second);
    Ok(Outcome::Leased)
}

fn two_addresses(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let public = bound(tcp(Domain::IPV4), LEASED, port)?;
    let private = bound(tcp(Domain::IPV4), PRIVATE, port)?;
    stage.in_use(port, 1)?;
    // Who has a private address uses no lease, and holds none.
    stage.free(port, public);
    stage.linger_on(private);
    Ok(Outcome::Leased)
}

fn second(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let first = bound(tcp(Domain::IPV4), ANY, port)?;
    let refused = bound(tcp(Domain::IPV4), ANY, port);
    ensure(errno(&refused) == Some(Errno::EADDRINUSE), || format!("{refused:?}"))?;
    let refused = tcp(Domain::IPV6)?.bind(&SocketAddr::new(ANY6, port).into());
    ensure(errno(&refused) == Some(Errno::EADDRINUSE), || format!("{refused:?}"))?;
    stage.in_use(port, 1)?;
    stage.free(port, first);
    Ok(Outcome::Refused(Errno::EADDRINUSE))
}

fn again(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    for _ in 0..20 {
        drop(bound(tcp(Domain::IPV4), ANY, port)?);
        drop(bound(udp(Domain::IPV6), ANY6, port)?);
    }
    let last = bound(udp(Domain::IPV4), ANY, port)?;
    stage.in_use(port, 1)?;
    stage.free(port, last);
    Ok(Outcome::Leased)
}
