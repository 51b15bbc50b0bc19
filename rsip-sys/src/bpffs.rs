//! The machine's BPF file system, in which eBPF objects are pinned: what has a name there outlives the process.
//!
//! It is at `/sys/fs/bpf` in the mount namespace of PID 1. `ip netns exec` gives its command a `/sys` of its own, in which
//! a pin would die with the command; so the machine's is looked for by way of `/proc/1/root`. Where nobody has mounted it
//! (systemd does), it is mounted, and taken away again by the last who needs it. A process that may not look at PID 1
//! (a container, a security module) has to take its own mount namespace for the machine's.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};

/// Where it belongs.
const PLACE: &str = "/sys/fs/bpf";
/// The same, seen from any mount namespace.
const MACHINES: &str = "/proc/1/root/sys/fs/bpf";
/// In our folder: the file system was mounted by us.
const MARK: &str = "mounted";

/// Why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct BpfFsError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl BpfFsError {
    fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_owned(), source }
    }
}

/// A folder for what a program pins: `/sys/fs/bpf/PROGRAM/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinFolder {
    /// Of the program; those of all its instances are in it.
    base: PathBuf,
    path: PathBuf,
}

impl PinFolder {
    /// Makes the folder, and mounts the file system where it is missing.
    ///
    /// # Errors
    ///
    /// The kernel has no such file system, or it cannot be mounted or written to.
    pub fn make(program: &str, name: &str) -> Result<Self, BpfFsError> {
        let (root, mounted) = match find() {
            Some(root) => (root, false),
            None => {
                let place = Path::new(PLACE);
                in_machines_mounts(mount_it).map_err(BpfFsError::new("mount a BPF file system at", place))?;
                let gone = || io::Error::from(io::ErrorKind::NotFound);
                (find().ok_or_else(|| BpfFsError::new("find", place)(gone()))?, true)
            }
        };
        let base = root.join(program);
        let folder = Self { path: base.join(name), base };
        folder.make_folder(&folder.path)?;
        if mounted {
            folder.make_folder(&folder.base.join(MARK))?;
        }
        Ok(folder)
    }

    /// The folder, where there is one already.
    #[must_use]
    pub fn existing(program: &str, name: &str) -> Option<Self> {
        let base = find()?.join(program);
        let path = base.join(name);
        path.is_dir().then_some(Self { base, path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf, BpfFsError> {
        let path = self.path.join(name);
        self.make_folder(&path)?;
        Ok(path)
    }

    fn make_folder(&self, path: &Path) -> Result<(), BpfFsError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(BpfFsError::new("make", path))
    }

    /// Removes the folder with all that is pinned in it, and whatever of the way to it is nobody's any more. Goes on after an
    /// error.
    ///
    /// # Errors
    ///
    /// The first of them.
    pub fn remove(&self) -> Result<(), BpfFsError> {
        let outcome = match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let outcome = outcome.map_err(BpfFsError::new("remove", &self.path));
        // Whatever is not empty is somebody else's.
        drop(fs::remove_dir(&self.base));
        // Names with a dot are the kernel's own.
        let others = |root: &Path| names(root).iter().filter(|name| !name.contains('.')).count() > 1;
        if names(&self.base) == [MARK] && self.base.parent().is_some_and(|root| !others(root)) {
            drop(fs::remove_dir(self.base.join(MARK)));
            drop(fs::remove_dir(&self.base));
            if let Err(error) = in_machines_mounts(|| Ok(umount2(PLACE, MntFlags::empty())?)) {
                tracing::debug!(%error, "{PLACE} stays mounted");
            }
        }
        outcome
    }
}

/// The names in a folder, in no order.
#[must_use]
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn find() -> Option<PathBuf> {
    let is_bpf =
        |path: &Path| statfs(path).is_ok_and(|info| info.filesystem_type() == FsType(libc::BPF_FS_MAGIC));
    let [own, machines] = [Path::new(PLACE), Path::new(MACHINES)];
    let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    match (is_bpf(own), is_bpf(machines)) {
        (true, true) if device(own) == device(machines) => Some(own.to_owned()),
        (_, true) => Some(machines.to_owned()),
        // PID 1 may not be looked at: then this is all there is to go by, unless it is known to be somebody's own.
        (true, false) => (!machines.exists()).then(|| own.to_owned()),
        (false, false) => None,
    }
}

fn mount_it() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("bpf"), PLACE, Some("bpf"), flags, Some("mode=700"))?)
}

/// Does something in the mount namespace of PID 1, on a thread of its own; in our own where PID 1 may not be looked at.
fn in_machines_mounts(work: fn() -> io::Result<()>) -> io::Result<()> {
    let mounts = match File::open("/proc/1/ns/mnt") {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return work(),
        opened => opened?,
    };
    let thread = thread::spawn(move || {
        // A thread that shares its working directory with others may not leave their mount namespace.
        unshare(CloneFlags::CLONE_FS)?;
        setns(mounts.as_fd(), CloneFlags::CLONE_NEWNS)?;
        work()
    });
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_found_and_removed_from_within_another_mount_namespace() {
        let name = format!("test-{}", std::process::id());
        let folder = PinFolder::make("rsip-sys-test", &name).expect("needs root");
        folder.subfolder("maps").expect("a folder");
        let there = std::thread::spawn({
            let name = name.clone();
            move || {
                unshare(CloneFlags::CLONE_NEWNS).expect("needs root");
                let nothing = None::<&Path>;
                mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
                    .expect("private");
                // What `ip netns exec` does.
                umount2("/sys", MntFlags::MNT_DETACH).expect("it is mounted");
                mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), nothing).expect("a fresh one");
                let found = PinFolder::existing("rsip-sys-test", &name);
                // Who may not look at PID 1 sees its own alone, which has none.
                assert_eq!(found.is_some(), Path::new(MACHINES).exists(), "{found:?}");
                if let Some(found) = found {
                    assert!(found.path().starts_with(MACHINES), "{found:?}");
                    found.remove().expect("removable");
                }
            }
        });
        there.join().expect("the thread ends");
        folder.remove().expect("removable");
        assert!(!folder.path().exists());
        assert_eq!(PinFolder::existing("rsip-sys-test", &name), None);
        folder.remove().expect("gone is fine");
    }
}
