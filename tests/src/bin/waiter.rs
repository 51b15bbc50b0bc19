//! Programs whose bind() is in a special situation while it waits. Each prints one line of JSON: the errno of bind() (0: it
//! succeeded), and what it saw meanwhile.
//!
//! ```text
//! waiter sigcont 80        a handler for SIGCONT counts how often it runs
//! waiter alarms 80         a handler for SIGALRM runs every few milliseconds, with or without SA_RESTART
//! waiter term 80           a handler for SIGTERM
//! waiter threads 80        other threads work meanwhile, and look at each other's state
//! waiter uring 80          io_uring does the bind
//! waiter seccomp 80        a filter looks at every system call
//! waiter vfork 80          a child that shares its parent's memory does the bind
//! waiter both 80 81        two threads, a port each
//! waiter many 1000 1100    as many processes as there are ports from the one to the other; the line counts each errno
//! ```

use std::fs;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use io_uring::{IoUring, opcode, types};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

#[derive(Parser)]
#[command(about = "A program whose bind() is in a special situation while it waits")]
struct Cli {
    situation: Situation,
    #[arg(required = true)]
    ports: Vec<u16>,
    /// Handlers ask for system calls to be restarted.
    #[arg(long)]
    restart: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Situation {
    Sigcont,
    Alarms,
    Term,
    Threads,
    Uring,
    Seccomp,
    Vfork,
    Both,
    Many,
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "errno": -1, "why": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<Value> {
    let port = cli.ports.first().copied().unwrap_or_default();
    match cli.situation {
        Situation::Sigcont => handling(Signal::SIGCONT, cli, port),
        Situation::Term => handling(Signal::SIGTERM, cli, port),
        Situation::Alarms => {
            // SAFETY: the structure is as the call wants it.
            let set = unsafe {
                let interval = libc::timeval { tv_sec: 0, tv_usec: 5_000 };
                let timer = libc::itimerval { it_interval: interval, it_value: interval };
                handle(Signal::SIGALRM, cli.restart)?;
                libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut())
            };
            if set != 0 {
                return Err(io::Error::last_os_error());
            }
            let errno = bind(port)?;
            Ok(json!({ "errno": errno, "handled": HANDLED.load(Ordering::Relaxed) }))
        }
        Situation::Threads => threads(port),
        Situation::Uring => uring(port),
        Situation::Seccomp => {
            filter()?;
            Ok(json!({ "errno": bind(port)? }))
        }
        Situation::Vfork => vfork(port),
        Situation::Many => many(port, cli.ports.get(1).copied().unwrap_or(port)),
        Situation::Both => {
            let threads: Vec<_> = cli
                .ports
                .iter()
                .map(|port| {
                    (
                        *port,
                        thread::spawn({
                            let port = *port;
                            move || bind(port)
                        }),
                    )
                })
                .collect();
            let errnos = threads.into_iter().map(|(port, thread)| {
                let errno = thread.join().map_err(|_| io::Error::other("a thread panicked"))??;
                Ok((port.to_string(), json!(errno)))
            });
            Ok(json!({ "errnos": errnos.collect::<io::Result<serde_json::Map<_, _>>>()? }))
        }
    }
}

fn address(port: u16) -> SockAddr {
    SockAddr::from(SocketAddr::from(([0, 0, 0, 0], port)))
}

/// The errno of bind(), 0 for success. The socket stays open.
fn bind(port: u16) -> io::Result<i32> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let errno = errno_of(&socket.bind(&address(port)));
    mem::forget(socket);
    Ok(errno)
}

fn errno_of(result: &io::Result<()>) -> i32 {
    result.as_ref().map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0)
}

