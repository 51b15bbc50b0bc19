//! The root of the cgroup v2 tree, wherever it is.
//!
//! `ip netns exec` gives its command a fresh `/sys` without any cgroup mount, and hybrid set-ups have the v2 tree beside
//! the v1 ones; so the tree is looked up, and where nobody mounted it a detached mount of our own is used, which is seen
//! by nobody else and is gone with its descriptor.

use std::ffi::{CStr, CString, c_int};
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

mod child;

pub use child::{Child, remove_empty};

/// An open directory of the cgroup v2 tree.
#[derive(Debug)]
pub struct Cgroup {
    /// The directory: what programs are attached to.
    pub directory: File,
    /// Its path, for people. `None`: the root of a detached mount.
    pub path: Option<PathBuf>,
}

/// Why there is no cgroup to attach to.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The named directory cannot be opened.
    #[error("cannot open cgroup {}: {source}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The named directory is something else.
    #[error("{} is not in a cgroup v2 tree", .0.display())]
    NotCgroup2(PathBuf),
    /// No cgroup can be made inside of this one.
    #[error("cannot make cgroup {path}: {source}")]
    Make {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// This process is in none that can be seen from here.
    #[error("this process is in no cgroup of the v2 tree: {0}")]
    Nowhere(io::Error),
    /// No mount of the v2 tree, and none can be made.
    #[error("the kernel's cgroup v2 tree is neither mounted nor mountable: {0}")]
    Unavailable(io::Error),
}

/// Opens the named cgroup directory.
///
/// # Errors
///
/// It does not exist, or is not of a cgroup v2 tree.
pub fn open(path: &Path) -> Result<Cgroup, CgroupError> {
    let directory = File::open(path).map_err(|source| CgroupError::Open { path: path.to_owned(), source })?;
    let kind = nix::sys::statfs::fstatfs(&directory)
        .map_err(|errno| CgroupError::Open { path: path.to_owned(), source: errno.into() })?
        .filesystem_type();
    if kind != nix::sys::statfs::CGROUP2_SUPER_MAGIC {
        return Err(CgroupError::NotCgroup2(path.to_owned()));
    }
    Ok(Cgroup { directory, path: Some(path.to_owned()) })
}

/// Opens the root of the v2 tree.
///
/// # Errors
///
/// The kernel has no cgroup v2.
pub fn open_root() -> Result<Cgroup, CgroupError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // A mount may be hidden under another one: the next may do.
    for mount in roots(&mountinfo) {
        if let Ok(cgroup) = open(&mount) {
            return Ok(cgroup);
        }
    }
    let directory = mount_detached().map_err(CgroupError::Unavailable)?;
    Ok(Cgroup { directory, path: None })
}

/// Opens the cgroup at this path of the v2 tree, which begins at its root.
///
/// # Errors
///
/// It does not exist, or the kernel has no cgroup v2.
pub fn open_at(path: &str) -> Result<Cgroup, CgroupError> {
    let root = open_root()?;
    let failed = |errno: nix::Error| CgroupError::Open { path: PathBuf::from(path), source: errno.into() };
    let directory = open_below(&root.directory, path.trim_start_matches('/')).map_err(failed)?;
    let path = root.path.map(|root| root.join(path.trim_start_matches('/')));
    Ok(Cgroup { directory, path })
}

fn open_below(directory: &File, name: &str) -> nix::Result<File> {
    let how = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
    let name = if name.is_empty() { "." } else { name };
    nix::fcntl::openat(directory, name, how, nix::sys::stat::Mode::empty()).map(File::from)
}

impl Cgroup {
    /// The kernel's number for it: what `bpf_get_current_cgroup_id` gives.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn id(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        // A folder's inode is its cgroup's number (kernfs on 64-bit machines, since Linux 5.5).
        self.directory.metadata().map(|metadata| metadata.ino())
    }

    /// The numbers of those that it is in, the nearest first, as far as the mount shows them.
    #[must_use]
    pub fn above(&self) -> Vec<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let number = |directory: &File| directory.metadata().map(|metadata| metadata.ino()).ok();
        let mut numbers = Vec::new();
        let mut last = number(&self.directory);
        let mut at = open_below(&self.directory, "..");
        while let Ok(directory) = at {
            let is_cgroup = nix::sys::statfs::fstatfs(&directory)
                .is_ok_and(|kind| kind.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC);
            let found = number(&directory);
            // The root of a mount that is attached nowhere is in itself.
            if !is_cgroup || found == last {
                break;
            }
            numbers.extend(found);
            last = found;
            at = open_below(&directory, "..");
        }
        numbers
    }

    /// Whether a process is in it, or anywhere below it. `None`: it is gone.
    #[must_use]
    pub fn is_populated(&self) -> Option<bool> {
        use std::io::Read as _;
        let how = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
        let file =
            nix::fcntl::openat(&self.directory, "cgroup.events", how, nix::sys::stat::Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).ok()?;
        text.lines().find_map(|line| line.strip_prefix("populated ")).map(|value| value.trim() != "0")
    }
}

/// The kernel's number for the cgroup at this path of the v2 tree.
///
/// # Errors
///
/// There is no such cgroup.
pub fn id(path: &str) -> Result<u64, CgroupError> {
    let cgroup = open_at(path)?;
    cgroup.id().map_err(|source| CgroupError::Open { path: PathBuf::from(path), source })
}

