//! Ports below 1024, and programs without CAP_NET_BIND_SERVICE.

use std::io;
use std::net::IpAddr;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use rsip_lab::lab::{Host, binaries};
use socket2::{Domain, Socket};

use super::stage::{
    ANY, ANY6, Done, Failed, Helper, LEASED, LOOPBACK, Outcome, PRIVATE, Stage, Way, bound, ensure, errno,
    tcp, udp,
};

/// As it is by default.
pub(crate) const OFF: &[Way] = &[
    Way { name: "port below 1024, root", steps: root },
    Way { name: "port below 1024, without CAP_NET_BIND_SERVICE", steps: refused },
    Way {
        name: "port below 1024, CAP_NET_BIND_SERVICE in a user namespace of its own",
        steps: refused_in_namespace,
    },
    Way { name: "port below 1024, no root, with CAP_NET_BIND_SERVICE", steps: capable },
];

/// With `--privileged-ports leased`.
pub(crate) const ON: &[Way] = &[
    Way {
        name: "leased port below 1024, --privileged-ports leased, TCP",
        steps: |stage| granted(stage, 611, ANY, tcp),
    },
    Way {
        name: "leased port below 1024, --privileged-ports leased, UDP",
        steps: |stage| granted(stage, 612, ANY, udp),
    },
    Way {
        name: "leased port below 1024, --privileged-ports leased, the leased address",
        steps: |stage| granted(stage, 613, LEASED, tcp),
    },
    Way { name: "leased port below 1024, --privileged-ports leased, dual stack", steps: dual_stack },
    Way { name: "port below 1024 that is not leased, --privileged-ports leased", steps: others },
    Way { name: "port below 1024 that the gateway refuses, --privileged-ports leased", steps: denied },
];

/// A port that no host gets.
pub(crate) const RESERVED: u16 = 616;
/// Nobody.
const UID: u32 = 65_534;
const CAP_NET_BIND_SERVICE: u32 = 10;

/// Runs `work` in a thread that is nobody, with these capabilities.
pub(crate) fn as_nobody<T: Send>(capabilities: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        scope.spawn(|| drop_to(capabilities).map(|()| work())).join().unwrap_or_else(|panic| {
            std::panic::resume_unwind(panic);
        })
    })
}

/// The library calls change all threads of a process; the system calls change this one.
fn drop_to(capabilities: u32) -> io::Result<()> {
    #[repr(C)]
    struct Header(u32, i32);
    // SAFETY: no pointer; this thread keeps its permitted set over the change of user.
    let kept = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) };
    // SAFETY: no pointer.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, UID, UID, UID) };
    let header = Header(0x2008_0522, 0);
    let sets = [[capabilities, capabilities, 0_u32], [0, 0, 0]];
    // SAFETY: version 3 of the header takes two elements of three words.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
    if (kept, changed, set) == (0, 0, 0) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn open_all(port: u16) -> Vec<io::Result<Socket>> {
    vec![
        bound(tcp(Domain::IPV4), ANY, port),
        bound(udp(Domain::IPV4), ANY, port),
        bound(tcp(Domain::IPV6), ANY6, port),
        bound(tcp(Domain::IPV4), PRIVATE, port),
        bound(tcp(Domain::IPV4), LOOPBACK, port),
    ]
}

fn expect_refused(attempts: &[io::Result<Socket>]) -> Result<(), Failed> {
    let all = attempts.iter().all(|attempt| errno(attempt) == Some(Errno::EACCES));
    ensure(all, || format!("{attempts:?}"))
}

fn root(stage: &mut Stage<'_>) -> Done {
    let socket = bound(tcp(Domain::IPV4), ANY, 601)?;
    stage.in_use(601, 1)?;
    stage.free(601, socket);
    Ok(Outcome::Leased)
}

fn refused(stage: &mut Stage<'_>) -> Done {
    expect_refused(&as_nobody(0, || open_all(602))?)?;
    stage.not_leased(602)?;
    Ok(Outcome::Refused(Errno::EACCES))
}

fn refused_in_namespace(stage: &mut Stage<'_>) -> Done {
    let probe = binaries::own("probe")?;
    let mut command = stage.system.lab.host(Host::A).command("setpriv");
    command.args(["--reuid", &UID.to_string(), "--clear-groups", "unshare", "--user", "--map-root-user"]);
    let (_, line) = Helper::start(command.arg(probe).args(["bind", "0.0.0.0:603"]))?;
    ensure(line.contains("\"EACCES\""), || line)?;
    stage.not_leased(603)?;
    Ok(Outcome::Refused(Errno::EACCES))
}

fn capable(stage: &mut Stage<'_>) -> Done {
    let socket = as_nobody(1 << CAP_NET_BIND_SERVICE, || bound(tcp(Domain::IPV4), ANY, 604))??;
    stage.in_use(604, 1)?;
    stage.free(604, socket);
    Ok(Outcome::Leased)
}

fn granted(stage: &mut Stage<'_>, port: u16, ip: IpAddr, open: fn(Domain) -> io::Result<Socket>) -> Done {
    let socket = as_nobody(0, || bound(open(Domain::IPV4), ip, port))??;
    stage.in_use(port, 1)?;
    stage.free(port, socket);
    Ok(Outcome::Leased)
}

fn dual_stack(stage: &mut Stage<'_>) -> Done {
    let socket = as_nobody(0, || bound(tcp(Domain::IPV6), ANY6, 614))??;
    stage.in_use(614, 1)?;
    let (near, far) = stage.reached(&socket, 614)?;
    drop(near);
    drop(far);
    stage.free(614, socket);
    Ok(Outcome::Leased)
}

/// What is not on the public side, or ignored, is not leased.
fn others(stage: &mut Stage<'_>) -> Done {
    let attempts = as_nobody(0, || {
        let v6 = tcp(Domain::IPV6)?;
        v6.set_only_v6(true)?;
        io::Result::Ok(vec![
            bound(tcp(Domain::IPV4), PRIVATE, 615),
            bound(tcp(Domain::IPV4), LOOPBACK, 615),
            bound(Ok(v6), ANY6, 615),
            // ssh: ignored by default.
            bound(tcp(Domain::IPV4), ANY, 22),
        ])
    })??;
    expect_refused(&attempts)?;
    stage.not_leased(615)?;
    stage.not_leased(22)?;
    Ok(Outcome::Refused(Errno::EACCES))
}

fn denied(stage: &mut Stage<'_>) -> Done {
    let attempt = as_nobody(0, || bound(tcp(Domain::IPV4), ANY, RESERVED))?;
    ensure(errno(&attempt) == Some(Errno::EADDRINUSE), || format!("{attempt:?}"))?;
    stage.not_leased(RESERVED)?;
    Ok(Outcome::Refused(Errno::EADDRINUSE))
}
