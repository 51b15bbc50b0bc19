//! The network that everything happens in.

use std::fs;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::error::{IoContext, LabError, Result};
use super::exec;
use super::link;
use super::netns::{self, Inside, NamesFolder, Netns};
use super::wait::{self, Look};

/// The internet host.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The gateway's public address; what it leases.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway's private address; where it listens for RSIP.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The gateway's public interface.
pub const EXTERNAL_IF: &str = "ext0";
/// The gateway's private interface.
pub const INTERNAL_IF: &str = "int0";
/// The interface of every other host.
pub const HOST_IF: &str = "eth0";

/// Every namespace and folder of a lab starts with this.
pub const PREFIX: &str = "rsip-";
/// In the folder of a lab: `/run/netns` is to be taken away with it.
const NAMES_MARK: &str = "names-folder-is-ours";
/// How long one lab waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(600);

/// A private host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// 10.77.0.2.
    A,
    /// 10.77.0.3.
    B,
}

impl Host {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// Its private address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::A => Ipv4Addr::new(10, 77, 0, 2),
            Self::B => Ipv4Addr::new(10, 77, 0, 3),
        }
    }

    /// Its name in messages, and the end of its namespace's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "host-a",
            Self::B => "host-b",
        }
    }
}

/// Five network namespaces, joined by virtual cables:
///
/// ```text
///   internet            gateway                lan              host-a
///  +--------+        +------------+        +----------+       +--------+
///  |   eth0 |--------| ext0  int0 |--------| gw  br0 a|-------| eth0   | 10.77.0.2
///  +--------+        +------------+        |         b|---+   +--------+
///  198.51.100.2   198.51.100.1  10.77.0.1  +----------+   |     host-b
///                                                         |   +--------+
///                                                         +---| eth0   | 10.77.0.3
///                                                             +--------+
/// ```
///
/// The hosts' default route is the gateway, which forwards, as in any private network. The internet host has no route
/// to 10.77.0.0/24: what is sent with a private source gets no answer, so whatever works, works by a lease.
///
/// One lab runs on a machine at a time, since the daemons' eBPF programs are seen by the whole machine.
#[derive(Debug)]
pub struct Lab {
    id: String,
    folder: PathBuf,
    /// The internet host.
    pub internet: Netns,
    /// The gateway.
    pub gateway: Netns,
    /// The switch of the private network.
    pub lan: Netns,
    a: Netns,
    b: Netns,
    keep: bool,
    // Dropped after the namespaces, and before somebody else has a turn.
    names: NamesFolder,
    _turn: UnixListener,
}

