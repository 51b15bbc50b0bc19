//! The embedded eBPF object: loading it, and taking programs and maps out of it.

use std::path::Path;

use aya::Ebpf;
use aya::programs::{ProgramError, SchedClassifier};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::METHOD_VARIABLE;
use crate::bpflink;
use crate::netlink::NetlinkError;

/// Why the eBPF programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// The daemon was built before the programs were.
    #[error("built without its eBPF programs: run `cargo xtask build-ebpf`, then build again")]
    NotBuilt,
    /// The kernel takes neither object nor maps.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[from] Box<aya::EbpfError>),
    /// The object is of another version than the daemon.
    #[error("the eBPF object has no {what} {name}: it is not of this version")]
    Missing {
        /// "program" or "map".
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The kernel does not take a program.
    #[error("cannot load eBPF program {name}: {source}")]
    Program {
        /// Its name.
        name: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The kernel does not attach a program.
    #[error("cannot attach eBPF program {name} to {target}: {source}")]
    Attach {
        /// Its name.
        name: String,
        /// Interface or cgroup.
        target: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// [`METHOD_VARIABLE`] says something else than it may.
    #[error("{METHOD_VARIABLE}={0:?}: must be tcx or clsact")]
    Method(String),
    /// The queueing discipline could not be looked at or removed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Loads the object and makes its maps; no program is loaded or attached yet.
///
/// # Errors
///
/// [`EbpfError::NotBuilt`] for an empty object; else what the kernel says.
pub fn load_object(object: &[u8]) -> Result<Ebpf, EbpfError> {
    load_object_sized(object, &[])
}

/// As [`load_object`], with other numbers of entries for the maps named.
///
/// # Errors
///
/// As [`load_object`].
pub fn load_object_sized(object: &[u8], sizes: &[(&str, u32)]) -> Result<Ebpf, EbpfError> {
    if object.is_empty() {
        return Err(EbpfError::NotBuilt);
    }
    raise_memlock();
    let mut loader = aya::EbpfLoader::new();
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    loader.load(object).map_err(|error| EbpfError::Load(Box::new(error)))
}

/// As [`load_object`], with maps that are pinned in a folder of a BPF file system under their names. A map that is there and
/// of the same kind and sizes is used on with what is in it; one that differs is replaced by an empty one. Gives the names
/// of those that were used on.
///
/// # Errors
///
/// As [`load_object`]; also where the folder does not take a pin.
pub fn load_object_pinned(object: &[u8], folder: &Path) -> Result<(Ebpf, Vec<String>), EbpfError> {
    if object.is_empty() {
        return Err(EbpfError::NotBuilt);
    }
    raise_memlock();
    let parsed = aya_obj::Object::parse(object).map_err(|error| EbpfError::Load(Box::new(error.into())))?;
    let mut loader = aya::EbpfLoader::new();
    let mut used_on = Vec::new();
    // Names with a dot are the compiler's: constants, which belong to the programs.
    for (name, map) in parsed.maps.iter().filter(|(name, _)| !name.starts_with('.')) {
        let path = folder.join(name);
        match bpflink::pinned_map(&path) {
            Ok(pinned) if fits(&pinned, map) => used_on.push(name.clone()),
            Ok(pinned) => {
                tracing::info!(map = %name, ?pinned, "of another version: begun anew");
                replaceable(std::fs::remove_file(&path))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(map = %name, %error, "what is pinned under its name is no map: removed");
                replaceable(std::fs::remove_file(&path))?;
            }
        }
        loader.map_pin_path(name, path);
    }
    let ebpf = loader.load(object).map_err(|error| EbpfError::Load(Box::new(error)))?;
    Ok((ebpf, used_on))
}

fn replaceable(removed: std::io::Result<()>) -> Result<(), EbpfError> {
    removed.map_err(|error| {
        EbpfError::Load(Box::new(aya::EbpfError::FileError { path: "pinned map".into(), error }))
    })
}

/// Whether a pinned map is what the object wants.
fn fits(pinned: &bpflink::MapInfo, wanted: &aya_obj::Map) -> bool {
    const RING_BUFFER: u32 = 27;
    let shape = (pinned.kind, pinned.key, pinned.value)
        == (wanted.map_type(), wanted.key_size(), wanted.value_size());
    // The size of a ring is made to fit the machine's pages.
    shape
        && (pinned.kind == RING_BUFFER
            || (pinned.entries, pinned.flags) == (wanted.max_entries(), wanted.map_flags()))
}

/// Loads a program for [`super::attach`], so that a kernel that does not take it is found out before anything is touched.
///
/// # Errors
///
/// The object has no such program, or the kernel does not take it.
pub fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), EbpfError> {
    let program: &mut SchedClassifier = program(ebpf, name)?;
    program.load().map_err(|source| EbpfError::Program { name: name.to_owned(), source: Box::new(source) })
}

/// Before Linux 5.11 maps and programs count against RLIMIT_MEMLOCK, 64 KiB by default. Where it cannot be raised, and
/// matters, loading says so.
fn raise_memlock() {
    if let Err(errno) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%errno, "RLIMIT_MEMLOCK stays");
    }
}

/// A program of the object, by name and type.
///
/// # Errors
///
/// The object has no such program, or it is of another type.
pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, EbpfError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or_else(|| EbpfError::Missing { what: "program", name: name.to_owned() })?
        .try_into()
        .map_err(|source| EbpfError::Program { name: name.to_owned(), source: Box::new(source) })
}

/// Takes a map out of the object, by name and type.
///
/// # Errors
///
/// The object has no such map, or it is of another type.
pub fn take_map<M>(ebpf: &mut Ebpf, name: &str) -> Result<M, EbpfError>
where
    M: TryFrom<aya::maps::Map>,
{
    ebpf.take_map(name)
        .and_then(|map| map.try_into().ok())
        .ok_or_else(|| EbpfError::Missing { what: "map", name: name.to_owned() })
}
