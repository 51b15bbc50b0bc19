//! Binds of every kind, at full speed, each with the outcome that it has to have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use rsip_lab::lab::soak::{FORBIDDEN, IGNORED, KEPT, NEW, SERVER, TAKEN, Tally};
use socket2::{Domain, Socket, Type};

/// As many programs' threads at once: some wait for the gateway while others go on.
const THREADS: u64 = 4;

/// Addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) private: Ipv4Addr,
    pub(crate) public: Ipv4Addr,
    pub(crate) peer: Ipv4Addr,
}

/// A kind of bind, how often it is made in a thousand, and how many binds one time is.
const WAYS: [(Way, u64, u64); 15] = [
    (Way::Kept, 410, 1),
    (Way::KeptUdp, 100, 1),
    (Way::New, 30, 2),
    (Way::AnyPort, 120, 1),
    (Way::Connect, 60, 1),
    (Way::BindConnect, 30, 1),
    (Way::UdpConnect, 60, 1),
    (Way::UdpSend, 60, 1),
    (Way::Reuseport, 20, 4),
    (Way::Local, 60, 1),
    (Way::Ignored, 25, 1),
    (Way::Refused, 14, 1),
    (Way::Thread, 7, 1),
    (Way::Process, 2, 1),
    (Way::Killed, 2, 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A leased port, of all addresses in all their forms, or the leased one.
    Kept,
    /// The same with UDP.
    KeptUdp,
    /// A port that the gateway is asked for; TCP, then UDP on the same.
    New,
    /// Port 0.
    AnyPort,
    /// connect() without bind().
    Connect,
    /// connect() after bind() to port 0.
    BindConnect,
    /// connect() of UDP without bind().
    UdpConnect,
    /// sendto() without bind().
    UdpSend,
    /// Four sockets on one port.
    Reuseport,
    /// The private address, or loopback.
    Local,
    /// A port that a rule lets pass.
    Ignored,
    /// Forbidden by a rule, refused by the gateway, or taken on this host.
    Refused,
    /// By a thread that ends then.
    Thread,
    /// By a program that ends then.
    Process,
    /// By a program that is killed meanwhile.
    Killed,
}

/// One round.
pub(crate) fn run(binds: u64, round: u64, places: Places) -> io::Result<Tally> {
    // Where the round begins among the new ports: each is given back before its turn comes again.
    let news = AtomicU64::new(round.wrapping_mul(binds / 16));
    let starting = RwLock::new(());
    let mut tally = Tally::default();
    let parts: Vec<io::Result<Tally>> = thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS)
            .map(|number| {
                let share = binds / THREADS + u64::from(number < binds % THREADS);
                let dice = Dice::new(round, number);
                let mut thread = Thread { number, places, news: &news, starting: &starting, dice };
                scope.spawn(move || thread.run(share))
            })
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(other("a panic")))).collect()
    });
    for part in parts {
        tally.add(&part?);
    }
    Ok(tally)
}

/// Binds a TCP socket.
pub(crate) fn one(address: SocketAddrV4) -> io::Result<()> {
    bound(Type::STREAM, address.into()).map(drop)
}

/// The peer: accepts, and forgets.
pub(crate) fn serve(port: u16) -> io::Result<()> {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let datagrams = std::net::UdpSocket::bind(any)?;
    let listener = bound(Type::STREAM, any)?;
    listener.listen(4096)?;
    println!("listening");
    thread::spawn(move || while datagrams.recv(&mut [0; 64]).is_ok() {});
    loop {
        // One that was reset meanwhile is no trouble.
        drop(listener.accept());
    }
}

struct Thread<'a> {
    number: u64,
    places: Places,
    news: &'a AtomicU64,
    /// Held alone while a program starts: between fork and exec it has copies of all sockets, and their ports are in use
    /// though they were closed here.
    starting: &'a RwLock<()>,
    dice: Dice,
}

