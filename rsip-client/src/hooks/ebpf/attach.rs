//! The programs on a cgroup.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError};
use rsip_ebpf_common::host::programs;
use rsip_sys::tc::{self, EbpfError};

use crate::hooks::pins::Held;

/// Which type a cgroup program is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Sock,
    SockAddr,
}

/// In the order of attachment: who counts comes before who lets pass, so that no bind goes uncounted.
pub(super) const CGROUP_PROGRAMS: [(&str, Kind); 9] = [
    (programs::SOCK_RELEASE, Kind::Sock),
    (programs::POST_BIND4, Kind::Sock),
    (programs::POST_BIND6, Kind::Sock),
    (programs::BIND4, Kind::SockAddr),
    (programs::BIND6, Kind::SockAddr),
    (programs::CONNECT4, Kind::SockAddr),
    (programs::CONNECT6, Kind::SockAddr),
    (programs::SENDMSG4, Kind::SockAddr),
    (programs::SENDMSG6, Kind::SockAddr),
];

pub(super) fn load_program(ebpf: &mut Ebpf, name: &str, kind: Kind) -> Result<(), EbpfError> {
    match kind {
        Kind::Sock => tc::program::<CgroupSock>(ebpf, name)?.load(),
        Kind::SockAddr => tc::program::<CgroupSockAddr>(ebpf, name)?.load(),
    }
    .map_err(|source| program_error(name, source))
}

fn program_error(name: &str, source: ProgramError) -> EbpfError {
    EbpfError::Program { name: name.to_owned(), source: Box::new(source) }
}

/// Attaches a program, or has a predecessor's link at `path` run it.
pub(super) fn hold_program(
    ebpf: &mut Ebpf,
    name: &str,
    kind: Kind,
    cgroup: &File,
    path: Option<&Path>,
) -> Result<Held, ProgramError> {
    let Some(path) = path else { return attach_program(ebpf, name, kind, cgroup).map(Held::Loose) };
    let program = ebpf.program(name).ok_or(ProgramError::NotLoaded)?.fd()?;
    if let Some(held) = Held::take_over(path, program.as_fd()) {
        return Ok(held);
    }
    let link = attach_program(ebpf, name, kind, cgroup)?;
    Held::pin(link, path).map_err(ProgramError::IOError)
}

fn attach_program(ebpf: &mut Ebpf, name: &str, kind: Kind, cgroup: &File) -> Result<FdLink, ProgramError> {
    // Links always allow others beside them; the kernel refuses flags that say so (they are for bpf_prog_attach).
    let mode = CgroupAttachMode::Single;
    let unloaded = |_| ProgramError::NotLoaded;
    let link = match kind {
        Kind::Sock => {
            let program: &mut CgroupSock = tc::program(ebpf, name).map_err(unloaded)?;
            let id = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
        Kind::SockAddr => {
            let program: &mut CgroupSockAddr = tc::program(ebpf, name).map_err(unloaded)?;
            let id = program.attach(cgroup, mode)?;
            FdLink::try_from(program.take_link(id)?)
        }
    };
    link.map_err(|_| ProgramError::NotAttached)
}
