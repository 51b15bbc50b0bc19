//! What of the hooks outlives the agent, and where.
//!
//! ```text
//!   /sys/fs/bpf/rsip/COOKIE/            the network namespace (SO_NETNS_COOKIE)
//!       maps-LAYOUT/NAME                every map of the object
//!       links/hook-CGROUP-PROGRAM       a program on a cgroup
//!       links/sender-PROGRAM            who sends the signals for waiting binds
//!       links/tunnel-IFINDEX-PROGRAM    a program at an interface
//! ```
//!
//! A killed agent leaves all of it at work. The next one uses the maps on, and has the links run its own programs: each
//! is exchanged in place, and nobody is counted twice or not at all, since the old program and the new one count in the
//! same maps. Maps of another layout are begun anew, those of the old one go when their last program has gone.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use rsip_ebpf_common::host::LAYOUT;
use rsip_sys::bpffs::{self, BpfFsError, PinFolder};
use rsip_sys::bpflink::{Link, LinkInfo};

/// The folder of all agents of the machine.
const BASE: &str = "rsip";
const LINKS: &str = "links";
const MAPS: &str = "maps-";

/// The pins of one network namespace.
#[derive(Debug)]
pub struct Pins {
    folder: PinFolder,
    maps: PathBuf,
    links: PathBuf,
    taken_over: bool,
}

impl Pins {
    /// Makes the folder, or finds that of a predecessor.
    ///
    /// # Errors
    ///
    /// Nothing can be pinned here.
    pub fn open(netns_cookie: u64) -> Result<Self, BpfFsError> {
        let folder = PinFolder::make(BASE, &netns_cookie.to_string())?;
        let maps = folder.subfolder(&maps_folder())?;
        let links = folder.subfolder(LINKS)?;
        let taken_over = !bpffs::names(&links).is_empty();
        Ok(Self { folder, maps, links, taken_over })
    }

    /// Whether a predecessor has left its programs at work.
    pub const fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// Where the maps are.
    pub fn maps(&self) -> &Path {
        &self.maps
    }

    /// Where the link of a program at an interface is.
    pub fn tunnel(&self, interface: u32, program: &str) -> PathBuf {
        self.links.join(format!("tunnel-{interface}-{program}"))
    }

    /// Where the link of a program on a cgroup is.
    pub fn hook(&self, cgroup: u64, program: &str) -> PathBuf {
        self.links.join(format!("hook-{cgroup}-{program}"))
    }

    /// Where the link of a sender is.
    pub fn sender(&self, program: u32) -> PathBuf {
        self.links.join(format!("sender-{program}"))
    }

    /// Takes off what a predecessor has left and this agent has not taken over: hooks first, then who sends the signals
    /// for them; its maps, if they are of another layout.
    pub fn let_go_of_all_but(&self, ours: &[PathBuf]) {
        for name in in_order(bpffs::names(&self.links)) {
            let path = self.links.join(&name);
            if !ours.contains(&path) {
                tracing::info!(link = %name, "of the last agent: taken off");
                take_off(&path);
            }
        }
        let current = maps_folder();
        for name in bpffs::names(self.folder.path()) {
            if name.starts_with(MAPS) && name != current {
                tracing::info!(maps = %name, "of another layout: removed");
                if let Err(error) = fs::remove_dir_all(self.folder.path().join(&name)) {
                    tracing::warn!(maps = %name, %error, "cannot be removed");
                }
            }
        }
    }

    /// Takes off whatever is pinned, and removes the folder.
    ///
    /// # Errors
    ///
    /// What cannot be removed.
    pub fn remove(&self) -> Result<(), BpfFsError> {
        for name in in_order(bpffs::names(&self.links)) {
            take_off(&self.links.join(name));
        }
        self.folder.remove()
    }
}

