//! The run directory: one per program and network namespace, held by one process at a time.
//!
//! ```text
//! /run/PROGRAM/                  in the network namespace of PID 1
//! /run/PROGRAM/netns-INODE/      in any other: so `ip netns exec A PROGRAM status` finds A's own daemon
//!     lock                       flock held while the daemon lives; its text is the daemon's process ID
//!     control.sock               see `control`
//!     …                          what the daemon keeps there
//! ```

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};

use crate::exit::{ExitCode, Failure};

/// Name of the lock file.
pub const LOCK: &str = "lock";
/// Name of the control socket.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Why the run directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// Another process holds it.
    #[error("already running in this network namespace{}: run directory {}", pid_text(*.pid), .path.display())]
    AlreadyRunning {
        /// The directory.
        path: PathBuf,
        /// The holder, as far as it told.
        pid: Option<i32>,
    },
    /// The directory belongs to somebody else, who could exchange files in it.
    #[error("run directory {} belongs to user {owner}", .path.display())]
    ForeignOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner's user ID.
        owner: u32,
    },
    /// The file system said no.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
}

fn pid_text(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" as process {pid}")).unwrap_or_default()
}

impl RunDirError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// The same for the end of `main`.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let what = self.to_string();
        match self {
            Self::AlreadyRunning { .. } => {
                Failure::new(ExitCode::AlreadyRunning, what).hint("stop that one first")
            }
            Self::ForeignOwner { .. } => {
                Failure::new(ExitCode::Failure, what).hint("remove it, or give another --run-dir")
            }
            Self::Io { source, .. } => {
                let failure = Failure::new(ExitCode::Failure, what).why(source.to_string());
                if source.kind() == io::ErrorKind::PermissionDenied {
                    failure.hint("run as root")
                } else {
                    failure
                }
            }
        }
    }
}

/// Where `program` keeps its files in the network namespace of the calling thread.
///
/// # Errors
/// When /proc is not there.
pub fn default_path(program: &str) -> Result<PathBuf, RunDirError> {
    const OURS: &str = "/proc/thread-self/ns/net";
    let ours = fs::metadata(OURS).map_err(RunDirError::io("look at", Path::new(OURS)))?;
    let base = Path::new("/run").join(program);
    let is_first = match fs::metadata("/proc/1/ns/net") {
        Ok(first) => (first.dev(), first.ino()) == (ours.dev(), ours.ino()),
        // Even root may be kept from looking at PID 1 (security modules, user namespaces): then every network namespace
        // has its own folder, which is what matters. Others than root can use nothing in there anyway.
        Err(_) => !nix::unistd::geteuid().is_root(),
    };
    Ok(if is_first { base } else { base.join(format!("netns-{}", ours.ino())) })
}

/// A run directory that this process holds. Dropping it removes the lock and the control socket, and the directory
/// (and the one above, if it is the program's own) when nothing else is in it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock: Option<Flock<File>>,
}

impl RunDir {
    /// Makes `path` (mode 0700) unless it is there, and locks it for the life of the value.
    ///
    /// # Errors
    /// [`RunDirError`]; nothing is left behind then that was not there before.
    pub fn claim(path: &Path) -> Result<Self, RunDirError> {
        loop {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(RunDirError::io("make run directory", path))?;
            let owner = fs::metadata(path).map_err(RunDirError::io("look at", path))?.uid();
            if owner != nix::unistd::geteuid().as_raw() {
                return Err(RunDirError::ForeignOwner { path: path.to_owned(), owner });
            }
            if let Some(lock) = lock(path)? {
                return Ok(Self { path: path.to_owned(), lock: Some(lock) });
            }
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket is to be.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }

    /// Writes a file in the directory so that a reader sees the old or the new content, never a part. Mode 0600.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<(), RunDirError> {
        write_atomically(&self.path.join(name), content)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Whatever cannot be removed stays; there is nobody to tell, and the next start copes with it.
        for name in [CONTROL_SOCKET, LOCK] {
            drop(fs::remove_file(self.path.join(name)));
        }
        // Only now: whoever waits for the lock must find the file gone.
        drop(self.lock.take());
        drop(fs::remove_dir(&self.path));
        let is_ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("netns-");
        if self.path.file_name().is_some_and(is_ours)
            && let Some(parent) = self.path.parent()
        {
            drop(fs::remove_dir(parent));
        }
    }
}

