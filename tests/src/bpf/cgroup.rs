//! A cgroup for one test: the hooks see the test's own sockets, and nobody else's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{BpfError, Result};

/// A process is in one cgroup with all its threads: tests in threads of one process take turns.
static TURN: Mutex<()> = Mutex::new(());

/// A child of the cgroup that this process is in. The process is in it until the value is dropped, and so is what it starts.
#[derive(Debug)]
pub struct TestCgroup {
    path: PathBuf,
    before: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl TestCgroup {
    /// Makes it and enters it. Waits for the previous test to leave its own.
    ///
    /// # Errors
    /// Where there is no cgroup v2 tree, or it may not be changed.
    pub fn enter() -> Result<Self> {
        // A test that failed leaves its cgroup properly: the lock says no more than whose turn it is.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = current()?;
        let path = before.join(format!("rsip-ebpf-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(cannot(&path))?;
        let cgroup = Self { path, before, _turn: turn };
        join(&cgroup.path)?;
        Ok(cgroup)
    }

    /// The directory, to attach programs to.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).map_err(cannot(&self.path))
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        if let Err(error) = join(&self.before) {
            eprintln!("{error}");
        }
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

fn cannot(path: &Path) -> impl Fn(io::Error) -> BpfError {
    move |source| BpfError::Cgroup { path: path.to_owned(), source }
}

/// Moves this process.
fn join(cgroup: &Path) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    // "0" means the writer itself.
    fs::write(&procs, "0").map_err(cannot(&procs))
}

/// The directory of the cgroup that this process is in.
fn current() -> Result<PathBuf> {
    let read = |path: &str| fs::read_to_string(path).map_err(cannot(Path::new(path)));
    let mounts = read("/proc/self/mounts")?;
    let root = mounts
        .lines()
        .find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (mount_point, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(mount_point)
        })
        .ok_or_else(|| BpfError::Absent("cgroup v2 mount".into()))?;
    let cgroups = read("/proc/self/cgroup")?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Ok(Path::new(root).join(own))
}
