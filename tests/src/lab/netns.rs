//! A named network namespace, and programs inside it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::umount;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::error::{IoContext, LabError, Result};
use super::exec;
use super::mountns::MountNs;
use super::pins;
use super::wait::{self, Look};

/// Where iproute2 keeps the names.
const NAMES: &str = "/run/netns";

/// The way into a network namespace: commands and threads inside it. Copies may outlive the namespace's name.
#[derive(Clone, Debug)]
pub struct Inside {
    name: String,
    handle: Arc<File>,
}

impl Inside {
    fn open(name: &str) -> Result<Self> {
        let path = format!("{NAMES}/{name}");
        let handle = File::open(&path).cannot(|| format!("open {path}"))?;
        Ok(Self { name: name.to_owned(), handle: Arc::new(handle) })
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inode of the namespace: what `/proc/PID/ns/net` shows for processes inside.
    ///
    /// # Errors
    /// Where the handle cannot be asked.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.handle.metadata().cannot(|| format!("look at namespace {}", self.name))?.ino())
    }

    /// A command that will run inside this namespace. Unlike `ip netns exec` it sees the machine's own `/sys`, as a
    /// program on a real host sees the whole of its machine.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_in(program, None)
    }

    /// As [`Self::command`], inside a private mount namespace too.
    pub fn command_in(&self, program: impl AsRef<OsStr>, mounts: Option<&MountNs>) -> Command {
        let mut command = Command::new(program);
        let network = Arc::clone(&self.handle);
        let mounts = mounts.map(MountNs::handle);
        // SAFETY: the closure runs between fork and exec in a process with one thread. It makes system calls on
        // descriptors that it owns, and neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || {
                // Whatever this process blocks, the program inside takes signals as usual.
                SigSet::empty().thread_set_mask()?;
                setns(network.as_fd(), CloneFlags::CLONE_NEWNET)?;
                if let Some(mounts) = &mounts {
                    setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
                }
                Ok(())
            });
        }
        command
    }

    /// Runs a command inside that must end with 0, and gives what it printed.
    ///
    /// # Errors
    /// Where it does not end in time, or not with 0.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> Result<String> {
        exec::run(self.command(program).args(arguments), exec::SHORT)?.success()
    }

    /// Runs `ip` with these arguments inside.
    ///
    /// # Errors
    /// Where it does not end with 0.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(arguments);
        exec::tool("ip", &all)
    }

    /// Runs `work` on a thread of its own that is inside this namespace. Sockets made there stay there.
    ///
    /// # Errors
    /// Where the thread cannot enter the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let inside = thread::scope(|scope| {
            scope
                .spawn(|| setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET).map(|()| work()))
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        inside.cannot(|| format!("enter namespace {}", self.name))
    }

    /// Writes a setting below `/proc/sys`.
    ///
    /// # Errors
    /// Where there is no such setting or it refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(key);
        self.enter(|| fs::write(&path, value))?.cannot(|| format!("set {key} to {value} in {}", self.name))
    }

    /// Reads a setting below `/proc/sys`.
    ///
    /// # Errors
    /// Where there is no such setting.
    pub fn setting(&self, key: &str) -> Result<String> {
        let path = PathBuf::from("/proc/sys").join(key);
        let text =
            self.enter(|| fs::read_to_string(&path))?.cannot(|| format!("read {key} in {}", self.name))?;
        Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Processes inside, zombies left out: they have nothing open any more.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let inode = self.inode()?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").cannot(|| "read /proc".into())?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // A process may end while we look; a zombie's namespace cannot be read.
            if fs::metadata(entry.path().join("ns/net")).is_ok_and(|namespace| namespace.ino() == inode) {
                found.push(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    /// Ends every process inside: first politely, then not.
    ///
    /// # Errors
    /// [`LabError::Timeout`] where one survives.
    pub fn end_processes(&self) -> Result<()> {
        for (signal, patience) in
            [(Signal::SIGTERM, Duration::from_secs(3)), (Signal::SIGKILL, Duration::from_secs(10))]
        {
            for pid in self.processes()? {
                // A stopped process takes no SIGTERM before it is continued.
                for signal in [signal, Signal::SIGCONT] {
                    match kill(pid, signal) {
                        // It has ended since.
                        Ok(()) | Err(Errno::ESRCH) => {}
                        Err(error) => return Err(error).cannot(|| format!("send {signal} to {pid}")),
                    }
                }
            }
            let gone = wait::until(&format!("the processes of {} to end", self.name), patience, || {
                let left = self.processes()?;
                Ok(if left.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("{left:?}")) })
            });
            match gone {
                Ok(()) => return Ok(()),
                Err(LabError::Timeout { .. }) if signal == Signal::SIGTERM => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A network namespace under `/run/netns`, so that `ip netns exec` finds it too. Dropping it ends every process that
/// still runs inside, then removes it.
#[derive(Debug)]
pub struct Netns {
    inside: Inside,
    keep: bool,
}

impl Netns {
    /// Makes it, with the loopback device up.
    ///
    /// # Errors
    /// Where `ip netns add` fails, for example because the name is taken.
    pub fn new(name: &str) -> Result<Self> {
        exec::tool("ip", &["netns", "add", name])?;
        let inside = match Inside::open(name) {
            Ok(inside) => inside,
            Err(error) => {
                exec::tool("ip", &["netns", "del", name])?;
                return Err(error);
            }
        };
        let netns = Self { inside, keep: false };
        // Without duplicate address detection an address is final at once, and snapshots do not change by themselves.
        netns.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        netns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        netns.ip(&["link", "set", "dev", "lo", "up"])?;
        Ok(netns)
    }

    /// From now on dropping leaves the namespace and its processes in place.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Deref for Netns {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.end_processes() {
            eprintln!("lab: {error}");
        }
        // A killed agent leaves its hooks at work.
        if let Err(error) = pins::remove(&self.inside) {
            eprintln!("lab: {error}");
        }
        if let Err(error) = exec::tool("ip", &["netns", "del", self.name()]) {
            eprintln!("lab: {error}");
        }
    }
}

/// Removes the namespaces whose name starts with `prefix`, and ends what runs inside: for labs whose owner is gone.
///
/// # Errors
/// Where `/run/netns` cannot be read; namespaces that do not go away are reported on standard error.
pub fn remove_all(prefix: &str) -> Result<usize> {
    let names = names(prefix)?;
    let count = names.len();
    for name in names {
        match Inside::open(&name) {
            // Dropping does the rest.
            Ok(inside) => drop(Netns { inside, keep: false }),
            Err(error) => eprintln!("lab: {error}"),
        }
    }
    Ok(count)
}

/// Names of the namespaces that start with `prefix`.
///
/// # Errors
/// Where `/run/netns` is there and cannot be read.
pub fn names(prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(NAMES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).cannot(|| format!("read {NAMES}")),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// `ip netns add` makes `/run/netns` a mount point and leaves it so. A lab that found none takes it away again, unless
/// somebody else has put names into it meanwhile.
#[derive(Debug)]
pub struct NamesFolder {
    ours: bool,
}

impl NamesFolder {
    /// Looks whether it is there.
    ///
    /// # Errors
    /// Where the table of mounts cannot be read.
    pub fn find() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").cannot(|| "read the table of mounts".into())?;
        let there = mounts.lines().any(|line| line.split(' ').nth(1) == Some(NAMES));
        Ok(Self { ours: !there })
    }

    /// The folder of somebody who was told to leave it, and is to be taken away now.
    #[must_use]
    pub const fn inherited() -> Self {
        Self { ours: true }
    }

    /// Whether it will be taken away.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        self.ours
    }

    /// Leaves it in place.
    pub const fn leave(&mut self) {
        self.ours = false;
    }
}

impl Drop for NamesFolder {
    fn drop(&mut self) {
        if self.ours && names("").is_ok_and(|names| names.is_empty()) {
            // EBUSY: somebody is faster, and needs it.
            match umount(NAMES) {
                Err(Errno::EBUSY) => {}
                Err(error) => eprintln!("lab: cannot unmount {NAMES}: {error}"),
                Ok(()) => {
                    if let Err(error) = fs::remove_dir(NAMES) {
                        eprintln!("lab: cannot remove {NAMES}: {error}");
                    }
                }
            }
        }
    }
}
