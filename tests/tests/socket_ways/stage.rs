//! What the ways are made of.

use std::any::Any;
use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::system::System;
use rsip_lab::lab::topology::PUBLIC;
use rsip_lab::lab::{Host, agent, exec, wait};
use socket2::{Domain, Protocol, Socket, Type};

use super::held::Early;
use super::look::{self, Daemons, Eye};
use super::table::Table;

/// One way to open a socket.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) steps: fn(&mut Stage<'_>) -> Done,
}

/// What became of it, as the docs say it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The port by number is leased while it is used.
    Leased,
    /// A port of the leased block, and nothing more is asked for.
    Block,
    /// It works, and nothing is asked for.
    NoLease,
    /// It fails, and nothing is asked for or nothing stays leased.
    Refused(Errno),
    /// This kernel does not know it.
    NotInKernel,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leased => f.write_str("leased"),
            Self::Block => f.write_str("from the block"),
            Self::NoLease => f.write_str("no lease"),
            Self::Refused(errno) => write!(f, "{errno:?}"),
            Self::NotInKernel => f.write_str("not in this kernel"),
        }
    }
}

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Done = Result<Outcome, Failed>;

/// Fails with a text unless it is so.
pub(crate) fn ensure(so: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if so { Ok(()) } else { Err(what().into()) }
}

pub(crate) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
pub(crate) const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
pub(crate) const LEASED: IpAddr = IpAddr::V4(PUBLIC);
pub(crate) const PRIVATE: IpAddr = IpAddr::V4(Host::A.address());
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// More addresses of the host.
pub(crate) const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
pub(crate) const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77));
/// Nobody's address.
pub(crate) const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 88));

/// As an IPv6 socket writes it.
pub(crate) fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    }
}

pub(crate) fn add_addresses(host: &Inside) -> rsip_lab::lab::error::Result<()> {
    host.ip(&["address", "add", &format!("{OTHER}/32"), "dev", "lo"])?;
    host.ip(&["address", "add", &format!("{IPV6}/128"), "dev", "lo"]).map(drop)
}

pub(crate) fn remove_addresses(host: &Inside) -> rsip_lab::lab::error::Result<()> {
    host.ip(&["address", "del", &format!("{OTHER}/32"), "dev", "lo"])?;
    host.ip(&["address", "del", &format!("{IPV6}/128"), "dev", "lo"]).map(drop)
}

pub(crate) fn tcp(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
}

pub(crate) fn udp(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
}

/// A socket that is bound, and listens if it is one for streams.
pub(crate) fn bound(socket: io::Result<Socket>, ip: IpAddr, port: u16) -> io::Result<Socket> {
    let socket = socket?;
    socket.bind(&SocketAddr::new(ip, port).into())?;
    if socket.r#type()? == Type::STREAM {
        socket.listen(16)?;
    }
    Ok(socket)
}

pub(crate) fn port_of(socket: &Socket) -> io::Result<u16> {
    Ok(socket.local_addr()?.as_socket().map_or(0, |name| name.port()))
}

pub(crate) fn errno<T>(result: &io::Result<T>) -> Option<Errno> {
    result.as_ref().err().map(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))
}

/// To be seen in the end.
struct Promise {
    way: &'static str,
    port: u16,
    /// The last user went then or later.
    since: Instant,
    /// It is to be leased at least so long from then.
    at_least: Duration,
    at_most: Duration,
}

/// To be seen leased for longer than the linger time, and only then to be let go.
struct Kept {
    way: &'static str,
    port: u16,
    since: Instant,
    hold: Box<dyn Any + Send>,
}

/// Where the ways are played: host-a.
pub(crate) struct Stage<'a> {
    pub(crate) system: &'a System,
    pub(crate) early: Option<Early>,
    daemons: Daemons,
    eye: &'a Eye,
    way: &'static str,
    next_port: u16,
    promises: Vec<Promise>,
    kept: Vec<Kept>,
    others: Vec<Box<dyn Any + Send>>,
    pub(crate) block: Vec<u16>,
}

/// What the agent and the gateway may take beyond the linger time, on a busy machine.
const GRACE: Duration = Duration::from_secs(45);

