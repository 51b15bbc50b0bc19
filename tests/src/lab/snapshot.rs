//! Everything that a daemon might leave behind, as text that can be compared.
//!
//! What other programs of the machine do meanwhile is none of it: eBPF objects that a process outside the lab holds, and
//! run folders of other network namespaces, are left out.

mod bpf;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::error::Result;
use super::exec;
use super::netns::Inside;
use super::wait::{self, Look};

/// The kernel frees programs and maps some time after the last descriptor is closed.
const SETTLE: Duration = Duration::from_secs(15);
/// Settings that change by themselves.
const VOLATILE: [&str; 2] = ["nf_conntrack_count", "nf_conntrack_max"];

/// Sections in which it does not matter what goes: what is nobody's goes by itself, a moment after its owner has ended.
const MAY_GO: [&str; 4] = ["machine prog", "machine map", "machine link", "machine cgroup"];

/// What was there at one moment: section (place and kind) to lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sections: BTreeMap<String, Vec<String>>,
}

impl Snapshot {
    /// The machine's own network and eBPF objects, and the network of each namespace. `nft` and `bpftool` are asked
    /// where they are installed.
    ///
    /// # Errors
    /// Where a tool fails.
    pub fn take(namespaces: &[&Inside]) -> Result<Self> {
        let mut snapshot = Self::default();
        let inodes = namespaces.iter().map(|netns| netns.inode()).collect::<Result<Vec<u64>>>()?;
        snapshot.machine(&inodes)?;
        for netns in namespaces {
            snapshot.network(netns.name(), Some(netns))?;
            snapshot.add(netns.name(), "sysctl", netns.enter(|| settings(Path::new("/proc/sys/net")))?);
        }
        Ok(snapshot)
    }

    /// What differs, one line each: `-` was there in `self` only, `+` is there in `later` only.
    #[must_use]
    pub fn differences(&self, later: &Self) -> String {
        let mut text = String::new();
        let empty = Vec::new();
        let names: std::collections::BTreeSet<_> =
            self.sections.keys().chain(later.sections.keys()).collect();
        for name in names {
            let before = self.sections.get(name).unwrap_or(&empty);
            let after = later.sections.get(name).unwrap_or(&empty);
            let gone = if MAY_GO.contains(&name.as_str()) { Vec::new() } else { only_in(before, after) };
            let gone = gone.into_iter().map(|line| ('-', line));
            for (sign, line) in gone.chain(only_in(after, before).into_iter().map(|line| ('+', line))) {
                // Writing to a String cannot fail.
                writeln!(text, "{name}: {sign} {line}").unwrap_or_default();
            }
        }
        text
    }

    /// Waits until everything is again as it was.
    ///
    /// # Errors
    /// [`super::error::LabError::Timeout`] with the differences that stay.
    pub fn expect_again(&self, namespaces: &[&Inside]) -> Result<()> {
        wait::until("everything to be as before", SETTLE, || {
            let differences = self.differences(&Self::take(namespaces)?);
            Ok(if differences.is_empty() {
                Look::Ready(())
            } else {
                Look::NotYet(format!("\n{differences}"))
            })
        })
    }

    fn add(&mut self, place: &str, kind: &str, mut lines: Vec<String>) {
        lines.sort();
        self.sections.insert(format!("{place} {kind}"), lines);
    }

    fn machine(&mut self, namespaces: &[u64]) -> Result<()> {
        self.network("machine", None)?;
        self.add("machine", "/sys/fs/bpf", tree(Path::new("/sys/fs/bpf")));
        self.add("machine", "/run", run_folders(namespaces));
        self.add("machine", "mounts", mounts());
        if exec::installed("bpftool") {
            for (kind, lines) in bpf::objects(namespaces)? {
                self.add("machine", kind, lines);
            }
        }
        Ok(())
    }

