//! Ports that connect(), sends and listen() take by themselves, and what they do with one that is bound.

use std::io::{self, BufRead, BufReader, IoSlice};
use std::mem;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, sendmsg};
use rsip_lab::lab::topology::PUBLIC;
use socket2::{Domain, MaybeUninitSlice, Socket};

use super::SERVER;
use super::shared::set;
use super::stage::{
    ANY, ANY6, Done, Failed, LEASED, Outcome, PRIVATE, Stage, Way, bound, ensure, mapped, port_of, tcp, udp,
};

const V4: Domain = Domain::IPV4;
const V6: Domain = Domain::IPV6;
const PATIENCE: Duration = Duration::from_secs(5);
/// Since Linux 6.3; not in libc yet.
const IP_LOCAL_PORT_RANGE: i32 = 51;

pub(crate) const WAYS: &[Way] = &[
    Way { name: "connect() without bind(), TCP", steps: |stage| connects(stage, tcp(V4)) },
    Way { name: "connect() without bind(), TCP, IPv4-mapped", steps: |stage| connects(stage, tcp(V6)) },
    Way { name: "connect() after bind(0), TCP", steps: |stage| connects(stage, named(tcp(V4), ANY, 0)) },
    Way {
        name: "connect() after bind(0), dual stack",
        steps: |stage| connects(stage, named(tcp(V6), ANY6, 0)),
    },
    Way {
        name: "connect() after bind(0) of the leased address",
        steps: |stage| connects(stage, named(tcp(V4), LEASED, 0)),
    },
    Way { name: "connect() after bind(0) with IP_BIND_ADDRESS_NO_PORT", steps: no_port },
    Way { name: "connect() after bind() of a port by number", steps: by_number },
    Way { name: "connect() to a private peer", steps: to_a_neighbour },
    Way { name: "sendto() with MSG_FASTOPEN (TCP Fast Open)", steps: fast_open },
    Way { name: "sendto() without bind(), UDP", steps: |stage| asks(stage, udp(V4), send_to) },
    Way { name: "sendto() without bind(), UDP, IPv4-mapped", steps: |stage| asks(stage, udp(V6), send_to) },
    Way { name: "sendmsg() without bind(), UDP", steps: |stage| asks(stage, udp(V4), send_message) },
    Way { name: "sendmmsg() without bind(), UDP", steps: |stage| asks(stage, udp(V4), send_messages) },
    Way { name: "sendto() after bind(0), UDP", steps: |stage| asks(stage, named(udp(V4), ANY, 0), send_to) },
    Way { name: "connected UDP", steps: |stage| asks(stage, udp(V4), connect_and_send) },
    Way { name: "connected UDP, IPv4-mapped", steps: |stage| asks(stage, udp(V6), connect_and_send) },
    Way { name: "connected UDP, bound by number, to a private peer", steps: connected_apart },
    Way { name: "connected UDP, disconnected after bind(0)", steps: disconnected_choice },
    Way { name: "connected UDP, disconnected and bound again", steps: disconnected },
    Way { name: "connected UDP, bound by number, disconnected", steps: disconnected_by_number },
    Way { name: "listen() without bind()", steps: listens },
    Way { name: "IP_LOCAL_PORT_RANGE within the block", steps: range_within },
    Way { name: "IP_LOCAL_PORT_RANGE beside the block", steps: range_beside },
];

fn named(socket: io::Result<Socket>, ip: IpAddr, port: u16) -> io::Result<Socket> {
    let socket = socket?;
    socket.bind(&SocketAddr::new(ip, port).into())?;
    Ok(socket)
}

/// The server's address, as a socket of this family writes it.
fn server(socket: &Socket) -> io::Result<SocketAddr> {
    let ip = IpAddr::V4(*SERVER.ip());
    let ip = if socket.domain()? == V6 { mapped(ip) } else { ip };
    Ok(SocketAddr::new(ip, SERVER.port()))
}

/// What the server says: who asked.
fn peer_of(answer: &str) -> Result<SocketAddrV4, Failed> {
    let peer = answer.split(' ').next().unwrap_or_default();
    Ok(peer.parse().map_err(|error| format!("{answer:?}: {error}"))?)
}

fn call(socket: Socket) -> Result<SocketAddrV4, Failed> {
    socket.connect_timeout(&server(&socket)?.into(), PATIENCE)?;
    answer_of(socket)
}

