//! Sockets that change hands: over fork, over exec, over a unix socket, from a parent that activates.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::{ForkResult, fork};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::say;

/// The first descriptor that an activated program gets (sd_listen_fds(3)).
const FIRST_ACTIVATED: i32 = 3;

fn listening(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket)
}

/// Says that the socket is here, and holds it until a signal.
fn hold(socket: &Socket) -> ! {
    let port = socket.local_addr().ok().and_then(|name| name.as_socket()).map_or(0, |name| name.port());
    say(&json!({ "result": "ok", "errno": 0, "port": port, "micros": 0, "pid": std::process::id() }));
    loop {
        thread::park();
    }
}

/// Holds the socket that it was started with as standard input.
pub(crate) fn keep() -> io::Result<bool> {
    hold(&io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Binds, forks and ends; the child goes on with the socket.
pub(crate) fn heir(address: SocketAddr) -> io::Result<bool> {
    let socket = listening(address)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(true),
        ForkResult::Child => hold(&socket),
    }
}

/// Binds, sends the socket over standard input, which is a unix socket, and ends.
pub(crate) fn give(address: SocketAddr) -> io::Result<bool> {
    let socket = listening(address)?;
    let descriptors = [socket.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(io::stdin().as_raw_fd(), &[IoSlice::new(b"s")], &rights, MsgFlags::empty(), None)?;
    Ok(true)
}

/// Binds as a service manager does, and becomes the program that serves.
pub(crate) fn activate(address: SocketAddr) -> io::Result<bool> {
    let descriptor = OwnedFd::from(listening(address)?).into_raw_fd();
    // SAFETY: both are descriptors of this process; the copy is not closed on exec.
    if unsafe { nix::libc::dup2(descriptor, FIRST_ACTIVATED) } != FIRST_ACTIVATED {
        return Err(io::Error::last_os_error());
    }
    if descriptor == FIRST_ACTIVATED {
        // SAFETY: the descriptor is open.
        unsafe { nix::libc::fcntl(descriptor, nix::libc::F_SETFD, 0) };
    }
    let error = Command::new(std::env::current_exe()?)
        .arg("activated")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", std::process::id().to_string())
        .exec();
    Err(error)
}

/// Takes what the service manager bound.
pub(crate) fn activated() -> io::Result<bool> {
    let is_for_us = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if !is_for_us || std::env::var("LISTEN_FDS").as_deref() != Ok("1") {
        return Err(io::Error::other("not activated: LISTEN_PID and LISTEN_FDS do not say so"));
    }
    // SAFETY: whoever sets the two variables has left the descriptor open, and nobody else owns it.
    hold(&unsafe { OwnedFd::from_raw_fd(FIRST_ACTIVATED) }.into())
}
