//! A private mount namespace: two instances of one server on one machine, each with its own run, lock and log folders.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::error::{IoContext, LabError, Result};

/// A mount namespace that lives as long as this value or a process inside it. Nothing of it is visible outside.
#[derive(Clone, Debug)]
pub struct MountNs {
    handle: Arc<File>,
}

impl MountNs {
    /// A copy of the machine's mounts in which each `(from, onto)` is laid over: a folder over a folder, a file over a
    /// file. `onto` must exist.
    ///
    /// # Errors
    /// Where a mount is refused.
    pub fn new(overlays: &[(PathBuf, PathBuf)]) -> Result<Self> {
        let handle = thread::scope(|scope| {
            // The thread leaves its mounts to the open handle and ends.
            scope.spawn(|| make(overlays)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// What `setns` takes.
    pub(super) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.handle)
    }
}

fn make(overlays: &[(PathBuf, PathBuf)]) -> Result<File> {
    let nothing = None::<&Path>;
    unshare(CloneFlags::CLONE_NEWNS).cannot(|| "make a mount namespace".into())?;
    // Or the mounts below would show up in the machine's own namespace.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .cannot(|| "make the mounts private".into())?;
    for (from, onto) in overlays {
        mount(Some(from), onto, nothing, MsFlags::MS_BIND, nothing)
            .cannot(|| format!("lay {} over {}", from.display(), onto.display()))?;
    }
    File::open("/proc/thread-self/ns/mnt")
        .map_err(|source| LabError::Io { what: "open the mount namespace".into(), source })
}
