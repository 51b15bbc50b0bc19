//! What the tests might leave behind on this machine, as lines that can be compared before and after. The lab's own
//! tests compare far more, for each daemon; this is the last net, under the tests themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::exec;

/// The kernel frees eBPF programs, links and namespaces a moment after their last user has gone.
const SETTLE: Duration = Duration::from_secs(15);

/// Where iproute2 keeps the namespaces that have names (ip-netns(8)).
const NETNS_FOLDER: &str = "/run/netns";

/// Settings that the daemons change, each in its own network namespace; here they must stay as they are.
const SETTINGS: [&str; 5] = [
    "ipv4/ip_local_port_range",
    "ipv4/ip_local_reserved_ports",
    "ipv4/ip_forward",
    "ipv4/ip_unprivileged_port_start",
    "ipv4/conf/all/rp_filter",
];

/// Everything of interest at one moment, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    kinds: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Snapshot {
    /// Looks at the machine. What cannot be read counts as empty: before and after alike.
    pub(crate) fn take(programs: &Path) -> Self {
        let mut snapshot = Self::default();
        let mut add = |kind, lines: BTreeSet<String>| snapshot.kinds.insert(kind, lines);
        add("network namespace", names(Path::new(NETNS_FOLDER), ""));
        add("run folder", names(Path::new("/run"), "rsip"));
        add("network device", names(Path::new("/sys/class/net"), ""));
        add("pinned eBPF object", tree(Path::new("/sys/fs/bpf"), &|_| true));
        add("cgroup", tree(Path::new("/sys/fs/cgroup"), &|path| contains(path, "rsip")));
        add("mount", mounts());
        add("process", processes(programs));
        add("kernel setting", settings());
        add("IPv4 rule", lines_of("ip", &["-4", "rule", "show"]));
        add("IPv6 rule", lines_of("ip", &["-6", "rule", "show"]));
        add("IPv4 route", lines_of("ip", &["-4", "route", "show", "table", "all"]));
        add("packet filter rule", lines_of("nft", &["--stateless", "list", "ruleset"]));
        add("eBPF program", programs_of_ours());
        snapshot
    }

    /// Compares with the machine as it is now; gives late departures time to settle. One line per difference.
    pub(crate) fn differences(&self, programs: &Path) -> Vec<String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let differences = self.compare(&Self::take(programs));
            if differences.is_empty() || Instant::now() >= deadline {
                return differences;
            }
            thread::sleep(Duration::from_millis(250));
        }
    }

    fn compare(&self, later: &Self) -> Vec<String> {
        let nothing = BTreeSet::new();
        let mut differences = Vec::new();
        for (kind, now) in &later.kinds {
            let before = self.kinds.get(kind).unwrap_or(&nothing);
            differences.extend(now.difference(before).map(|line| format!("{kind} left behind: {line}")));
            differences.extend(before.difference(now).map(|line| format!("{kind} gone: {line}")));
        }
        differences
    }
}

fn contains(path: &Path, part: &str) -> bool {
    path.as_os_str().as_bytes().windows(part.len()).any(|window| window == part.as_bytes())
}

/// Entries of `folder` whose name starts with `prefix`.
fn names(folder: &Path, prefix: &str) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Everything in and under `folder` that `wanted` picks.
fn tree(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            // A cgroup's files come with it.
            if wanted(&path) && (is_folder || !folder.starts_with("/sys/fs/cgroup")) {
                found.insert(path.display().to_string());
            }
            if is_folder {
                folders.push(path);
            }
        }
    }
    found
}

/// Mount points with their kind. Their numbers change when something is mounted anew.
fn mounts() -> BTreeSet<String> {
    mounts_in(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
}

/// The mounts in a text of the form of proc_pid_mountinfo(5). `ip netns add` makes this folder a mount of its own the first
/// time that it is called on a machine, for good; what is in the folder is looked at as network namespaces.
fn mounts_in(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let place = left.split(' ').nth(4)?;
            (place != NETNS_FOLDER).then(|| format!("{place} ({})", right.split(' ').next().unwrap_or("")))
        })
        .collect()
}

/// Running programs that were built here.
fn processes(programs: &Path) -> BTreeSet<String> {
    let own = std::process::id().to_string();
    names(Path::new("/proc"), "")
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter_map(|pid| {
            let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
            program.starts_with(programs).then(|| format!("{} (process {pid})", program.display()))
        })
        .collect()
}

fn settings() -> BTreeSet<String> {
    SETTINGS
        .iter()
        .filter_map(|name| {
            let value = fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
            Some(format!("{name} = {}", value.trim()))
        })
        .collect()
}

/// Output lines of a tool; none where it is not installed.
fn lines_of(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let Some(program) = exec::find_program(program) else { return BTreeSet::new() };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(without_countdown).collect()
}

/// A route learnt from a router says how long it is still good for.
fn without_countdown(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "expires" => drop(words.next()),
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

/// Loaded eBPF programs with names like ours. Others come and go with the machine's own services.
fn programs_of_ours() -> BTreeSet<String> {
    lines_of("bpftool", &["prog", "show"]).into_iter().filter(|line| line.contains(" name rsip_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(kind: &'static str, lines: &[&str]) -> Snapshot {
        Snapshot { kinds: [(kind, lines.iter().map(|line| (*line).to_owned()).collect())].into() }
    }

    #[test]
    fn a_mount_of_ours_is_seen_and_the_folder_of_namespaces_is_none() {
        let text = "26 1 0:24 / /sys/fs/bpf rw - bpf bpf rw\n\
                    31 1 254:0 /run/netns /run/netns rw shared:1 - ext4 /dev/vda rw\n\
                    32 1 0:4 net:[4026532] /run/netns/lab rw - nsfs nsfs rw\nnonsense\n";
        let seen: Vec<_> = mounts_in(text).into_iter().collect();
        assert_eq!(seen, ["/run/netns/lab (nsfs)", "/sys/fs/bpf (bpf)"]);
    }

    #[test]
    fn names_what_came_and_what_went() {
        let before = snapshot("network device", &["lo", "eth0"]);
        assert!(before.compare(&before).is_empty());
        let after = snapshot("network device", &["lo", "rsip"]);
        assert_eq!(before.compare(&after), ["network device left behind: rsip", "network device gone: eth0"]);
    }

    #[test]
    fn sees_files_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/rsip-b")).unwrap();
        fs::write(dir.path().join("a/other"), "").unwrap();
        assert_eq!(tree(dir.path(), &|_| true).len(), 3);
        let ours = tree(dir.path(), &|path| path.ends_with("rsip-b"));
        assert_eq!(ours, [dir.path().join("a/rsip-b").display().to_string()].into());
        assert!(tree(Path::new("/no/such/folder"), &|_| true).is_empty());
    }

    #[test]
    fn ignores_countdowns() {
        assert_eq!(
            without_countdown("default via fe80::1 expires 1700sec pref medium"),
            "default via fe80::1 pref medium"
        );
    }

    #[test]
    fn sees_a_program_started_from_the_folder() {
        let exe = std::env::current_exe().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let sleep = fs::read_link(format!("/proc/{}/exe", child.id())).unwrap();
        let there = processes(sleep.parent().unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(there.iter().any(|line| line.contains(&format!("(process {})", child.id()))), "{there:?}");
        assert!(
            !processes(exe.parent().unwrap())
                .iter()
                .any(|line| line.contains(&format!("(process {})", std::process::id()))),
            "itself"
        );
    }
}