impl Lab {
    /// A lab for one test.
    ///
    /// # Errors
    /// [`LabError::NotRoot`], [`LabError::Busy`] where another lab does not end within ten minutes, and whatever the
    /// system refuses.
    pub fn new() -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        Self::with_id(&format!("{}x{number}", std::process::id()))
    }

    /// A lab with a name of its own; one that is left of the same name is removed first.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_id(id: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let turn = take_turn()?;
        remove(id)?;
        remove_orphans()?;
        let folder = folder(id);
        fs::create_dir(&folder).cannot(|| format!("make {}", folder.display()))?;
        let names = NamesFolder::find()?;
        if names.is_ours() {
            // For `remove`, where nobody is left to drop this value.
            let mark = folder.join(NAMES_MARK);
            fs::write(&mark, "").cannot(|| format!("write {}", mark.display()))?;
        }
        let named = |part: &str| Netns::new(&format!("{PREFIX}{id}-{part}"));
        // Where one of these fails, those before clean up by being dropped.
        let lab = Self {
            id: id.to_owned(),
            internet: named("internet")?,
            gateway: named("gateway")?,
            lan: named("lan")?,
            a: named(Host::A.name())?,
            b: named(Host::B.name())?,
            folder,
            keep: false,
            names,
            _turn: turn,
        };
        lab.connect()?;
        lab.settle()?;
        Ok(lab)
    }

    fn connect(&self) -> Result<()> {
        link::cable((&self.internet, HOST_IF), (&self.gateway, EXTERNAL_IF))?;
        link::address((&self.internet, HOST_IF), &format!("{INTERNET}/24"))?;
        link::address((&self.gateway, EXTERNAL_IF), &format!("{PUBLIC}/24"))?;
        link::cable((&self.gateway, INTERNAL_IF), (&self.lan, "gw"))?;
        link::address((&self.gateway, INTERNAL_IF), &format!("{GATEWAY}/24"))?;
        for (host, port) in [(Host::A, "a"), (Host::B, "b")] {
            let netns = self.host(host);
            link::cable((netns, HOST_IF), (&self.lan, port))?;
            link::address((netns, HOST_IF), &format!("{}/24", host.address()))?;
            netns.ip(&["route", "add", "default", "via", &GATEWAY.to_string()])?;
        }
        link::switch(&self.lan, "br0", &["gw", "a", "b"])?;
        self.gateway.sysctl("net/ipv4/ip_forward", "1")
    }

    /// Waits until every interface is in operation and has the address that IPv6 gives it: from then on nothing changes
    /// by itself.
    fn settle(&self) -> Result<()> {
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        wait::until("the lab's interfaces to come up", exec::SHORT, || {
            for netns in self.all() {
                let text = netns.ip(&["-json", "address", "show"])?;
                // `ip` prints nothing when what it reads changes under its hands.
                if text.trim().is_empty() {
                    return Ok(Look::NotYet(format!("the addresses of {} change", netns.name())));
                }
                let links: Value = serde_json::from_str(&text).cannot(|| "read the addresses".into())?;
                for link in links.as_array().into_iter().flatten() {
                    let has_ipv6 = || {
                        let mut all = link["addr_info"].as_array().into_iter().flatten();
                        all.any(|address| address["family"] == "inet6")
                    };
                    if link["ifname"] != "lo" && (link["operstate"] != "UP" || ipv6 && !has_ipv6()) {
                        return Ok(Look::NotYet(format!("{} of {}: {link}", link["ifname"], netns.name())));
                    }
                }
            }
            Ok(Look::Ready(()))
        })
    }

    /// The namespace of a private host.
    #[must_use]
    pub fn host(&self, host: Host) -> &Inside {
        match host {
            Host::A => &self.a,
            Host::B => &self.b,
        }
    }

    /// All namespaces.
    #[must_use]
    pub fn all(&self) -> [&Inside; 5] {
        [&self.internet, &self.gateway, &self.lan, &self.a, &self.b]
    }

    /// A folder for configuration, logs and captures. It goes with the lab.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A folder below [`Self::folder`], made if it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).cannot(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// The last lines of every log in the lab's folder and below.
    #[must_use]
    pub fn log_tails(&self, lines: usize) -> String {
        let mut text = String::new();
        for log in logs(&self.folder) {
            let bytes = fs::read(&log).unwrap_or_default();
            let content = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = content.lines().collect();
            let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
            text += &format!("--- {}\n{}\n", log.display(), tail.join("\n"));
        }
        text
    }

    /// From now on dropping leaves everything in place, for a person to look around; [`remove`] takes it away.
    pub fn keep(&mut self) {
        self.keep = true;
        self.names.leave();
        for netns in [&mut self.internet, &mut self.gateway, &mut self.lan, &mut self.a, &mut self.b] {
            netns.keep();
        }
    }

    /// What [`remove`] takes to remove this lab.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails(40));
        }
        if self.keep {
            return;
        }
        // The folder goes last: processes in the namespaces may still write to it.
        for netns in self.all() {
            if let Err(error) = netns.end_processes() {
                eprintln!("lab: {error}");
            }
        }
        if let Err(error) = remove_folder(&self.folder) {
            eprintln!("lab: {error}");
        }
    }
}

/// Files that end in `.log`, sorted.
fn logs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(logs(&path));
        } else if path.extension().is_some_and(|ending| ending == "log") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Removes what is left of a lab whose owner is gone, or was told to keep it. Says how many namespaces there were.
///
/// # Errors
/// Where something cannot be removed.
pub fn remove(id: &str) -> Result<usize> {
    let folder = folder(id);
    let _names = folder.join(NAMES_MARK).exists().then(NamesFolder::inherited);
    let count = netns::remove_all(&format!("{PREFIX}{id}-"))?;
    remove_folder(&folder)?;
    Ok(count)
}

/// Labs carry their owner's process ID: where there is no such process any more, nobody else will clean up.
fn remove_orphans() -> Result<()> {
    let mut ids: Vec<String> = Vec::new();
    for name in netns::names(PREFIX)? {
        let Some(id) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        let Some(owner) = id.split_once('x').and_then(|(pid, _)| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            ids.push(id.to_owned());
        }
    }
    ids.dedup();
    ids.iter().try_for_each(|id| remove(id).map(drop))
}

/// Waits until no other lab runs. The name is free again as soon as its holder ends, in whatever way.
fn take_turn() -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name("rsip-lab").cannot(|| "name the lab's turn".into())?;
    let mut told = false;
    let turn = wait::until("another lab to end", PATIENCE, || match UnixListener::bind_addr(&name) {
        Ok(turn) => Ok(Look::Ready(turn)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            if !std::mem::replace(&mut told, true) {
                eprintln!("lab: another lab runs on this machine: waiting for it to end");
            }
            Ok(Look::NotYet("it runs".into()))
        }
        Err(error) => Err(error).cannot(|| "take the lab's turn".into()),
    });
    turn.map_err(|error| match error {
        LabError::Timeout { waited, .. } => LabError::Busy(waited),
        other => other,
    })
}

fn folder(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}lab-{id}"))
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).cannot(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
