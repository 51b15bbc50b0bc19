//! The eBPF objects by themselves, without the daemons that use them.
//!
//! tc programs run on packets that a test writes down ([`run`], [`packet`]); programs of cgroup hooks have no such test
//! run in the kernel and get real sockets, in a throw-away cgroup and network namespace ([`host`]).

pub mod cgroup;
pub mod host;
pub mod packet;
pub mod program;
pub mod tun;

use std::path::{Path, PathBuf};

use aya::maps::{Map, MapError, PerCpuArray};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfError, EbpfLoader};

/// Names the folder of the objects; unset: where `cargo xtask build-ebpf` puts them.
pub const FOLDER_VARIABLE: &str = "RSIP_BPF_DIR";

/// Longest packet that a program may leave behind in a test run.
const ROOM: usize = 4096;

/// Result of a function of this module.
pub type Result<T, E = BpfError> = std::result::Result<T, E>;

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// Not built.
    #[error("cannot read {}: {source}: run `cargo xtask build-ebpf`", path.display())]
    Missing {
        /// The object.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel or the object's form.
    #[error("cannot load the object: {0}")]
    Load(#[from] EbpfError),
    /// No such program or map, or one of another type.
    #[error("the object has no fitting {0}")]
    Absent(String),
    /// A program.
    #[error("{name}: {source}")]
    Program {
        /// Its name.
        name: String,
        /// Why.
        source: ProgramError,
    },
    /// A map.
    #[error("map: {0}")]
    Map(#[from] MapError),
    /// Something else of the system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The throw-away cgroup.
    #[error("cgroup {}: {source}", path.display())]
    Cgroup {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The folder of the objects.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER_VARIABLE)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf"), PathBuf::from)
}

/// Reads an object and makes its maps, those named with another number of entries.
///
/// # Errors
/// Where it is not built or the kernel does not take its maps.
pub fn load(object: &str, sizes: &[(&str, u32)]) -> Result<Ebpf> {
    let path = folder().join(object);
    let bytes = std::fs::read(&path).map_err(|source| BpfError::Missing { path, source })?;
    let mut loader = EbpfLoader::new();
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    Ok(loader.load(&bytes)?)
}

/// A program by name and type.
///
/// # Errors
/// [`BpfError::Absent`].
pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| BpfError::Absent(format!("program {name}")))
}

/// Takes a map out by name and type.
///
/// # Errors
/// [`BpfError::Absent`].
pub fn map<M: TryFrom<Map>>(ebpf: &mut Ebpf, name: &str) -> Result<M> {
    ebpf.take_map(name)
        .and_then(|map| map.try_into().ok())
        .ok_or_else(|| BpfError::Absent(format!("map {name}")))
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program answered (`TC_ACT_*`).
    pub action: i32,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
}

/// Runs a tc program on a packet that begins with its Ethernet header. Nothing is sent.
///
/// # Errors
/// Where the kernel does not run it.
pub fn run(program: &SchedClassifier, packet: &[u8]) -> Result<Outcome> {
    let mut out = vec![0; ROOM];
    let options =
        TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::default() };
    let result =
        program.test_run(options).map_err(|source| BpfError::Program { name: "test run".into(), source })?;
    out.truncate(result.data_size_out as usize);
    Ok(Outcome { action: result.return_value.cast_signed(), packet: out })
}

/// All of a counter map, summed over the CPUs.
///
/// # Errors
/// Where it cannot be read.
pub fn counters<const N: usize>(
    map: &PerCpuArray<impl std::borrow::Borrow<aya::maps::MapData>, u64>,
) -> Result<[u64; N]> {
    let mut sums = [0; N];
    for (sum, index) in sums.iter_mut().zip(0..) {
        *sum = map.get(&index, 0)?.iter().sum();
    }
    Ok(sums)
}
