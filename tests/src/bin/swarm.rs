//! A program that takes as many ports as it is told to, as fast as it can, and never tries twice.
//!
//! ```text
//! swarm listen 198.51.100.2 9000-9099     listens at a hundred ports; connections are complete without an accept()
//! swarm take connect 10000 198.51.100.2 9000-9000
//!   {"taken":10000,"errors":{},"ports":10000,"lowest":10000,"highest":19999,"millis":812}     then holds them until SIGTERM
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use socket2::{Domain, Socket, Type};

#[derive(Parser)]
#[command(about = "Takes as many ports as it is told to, as fast as it can, and never tries twice")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Listen at many ports, and leave connections to the kernel.
    Listen {
        /// The address.
        address: IpAddr,
        /// The ports.
        #[arg(value_parser = range)]
        ports: (u16, u16),
    },
    /// Take ports and hold them until SIGTERM.
    Take {
        /// How.
        #[arg(value_enum)]
        way: Way,
        /// How many.
        count: usize,
        /// The peer, or what to bind.
        address: IpAddr,
        /// The peer's ports, one after the other.
        #[arg(value_parser = range, default_value = "0-0")]
        ports: (u16, u16),
        /// In so many threads.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// End connections at once, without TIME_WAIT.
        #[arg(long)]
        abort: bool,
        /// Close each before the next.
        #[arg(long)]
        one_by_one: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// connect() of TCP sockets that are not bound.
    Connect,
    /// connect() of UDP sockets that are not bound.
    UdpConnect,
    /// sendto() of UDP sockets that are not bound.
    UdpSend,
    /// bind() of TCP sockets to port 0.
    Bind,
    /// bind() of UDP sockets to port 0.
    UdpBind,
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err("wanted FIRST-LAST".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("swarm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> io::Result<()> {
    // Each connection is a descriptor.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    match verb {
        Verb::Listen { address, ports: (first, last) } => {
            let mut listeners = Vec::new();
            for port in first..=last {
                let socket = Socket::new(Domain::for_address((address, 0).into()), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::new(address, port).into())?;
                socket.listen(65_535)?;
                listeners.push(socket);
            }
            say(&json!({ "listening": listeners.len() }));
            hold(listeners)
        }
        Verb::Take { way, count, address, ports, threads, abort, one_by_one } => {
            let start = Instant::now();
            let share = |thread: usize| count / threads + usize::from(thread < count % threads);
            let taken: Vec<Taken> = thread::scope(|scope| {
                let running: Vec<_> = (0..threads)
                    .map(|thread| {
                        scope.spawn(move || take(way, share(thread), address, ports, abort, one_by_one))
                    })
                    .collect();
                running.into_iter().filter_map(|thread| thread.join().ok()).collect()
            });
            let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut errors = BTreeMap::<String, usize>::new();
            let mut used = BTreeSet::<u16>::new();
            let (mut number, mut slowest) = (0, Duration::ZERO);
            for part in &taken {
                number += part.taken;
                slowest = slowest.max(part.slowest);
                used.extend(&part.ports);
                for (error, count) in &part.errors {
                    *errors.entry(error.clone()).or_default() += count;
                }
            }
            say(&json!({
                "taken": number, "errors": errors, "ports": used, "millis": millis,
                "slowest_micros": u64::try_from(slowest.as_micros()).unwrap_or(u64::MAX),
            }));
            hold(taken)
        }
    }
}

#[derive(Default)]
struct Taken {
    sockets: Vec<Socket>,
    taken: usize,
    ports: BTreeSet<u16>,
    errors: BTreeMap<String, usize>,
    slowest: Duration,
}

fn take(
    way: Way,
    count: usize,
    address: IpAddr,
    (first, last): (u16, u16),
    abort: bool,
    one_by_one: bool,
) -> Taken {
    let mut taken = Taken::default();
    let mut peers = (first..=last).cycle();
    for _ in 0..count {
        let peer = SocketAddr::new(address, peers.next().unwrap_or(first));
        let start = Instant::now();
        let outcome = take_one(way, peer, abort);
        taken.slowest = taken.slowest.max(start.elapsed());
        match outcome {
            Ok(socket) => {
                taken.taken += 1;
                if !one_by_one {
                    taken.sockets.push(socket);
                }
            }
            Err(error) => {
                let name = error.raw_os_error().map(|number| format!("{:?}", Errno::from_raw(number)));
                *taken.errors.entry(name.unwrap_or_else(|| error.to_string())).or_default() += 1;
            }
        }
    }
    for socket in &taken.sockets {
        if let Ok(Some(own)) = socket.local_addr().map(|own| own.as_socket()) {
            taken.ports.insert(own.port());
        }
    }
    taken
}

fn take_one(way: Way, peer: SocketAddr, abort: bool) -> io::Result<Socket> {
    let kind = match way {
        Way::Connect | Way::Bind => Type::STREAM,
        Way::UdpConnect | Way::UdpSend | Way::UdpBind => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(peer), kind, None)?;
    match way {
        Way::Connect => {
            if abort {
                socket.set_linger(Some(Duration::ZERO))?;
            }
            socket.connect(&peer.into())?;
        }
        Way::UdpConnect => socket.connect(&peer.into())?,
        Way::UdpSend => drop(socket.send_to(b"?", &peer.into())?),
        Way::Bind | Way::UdpBind => {
            let any = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
            socket
                .bind(&if peer.ip().is_unspecified() { any } else { SocketAddr::new(peer.ip(), 0) }.into())?;
        }
    }
    Ok(socket)
}

/// One line on standard output. A reader that has gone away is no reason to stop.
fn say(line: &serde_json::Value) {
    let mut out = io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(2);
    }
}

/// Until SIGTERM ends the process.
fn hold<T>(held: T) -> ! {
    let _held = held;
    loop {
        thread::park();
    }
}
