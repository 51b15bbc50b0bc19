//! The architecture, held by a machine: who may depend on whom, what the sans-IO core must not touch, how long a file
//! may grow. `docs/ARCHITECTURE.md` has the reasons.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{exec, toolchain::Toolchain, workspace::Workspace};

/// Which crates of the workspace a crate may use. The lab stands outside: it may use all.
const DIRECTIONS: [(&str, &[&str]); 9] = [
    ("rsip-proto", &[]),
    ("rsip-capture", &["rsip-proto"]),
    ("rsip-slp", &[]),
    ("rsip-ebpf-common", &[]),
    ("rsip-ebpf", &["rsip-ebpf-common"]),
    ("rsip-sys", &["rsip-ebpf-common"]),
    ("rsipd", &["rsip-proto", "rsip-slp", "rsip-ebpf-common", "rsip-sys"]),
    ("rsip-client", &["rsip-proto", "rsip-slp", "rsip-ebpf-common", "rsip-sys"]),
    ("xtask", &[]),
];

/// Crates without side effects: bytes, values and times in, bytes and values out.
const PURE: [&str; 2] = ["rsip-proto", "rsip-slp"];

/// Crates that do IO, tell the time or roll dice: not for a pure crate, not even at second hand.
const NOT_PURE: [&str; 12] = [
    "async-std",
    "aya",
    "getrandom",
    "libc",
    "mio",
    "nix",
    "rand",
    "rtnetlink",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// The same by way of the standard library.
const NOT_PURE_CALLS: [&str; 8] = [
    "Instant::now",
    "SystemTime::now",
    "std::fs",
    "std::thread",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "unsafe {",
];

/// Longer files have more than one reason to change.
const MAX_LINES: usize = 500;

/// Checks it all; the error lists every breach.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let host = Toolchain::detect()?.host;
    let mut command = exec::cargo();
    command.current_dir(workspace.root()).args([
        "metadata",
        "--format-version",
        "1",
        "--filter-platform",
        &host,
    ]);
    let metadata: Value =
        serde_json::from_str(&exec::output(&mut command)?).context("`cargo metadata` wrote no JSON")?;
    let graph = Graph::read(&metadata)?;
    let mut breaches = direction_breaches(&graph);
    for package in PURE {
        // Asked for each crate alone: in the whole workspace's graph its tests' features are mixed in.
        let mut tree = exec::cargo();
        tree.current_dir(workspace.root()).args(["tree", "--package", package]);
        tree.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        breaches.extend(purity_breaches(package, &exec::output(&mut tree)?));
    }
    for path in rust_files(workspace.root())? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(workspace.root()).unwrap_or(&path);
        breaches.extend(file_breaches(name, &text));
    }
    if !breaches.is_empty() {
        bail!("{} breaches:\n    {}", breaches.len(), breaches.join("\n    "));
    }
    Ok(())
}

/// Who uses whom, by name; what only tests or build scripts use is left out.
struct Graph {
    members: BTreeSet<String>,
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self> {
        let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let names: BTreeMap<String, String> = array(&metadata["packages"])
            .iter()
            .filter_map(|package| Some((text(&package["id"])?, text(&package["name"])?)))
            .collect();
        let name = |id: &Value| id.as_str().and_then(|id| names.get(id)).cloned();
        let members = array(&metadata["workspace_members"]).iter().filter_map(name).collect();
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in array(&metadata["resolve"]["nodes"]) {
            let user =
                name(&node["id"]).context("`cargo metadata` names a package that it does not describe")?;
            let used = array(&node["deps"])
                .iter()
                .filter(|dep| array(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()))
                .filter_map(|dep| name(&dep["pkg"]))
                .collect::<Vec<_>>();
            // Two versions of one crate share a name; what either uses counts.
            uses.entry(user).or_default().extend(used);
        }
        Ok(Self { members, uses })
    }
}

fn direction_breaches(graph: &Graph) -> Vec<String> {
    let mut breaches = Vec::new();
    for (user, allowed) in DIRECTIONS {
        if !graph.members.contains(user) {
            breaches.push(format!("{user} is in the architecture, but not in the workspace"));
        }
        let used = graph.uses.get(user).into_iter().flatten();
        for used in used.filter(|used| graph.members.contains(*used) && !allowed.contains(&used.as_str())) {
            breaches.push(format!("{user} depends on {used}; dependencies point the other way"));
        }
    }
    breaches
}