impl Thread<'_> {
    fn run(&mut self, share: u64) -> io::Result<Tally> {
        let mut tally = Tally::default();
        let all: u64 = WAYS.iter().map(|(_, weight, _)| weight).sum();
        let mut done = 0;
        while done < share {
            let mut at = self.dice.below(all);
            let next = WAYS.iter().find(|(_, weight, _)| {
                let hit = at < *weight;
                at = at.saturating_sub(*weight);
                hit
            });
            let Some(&(way, _, binds)) = next else { continue };
            // The last ones are simple, so that the number is exact.
            let (way, binds) = if done + binds > share { (Way::Kept, 1) } else { (way, binds) };
            if let Err(surprise) = self.make(way)? {
                *tally.surprises.entry(format!("{way:?}: {surprise}")).or_default() += 1;
            }
            *tally.binds.entry(format!("{way:?}").to_lowercase()).or_default() += binds;
            done += binds;
        }
        Ok(tally)
    }

    /// One bind. The inner error is what the system said and should not have; the outer one is this program's own trouble.
    fn make(&mut self, way: Way) -> io::Result<Result<(), String>> {
        let any = Ipv4Addr::UNSPECIFIED;
        let places = self.places;
        let starting = self.starting;
        let none_starts = match way {
            Way::Process | Way::Killed => None,
            _ => Some(starting.read().map_err(|_| other("a panic"))?),
        };
        let outcome = match way {
            Way::Kept | Way::KeptUdp => {
                let kind = if way == Way::Kept { Type::STREAM } else { Type::DGRAM };
                let address = match self.dice.below(8) {
                    0 => IpAddr::V4(places.public),
                    1 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                    2 => IpAddr::V6(places.public.to_ipv6_mapped()),
                    _ => IpAddr::V4(any),
                };
                well(bound(kind, SocketAddr::new(address, self.own_port(KEPT))))
            }
            Way::New => {
                let address = SocketAddr::new(any.into(), self.new_port());
                let stream = bound(Type::STREAM, address);
                let datagram = bound(Type::DGRAM, address);
                well(stream).and(well(datagram))
            }
            Way::AnyPort => {
                let kind = if self.dice.below(2) == 0 { Type::STREAM } else { Type::DGRAM };
                let address: IpAddr = match self.dice.below(4) {
                    0 => places.public.into(),
                    1 => Ipv6Addr::UNSPECIFIED.into(),
                    _ => any.into(),
                };
                well(bound(kind, SocketAddr::new(address, 0)))
            }
            Way::Connect | Way::BindConnect => {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                // No TIME_WAIT: the host would not come to rest for a minute.
                socket.set_linger(Some(Duration::ZERO))?;
                let bound = match way {
                    Way::BindConnect => socket.bind(&SocketAddr::new(any.into(), 0).into()),
                    _ => Ok(()),
                };
                well(bound).and_then(|()| well(socket.connect(&self.server().into())))
            }
            Way::UdpConnect => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
                well(socket.connect(&self.server().into()))
            }
            Way::UdpSend => {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
                well(socket.send_to(b"soak", &self.server().into()))
            }
            Way::Reuseport => self.group()?,
            Way::Local => {
                let address = if self.dice.below(2) == 0 { places.private } else { Ipv4Addr::LOCALHOST };
                well(bound(Type::STREAM, SocketAddr::new(address.into(), self.own_port(IGNORED))))
            }
            Way::Ignored => well(bound(Type::STREAM, SocketAddr::new(any.into(), self.own_port(IGNORED)))),
            Way::Refused => self.refused()?,
            Way::Thread => {
                let address = SocketAddr::new(any.into(), self.own_port(KEPT));
                let end = thread::spawn(move || bound(Type::STREAM, address).map(drop)).join();
                well(end.unwrap_or_else(|_| Err(other("a panic"))))
            }
            Way::Process => {
                let status = self.program()?.wait()?;
                if status.success() { Ok(()) } else { Err(status.to_string()) }
            }
            Way::Killed => {
                let mut program = self.program()?;
                // Somewhere between its start and its end.
                thread::sleep(Duration::from_micros(self.dice.below(4000)));
                program.kill()?;
                program.wait()?;
                Ok(())
            }
        };
        drop(none_starts);
        Ok(outcome)
    }

    /// A group of sockets on one port of this thread's own.
    fn group(&mut self) -> io::Result<Result<(), String>> {
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.own_port(KEPT));
        let mut group = Vec::new();
        for _ in 0..4 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_port(true)?;
            if let Err(error) = socket.bind(&address.into()) {
                return Ok(Err(name(&error)));
            }
            group.push(socket);
        }
        Ok(Ok(()))
    }

    fn refused(&mut self) -> io::Result<Result<(), String>> {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (outcome, wanted) = match self.dice.below(3) {
            0 => (bound(Type::STREAM, SocketAddr::new(any, self.any_of(FORBIDDEN))), Errno::EACCES),
            1 => (bound(Type::STREAM, SocketAddr::new(any, self.any_of(TAKEN))), Errno::EADDRINUSE),
            _ => {
                let address = SocketAddr::new(any, self.own_port(KEPT));
                let _first = match bound(Type::STREAM, address) {
                    Ok(socket) => socket,
                    Err(error) => return Ok(Err(name(&error))),
                };
                (bound(Type::STREAM, address), Errno::EADDRINUSE)
            }
        };
        Ok(match outcome {
            Err(error) if error.raw_os_error() == Some(wanted as i32) => Ok(()),
            Err(error) => Err(format!("{} instead of {wanted:?}", name(&error))),
            Ok(_) => Err(format!("success instead of {wanted:?}")),
        })
    }

    fn program(&mut self) -> io::Result<std::process::Child> {
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, self.new_port());
        let _alone = self.starting.write().map_err(|_| other("a panic"))?;
        Command::new(std::env::current_exe()?)
            .args(["one", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    }

    fn server(&self) -> SocketAddr {
        SocketAddr::new(self.places.peer.into(), SERVER)
    }

    /// A port of a range that no other thread uses.
    fn own_port(&mut self, (first, last): (u16, u16)) -> u16 {
        let share = (u64::from(last - first) + 1) / THREADS;
        offset(first, self.number * share + self.dice.below(share))
    }

    fn any_of(&mut self, (first, last): (u16, u16)) -> u16 {
        offset(first, self.dice.below(u64::from(last - first) + 1))
    }

    /// A port that nobody has bound for a while.
    fn new_port(&mut self) -> u16 {
        let (first, last) = NEW;
        offset(first, self.news.fetch_add(1, Ordering::Relaxed) % (u64::from(last - first) + 1))
    }
}

fn offset(first: u16, by: u64) -> u16 {
    first.saturating_add(u16::try_from(by).unwrap_or(u16::MAX))
}

fn bound(kind: Type, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn well<T>(outcome: io::Result<T>) -> Result<(), String> {
    outcome.map(drop).map_err(|error| name(&error))
}

fn name(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number)))
}

fn other(what: &'static str) -> io::Error {
    io::Error::other(what)
}

/// Numbers without order; the same ones for the same round and thread (xorshift).
struct Dice(u64);

impl Dice {
    fn new(round: u64, thread: u64) -> Self {
        Self((round * THREADS + thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}
