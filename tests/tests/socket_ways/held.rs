//! Who holds a port, and for how long: other processes, connections, the kernel, and who was there before the agent.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use rsip_lab::lab::{Host, agent, binaries};
use socket2::{Domain, Socket};

use super::SERVER;
use super::shared::set;
use super::stage::{ANY, ANY6, Done, Failed, Helper, Outcome, Stage, Way, bound, ensure, errno, tcp, udp};

/// The kernel keeps a port in TIME_WAIT for a minute.
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(70);

/// What takes long comes first.
pub(crate) const WAYS: &[Way] = &[
    Way { name: "TIME_WAIT after the listener has gone", steps: time_wait },
    Way { name: "accepted connection that outlives the listener", steps: outlives },
    Way { name: "accepted connection that outlives the listener, dual stack", steps: outlives6 },
    Way { name: "connection closed here that the peer keeps open (FIN_WAIT2)", steps: fin_wait },
    Way { name: "connection closed by a reset (SO_LINGER 0)", steps: reset },
    Way { name: "connection that nobody accepts", steps: not_accepted },
    Way { name: "listener that is shut down and not closed", steps: shut_down },
    Way { name: "connection half closed here (shutdown)", steps: half_closed },
    Way { name: "copied descriptor (dup)", steps: copied },
    Way { name: "inherited over fork, the parent ends", steps: inherited },
    Way { name: "inherited over exec", steps: over_exec },
    Way { name: "passed over a unix socket, the sender ends", steps: passed },
    Way { name: "opened by a socket-activating parent", steps: activated },
    Way { name: "bound before the agent came, TCP", steps: early_tcp },
    Way { name: "bound before the agent came, sends later, UDP", steps: early_udp },
];

/// Sockets that were bound before the agent came.
pub(crate) struct Early {
    server: Socket,
    sender: Socket,
}

impl Early {
    const SERVER: u16 = 5901;
    const SENDER: u16 = 5902;

    pub(crate) fn bind() -> io::Result<Self> {
        Ok(Self {
            server: bound(tcp(Domain::IPV4), ANY, Self::SERVER)?,
            sender: bound(udp(Domain::IPV4), ANY, Self::SENDER)?,
        })
    }
}

fn early_tcp(stage: &mut Stage<'_>) -> Done {
    stage.not_leased(Early::SERVER)?;
    // Whoever wants the port now does not get it, and does not lay the private server open.
    let refused = bound(tcp(Domain::IPV4), ANY, Early::SERVER);
    ensure(errno(&refused) == Some(Errno::EADDRINUSE), || format!("{refused:?}"))?;
    stage.not_leased(Early::SERVER)?;
    if let Some(Early { server, sender }) = stage.early.take() {
        drop(server);
        stage.early = Some(Early { server: sender.try_clone()?, sender });
    }
    // It has ended. A refusal is remembered for a second.
    stage.until("the port to be free", || {
        let server = bound(tcp(Domain::IPV4), ANY, Early::SERVER)?;
        stage.in_use(Early::SERVER, 1)?;
        drop(server);
        Ok(())
    })?;
    stage.free(Early::SERVER, ());
    Ok(Outcome::NoLease)
}

fn early_udp(stage: &mut Stage<'_>) -> Done {
    let sender = stage.early.take().ok_or("nothing was bound before")?.sender;
    stage.not_leased(Early::SENDER)?;
    let sent = sender.send_to(b"?", &SERVER.into());
    ensure(errno(&sent) == Some(Errno::EADDRNOTAVAIL), || format!("{sent:?}"))?;
    let connected = sender.connect(&SERVER.into());
    ensure(errno(&connected) == Some(Errno::EADDRNOTAVAIL), || format!("{connected:?}"))?;
    // Private peers are reached as before.
    sender.send_to(b"?", &SocketAddr::new(IpAddr::V4(Host::B.address()), 9).into())?;
    stage.not_leased(Early::SENDER)?;
    Ok(Outcome::Refused(Errno::EADDRNOTAVAIL))
}

fn time_wait(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    let (near, far) = stage.reached(&listener, port)?;
    drop(listener);
    drop(far);
    drop(near);
    stage.until("TIME_WAIT", || stage.in_use(port, 1))?;
    stage.free_after(port, (), Duration::from_secs(58), TIME_WAIT);
    Ok(Outcome::Leased)
}

fn outlives(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    let (near, far) = stage.reached(&listener, port)?;
    stage.in_use(port, 2)?;
    drop(listener);
    stage.in_use(port, 1)?;
    far.set_nonblocking(true)?;
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
    stage.keep(port, (near, far));
    Ok(Outcome::Leased)
}