/// `tree`: one crate a line, the name first.
fn purity_breaches(package: &str, tree: &str) -> Vec<String> {
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    names
        .into_iter()
        .filter(|name| NOT_PURE.contains(name))
        .map(|name| format!("{package} depends on {name}: it is to do no IO"))
        .collect()
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.is_dir() && !hidden && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn file_breaches(name: &Path, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        breaches.push(format!("{}: {lines} lines, at most {MAX_LINES}", name.display()));
    }
    let is_test = name.iter().any(|part| part == "tests" || part == "tests.rs");
    let is_pure = PURE.iter().any(|package| name.starts_with(Path::new(package).join("src")));
    if is_pure && !is_test {
        // By convention a file's tests stand at its end.
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        for (number, line) in code.enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for call in NOT_PURE_CALLS.iter().filter(|call| line.contains(*call)) {
                breaches.push(format!("{}:{}: `{call}` in the pure core", name.display(), number + 1));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graph(uses: &[(&str, &str, Option<&str>)]) -> Graph {
        let mut names: BTreeSet<&str> = DIRECTIONS.iter().map(|(name, _)| *name).collect();
        names.extend(uses.iter().flat_map(|(user, used, _)| [*user, *used]));
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = uses
                    .iter()
                    .filter(|(user, _, _)| user == name)
                    .map(|(_, used, kind)| json!({"pkg": used, "dep_kinds": [{"kind": kind}]}))
                    .collect();
                json!({"id": name, "deps": deps})
            })
            .collect();
        let packages: Vec<Value> = names.iter().map(|name| json!({"id": name, "name": name})).collect();
        let members: Vec<&str> = DIRECTIONS.iter().map(|(name, _)| *name).collect();
        Graph::read(&json!({"packages": packages, "workspace_members": members, "resolve": {"nodes": nodes}}))
            .unwrap()
    }

    #[test]
    fn lets_dependencies_point_one_way_only() {
        assert!(
            direction_breaches(&graph(&[("rsipd", "rsip-proto", None), ("rsipd", "tokio", None)])).is_empty()
        );
        let breaches = direction_breaches(&graph(&[("rsip-proto", "rsip-sys", None)]));
        assert_eq!(breaches, ["rsip-proto depends on rsip-sys; dependencies point the other way"]);
    }

    #[test]
    fn notices_a_crate_that_is_gone() {
        let mut graph = graph(&[]);
        graph.members.remove("rsip-sys");
        assert_eq!(direction_breaches(&graph), ["rsip-sys is in the architecture, but not in the workspace"]);
    }

    #[test]
    fn leaves_dependencies_of_tests_alone() {
        assert!(direction_breaches(&graph(&[("rsip-sys", "rsip-proto", Some("dev"))])).is_empty());
    }

    #[test]
    fn finds_io_at_second_hand() {
        let tree = "rsip-proto v0.1.0 (/src/rsip-proto)\nthiserror v2.0.21\nhelper v1.0.0\nlibc v0.2.191\nlibc v0.2.191\n";
        assert_eq!(purity_breaches("rsip-proto", tree), ["rsip-proto depends on libc: it is to do no IO"]);
        assert!(
            purity_breaches("rsip-proto", "rsip-proto v0.1.0\nthiserror v2.0.21\nlibcore v1.0.0\n")
                .is_empty()
        );
    }

    #[test]
    fn finds_the_clock_in_the_pure_core() {
        let text = "fn f() {\n    let now = Instant::now();\n}\n";
        let name = Path::new("rsip-proto/src/gateway/mod.rs");
        assert_eq!(
            file_breaches(name, text),
            ["rsip-proto/src/gateway/mod.rs:2: `Instant::now` in the pure core"]
        );
        assert_eq!(file_breaches(Path::new("rsip-slp/src/lib.rs"), text).len(), 1);
        assert!(file_breaches(Path::new("rsipd/src/main.rs"), text).is_empty());
        assert!(file_breaches(Path::new("rsip-proto/src/host/tests.rs"), text).is_empty());
        assert!(
            file_breaches(name, &format!("// Instant::now\n#[cfg(test)]\nmod tests {{\n{text}}}\n"))
                .is_empty()
        );
    }

    #[test]
    fn finds_files_that_grew_too_long() {
        let name = Path::new("rsipd/src/main.rs");
        assert!(file_breaches(name, &"\n".repeat(MAX_LINES)).is_empty());
        assert_eq!(file_breaches(name, &"\n".repeat(MAX_LINES + 1)).len(), 1);
    }
}