    fn network(&mut self, place: &str, netns: Option<&Inside>) -> Result<()> {
        let run = |words: &[&str]| -> Result<Vec<String>> {
            let [program, arguments @ ..] = words else { return Ok(Vec::new()) };
            let mut command = match netns {
                Some(netns) => netns.command(program),
                None => std::process::Command::new(program),
            };
            let output = exec::run(command.args(arguments), exec::SHORT)?.success()?;
            Ok(output.lines().map(without_timers).filter(|line| !line.is_empty()).collect())
        };
        self.add(place, "addr", run(&["ip", "address", "show"])?);
        self.add(place, "route", run(&["ip", "-4", "route", "show", "table", "all"])?);
        self.add(place, "route6", run(&["ip", "-6", "route", "show", "table", "all"])?);
        self.add(place, "rule", run(&["ip", "-4", "rule", "show"])?);
        self.add(place, "rule6", run(&["ip", "-6", "rule", "show"])?);
        self.add(place, "qdisc", run(&["tc", "qdisc", "show"])?);
        if exec::installed("nft") {
            self.add(place, "nft", run(&["nft", "--stateless", "list", "ruleset"])?);
        }
        if exec::installed("bpftool") {
            self.add(place, "attached", run(&["bpftool", "net", "show"])?);
        }
        Ok(())
    }
}

/// Lines of `these` that `those` has not, each as often as it is missing.
fn only_in<'a>(these: &'a [String], those: &[String]) -> Vec<&'a String> {
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for line in those {
        *left.entry(line).or_default() += 1;
    }
    let mut missing = Vec::new();
    for line in these {
        match left.get_mut(line.as_str()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => missing.push(line),
        }
    }
    missing
}

/// Lifetimes of addresses and routes count down.
fn without_timers(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "valid_lft" | "preferred_lft" | "expires" => drop(words.next()),
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

/// Names and values of all settings below a folder. Unreadable ones (commands, secrets) have no value.
fn settings(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            lines.extend(settings(&path));
        } else if !VOLATILE.iter().any(|name| path.ends_with(name)) {
            let value = fs::read_to_string(&path).unwrap_or_default();
            lines.push(format!("{} = {}", path.display(), value.trim_end()));
        }
    }
    lines
}

/// Every path below a folder.
fn tree(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        lines.push(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            lines.extend(tree(&path));
        }
    }
    lines
}

/// What is below `/run/rsip*` for these network namespaces and for the machine's own; folders without anything in them
/// count too.
fn run_folders(namespaces: &[u64]) -> Vec<String> {
    let mut lines = Vec::new();
    for program in fs::read_dir("/run").into_iter().flatten().flatten() {
        if !program.file_name().to_string_lossy().starts_with("rsip") {
            continue;
        }
        let mut empty = true;
        for entry in fs::read_dir(program.path()).into_iter().flatten().flatten() {
            empty = false;
            let name = entry.file_name();
            let foreign = name
                .to_string_lossy()
                .strip_prefix("netns-")
                .map(str::parse::<u64>)
                .is_some_and(|inode| inode.is_ok_and(|inode| !namespaces.contains(&inode)));
            if !foreign {
                lines.push(entry.path().display().to_string());
                lines.extend(tree(&entry.path()));
            }
        }
        if empty {
            lines.push(program.path().display().to_string());
        }
    }
    lines
}

/// Mount points and types, without the names of network namespaces, which come and go with every lab.
fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let lines = table.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let point = words.next()?;
        let kind = words.next()?;
        (!point.starts_with("/run/netns")).then(|| format!("{point} {kind}"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(lines: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.add("here", "route", lines.iter().map(|line| (*line).to_owned()).collect());
        snapshot
    }

    #[test]
    fn names_what_came_and_what_went() {
        let before = snapshot(&["default via x", "a", "a"]);
        let after = snapshot(&["a", "default dev rsip"]);
        assert_eq!(
            before.differences(&after),
            "here route: - a\nhere route: - default via x\nhere route: + default dev rsip\n"
        );
        assert_eq!(before.differences(&before.clone()), "");
    }

    #[test]
    fn ignores_lifetimes_and_indentation_only() {
        let line = "  valid_lft 3563sec preferred_lft 3563sec inet 192.0.2.1/24 dynamic";
        assert_eq!(without_timers(line), "inet 192.0.2.1/24 dynamic");
        assert_eq!(without_timers("default dev rsip table 4555"), "default dev rsip table 4555");
    }
}
