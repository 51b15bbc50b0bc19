//! A cgroup that this process makes inside of its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{CgroupError, of_this_process, open_at};

/// A cgroup inside of that of this process. It goes with the value, unless somebody is in it.
#[derive(Debug)]
pub struct Child {
    path: String,
    // By descriptors: the tree need not be mounted where this process sees it (`ip netns exec` hides it).
    parent: File,
    name: String,
    directory: File,
    procs: File,
}

impl Child {
    /// Makes it, or uses one of this name that a process before this one has left.
    ///
    /// # Errors
    ///
    /// There is no cgroup v2, or it may not be changed.
    pub fn make(name: &str) -> Result<Self, CgroupError> {
        let above = of_this_process()?;
        let path = format!("{}/{name}", above.trim_end_matches('/'));
        let failed = |errno: nix::Error| CgroupError::Make { path: path.clone(), source: errno.into() };
        let parent = open_at(&above)?.directory;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let open =
            |path: &str, how| openat(&parent, path, how | OFlag::O_CLOEXEC, Mode::empty()).map(File::from);
        let files = open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .and_then(|directory| Ok((directory, open(&format!("{name}/cgroup.procs"), OFlag::O_WRONLY)?)));
        match files {
            Ok((directory, procs)) => Ok(Self { path, parent, name: name.to_owned(), directory, procs }),
            Err(errno) => {
                unlinkat(&parent, name, UnlinkatFlags::RemoveDir).ok();
                Err(failed(errno))
            }
        }
    }

    /// Where it is in the v2 tree.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What programs are attached to.
    #[must_use]
    pub const fn directory(&self) -> &File {
        &self.directory
    }

    /// Whoever writes 0 into it is in the cgroup.
    #[must_use]
    pub const fn procs(&self) -> &File {
        &self.procs
    }

    /// Removes it now; one that is gone already is as good.
    ///
    /// # Errors
    ///
    /// Somebody is in it (`ResourceBusy`).
    pub fn remove(&self) -> io::Result<()> {
        match unlinkat(&self.parent, self.name.as_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Not while somebody is in it.
        drop(self.remove());
    }
}

/// Removes cgroups inside of the one at this path, by their names, if nobody is in them.
pub fn remove_empty(path: &str, is_wanted: impl Fn(&str) -> bool) {
    let Ok(parent) = open_at(path) else { return };
    let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", parent.directory.as_raw_fd())) else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        if is_wanted(&name) {
            unlinkat(&parent.directory, name.as_str(), UnlinkatFlags::RemoveDir).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::id;

    #[test]
    fn goes_with_its_value_and_what_was_left_goes_by_its_name() {
        let name = format!("rsip-sys-child-{}", std::process::id());
        let child = Child::make(&name).expect("root");
        let path = child.path().to_owned();
        assert!(path.ends_with(&name));
        let again = Child::make(&name).expect("of this name already");
        assert_eq!(id(&path).expect("there"), again_id(&again));
        drop(child);
        assert!(id(&path).is_err(), "gone");
        drop(again);

        let left = Child::make(&name).expect("root");
        let own = of_this_process().expect("in the tree");
        remove_empty(&own, |found| found == "rsip-sys-somebody-else");
        assert!(id(&path).is_ok(), "not asked for");
        remove_empty(&own, |found| found == name);
        assert!(id(&path).is_err(), "gone");
        left.remove().expect("gone already is as good");
    }

    fn again_id(child: &Child) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        child.directory().metadata().expect("open").ino()
    }
}
