//! eBPF objects of the machine, as far as they could be the lab's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::super::error::Result;
use super::super::exec;

/// What `bpftool` lists, under the name that a file descriptor's `fdinfo` gives its number.
const OBJECTS: [(&str, &str); 3] = [("prog", "prog_id"), ("map", "map_id"), ("link", "link_id")];

/// Programs, maps, links and what is attached to cgroups: kind to lines. Left out is what some process outside of these
/// network namespaces holds: it is at work, and not left behind by anybody.
pub(super) fn objects(namespaces: &[u64]) -> Result<Vec<(&'static str, Vec<String>)>> {
    let mut foreign = held_elsewhere(namespaces);
    let lists = OBJECTS.iter().map(|(object, _)| list(&[object, "show"])).collect::<Result<Vec<_>>>()?;
    let cgroups = list(&["cgroup", "tree"])?;
    // Once more, for whoever came while we looked.
    foreign.extend(held_elsewhere(namespaces));
    let is_ours = |key: &str, entry: &&Value| {
        let number = entry.get("id").and_then(Value::as_u64);
        let held = number.is_some_and(|number| foreign.contains(&(key.to_owned(), number)));
        !held && !is_systemd(entry)
    };
    let mut found = Vec::new();
    for ((object, key), list) in OBJECTS.iter().zip(&lists) {
        // Numbers differ from run to run.
        let lines = list.iter().filter(|entry| is_ours(key, entry));
        found.push((
            *object,
            lines.map(|entry| describe(entry, &["type", "name", "attach_type", "tp_name"])).collect(),
        ));
    }
    let mut attached = Vec::new();
    for cgroup in &cgroups {
        let path = cgroup.get("cgroup").and_then(Value::as_str).unwrap_or("-");
        let programs = cgroup.get("programs").and_then(Value::as_array).into_iter().flatten();
        for program in programs.filter(|program| is_ours("prog_id", program)) {
            attached.push(format!("{path} {}", describe(program, &["attach_type", "name"])));
        }
    }
    found.push(("cgroup", attached));
    Ok(found)
}

fn list(arguments: &[&str]) -> Result<Vec<Value>> {
    let json = exec::tool("bpftool", &[&["--json"], arguments].concat())?;
    let list = serde_json::from_str(&json).unwrap_or(Value::Null);
    Ok(if let Value::Array(entries) = list { entries } else { Vec::new() })
}

fn describe(entry: &Value, fields: &[&str]) -> String {
    let words: Vec<&str> =
        fields.iter().map(|field| entry.get(*field).and_then(Value::as_str).unwrap_or("-")).collect();
    words.join(" ")
}

/// systemd names its programs and maps `sd_…`, and loads them at any time.
fn is_systemd(entry: &Value) -> bool {
    entry.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with("sd_"))
}

/// Numbers of the objects that processes in other network namespaces have open.
fn held_elsewhere(namespaces: &[u64]) -> BTreeSet<(String, u64)> {
    let mut held = BTreeSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        // A process that has just ended, and what is no process at all, has no namespace to read.
        let Ok(namespace) = fs::metadata(path.join("ns/net")) else { continue };
        if !namespaces.contains(&namespace.ino()) {
            held.extend(open_objects(&path));
        }
    }
    held
}

fn open_objects(process: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        if !target.to_string_lossy().contains("bpf") {
            continue;
        }
        let info =
            fs::read_to_string(process.join("fdinfo").join(descriptor.file_name())).unwrap_or_default();
        for line in info.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            if let (true, Ok(number)) =
                (OBJECTS.iter().any(|(_, known)| *known == key), value.trim().parse::<u64>())
            {
                found.push((key.to_owned(), number));
            }
        }
    }
    found
}