fn handle(signal: Signal, restart: bool) -> io::Result<()> {
    let flags = if restart { SaFlags::SA_RESTART } else { SaFlags::empty() };
    let action = SigAction::new(SigHandler::Handler(count), flags, SigSet::empty());
    // SAFETY: the handler only adds to a number.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

fn handling(signal: Signal, cli: &Cli, port: u16) -> io::Result<Value> {
    handle(signal, cli.restart)?;
    let start = Instant::now();
    let errno = bind(port)?;
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(json!({ "errno": errno, "handled": HANDLED.load(Ordering::Relaxed), "millis": millis }))
}

fn threads(port: u16) -> io::Result<Value> {
    let over = AtomicBool::new(false);
    let work = AtomicU64::new(0);
    let (errno, stopped, seen) = thread::scope(|scope| {
        let worker = || {
            while !over.load(Ordering::Relaxed) {
                work.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        };
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        let observer = scope.spawn(|| {
            let (mut seen, mut stopped) = (0_u64, 0_u64);
            while !over.load(Ordering::Relaxed) {
                for state in states() {
                    seen += 1;
                    stopped += u64::from(matches!(state, 'T' | 't'));
                }
            }
            (stopped, seen)
        });
        let errno = bind(port);
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().ok();
        }
        let (stopped, seen) = observer.join().unwrap_or((u64::MAX, 0));
        (errno, stopped, seen)
    });
    let work = work.load(Ordering::Relaxed);
    Ok(json!({ "errno": errno?, "stopped": stopped, "seen": seen, "work": work }))
}

/// The state of every thread of this process.
fn states() -> Vec<char> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks
        .filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // PID (COMMAND) STATE
            stat.rsplit_once(") ")?.1.chars().next()
        })
        .collect()
}

fn uring(port: u16) -> io::Result<Value> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let address = address(port);
    let mut ring = IoUring::new(2)?;
    let bind = opcode::Bind::new(types::Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
    // SAFETY: socket and address outlive the request, which is waited for.
    unsafe { ring.submission().push(&bind.build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().map_or(libc::EIO, |done| done.result());
    mem::forget(socket);
    Ok(json!({ "errno": result.wrapping_neg() }))
}

/// From now on a filter looks at every system call, and lets it pass.
fn filter() -> io::Result<()> {
    const ALLOW: u32 = 0x7fff_0000;
    const RETURN: u16 = 0x06;
    let mut code = [libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // SAFETY: the program and what it points to outlive the call.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if set { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn vfork(port: u16) -> io::Result<Value> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let address = address(port);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let mut stack = vec![0_u64; 8192];
    let mut job = (socket.as_raw_fd(), address);
    extern "C" fn child(job: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the parent passes its job, and stands still until this child is gone.
        let (socket, address) = unsafe { &*job.cast::<(i32, SockAddr)>() };
        // SAFETY: as above; the address is as long as said.
        if unsafe { libc::bind(*socket, address.as_ptr().cast(), address.len()) } == 0 {
            return 0;
        }
        io::Error::last_os_error().raw_os_error().unwrap_or(255)
    }
    // SAFETY: the child runs on a stack of its own, which outlives it, as the parent waits.
    let pid =
        unsafe { libc::clone(child, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut job).cast()) };
    let mut status = 0;
    // SAFETY: an integer and a place for one.
    if pid < 0 || unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(io::Error::last_os_error());
    }
    mem::forget(socket);
    Ok(json!({ "errno": libc::WEXITSTATUS(status), "ended": libc::WIFEXITED(status) }))
}

fn many(first: u16, end: u16) -> io::Result<Value> {
    // All of them begin when the pipe's other end is closed.
    let (gate, open) = nix::unistd::pipe()?;
    let mut children = Vec::new();
    for port in first..end {
        // SAFETY: this process has one thread.
        match unsafe { nix::unistd::fork() }? {
            nix::unistd::ForkResult::Child => {
                drop(open);
                nix::unistd::read(&gate, &mut [0])?;
                std::process::exit(bind(port).unwrap_or(255));
            }
            nix::unistd::ForkResult::Parent { child } => children.push(child),
        }
    }
    drop(open);
    let mut errnos = std::collections::BTreeMap::<String, u32>::new();
    for child in children {
        let said = match nix::sys::wait::waitpid(child, None)? {
            nix::sys::wait::WaitStatus::Exited(_, errno) => errno.to_string(),
            other => format!("{other:?}"),
        };
        *errnos.entry(said).or_default() += 1;
    }
    Ok(json!({ "errnos": errnos }))
}