fn outlives6(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV6), ANY6, port)?;
    let (near, far) = stage.reached(&listener, port)?;
    drop(listener);
    stage.in_use(port, 1)?;
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
    stage.keep(port, (near, far));
    Ok(Outcome::Leased)
}

fn fin_wait(stage: &mut Stage<'_>) -> Done {
    const SECONDS: i32 = 8;
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    let (near, far) = stage.reached(&listener, port)?;
    set(&socket2::SockRef::from(&far), libc::IPPROTO_TCP, libc::TCP_LINGER2, &SECONDS)?;
    drop((listener, far));
    stage.in_use(port, 1)?;
    let at_least = Duration::from_secs(7) - agent::LINGER;
    stage.linger_on(near);
    stage.free_after(port, (), at_least, Duration::from_secs(60));
    Ok(Outcome::Leased)
}

fn reset(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    let (near, far) = stage.reached(&listener, port)?;
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
    drop(far);
    stage.in_use(port, 1)?;
    stage.free(port, listener);
    drop(near);
    Ok(Outcome::Leased)
}

fn not_accepted(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    let near = stage.called(port)?;
    stage.until("both", || stage.in_use(port, 2))?;
    // The kernel resets what nobody has accepted.
    stage.free(port, listener);
    drop(near);
    Ok(Outcome::Leased)
}

fn shut_down(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    listener.shutdown(Shutdown::Read)?;
    stage.in_use_with(port, 1, 1)?;
    stage.keep(port, listener);
    Ok(Outcome::Leased)
}

fn half_closed(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let listener = bound(tcp(Domain::IPV4), ANY, port)?;
    let (near, far) = stage.reached(&listener, port)?;
    far.shutdown(Shutdown::Write)?;
    drop(listener);
    stage.in_use(port, 1)?;
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO))?;
    // This end goes first, or it would be in TIME_WAIT.
    stage.keep(port, (far, near));
    Ok(Outcome::Leased)
}

fn copied(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = bound(tcp(Domain::IPV4), ANY, port)?;
    let copy = socket.try_clone()?;
    stage.in_use(port, 1)?;
    drop(socket);
    stage.in_use(port, 1)?;
    stage.keep(port, copy);
    Ok(Outcome::Leased)
}

/// The helper program on the host.
fn helper(stage: &Stage<'_>, arguments: &[&str]) -> Result<Command, Failed> {
    let mut command = stage.system.lab.host(Host::A).command(binaries::own("probe")?);
    command.args(arguments);
    Ok(command)
}

/// Ends a process that is not our child.
struct Stranger(Pid);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended by itself.
        kill(self.0, Signal::SIGKILL).ok();
        for _ in 0..100 {
            if kill(self.0, None) == Err(Errno::ESRCH) || is_zombie(self.0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn inherited(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let (parent, line) = Helper::start(&mut helper(stage, &["heir", &format!("0.0.0.0:{port}")])?)?;
    let said: serde_json::Value = serde_json::from_str(&line)?;
    let pid = said["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).ok_or(line)?;
    let child = Stranger(Pid::from_raw(pid));
    ensure(parent.ends_well()?, || "the parent has failed".to_owned())?;
    stage.in_use(port, 1)?;
    stage.keep(port, child);
    Ok(Outcome::Leased)
}

fn over_exec(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let socket = bound(tcp(Domain::IPV4), ANY, port)?;
    let mut command = helper(stage, &["keep"])?;
    let child = Helper::start_well(command.stdin(OwnedFd::from(socket)))?;
    // It holds a copy of the descriptor.
    drop(command);
    stage.in_use(port, 1)?;
    stage.keep(port, child);
    Ok(Outcome::Leased)
}

fn passed(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = helper(stage, &["give", &format!("0.0.0.0:{port}")])?;
    let (sender, line) = Helper::start(command.stdin(OwnedFd::from(theirs)))?;
    ensure(line.is_empty() && sender.ends_well()?, || line)?;
    // Nobody has it: it is on its way.
    stage.in_use(port, 1)?;
    let socket = receive(&ours)?;
    stage.in_use(port, 1)?;
    drop(stage.called(port)?);
    stage.keep(port, socket);
    Ok(Outcome::Leased)
}

fn receive(from: &UnixStream) -> Result<OwnedFd, Failed> {
    let mut space = nix::cmsg_space!(i32);
    let mut byte = [0];
    let mut words = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut words, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let [descriptor] = descriptors[..]
        {
            // SAFETY: the kernel has just made it for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err("no descriptor came".into())
}

fn activated(stage: &mut Stage<'_>) -> Done {
    let port = stage.port();
    let child = Helper::start_well(&mut helper(stage, &["activate", &format!("0.0.0.0:{port}")])?)?;
    stage.in_use(port, 1)?;
    stage.keep(port, child);
    Ok(Outcome::Leased)
}