impl<'a> Stage<'a> {
    pub(crate) fn new(system: &'a System, daemons: Daemons, eye: &'a Eye, early: Early) -> Self {
        Self {
            system,
            early: Some(early),
            daemons,
            eye,
            way: "",
            next_port: 6000,
            promises: Vec::new(),
            kept: Vec::new(),
            others: Vec::new(),
            block: Vec::new(),
        }
    }

    /// Plays one way.
    pub(crate) fn play(&mut self, way: &Way) -> Result<Outcome, String> {
        self.way = way.name;
        let block = self.daemons.gateway().map(|state| state.block(Host::A));
        self.block = block.map_err(|error| error.to_string())?;
        (way.steps)(self).map_err(|error| error.to_string())
    }

    /// A port that no other way uses.
    pub(crate) fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// The port is leased to this host and used by so many sockets, as the agent and the kernel say.
    pub(crate) fn in_use(&self, port: u16, sockets: usize) -> Result<(), Failed> {
        self.in_use_with(port, sockets, 0)
    }

    /// The same, where `unlisted` of the sockets are bound TCP sockets that do nothing yet.
    pub(crate) fn in_use_with(&self, port: u16, sockets: usize, unlisted: usize) -> Result<(), Failed> {
        self.counted(port, sockets)?;
        let listed = look::listed(port)?;
        ensure(listed + unlisted == sockets, || format!("port {port}: the kernel lists {listed} sockets"))
    }

    /// The same without the kernel's list, which has sockets on it that use no lease.
    pub(crate) fn counted(&self, port: u16, sockets: usize) -> Result<(), Failed> {
        let holder = self.daemons.gateway()?.holder(port);
        ensure(holder == Some(Host::A.address()), || format!("port {port} is leased to {holder:?}"))?;
        let leases = self.daemons.agent()?.leases;
        let lease = leases.iter().find(|lease| lease.ports == port.to_string());
        let counted = lease.map(|lease| lease.sockets);
        ensure(counted == Some(sockets), || {
            format!("port {port}: the agent counts {counted:?}, not {sockets}")
        })
    }

    /// How many sockets the agent counts on ports of the block.
    pub(crate) fn counted_in_block(&self) -> Result<usize, Failed> {
        let leases = self.daemons.agent()?.leases;
        Ok(leases.iter().filter(|lease| lease.kind == "block").map(|lease| lease.sockets).sum())
    }

    /// The port is not leased by number.
    pub(crate) fn not_leased(&self, port: u16) -> Result<(), Failed> {
        let held = self.daemons.gateway()?.listening(Host::A).contains(&port);
        ensure(!held, || format!("port {port} is leased"))?;
        let status = self.daemons.agent()?;
        let lease = status.leases.iter().find(|lease| lease.ports == port.to_string());
        ensure(lease.is_none(), || format!("{lease:?}"))
    }

    /// A port of the block, which stays the only lease of it.
    pub(crate) fn of_the_block(&self, port: u16) -> Result<(), Failed> {
        ensure(self.block.contains(&port), || format!("port {port} is not of the block"))?;
        self.not_leased(port)
    }

    /// Somebody on the internet connects to the port; gives both ends.
    pub(crate) fn reached(&self, listener: &Socket, port: u16) -> Result<(TcpStream, TcpStream), Failed> {
        let near = self.called(port)?;
        let (far, peer) = listener.accept()?;
        let peer = peer.as_socket().map(|peer| peer.ip().to_canonical());
        ensure(peer == Some(super::INTERNET.into()), || format!("a connection from {peer:?}"))?;
        Ok((near, far.into()))
    }

    /// Somebody on the internet connects to the port.
    pub(crate) fn called(&self, port: u16) -> Result<TcpStream, Failed> {
        let to = SocketAddr::new(LEASED, port);
        let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
        Ok(self.system.lab.internet.enter(connect)??)
    }

    /// The last user goes now: the port is to be given back, and not before the linger time is over.
    pub(crate) fn free(&mut self, port: u16, last: impl Sized) {
        self.free_after(port, last, Duration::ZERO, Duration::ZERO);
    }

    /// The same, where the kernel uses the port for a while after the program.
    pub(crate) fn free_after(&mut self, port: u16, last: impl Sized, at_least: Duration, at_most: Duration) {
        let since = Instant::now();
        drop(last);
        self.promise(self.way, port, since, at_least + agent::LINGER, at_most + agent::LINGER + GRACE);
    }

