//! Which test program belongs to which package: cargo says so when it builds them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::exec;

/// Test programs by path, each with a name of the form `package/target`: `rsip-proto/lib`, `rsipd/bin-rsipdctl`,
/// `rsip-proto/gateway` for tests/gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    names: BTreeMap<String, String>,
    paths: BTreeMap<String, PathBuf>,
}

impl Programs {
    /// Builds what `command`, a `cargo test` without arguments for the test programs, would run.
    pub(crate) fn build(command: &mut Command) -> Result<Self> {
        command.args(["--no-run", "--message-format=json-render-diagnostics"]);
        Ok(Self::read(&exec::output(command).context("the tests do not build")?))
    }

    fn read(messages: &str) -> Self {
        let found = messages.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let program = message.get("executable")?.as_str()?;
            let target = message.get("target")?;
            let name = target.get("name")?.as_str()?;
            let kind = target.get("kind")?.get(0)?.as_str()?;
            let package = package(message.get("package_id")?.as_str()?)?;
            let target = match kind {
                "test" => name.to_owned(),
                "bin" => format!("bin-{name}"),
                "example" => format!("example-{name}"),
                _ => "lib".to_owned(),
            };
            Some((program.to_owned(), format!("{package}/{target}")))
        });
        Self::from(found)
    }

    /// The name of a program, by the path that cargo prints when it starts it.
    pub(crate) fn name(&self, path: &str) -> Option<&str> {
        self.names.get(&file_name(path)).map(String::as_str)
    }

    /// Where the program of a name is.
    pub(crate) fn path(&self, name: &str) -> Option<&Path> {
        self.paths.get(name).map(PathBuf::as_path)
    }

    fn from(found: impl Iterator<Item = (String, String)>) -> Self {
        let mut programs = Self::default();
        for (path, name) in found {
            programs.names.insert(file_name(&path), name.clone());
            programs.paths.insert(name, PathBuf::from(path));
        }
        programs
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self::from(pairs.iter().map(|(path, name)| ((*path).to_owned(), (*name).to_owned())))
    }
}

/// Cargo shows paths relative to where it likes; the file's name has a hash and is enough.
fn file_name(path: &str) -> String {
    Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The package's name in `path+file:///folder/name#0.1.0` or `path+file:///folder#name@0.1.0`.
fn package(id: &str) -> Option<&str> {
    let (path, fragment) = id.split_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => path.rsplit('/').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_programs_by_what_cargo_says() {
        let line = |id: &str, kind: &str, name: &str, program: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "package_id": id, "executable": program,
                "target": {"name": name, "kind": [kind]},
            })
            .to_string()
        };
        let messages = [
            line("path+file:///src/rsip-proto#0.1.0", "lib", "rsip_proto", "/t/deps/rsip_proto-1"),
            line("path+file:///src/tests#rsip-lab@0.1.0", "test", "crash", "/t/deps/crash-2"),
            line("path+file:///src/rsipd#0.1.0", "bin", "rsipdctl", "/t/deps/rsipdctl-3"),
            "{\"reason\":\"build-finished\",\"success\":true}".to_owned(),
            "not JSON".to_owned(),
        ];
        let programs = Programs::read(&messages.join("\n"));
        assert_eq!(programs.name("target/debug/deps/rsip_proto-1"), Some("rsip-proto/lib"));
        assert_eq!(programs.name("deps/crash-2"), Some("rsip-lab/crash"));
        assert_eq!(programs.name("deps/rsipdctl-3"), Some("rsipd/bin-rsipdctl"));
        assert_eq!(programs.name("deps/other-4"), None);
        assert_eq!(programs.path("rsip-lab/crash"), Some(Path::new("/t/deps/crash-2")));
    }
}
