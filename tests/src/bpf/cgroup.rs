//! A cgroup for one test, with what a test puts into it.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{BpfError, Result};

/// A child of the cgroup v2 root. Removed when dropped, by when its processes must have ended.
#[derive(Debug)]
pub struct ChildCgroup {
    path: PathBuf,
}

impl ChildCgroup {
    /// Makes an empty one.
    ///
    /// # Errors
    /// Where there is no cgroup v2 tree, or it may not be changed.
    pub fn new() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = root()?.join(format!("rsip-ebpf-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|source| BpfError::Cgroup { path: path.clone(), source })?;
        Ok(Self { path })
    }

    /// The directory, to attach programs to.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(|source| BpfError::Cgroup { path: self.path.clone(), source })
    }

    /// Makes a command run in this cgroup from its first instruction on.
    ///
    /// # Errors
    /// Where the cgroup is gone.
    pub fn hold(&self, command: &mut Command) -> Result<()> {
        let path = self.path.join("cgroup.procs");
        let procs =
            File::options().write(true).open(&path).map_err(|source| BpfError::Cgroup { path, source })?;
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns, and neither
        // allocates nor takes locks. "0" means the writer itself.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::write(&procs, b"0")?;
                Ok(())
            });
        }
        Ok(())
    }
}

impl Drop for ChildCgroup {
    fn drop(&mut self) {
        // A process that was just reaped may still be counted for a moment.
        for _ in 0..100 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return eprintln!("{}: {error}", self.path.display()),
                Ok(()) => return,
            }
        }
        eprintln!("{}: still in use", self.path.display());
    }
}

/// Where the v2 tree is mounted.
fn root() -> Result<PathBuf> {
    let path = Path::new("/proc/self/mounts");
    let mounts = fs::read_to_string(path).map_err(|source| BpfError::Cgroup { path: path.into(), source })?;
    let mut mount_points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (mount_point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(mount_point))
    });
    mount_points.next().ok_or_else(|| BpfError::Absent("cgroup v2 mount".into()))
}