fn answer_of(socket: Socket) -> Result<SocketAddrV4, Failed> {
    socket.set_read_timeout(Some(PATIENCE))?;
    // This end closes with a reset: no TIME_WAIT holds what the next way wants.
    socket.set_linger(Some(Duration::ZERO))?;
    let mut answer = String::new();
    BufReader::new(TcpStream::from(socket)).read_line(&mut answer)?;
    peer_of(&answer)
}

fn connects(stage: &mut Stage<'_>, socket: io::Result<Socket>) -> Done {
    seen_with_the_block(stage, call(socket?)?)
}

fn seen_with_the_block(stage: &Stage<'_>, peer: SocketAddrV4) -> Done {
    ensure(*peer.ip() == PUBLIC, || format!("it was {peer}"))?;
    stage.of_the_block(peer.port())?;
    Ok(Outcome::Block)
}

fn no_port(stage: &mut Stage<'_>) -> Done {
    let socket = tcp(V4)?;
    set(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &1_i32)?;
    let socket = named(Ok(socket), LEASED, 0)?;
    ensure(port_of(&socket)? == 0, || "bind() has chosen a port".to_owned())?;
    connects(stage, Ok(socket))
}

fn by_number(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = named(tcp(V4), ANY, port)?;
    stage.in_use_with(port, 1, 1)?;
    socket.connect_timeout(&server(&socket)?.into(), PATIENCE)?;
    stage.in_use(port, 1)?;
    let copy = socket.try_clone()?;
    let peer = answer_of(copy)?;
    ensure(peer == SocketAddrV4::new(PUBLIC, port), || format!("it was {peer}"))?;
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

fn to_a_neighbour(stage: &mut Stage<'_>) -> Done {
    let to = SocketAddr::new(IpAddr::V4(rsip_lab::lab::Host::B.address()), 9);
    let socket = udp(V4)?;
    socket.connect(&to.into())?;
    let from = socket.local_addr()?.as_socket().map(|name| name.ip());
    ensure(from == Some(PRIVATE), || format!("from {from:?}"))?;
    stage.of_the_block(port_of(&socket)?)?;
    Ok(Outcome::NoLease)
}

fn fast_open(stage: &mut Stage<'_>) -> Done {
    let socket = tcp(V4)?;
    socket.send_to_with_flags(b"?", &SERVER.into(), libc::MSG_FASTOPEN)?;
    seen_with_the_block(stage, answer_of(socket)?)
}

type Ask = fn(&Socket) -> Result<(), Failed>;

fn asks(stage: &mut Stage<'_>, socket: io::Result<Socket>, ask: Ask) -> Done {
    let socket = socket?;
    ask(&socket)?;
    let peer = reply(&socket)?;
    ensure(peer.port() == port_of(&socket)?, || format!("it was {peer}"))?;
    seen_with_the_block(stage, peer)
}

fn reply(socket: &Socket) -> Result<SocketAddrV4, Failed> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 256];
    let length = UdpSocket::from(socket.try_clone()?).recv(&mut buffer)?;
    peer_of(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()))
}

fn send_to(socket: &Socket) -> Result<(), Failed> {
    socket.send_to(b"?", &server(socket)?.into())?;
    Ok(())
}

fn send_message(socket: &Socket) -> Result<(), Failed> {
    let to = SockaddrIn::from(SERVER);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(b"?")], &[], MsgFlags::empty(), Some(&to))?;
    Ok(())
}

fn send_messages(socket: &Socket) -> Result<(), Failed> {
    let mut headers = MultiHeaders::preallocate(1, None);
    let to = [Some(SockaddrIn::from(SERVER))];
    let words = [[IoSlice::new(b"?")]];
    let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &words, to, [], MsgFlags::empty())?.count();
    ensure(sent == 1, || format!("{sent} messages were sent"))
}

fn connect_and_send(socket: &Socket) -> Result<(), Failed> {
    socket.connect(&server(socket)?.into())?;
    socket.send(b"?")?;
    Ok(())
}

