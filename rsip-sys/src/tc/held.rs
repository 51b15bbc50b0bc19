//! What holds a program at an interface, and taking over what a predecessor left there.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifierLink, TcHandle as AyaHandle};
use aya::programs::{ProgramError, SchedClassifier};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use super::Direction;
use crate::bpflink;
use crate::netlink::{Link, Netlink, NetlinkError};

/// What holds a program.
#[derive(Debug)]
pub(super) enum Held {
    /// A link, as long as its descriptor is open; or a filter, as long as the value lives (or the process is killed).
    Loose(SchedClassifierLink),
    /// A link that has a name in a BPF file system, too.
    Pinned(bpflink::Link, PathBuf),
}

impl Held {
    /// Gives a link its name, so that it outlives the process.
    pub(super) fn pin(link: SchedClassifierLink, path: &Path) -> Result<Self, ProgramError> {
        let link = FdLink::try_from(link).map_err(|_| ProgramError::NotAttached)?;
        let failed = |error: std::io::Error| ProgramError::IOError(error);
        link.pin(path).map_err(|error| failed(std::io::Error::other(error)))?;
        Ok(Self::Pinned(bpflink::Link::open(path).map_err(failed)?, path.to_owned()))
    }

    /// Has the pinned link of a predecessor run this program from now on. `None`: there is none that serves the interface;
    /// whatever had its name is gone then.
    pub(super) fn take_over(path: &Path, program: &SchedClassifier, interface: u32) -> Option<Self> {
        let link = bpflink::Link::open(path).ok();
        let serves = |link: &bpflink::Link| link.info().is_ok_and(|info| info.target == u64::from(interface));
        if let Some(link) = link.filter(serves)
            && let Ok(program) = program.fd()
        {
            match link.update(std::os::fd::AsFd::as_fd(program)) {
                Ok(()) => return Some(Self::Pinned(link, path.to_owned())),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a predecessor's link takes no other program");
                    drop(link.detach());
                }
            }
        }
        drop(fs::remove_file(path));
        None
    }

    /// Whether it holds the program at this interface, as far as can be told.
    pub(super) fn serves(&self, interface: u32) -> bool {
        match self {
            Self::Loose(_) => true,
            Self::Pinned(link, _) => link.info().is_ok_and(|info| info.target == u64::from(interface)),
        }
    }

    /// Takes the program off.
    pub(super) fn detach(self) -> Result<(), ProgramError> {
        match self {
            Self::Loose(link) => aya::programs::links::Link::detach(link),
            Self::Pinned(link, path) => {
                drop(fs::remove_file(path));
                match link.detach() {
                    // The interface has gone, and taken the program with it.
                    Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
                        Err(ProgramError::IOError(error))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Filters of a name at an interface, as they can be removed one by one.
pub(super) async fn filters_of(
    netlink: &Netlink,
    interface: &Link,
    direction: Direction,
    name: &str,
) -> Result<Vec<SchedClassifierLink>, NetlinkError> {
    let Ok(index) = i32::try_from(interface.index) else { return Ok(Vec::new()) };
    let request = netlink.handle().traffic_filter(index).get();
    let request = match direction {
        Direction::Ingress => request.ingress(),
        Direction::Egress => request.egress(),
    };
    let filters: Vec<TcMessage> =
        request.execute().try_collect().await.map_err(|e| {
            NetlinkError::new(format!("list the {direction} filters of {}", interface.name), e)
        })?;
    let ours =
        filters.iter().filter(|filter| filter.attributes.iter().any(|attribute| is_named(attribute, name)));
    Ok(ours
        .filter_map(|filter| {
            // Priority and protocol share a word.
            let priority = u16::try_from(filter.header.info >> 16).ok()?;
            let handle = AyaHandle::new(filter.header.handle.major, filter.header.handle.minor);
            SchedClassifierLink::attached(&interface.name, direction.into(), priority, handle, None).ok()
        })
        .collect())
}

fn is_named(attribute: &TcAttribute, name: &str) -> bool {
    let TcAttribute::Options(options) = attribute else { return false };
    options
        .iter()
        .any(|option| matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(found)) if found == name))
}