/// The lock, or `None` when its last holder removed the file (or the directory) under us: try again then.
fn lock(directory: &Path) -> Result<Option<Flock<File>>, RunDirError> {
    let path = directory.join(LOCK);
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(RunDirError::io("open lock", &path)(error)),
    };
    let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(RunDirError::AlreadyRunning { path: directory.to_owned(), pid });
        }
        Err((_, errno)) => return Err(RunDirError::io("lock", &path)(errno.into())),
    };
    let ours = lock.metadata().map_err(RunDirError::io("look at", &path))?.ino();
    if !fs::metadata(&path).is_ok_and(|named| named.ino() == ours) {
        return Ok(None);
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut lock).map_err(RunDirError::io("write", &path))?;
    Ok(Some(lock))
}

/// Replaces `path` (mode 0600) so that a reader sees the old or the new content, never a part.
///
/// # Errors
/// What the file system says; the old content is still there then.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), RunDirError> {
    replace(path, content, File::sync_all)
}

/// As [`write_atomically`], for a file that outlives the process but need not outlive the machine: does not wait for
/// the disk, where /run is on one. A crash between may leave the old content in a second file with `.new` at its end.
///
/// # Errors
/// What the file system says; the old content is still there then.
pub fn write_volatile(path: &Path, content: &[u8]) -> Result<(), RunDirError> {
    replace(path, content, |_| Ok(()))
}

fn replace(
    path: &Path,
    content: &[u8],
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> Result<(), RunDirError> {
    let mut temporary = OsString::from(path);
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let write = || {
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Always a new file: a link that somebody left in a shared directory is not followed.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        settle(&file)?;
        exchange(&temporary, path)
    };
    write().map_err(|error| {
        drop(fs::remove_file(&temporary));
        RunDirError::io("write", path)(error)
    })
}

/// Puts `new` in the place of `old`. By exchange where that works: renaming over a file makes ext4 write the new
/// one's data to the disk at once, which takes milliseconds.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, new, AT_FDCWD, old, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => fs::remove_file(new),
        // No old one yet, or a file system without exchange.
        Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOSYS) => fs::rename(new, old),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_held_once_and_names_the_holder() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("netns-1");
        let held = RunDir::claim(&path).unwrap();
        let error = RunDir::claim(&path).unwrap_err();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(
            matches!(&error, RunDirError::AlreadyRunning { pid: Some(pid), .. } if *pid == own),
            "{error}"
        );
        assert_eq!(error.into_failure().code(), ExitCode::AlreadyRunning);
        drop(held);
        assert!(!path.exists(), "removed when empty");
        drop(RunDir::claim(&path).unwrap());
    }

    #[test]
    fn every_network_namespace_has_its_own() {
        let here = default_path("program").unwrap();
        assert_eq!(here, default_path("program").unwrap());
        assert!(here.starts_with("/run/program"));
        let there = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            default_path("program").unwrap()
        })
        .join()
        .unwrap();
        assert!(there.starts_with("/run/program"));
        assert_ne!(here, there);
    }

    #[test]
    fn keeps_what_others_put_there() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        let held = RunDir::claim(&path).unwrap();
        held.write_file("state.json", b"{}").unwrap();
        held.write_file("state.json", b"{\"a\":1}").unwrap();
        drop(held);
        assert_eq!(fs::read(path.join("state.json")).unwrap(), b"{\"a\":1}");
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["state.json"]);
    }

    #[test]
    fn survives_a_crash_of_the_holder() {
        let base = tempfile::tempdir().unwrap();
        // What a killed process leaves: the files without the lock.
        fs::write(base.path().join(LOCK), "4194305\n").unwrap();
        fs::write(base.path().join(CONTROL_SOCKET), "").unwrap();
        let held = RunDir::claim(base.path()).unwrap();
        assert_eq!(fs::read_to_string(held.path().join(LOCK)).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn only_one_of_many_racing_claims_wins() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("run");
        for _ in 0..50 {
            let barrier = std::sync::Barrier::new(4);
            let held: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            let held = RunDir::claim(&path);
                            barrier.wait();
                            held.ok()
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(held.len(), 1);
        }
    }
}