/// connect() to AF_UNSPEC.
fn disconnect(socket: &Socket) -> io::Result<()> {
    let nobody = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(mem::size_of_val(&nobody)).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; the address is as long as said.
    let answer = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn disconnected(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = udp(V4)?;
    connect_and_send(&socket)?;
    stage.of_the_block(port_of(&socket)?)?;
    disconnect(&socket)?;
    ensure(port_of(&socket)? == 0, || "it keeps its port".to_owned())?;
    let socket = named(Ok(socket), ANY, port)?;
    stage.in_use(port, 1)?;
    connect_and_send(&socket)?;
    let mut old = [mem::MaybeUninit::new(0); 256];
    // The answer to the port that it had before has nowhere to go.
    socket.set_read_timeout(Some(PATIENCE))?;
    let (_, _) = socket.recv_vectored(&mut [MaybeUninitSlice::new(&mut old)])?;
    stage.in_use(port, 1)?;
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

/// It answers nobody else meanwhile, and is free for everybody when that ends.
fn connected_apart(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = bound(udp(V4), ANY, port)?;
    socket.connect(&SocketAddr::new(IpAddr::V4(rsip_lab::lab::Host::B.address()), 9).into())?;
    stage.counted(port, 1)?;
    stage.keep(port, socket);
    Ok(Outcome::Leased)
}

/// The port that the kernel chose is given back at once.
fn disconnected_choice(stage: &mut Stage<'_>) -> Done {
    let socket = named(udp(V4), ANY, 0)?;
    let before = stage.counted_in_block()?;
    connect_and_send(&socket)?;
    stage.of_the_block(port_of(&socket)?)?;
    disconnect(&socket)?;
    ensure(port_of(&socket)? == 0, || "it keeps its port".to_owned())?;
    let after = stage.counted_in_block()?;
    // Kernels before 6.8 do not list every socket: the hooks' count stands in, which ends with the socket.
    if !rsip_client::usage::diag::lists_idle_sockets() {
        return Ok(Outcome::Block);
    }
    ensure(after < before, || format!("{before} sockets on ports of the block, then {after}"))?;
    Ok(Outcome::Block)
}

fn disconnected_by_number(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = bound(udp(V4), ANY, port)?;
    connect_and_send(&socket)?;
    ensure(reply(&socket)? == SocketAddrV4::new(PUBLIC, port), || "another source".to_owned())?;
    disconnect(&socket)?;
    // It listens to everybody again.
    stage.in_use(port, 1)?;
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

fn listens(stage: &mut Stage<'_>) -> Done {
    let socket = tcp(V4)?;
    socket.listen(4)?;
    let port = port_of(&socket)?;
    stage.of_the_block(port)?;
    let (near, far) = stage.reached(&socket, port)?;
    near.set_linger_zero()?;
    drop((near, far));
    Ok(Outcome::Block)
}

/// What std does not have.
trait Reset {
    fn set_linger_zero(&self) -> io::Result<()>;
}

impl Reset for TcpStream {
    fn set_linger_zero(&self) -> io::Result<()> {
        socket2::SockRef::from(self).set_linger(Some(Duration::ZERO))
    }
}

/// The lowest and the highest port that this socket may get.
fn set_range(socket: &Socket, low: u16, high: u16) -> io::Result<bool> {
    let range = u32::from(high) << 16 | u32::from(low);
    match set(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &range) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

fn range_within(stage: &mut Stage<'_>) -> Done {
    let [first, .., last] = stage.block[..] else { return Err("no block".into()) };
    let (low, high) = (last - 20, last - 10);
    for socket in [tcp(V4)?, udp(V4)?] {
        if !set_range(&socket, low, high)? {
            return Ok(Outcome::NotInKernel);
        }
        let port = port_of(&named(Ok(socket), ANY, 0)?)?;
        ensure((low..=high).contains(&port), || format!("{port} is not of {low}-{high} in {first}-{last}"))?;
        stage.of_the_block(port)?;
    }
    let socket = tcp(V4)?;
    set_range(&socket, low, high)?;
    let peer = call(socket)?;
    ensure((low..=high).contains(&peer.port()), || format!("{peer} is not of {low}-{high}"))?;
    seen_with_the_block(stage, peer)
}

fn range_beside(stage: &mut Stage<'_>) -> Done {
    let [.., last] = stage.block[..] else { return Err("no block".into()) };
    for (low, high) in [(last + 10, last + 500), (last - 5, last + 500), (1, 65_535)] {
        let socket = tcp(V4)?;
        if !set_range(&socket, low, high)? {
            return Ok(Outcome::NotInKernel);
        }
        seen_with_the_block(stage, call(socket)?)?;
        let socket = udp(V4)?;
        set_range(&socket, low, high)?;
        asks(stage, Ok(socket), send_to)?;
    }
    Ok(Outcome::Block)
}
