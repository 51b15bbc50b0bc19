//! The embedded eBPF object, and its traffic control programs on interfaces.
//!
//! Kernels from 6.6 on attach by tcx link: the program leaves the interface when the link's descriptor is closed, so a
//! dead daemon leaves nothing behind. Older kernels need a `clsact` queueing discipline and a filter, which stay: the
//! filter carries the program's name, so that the next start ([`remove_leftovers`]) finds and removes it.

mod held;
mod object;

pub use object::{
    EbpfError, load_object, load_object_pinned, load_object_sized, load_program, program, take_map,
};

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcError as AyaTcError};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use self::held::Held;
use crate::netlink::{Link, Netlink, NetlinkError};

/// Set to `clsact` or `tcx` to have nothing else; unset or empty: what the kernel has.
pub const METHOD_VARIABLE: &str = "RSIP_TC";

/// Which packets of an interface a program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that come in.
    Ingress,
    /// Those that go out.
    Egress,
}

/// How a program is held at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By a link (Linux 6.6).
    Tcx,
    /// By a filter of the `clsact` queueing discipline (Linux 4.5).
    Clsact,
}

impl Method {
    /// What the environment forces, if anything.
    ///
    /// # Errors
    ///
    /// [`EbpfError::Method`].
    pub fn forced() -> Result<Option<Self>, EbpfError> {
        match std::env::var(METHOD_VARIABLE) {
            Ok(value) if !value.is_empty() => value.parse().map(Some),
            _ => Ok(None),
        }
    }
}

/// A program at an interface. Dropping it takes the program off unless it is pinned, but leaves a `clsact` that was added
/// for it: [`Attachment::detach`] removes both.
#[derive(Debug)]
pub struct Attachment {
    link: Held,
    interface: Link,
    method: Method,
    program: String,
    added_clsact: bool,
}

impl Attachment {
    /// How it is held.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The interface, as it was when the program came.
    #[must_use]
    pub const fn interface(&self) -> &Link {
        &self.interface
    }

    /// Whether the program is still there, as far as the kernel tells (pinned links only): it goes with its interface.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.link.serves(self.interface.index)
    }

    /// Takes the program off the interface, and the `clsact` if it was added for our programs and serves no other. An
    /// interface that is gone has taken everything with it: no error.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn detach(self, netlink: &Netlink) -> Result<(), EbpfError> {
        let gone = match netlink.link_by_index(self.interface.index).await {
            Ok(_) => false,
            Err(NetlinkError::NoSuchInterface(_)) => true,
            Err(error) => return Err(error.into()),
        };
        let outcome = self.link.detach();
        if gone {
            return Ok(());
        }
        outcome.map_err(|source| EbpfError::Attach {
            name: self.program,
            target: self.interface.name.clone(),
            source: Box::new(source),
        })?;
        if self.added_clsact {
            remove_unused_clsact(netlink, &self.interface).await?;
        }
        Ok(())
    }
}

/// Puts a program of the object on an interface; loads it before, if that was not done.
///
/// # Errors
///
/// The program does not exist, or the kernel does not take it.
pub async fn attach(
    ebpf: &mut Ebpf,
    netlink: &Netlink,
    name: &str,
    interface: &Link,
    direction: Direction,
    forced: Option<Method>,
) -> Result<Attachment, EbpfError> {
    attach_pinned(ebpf, netlink, name, interface, direction, (forced, None)).await
}

