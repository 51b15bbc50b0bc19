//! What of the bpf system call aya has no function for: links that are exchanged and taken off in place, and what the
//! kernel says about pinned objects. One struct for each command, as `bpf(2)` and `linux/bpf.h` have it.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `enum bpf_cmd`.
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// A link: what holds a program at a cgroup, an interface or a function. It stays while a descriptor or a pin does.
#[derive(Debug)]
pub struct Link {
    descriptor: OwnedFd,
}

/// What the kernel says about a link (`struct bpf_link_info`, its beginning).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel's number for the program.
    pub program: u32,
    /// ID of the cgroup, or index of the interface; 0: that is gone, and the link serves nothing any more.
    pub target: u64,
}

/// What the kernel says about a map (`struct bpf_map_info`, its beginning).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// How many there may be.
    pub entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

impl Link {
    /// Opens a pinned link.
    ///
    /// # Errors
    ///
    /// There is none, or it is no link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { descriptor: open(path)? })
    }

    /// Runs another program of the same type from now on, without a moment in which none runs.
    ///
    /// # Errors
    ///
    /// The link is of a type that cannot (tracing), or its target is gone.
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        #[repr(C)]
        struct Update {
            link: u32,
            program: u32,
            flags: u32,
            old_program: u32,
        }
        let mut attributes = Update {
            link: number(self.descriptor.as_fd()),
            program: number(program),
            flags: 0,
            old_program: 0,
        };
        call(LINK_UPDATE, &mut attributes).map(drop)
    }

    /// Takes the program off its target at once, whoever else has the link open or pinned.
    ///
    /// # Errors
    ///
    /// The link is of a type that cannot (tracing): that one ends with its last descriptor.
    pub fn detach(&self) -> io::Result<()> {
        let mut attributes = number(self.descriptor.as_fd());
        call(LINK_DETACH, &mut attributes).map(drop)
    }

    /// What the kernel says about it.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn info(&self) -> io::Result<LinkInfo> {
        const CGROUP: u32 = 3;
        const TCX: u32 = 11;
        let words: [u32; 8] = info(self.descriptor.as_fd())?;
        let [kind, id, program, _, low, high, ..] = words;
        let target = match kind {
            CGROUP => u64::from(low) | u64::from(high) << 32,
            TCX => low.into(),
            // Others have no target that could go.
            _ => 1,
        };
        Ok(LinkInfo { id, program, target })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What the kernel says about a pinned map.
///
/// # Errors
///
/// There is none, or it is no map.
pub fn pinned_map(path: &Path) -> io::Result<MapInfo> {
    let [kind, _, key, value, entries, flags] = info(open(path)?.as_fd())?;
    Ok(MapInfo { kind, key, value, entries, flags })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Get {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Get { path: path.as_ptr() as u64, descriptor: 0, flags: 0 };
    let descriptor = call(OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel just gave us this descriptor; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn info<const WORDS: usize>(object: BorrowedFd<'_>) -> io::Result<[u32; WORDS]> {
    #[repr(C)]
    struct Info {
        object: u32,
        length: u32,
        info: u64,
    }
    let mut words = [0_u32; WORDS];
    let length = u32::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    let mut attributes = Info { object: number(object), length, info: words.as_mut_ptr() as u64 };
    call(OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(words)
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().unsigned_abs()
}

/// `attributes` is the command's struct: what it points to lives until the call is over.
fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    let attributes: *mut T = attributes;
    // SAFETY: the kernel reads and writes no more than the size that it is told, which is that of the struct; the pointers
    // in it are to values of the callers above, which outlive the call, with their true lengths.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}