    /// Somebody binds that port in vain: nothing of it may stay leased.
    pub(crate) fn forgotten(&mut self, port: u16) {
        self.promise(self.way, port, Instant::now(), Duration::ZERO, agent::LINGER + GRACE);
    }

    fn promise(
        &mut self,
        way: &'static str,
        port: u16,
        since: Instant,
        at_least: Duration,
        at_most: Duration,
    ) {
        self.promises.push(Promise { way, port, since, at_least, at_most });
    }

    /// The port is to stay leased while this is held, for several linger times; then it goes.
    pub(crate) fn keep(&mut self, port: u16, hold: impl Any + Send) {
        let (way, hold) = (self.way, Box::new(hold));
        self.kept.push(Kept { way, port, since: Instant::now(), hold });
    }

    /// Holds something that matters for nothing but itself, to the end of all ways.
    pub(crate) fn linger_on(&mut self, what: impl Any + Send) {
        self.others.push(Box::new(what));
    }

    /// Waits until a condition holds.
    pub(crate) fn until(&self, what: &str, so: impl Fn() -> Result<(), Failed>) -> Result<(), Failed> {
        wait::until(what, exec::SHORT, || {
            Ok(match so() {
                Ok(()) => wait::Look::Ready(()),
                Err(error) => wait::Look::NotYet(error.to_string()),
            })
        })?;
        Ok(())
    }

    /// Looks at everything that was promised.
    pub(crate) fn finish(&mut self, table: &mut Table) {
        for kept in std::mem::take(&mut self.kept) {
            thread::sleep((3 * agent::LINGER).saturating_sub(kept.since.elapsed()));
            let state = self.daemons.gateway();
            match state.map(|state| state.listening(Host::A).contains(&kept.port)) {
                Ok(true) => {}
                Ok(false) => {
                    table.fail(kept.way, format!("port {} was given back while it is used", kept.port))
                }
                Err(error) => table.fail(kept.way, error.to_string()),
            }
            let since = Instant::now();
            drop(kept.hold);
            self.promise(kept.way, kept.port, since, agent::LINGER, agent::LINGER + GRACE);
        }
        for promise in std::mem::take(&mut self.promises) {
            if let Err(why) = self.hold_to(&promise) {
                table.fail(promise.way, why.to_string());
            }
        }
        self.others.clear();
    }

    fn hold_to(&self, promise: &Promise) -> Result<(), Failed> {
        let Promise { port, since, .. } = *promise;
        loop {
            let held = self.daemons.gateway()?.listening(Host::A).contains(&port);
            if !held {
                break;
            }
            let waited = since.elapsed();
            ensure(waited < wait::limit(promise.at_most), || {
                format!("port {port} is still leased after {waited:?}")
            })?;
            thread::sleep(Duration::from_millis(50));
        }
        // Looked at often, but not all the time: it was given back some time before it was seen to be.
        let gone = self.eye.gone(port).unwrap_or_else(Instant::now);
        let held = gone.saturating_duration_since(since);
        ensure(held >= promise.at_least, || format!("port {port} was given back after {held:?} already"))
    }
}

/// A program of its own, which ends with this value.
pub(crate) struct Helper(Child);

impl Helper {
    /// Starts it and waits for its line.
    pub(crate) fn start(command: &mut Command) -> Result<(Self, String), Failed> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        let helper = Self(child);
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        Ok((helper, line.trim_end().to_owned()))
    }

    /// Whether it ends by itself, and well.
    pub(crate) fn ends_well(mut self) -> io::Result<bool> {
        Ok(self.0.wait()?.success())
    }

    /// The same, where the line has to say that it worked.
    pub(crate) fn start_well(command: &mut Command) -> Result<Self, Failed> {
        let (helper, line) = Self::start(command)?;
        ensure(line.contains("\"result\":\"ok\""), || line)?;
        Ok(helper)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that has ended already cannot be ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether the hooks count nothing any more.
pub(crate) fn expect_no_counts(system: &mut System) -> Result<(), Failed> {
    let pid = system.agent(Host::A)?.process.pid();
    let left = super::look::counted(pid)?;
    ensure(left.is_empty(), || format!("sockets are counted that are no more, by port: {left:?}"))
}