/// Removes what a dead agent has pinned for this network namespace. `false`: there was nothing.
///
/// # Errors
///
/// What cannot be removed.
pub fn remove_leftovers(netns_cookie: u64) -> Result<bool, BpfFsError> {
    let Some(folder) = PinFolder::existing(BASE, &netns_cookie.to_string()) else { return Ok(false) };
    let links = folder.path().join(LINKS);
    let pins = Pins { maps: folder.path().join(maps_folder()), folder, links, taken_over: true };
    pins.remove().map(|()| true)
}

/// Whether a dead agent has left hooks at work in this network namespace.
pub fn are_left(netns_cookie: u64) -> bool {
    PinFolder::existing(BASE, &netns_cookie.to_string())
        .is_some_and(|folder| !bpffs::names(&folder.path().join(LINKS)).is_empty())
}

/// A start that fails leaves nothing, unless there was something before it.
impl Drop for Pins {
    fn drop(&mut self) {
        if !self.taken_over
            && !std::thread::panicking()
            && let Err(error) = self.remove()
        {
            tracing::warn!(%error, "what is pinned stays");
        }
    }
}

fn maps_folder() -> String {
    format!("{MAPS}{LAYOUT}")
}

/// Who makes binds wait goes before who sends the signals for them, and who lets pass before who counts.
fn in_order(mut names: Vec<String>) -> Vec<String> {
    let rank = |name: &str| match name {
        _ if name.starts_with("sender-") => 3,
        _ if name.starts_with("tunnel-") => 2,
        _ if name.contains("post_bind") || name.ends_with("release") => 1,
        _ => 0,
    };
    names.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
    names
}

/// Detaches at once where the kernel can; else the program goes with its last descriptor.
fn take_off(path: &Path) {
    let link = Link::open(path);
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot unpin");
    }
    if let Ok(link) = link
        && let Err(error) = link.detach()
    {
        tracing::debug!(path = %path.display(), %error, "ends with its last descriptor");
    }
}

/// What holds a program on a cgroup.
#[derive(Debug)]
pub enum Held {
    /// As long as its descriptor is open.
    Loose(FdLink),
    /// As long as it has its name.
    Pinned(Link, PathBuf),
}

impl Held {
    /// Has the link of a predecessor run this program from now on. `None`: there is none that serves the cgroup.
    pub fn take_over(path: &Path, program: BorrowedFd<'_>) -> Option<Self> {
        let link = Link::open(path).ok();
        let serves = |link: &Link| link.info().is_ok_and(|info| info.target != 0);
        if let Some(link) = link.filter(serves) {
            match link.update(program) {
                Ok(()) => return Some(Self::Pinned(link, path.to_owned())),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the last agent's link takes no other program");
                }
            }
        }
        take_off(path);
        None
    }

    /// Gives a link its name.
    ///
    /// # Errors
    ///
    /// The file system does not take it.
    pub fn pin(link: FdLink, path: &Path) -> io::Result<Self> {
        link.pin(path).map_err(io::Error::other)?;
        Ok(Self::Pinned(Link::open(path)?, path.to_owned()))
    }

    /// Its name, where it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Loose(_) => None,
            Self::Pinned(_, path) => Some(path),
        }
    }

    /// What the kernel says about a pinned one.
    pub fn info(&self) -> Option<LinkInfo> {
        match self {
            Self::Loose(_) => None,
            Self::Pinned(link, _) => link.info().ok(),
        }
    }

    /// Takes the program off.
    pub fn detach(self) {
        match self {
            Self::Loose(link) => drop(link),
            Self::Pinned(_, path) => take_off(&path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_the_signals_goes_last() {
        let names = ["sender-7", "hook-1-rsip_release", "tunnel-3-rsip_tun_out", "hook-1-rsip_post_bind4"];
        let names = names.into_iter().chain(["hook-1-rsip_bind4", "what-is-this"]).map(str::to_owned);
        let ordered = in_order(names.collect());
        let at = |name: &str| ordered.iter().position(|found| found == name).expect("it is there");
        assert_eq!(at("sender-7"), ordered.len() - 1);
        assert!(at("hook-1-rsip_bind4") < at("hook-1-rsip_post_bind4"));
        assert!(at("what-is-this") < at("sender-7"));
    }
}