/// As [`attach`], with a link that outlives the process under the path given. What a predecessor has left there, under that
/// path or as a filter of the program's name, is taken over without a moment in which no program runs.
///
/// # Errors
///
/// As [`attach`]; also where the link cannot be pinned.
pub async fn attach_pinned(
    ebpf: &mut Ebpf,
    netlink: &Netlink,
    name: &str,
    interface: &Link,
    direction: Direction,
    (forced, pin): (Option<Method>, Option<&Path>),
) -> Result<Attachment, EbpfError> {
    let program: &mut SchedClassifier = program(ebpf, name)?;
    if program.fd().is_err() {
        program
            .load()
            .map_err(|source| EbpfError::Program { name: name.to_owned(), source: Box::new(source) })?;
    }
    let failed = |source: ProgramError| EbpfError::Attach {
        name: name.to_owned(),
        target: format!("{} ({direction})", interface.name),
        source: Box::new(source),
    };
    let finish = |link, method, added_clsact| Attachment {
        link,
        interface: interface.clone(),
        method,
        program: name.to_owned(),
        added_clsact,
    };
    if forced != Some(Method::Clsact) {
        if let Some(held) = pin.and_then(|path| Held::take_over(path, program, interface.index)) {
            return Ok(finish(held, Method::Tcx, false));
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        match program.attach_with_options(&interface.name, direction.into(), options) {
            Ok(id) => {
                let link = program.take_link(id).map_err(failed)?;
                let held = match pin {
                    Some(path) => Held::pin(link, path).map_err(failed)?,
                    None => Held::Loose(link),
                };
                return Ok(finish(held, Method::Tcx, false));
            }
            Err(error) if forced.is_none() && lacks_tcx(&error) => {
                tracing::debug!(interface = interface.name, program = name, "no tcx links: using clsact");
            }
            Err(error) => return Err(failed(error)),
        }
    }
    let added_clsact = add_clsact(netlink, interface).await.map_err(|source| match source {
        AddClsact::Look(error) => EbpfError::Netlink(error),
        AddClsact::Add(error) => failed(error.into()),
    })?;
    let old = match pin {
        Some(_) => held::filters_of(netlink, interface, direction, name).await?,
        None => Vec::new(),
    };
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let attached = program
        .attach_with_options(&interface.name, direction.into(), options)
        .and_then(|id| program.take_link(id));
    match attached {
        Ok(link) => {
            let takes_over = !old.is_empty();
            // The new one stands before the old ones, which see no packet any more.
            drop(old);
            Ok(finish(Held::Loose(link), Method::Clsact, added_clsact || takes_over))
        }
        Err(error) => {
            if added_clsact {
                remove_unused_clsact(netlink, interface).await?;
            }
            Err(failed(error))
        }
    }
}

/// Removes filters of these names that a dead predecessor left on an interface, and the `clsact` if nothing else uses
/// it. Other people's filters stay.
///
/// # Errors
///
/// The kernel refuses.
pub async fn remove_leftovers(
    netlink: &Netlink,
    interface: &Link,
    programs: &[(&str, Direction)],
) -> Result<(), EbpfError> {
    if clsact_of(netlink, interface).await?.is_none() {
        return Ok(());
    }
    let mut found = false;
    for (name, direction) in programs {
        match tc::qdisc_detach_program(&interface.name, (*direction).into(), name) {
            Ok(()) => found = true,
            Err(AyaTcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(EbpfError::Attach {
                    name: (*name).to_owned(),
                    target: interface.name.clone(),
                    source: Box::new(source.into()),
                });
            }
        }
    }
    if found {
        tracing::info!(interface = interface.name, "removed the filters of a predecessor");
        remove_unused_clsact(netlink, interface).await?;
    }
    Ok(())
}

/// EINVAL: the kernel does not know the attach type (before 6.6). EOPNOTSUPP, ENOTSUPP (524): built without.
fn lacks_tcx(error: &ProgramError) -> bool {
    const ENOTSUPP: i32 = 524;
    let ProgramError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}

enum AddClsact {
    Look(NetlinkError),
    Add(AyaTcError),
}

/// Makes sure that the interface has a `clsact`; tells whether it was added now.
async fn add_clsact(netlink: &Netlink, interface: &Link) -> Result<bool, AddClsact> {
    if clsact_of(netlink, interface).await.map_err(AddClsact::Look)?.is_some() {
        return Ok(false);
    }
    tc::qdisc_add_clsact(&interface.name).map_err(AddClsact::Add)?;
    Ok(true)
}

async fn clsact_of(netlink: &Netlink, interface: &Link) -> Result<Option<TcMessage>, NetlinkError> {
    let Ok(index) = i32::try_from(interface.index) else { return Ok(None) };
    let qdiscs: Vec<TcMessage> =
        netlink.handle().qdisc().get().index(index).execute().try_collect().await.map_err(|e| {
            NetlinkError::new(format!("list the queueing disciplines of {}", interface.name), e)
        })?;
    Ok(qdiscs.into_iter().find(|qdisc| {
        qdisc.header.index == index
            && qdisc.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(kind) if kind == "clsact"))
    }))
}

async fn remove_unused_clsact(netlink: &Netlink, interface: &Link) -> Result<(), EbpfError> {
    if clsact_of(netlink, interface).await?.is_none() || has_filters(netlink, interface).await? {
        return Ok(());
    }
    let Ok(index) = i32::try_from(interface.index) else { return Ok(()) };
    let mut request = netlink.handle().qdisc().del(index);
    request.message_mut().header.parent = TcHandle::CLSACT;
    match request.execute().await {
        Ok(()) => Ok(()),
        Err(error) => {
            let error = NetlinkError::new(format!("remove clsact from {}", interface.name), error);
            if error.is_missing() { Ok(()) } else { Err(error.into()) }
        }
    }
}

async fn has_filters(netlink: &Netlink, interface: &Link) -> Result<bool, NetlinkError> {
    let Ok(index) = i32::try_from(interface.index) else { return Ok(false) };
    for direction in [Direction::Ingress, Direction::Egress] {
        let request = netlink.handle().traffic_filter(index).get();
        let request = match direction {
            Direction::Ingress => request.ingress(),
            Direction::Egress => request.egress(),
        };
        let filters: Vec<TcMessage> = request.execute().try_collect().await.map_err(|e| {
            NetlinkError::new(format!("list the {direction} filters of {}", interface.name), e)
        })?;
        if !filters.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl From<Direction> for TcAttachType {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

impl FromStr for Method {
    type Err = EbpfError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tcx" => Ok(Self::Tcx),
            "clsact" => Ok(Self::Clsact),
            other => Err(EbpfError::Method(other.to_owned())),
        }
    }
}
