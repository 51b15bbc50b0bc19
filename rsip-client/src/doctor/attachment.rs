//! Whether the hooks run for programs: asked of the kernel, for the cgroups that programs really live in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rsip_sys::bpf::{self, CgroupHook};
use rsip_sys::cgroup;

use super::finding::Finding;
use crate::status::Status;

/// How many cgroups are named in a line.
const NAMED: usize = 3;

/// A cgroup with programs of this network namespace in it, and what lives there.
#[derive(Debug)]
struct Group {
    directory: File,
    pids: Vec<u32>,
}

/// Asks for every cgroup that holds a process of this network namespace.
pub(super) fn check(status: &Status) -> Vec<Finding> {
    if status.hooks.programs.is_empty() {
        return vec![Finding::ok("hooks", "the agent runs without hooks")];
    }
    let groups = match groups() {
        Ok(groups) => groups,
        Err(error) => {
            return vec![Finding::warn(
                "hooks",
                format!("cannot look at the cgroups of programs: {error}"),
                "it is not known whether the hooks see every program",
                "run as root, in the host's own PID and cgroup namespaces",
            )];
        }
    };
    let names = bpf::program_names().unwrap_or_default();
    let ours: BTreeMap<u32, &str> =
        status.hooks.programs.iter().filter(|p| p.id != 0).map(|p| (p.id, p.name.as_str())).collect();
    vec![told(status), covered(status, &groups, &ours), company(&groups, &ours, &names)]
}

/// What the agent itself believes.
fn told(status: &Status) -> Finding {
    let loose: Vec<&str> =
        status.hooks.programs.iter().filter(|p| !p.attached).map(|p| p.name.as_str()).collect();
    if loose.is_empty() {
        let count = status.hooks.programs.len();
        return Finding::ok(
            "hooks",
            format!("{count} programs, all of them held at {}", status.hooks.cgroup),
        );
    }
    Finding::fail(
        "hooks",
        format!("not attached: {}", loose.join(", ")),
        "the cgroup that they were attached to is gone, or somebody detached them: programs bind and connect past the agent",
        "start the agent again: rsip-client down, then up",
    )
}

/// What the kernel runs for each cgroup.
fn covered(status: &Status, groups: &BTreeMap<String, Group>, ours: &BTreeMap<u32, &str>) -> Finding {
    let mut bare = BTreeSet::new();
    let mut asked = 0;
    for (path, group) in groups {
        let mut running = 0;
        for hook in CgroupHook::ALL {
            match bpf::effective(&group.directory, hook) {
                Ok(ids) => running += usize::from(ids.iter().any(|id| ours.contains_key(id))),
                Err(error) => {
                    return Finding::warn(
                        "cgroup attachment",
                        format!("the kernel does not tell what runs on {} of {path}: {error}", hook.name()),
                        "it is not known whether the hooks see every program",
                        "run as root",
                    );
                }
            }
        }
        asked += 1;
        if running < ours.len().min(CgroupHook::ALL.len()) || running == 0 {
            bare.insert(path);
        }
    }
    if bare.is_empty() {
        return Finding::ok(
            "cgroup attachment",
            format!("the kernel runs them for all {asked} cgroups with programs of this network namespace"),
        );
    }
    let some: Vec<String> = bare
        .iter()
        .take(NAMED)
        .map(|path| {
            let pids = groups.get(*path).map(|group| group.pids.as_slice()).unwrap_or_default();
            format!("{path} ({})", people(pids))
        })
        .collect();
    let more = bare.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let saw = format!(
        "the kernel does not run them for {} of {asked} cgroups: {}{more}",
        bare.len(),
        some.join(", ")
    );
    if bare.len() == asked {
        return Finding::fail(
            "cgroup attachment",
            saw,
            "no program of this host is served",
            "start the agent again; without --cgroup it serves the whole tree",
        );
    }
    Finding::warn(
        "cgroup attachment",
        saw,
        format!("programs there bind and connect past the agent, which serves {}", status.hooks.cgroup),
        "that is well if you chose the cgroup; else move them there, or start the agent without --cgroup",
    )
}

/// Who else decides about bind() and connect().
fn company(
    groups: &BTreeMap<String, Group>,
    ours: &BTreeMap<u32, &str>,
    names: &BTreeMap<u32, String>,
) -> Finding {
    let mut others = BTreeSet::new();
    for group in groups.values() {
        for hook in [CgroupHook::Bind4, CgroupHook::Bind6, CgroupHook::Connect4, CgroupHook::Connect6] {
            for id in bpf::effective(&group.directory, hook).unwrap_or_default() {
                if !ours.contains_key(&id) {
                    let name = names.get(&id).map_or("unnamed", String::as_str);
                    // Agents of other network namespaces: they let sockets of this one pass.
                    if !name.starts_with("rsip_") {
                        others.insert(format!("{name} ({id}, {})", hook.name()));
                    }
                }
            }
        }
    }
    if others.is_empty() {
        return Finding::ok("other hooks", "no other software hooks bind() or connect() of these programs");
    }
    let list: Vec<String> = others.into_iter().collect();
    Finding::warn(
        "other hooks",
        format!("beside the agent's: {}", list.join(", ")),
        "a call passes only if every program lets it; another program's refusal (EPERM) looks like the agent's",
        "nothing, unless bind() or connect() fails: then look at that software",
    )
}

/// "nginx 17, sshd 4".
fn people(pids: &[u32]) -> String {
    let mut named: Vec<String> =
        pids.iter().take(NAMED).map(|pid| format!("{} {pid}", name_of(*pid))).collect();
    if pids.len() > NAMED {
        named.push("…".to_owned());
    }
    named.join(", ")
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}

/// Processes of this network namespace, by cgroup. One whose cgroup lies outside of what is seen here is left out.
fn groups() -> io::Result<BTreeMap<String, Group>> {
    let root = cgroup::open_root().map_err(io::Error::other)?;
    let here = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if !fs::metadata(entry.path().join("ns/net")).is_ok_and(|namespace| namespace.ino() == here) {
            continue;
        }
        let Some(path) = fs::read_to_string(entry.path().join("cgroup")).ok().as_deref().and_then(v2_path)
        else {
            continue;
        };
        if let Some(group) = groups.get_mut(&path) {
            group.pids.push(pid);
        } else if let Ok(directory) = open_below(&root.directory, &path) {
            groups.insert(path, Group { directory, pids: vec![pid] });
        }
    }
    Ok(groups)
}

/// The line of the v2 tree in `/proc/PID/cgroup` begins with "0::".
fn v2_path(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Outside of our cgroup namespace's root, or removed.
    (!path.starts_with("/..") && !path.ends_with(" (deleted)")).then(|| path.to_owned())
}

fn open_below(root: &File, path: &str) -> io::Result<File> {
    use nix::fcntl::OFlag;
    let relative = path.trim_start_matches('/');
    let relative = if relative.is_empty() { "." } else { relative };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::openat(root, relative, flags, nix::sys::stat::Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_cgroup_of_a_process() {
        assert_eq!(v2_path("0::/user.slice\n").as_deref(), Some("/user.slice"));
        assert_eq!(v2_path("4:memory:/x\n0::/\n").as_deref(), Some("/"));
        for bad in ["", "4:memory:/x\n", "0::/../..\n", "0::/gone (deleted)\n"] {
            assert_eq!(v2_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn finds_itself_among_the_cgroups() {
        let own = std::process::id();
        let groups = groups().expect("needs root");
        assert!(groups.values().any(|group| group.pids.contains(&own)), "{groups:?}");
        assert!(people(&[own]).ends_with(&own.to_string()));
    }
}