/// Removes an empty cgroup; one that is gone already is as good.
///
/// # Errors
///
/// What the kernel says: a process may be in it.
pub fn remove(path: &str) -> io::Result<()> {
    let root = open_root().map_err(io::Error::other)?;
    let name = path.trim_start_matches('/');
    match nix::unistd::unlinkat(&root.directory, name, nix::unistd::UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Where this process is in the v2 tree.
///
/// # Errors
///
/// The kernel has no cgroup v2, or the process is outside of what it sees of the tree.
pub fn of_this_process() -> Result<String, CgroupError> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(CgroupError::Nowhere)?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    match path {
        Some(path) if !path.starts_with("/..") => Ok(path.to_owned()),
        Some(path) => Err(CgroupError::Nowhere(io::Error::other(format!("it is at {path}")))),
        None => Err(CgroupError::Nowhere(io::Error::other("/proc/self/cgroup has no line 0::"))),
    }
}

/// Mount points of the whole v2 tree in the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
fn roots(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo.lines().filter_map(root).collect()
}

fn root(line: &str) -> Option<PathBuf> {
    // "36 35 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw": a variable number of tags before " - ".
    let (mount, filesystem) = line.split_once(" - ")?;
    if filesystem.split(' ').next()? != "cgroup2" {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (root == "/").then(|| PathBuf::from(unescape(point)))
}

/// Space, tab, line break and backslash stand as three octal digits in mountinfo.
fn unescape(field: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// A mount of cgroup2 that is attached nowhere (fsopen and fsmount, Linux 5.2). nix and libc have no wrappers.
fn mount_detached() -> io::Result<File> {
    let name = c"cgroup2";
    // SAFETY: `name` is a NUL-terminated string that outlives the call; the call writes nothing.
    let context = unsafe { descriptor(libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC))? };
    fsconfig_create(&context)?;
    // SAFETY: only integers are passed; the descriptor is open.
    let mount = unsafe { descriptor(libc::syscall(libc::SYS_fsmount, raw(&context), FSMOUNT_CLOEXEC, 0))? };
    // What fsmount gives is an O_PATH descriptor; the bpf system call wants a directory opened for reading.
    let how = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
    let root: &CStr = c".";
    let directory =
        nix::fcntl::openat(&mount, CString::from(root).as_c_str(), how, nix::sys::stat::Mode::empty())?;
    Ok(File::from(directory))
}

const FSOPEN_CLOEXEC: c_int = 1;
const FSMOUNT_CLOEXEC: c_int = 1;
const FSCONFIG_CMD_CREATE: c_int = 6;

fn fsconfig_create(context: &OwnedFd) -> io::Result<()> {
    let none = std::ptr::null::<u8>();
    // SAFETY: FSCONFIG_CMD_CREATE takes neither key nor value; the descriptor is open.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, raw(context), FSCONFIG_CMD_CREATE, none, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn raw(descriptor: &OwnedFd) -> c_int {
    std::os::fd::AsRawFd::as_raw_fd(descriptor)
}

/// # Safety
///
/// `result` must be what a system call returned that gives a new descriptor.
unsafe fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = c_int::try_from(result).map_err(io::Error::other)?;
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_v2_tree_among_other_mounts() {
        let text = "24 1 0:22 / /proc rw - proc proc rw\n\
            30 24 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro\n\
            31 30 0:27 /docker/x /sys/fs/cgroup/part rw shared:1 master:2 - cgroup2 cgroup2 rw\n\
            32 30 0:27 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n\
            broken line\n";
        assert_eq!(roots(text), [PathBuf::from("/sys/fs/cgroup/uni fied")]);
    }

    #[test]
    fn opens_the_root_of_this_machine() {
        open_root().expect("cgroup v2 is in every kernel that we support");
    }

    #[test]
    fn a_detached_mount_is_a_cgroup_tree_and_shows_nowhere() {
        // Other tests of this process mount other things meanwhile.
        let trees = || -> Vec<String> {
            let text = fs::read_to_string("/proc/self/mountinfo").expect("proc");
            text.lines().filter(|line| line.contains(" - cgroup2 ")).map(ToOwned::to_owned).collect()
        };
        let before = trees();
        let directory = mount_detached().expect("needs root");
        let kind = nix::sys::statfs::fstatfs(&directory).expect("open").filesystem_type();
        assert_eq!(kind, nix::sys::statfs::CGROUP2_SUPER_MAGIC);
        assert_eq!(trees(), before);
    }

    #[test]
    fn knows_where_a_cgroup_is_and_who_is_in_it() {
        let root = open_root().expect("there is one");
        let name = format!("rsip-sys-test-{}", std::process::id());
        nix::sys::stat::mkdirat(&root.directory, name.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("root");
        let path = format!("/{name}");
        let own = open_at(&path).expect("it was made");
        assert_eq!(own.is_populated(), Some(false), "nobody has entered it");
        assert_eq!(own.above(), [root.id().expect("open")]);
        assert_eq!(id(&path).expect("there"), own.id().expect("open"));
        remove(&path).expect("it is empty");
        remove(&path).expect("gone already is as good");
        assert!(id(&path).is_err() && id("/").expect("the root") == root.id().expect("open"));
        assert!(of_this_process().expect("in the tree").starts_with('/'));
    }

    #[test]
    fn refuses_another_file_system() {
        assert!(matches!(open(Path::new("/proc")), Err(CgroupError::NotCgroup2(_))));
        assert!(matches!(open(Path::new("/no/such/cgroup")), Err(CgroupError::Open { .. })));
    }
}
