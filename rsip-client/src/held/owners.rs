//! Which process has a socket, as `/proc/PID/fd` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its ID.
    pub pid: u32,
    /// Its name (`comm`).
    pub program: String,
    /// When it started: seconds since 1970.
    pub started: u64,
}

/// The processes that have each of these sockets, lowest ID first. Processes that may not be looked into are not seen.
pub fn of_sockets(inodes: &BTreeSet<u32>) -> BTreeMap<u32, Vec<Process>> {
    let mut owners: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let boot = boot_time();
    for pid in pids {
        let folder = Path::new("/proc").join(pid.to_string());
        let sockets: BTreeSet<u32> = fs::read_dir(folder.join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| inode(fs::read_link(entry.path()).ok()?.to_str()?))
            .filter(|inode| inodes.contains(inode))
            .collect();
        if sockets.is_empty() {
            continue;
        }
        let process = Process {
            pid,
            program: fs::read_to_string(folder.join("comm")).unwrap_or_default().trim_end().to_owned(),
            started: boot
                + fs::read_to_string(folder.join("stat")).ok().as_deref().and_then(start).unwrap_or(0),
        };
        for socket in sockets {
            owners.entry(socket).or_default().push(process.clone());
        }
    }
    owners
}

/// `socket:[1234]`.
fn inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Seconds after boot (field 22 of proc_pid_stat(5), in ticks). The name may hold anything, but ends at the last parenthesis.
fn start(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    ticks.checked_div(ticks_per_second())
}

fn ticks_per_second() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    u64::try_from(ticks).unwrap_or(100)
}

/// Seconds since 1970.
fn boot_time() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn finds_the_process_that_has_a_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free");
        let inode = nix::sys::stat::fstat(listener.as_fd()).expect("open").st_ino;
        let inode = u32::try_from(inode).expect("sock_diag has 32 bits too");
        let owners = of_sockets(&[inode, 1].into());
        let own = &owners[&inode];
        // A test that forks at this very moment has it too.
        let this = own.iter().find(|process| process.pid == std::process::id()).expect("this process has it");
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        assert!(!this.program.is_empty() && this.started <= now && this.started + 3600 > now, "{this:?}");
        assert!(!owners.contains_key(&1));
    }

    #[test]
    fn reads_what_proc_shows() {
        assert_eq!(inode("socket:[77]"), Some(77));
        for other in ["pipe:[77]", "socket:[]", "/dev/null", "socket:[77"] {
            assert_eq!(inode(other), None, "{other}");
        }
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4200 1 1";
        assert_eq!(start(stat), Some(4200 / ticks_per_second()));
        assert_eq!(start("7 (a"), None);
    }
}
