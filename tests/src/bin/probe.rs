//! A program with exactly the socket calls that a test wants. Prints one line of JSON as soon as it knows its result.
//!
//! ```text
//! probe bind 0.0.0.0:80            {"result":"ok","errno":0,"port":80,"micros":52}     then holds it until SIGTERM
//! probe bind --udp '[::]:53'       {"result":"EADDRINUSE","errno":98,"port":53,"micros":61}     then ends with 1
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Type};

#[path = "probe/handing.rs"]
mod handing;

#[derive(Parser)]
#[command(about = "A program with exactly the socket calls that a test wants")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bind one socket and hold it until SIGTERM.
    Bind {
        #[command(flatten)]
        socket: Socket,
        /// Bind when CLOCK_MONOTONIC shows this many nanoseconds.
        #[arg(long)]
        at: Option<u64>,
        /// End at once after the bind.
        #[arg(long)]
        close: bool,
    },
    /// Bind one socket, then answer every connection or datagram with "PEER LOCAL".
    Serve {
        #[command(flatten)]
        socket: Socket,
        /// End connections first: the port stays in TIME_WAIT here, not at the peer.
        #[arg(long)]
        close_first: bool,
    },
    /// Send one question to a `serve` and print its answer.
    Ask {
        /// Whom to ask.
        peer: SocketAddr,
        /// With a datagram.
        #[arg(long)]
        udp: bool,
        /// Bind to this address first.
        #[arg(long)]
        from: Option<SocketAddr>,
        /// How often.
        #[arg(long, default_value_t = 1)]
        count: u32,
        /// Connect the datagram socket first, so that ICMP errors reach it.
        #[arg(long)]
        connected: bool,
        /// Length of a datagram.
        #[arg(long, default_value_t = 9)]
        size: usize,
        /// Wait until the server has ended the connection (one with `--close-first` does).
        #[arg(long)]
        to_end: bool,
    },
    /// Bind and close many ports, one after the other.
    Churn {
        /// The address; its port is the first.
        first: SocketAddr,
        /// How many ports.
        #[arg(long)]
        count: u16,
        /// With datagram sockets.
        #[arg(long)]
        udp: bool,
    },
    /// Hold the socket that is standard input until SIGTERM.
    Keep,
    /// Bind and listen, fork and end: the child holds the socket until SIGTERM.
    Heir {
        /// What to bind.
        address: SocketAddr,
    },
    /// Bind and listen, send the socket over the unix socket that is standard input, and end.
    Give {
        /// What to bind.
        address: SocketAddr,
    },
    /// Bind and listen as a service manager, and become `activated`.
    Activate {
        /// What to bind.
        address: SocketAddr,
    },
    /// Hold the socket of `activate` until SIGTERM.
    Activated,
    /// Send datagrams inside IP-in-IP, with an inner source of choice.
    Tunnel {
        /// The tunnel's other end.
        gateway: Ipv4Addr,
        /// The inner source.
        source: SocketAddrV4,
        /// The inner destination.
        destination: SocketAddrV4,
        /// How many.
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
    /// Disturb an RSIP service: random bytes and truncated messages, over TCP and UDP, in many connections.
    Garbage {
        /// The service.
        peer: SocketAddr,
        /// How many of each kind.
        #[arg(long, default_value_t = 200)]
        count: u32,
        /// Makes the bytes.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Args)]
struct Socket {
    /// What to bind.
    address: SocketAddr,
    /// A datagram socket; else a stream socket that listens.
    #[arg(long)]
    udp: bool,
    /// IPv6 only: not dual-stack.
    #[arg(long)]
    v6only: bool,
    /// SO_REUSEPORT.
    #[arg(long)]
    reuse_port: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&json!({ "result": "failed", "why": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

/// Does what was asked; whether it worked is in the printed line and in the value.
fn run(verb: Verb) -> io::Result<bool> {
    match verb {
        Verb::Bind { socket, at, close } => {
            let Some(socket) = bind_and_say(&socket, at)? else { return Ok(false) };
            if !close {
                // Until SIGTERM ends the process.
                loop {
                    thread::park();
                }
            }
            drop(socket);
            Ok(true)
        }
        Verb::Serve { socket, close_first } => {
            let Some(fd) = bind_and_say(&socket, None)? else { return Ok(false) };
            if socket.udp { serve_datagrams(fd.into()) } else { serve_connections(fd.into(), close_first) }
        }
        Verb::Ask { peer, udp, from, count, connected, size, to_end } => {
            for _ in 0..count {
                let answer = if udp {
                    ask_datagram(peer, from, size, connected)?
                } else {
                    ask_connection(peer, from, to_end)?
                };
                say(&json!({ "result": "ok", "answer": answer }));
            }
            Ok(true)
        }
        Verb::Churn { first, count, udp } => churn(first, count, udp),
        Verb::Keep => handing::keep(),
        Verb::Heir { address } => handing::heir(address),
        Verb::Give { address } => handing::give(address),
        Verb::Activate { address } => handing::activate(address),
        Verb::Activated => handing::activated(),
        Verb::Tunnel { gateway, source, destination, count } => tunnel(gateway, source, destination, count),
        Verb::Garbage { peer, count, seed } => garbage(peer, count, seed),
    }
}

/// One line on standard output. A reader that has gone away is no reason to stop.
fn say(line: &Value) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(2);
    }
}

fn bind_and_say(wish: &Socket, at: Option<u64>) -> io::Result<Option<socket2::Socket>> {
    let socket = open(wish)?;
    if let Some(at) = at {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
        thread::sleep(Duration::from_nanos(at).saturating_sub(now));
    }
    let start = Instant::now();
    let bound =
        socket.bind(&wish.address.into()).and_then(|()| if wish.udp { Ok(()) } else { socket.listen(128) });
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let port = match bound {
        Ok(()) => socket.local_addr()?.as_socket().map_or(0, |name| name.port()),
        Err(_) => wish.address.port(),
    };
    let (result, errno) = name(bound.as_ref().err());
    say(&json!({ "result": result, "errno": errno, "port": port, "micros": micros }));
    Ok(bound.is_ok().then_some(socket))
}

/// The name and number of an error: "ok" and 0 where there is none.
fn name(error: Option<&io::Error>) -> (String, i32) {
    match error {
        None => ("ok".to_owned(), 0),
        Some(error) => {
            let number = error.raw_os_error().unwrap_or(-1);
            (format!("{:?}", Errno::from_raw(number)), number)
        }
    }
}

fn open(wish: &Socket) -> io::Result<socket2::Socket> {
    let kind = if wish.udp { Type::DGRAM } else { Type::STREAM };
    let socket = socket2::Socket::new(Domain::for_address(wish.address), kind, None)?;
    if !wish.udp {
        socket.set_reuse_address(true)?;
    }
    if wish.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if wish.address.is_ipv6() {
        socket.set_only_v6(wish.v6only)?;
    }
    Ok(socket)
}

/// A dual-stack socket shows IPv4 peers as mapped addresses; people write them plainly.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn serve_connections(listener: TcpListener, close_first: bool) -> io::Result<bool> {
    loop {
        let (stream, peer) = listener.accept()?;
        // A peer that is gone already does not end the service.
        if let Err(error) = answer(stream, peer, close_first) {
            say(&json!({ "result": "lost", "peer": peer.to_string(), "why": error.to_string() }));
        }
    }
}

fn answer(mut stream: TcpStream, peer: SocketAddr, close_first: bool) -> io::Result<()> {
    let text = format!("{} {}\n", plain(peer), plain(stream.local_addr()?));
    stream.write_all(text.as_bytes())?;
    if !close_first {
        stream.set_read_timeout(Some(PATIENCE))?;
        while stream.read(&mut [0; 64])? > 0 {}
    }
    Ok(())
}

fn serve_datagrams(socket: UdpSocket) -> io::Result<bool> {
    let mut buffer = vec![0; 65_536];
    loop {
        let (_, peer) = socket.recv_from(&mut buffer)?;
        let text = format!("{} {}\n", plain(peer), plain(socket.local_addr()?));
        if let Err(error) = socket.send_to(text.as_bytes(), peer) {
            say(&json!({ "result": "lost", "peer": peer.to_string(), "why": error.to_string() }));
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(3);

fn ask_connection(peer: SocketAddr, from: Option<SocketAddr>, to_end: bool) -> io::Result<String> {
    let socket = socket2::Socket::new(Domain::for_address(peer), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&peer.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    let mut reader = BufReader::new(TcpStream::from(socket));
    if to_end {
        reader.read_to_string(&mut answer)?;
    } else {
        reader.read_line(&mut answer)?;
    }
    Ok(answer.trim_end().to_owned())
}

fn ask_datagram(
    peer: SocketAddr,
    from: Option<SocketAddr>,
    size: usize,
    connected: bool,
) -> io::Result<String> {
    // Without an address of its own the socket stays unbound until it is connected or the first datagram leaves.
    let socket = socket2::Socket::new(Domain::for_address(peer), Type::DGRAM, None)?;
    if let Some(from) = from {
        socket.bind(&from.into())?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    let question = vec![b'?'; size];
    if connected {
        socket.connect(&peer.into())?;
        socket.send(&question)?;
    } else {
        socket.send_to(&question, &peer.into())?;
    }
    let mut buffer = [0; 2048];
    let (length, answerer) = UdpSocket::from(socket).recv_from(&mut buffer)?;
    if answerer != peer {
        return Err(io::Error::other(format!("asked {peer}, but {answerer} answers")));
    }
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim_end().to_owned())
}

fn churn(first: SocketAddr, count: u16, udp: bool) -> io::Result<bool> {
    let mut failed = Vec::new();
    for offset in 0..count {
        let address = SocketAddr::new(first.ip(), first.port().saturating_add(offset));
        let socket = open(&Socket { address, udp, v6only: false, reuse_port: false })?;
        if let Err(error) = socket.bind(&address.into()) {
            let (result, errno) = name(Some(&error));
            failed.push(json!({ "port": address.port(), "errno": errno, "result": result }));
        }
    }
    let result = if failed.is_empty() { "ok" } else { "failed" };
    say(&json!({ "result": result, "bound": usize::from(count) - failed.len(), "failed": failed }));
    Ok(failed.is_empty())
}

fn tunnel(
    gateway: Ipv4Addr,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    count: u32,
) -> io::Result<bool> {
    // A raw socket of this protocol: the kernel writes the outer header.
    let socket = socket2::Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IP_IN_IP)))?;
    let packet = datagram(source, destination, b"not mine");
    for _ in 0..count {
        socket.send_to(&packet, &SockAddr::from(SocketAddrV4::new(gateway, 0)))?;
    }
    say(&json!({ "result": "ok", "sent": count }));
    Ok(true)
}

/// Protocol number (RFC 2003).
const IP_IN_IP: i32 = 4;

/// An IPv4 packet with a UDP datagram, without UDP checksum.
fn datagram(source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let udp_length = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend((udp_length + 20).to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    header.extend(source.ip().octets());
    header.extend(destination.ip().octets());
    let sum: u32 =
        header.chunks_exact(2).map(|half| half.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    for half in [source.port(), destination.port(), udp_length, 0] {
        header.extend(half.to_be_bytes());
    }
    header.extend(payload);
    header
}

/// Xorshift: the same seed gives the same bytes.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn take(&mut self, most: u64) -> Vec<u8> {
        let length = self.next() % (most + 1);
        (0..length).map(|_| self.next().to_be_bytes()[3]).collect()
    }
}

/// REGISTER_REQUEST with message counter 1, the seed of everything that is nearly right.
const REGISTER: [u8; 11] = [1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1];

fn garbage(peer: SocketAddr, count: u32, seed: u64) -> io::Result<bool> {
    let mut bytes = Bytes(seed.max(1));
    let socket = UdpSocket::bind((IpAddr::from([0; 4]), 0))?;
    let mut open = Vec::new();
    let mut refused = 0_u32;
    for round in 0..count {
        let random = bytes.take(1400);
        let mut bent = REGISTER;
        let place = usize::try_from(bytes.next() % 11).unwrap_or(0);
        if let Some(byte) = bent.get_mut(place) {
            *byte ^= bytes.next().to_be_bytes()[7];
        }
        let mut huge = REGISTER.to_vec();
        huge.splice(2..4, [0xff, 0xff]);
        let cut = REGISTER.get(..usize::try_from(round % 11).unwrap_or(0)).unwrap_or_default();
        for message in [&random[..], &bent[..], &huge[..], cut] {
            // A full queue or an ICMP error is the answer of a service that defends itself.
            if socket.send_to(message, peer).is_err() {
                refused += 1;
            }
            match TcpStream::connect_timeout(&peer, PATIENCE) {
                Ok(mut stream) => {
                    if stream.write_all(message).is_err() {
                        refused += 1;
                    }
                    open.push(stream);
                }
                Err(_) => refused += 1,
            }
        }
        // Many at once, half of them closed in the middle of a message.
        if open.len() > 100 {
            open.drain(..50);
        }
    }
    say(&json!({ "result": "ok", "sent": count * 8, "refused": refused }));
    Ok(true)
}
