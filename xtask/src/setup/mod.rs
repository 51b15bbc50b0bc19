//! `cargo xtask setup`: what the project needs and a fresh machine does not have. The eBPF tool chain goes into the
//! target folder and leaves the machine alone; Debian packages are installed, since servers and tools cannot be had
//! otherwise. Where all is there, it does nothing and takes no time.

mod apt;
pub(crate) mod kernels;
mod linker;
mod packages;
mod rust_src;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};

use crate::{exec, toolchain::Toolchain, workspace::Workspace};

/// What building eBPF programs takes beside the Rust tool chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BpfTools {
    /// A `bpf-linker` that understands this compiler's bitcode.
    pub(crate) linker: PathBuf,
    /// Where the sources of `core` are, when they are not in the tool chain itself.
    pub(crate) library: Option<PathBuf>,
}

/// Everything: the eBPF tool chain and the Debian packages.
pub(crate) fn all(workspace: &Workspace) -> Result<()> {
    bpf_tools(workspace, &Toolchain::detect()?)?;
    packages::ensure(workspace)
}

/// Finds or builds the eBPF tool chain.
pub(crate) fn bpf_tools(workspace: &Workspace, toolchain: &Toolchain) -> Result<BpfTools> {
    let dir = workspace.tools();
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Two xtasks at once would build into the same folders.
    let lock = File::create(dir.join("lock")).context("cannot create the set-up's lock file")?;
    lock.lock().context("cannot take the set-up's lock")?;

    let stamp = dir.join("stamp");
    if let Some(tools) = read_stamp(&stamp, toolchain) {
        return Ok(tools);
    }
    let library = rust_src::ensure(&dir, toolchain)?;
    let linker = linker::ensure(&dir, toolchain)?;
    let tools = BpfTools { linker, library };
    fs::write(&stamp, stamp_text(toolchain, &tools)?)
        .with_context(|| format!("cannot write {}", stamp.display()))?;
    exec::say("the eBPF tool chain is complete");
    Ok(tools)
}

/// What the stamp file holds while `tools` are as they were found: compiler and linker by identity, sources by place.
fn stamp_text(toolchain: &Toolchain, tools: &BpfTools) -> Result<String> {
    let linker = fs::metadata(&tools.linker)
        .with_context(|| format!("cannot look at the linker {}", tools.linker.display()))?;
    let modified = linker.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let library = tools.library.as_deref().map_or_else(String::new, |path| path.display().to_string());
    Ok(format!(
        "{} {}\n{}\n{}\n{library}\n{} {modified}\n",
        toolchain.release,
        toolchain.commit,
        toolchain.sysroot.display(),
        tools.linker.display(),
        linker.len(),
    ))
}

/// The tools that an earlier run found, if nothing about them or the compiler has changed since.
fn read_stamp(stamp: &Path, toolchain: &Toolchain) -> Option<BpfTools> {
    let text = fs::read_to_string(stamp).ok()?;
    let mut lines = text.lines().skip(2);
    let linker = PathBuf::from(lines.next()?);
    let library = Some(lines.next()?).filter(|line| !line.is_empty()).map(PathBuf::from);
    let tools = BpfTools { linker, library };
    let sources_there = match &tools.library {
        Some(library) => rust_src::is_library(library),
        None => rust_src::is_library(&rust_src::in_sysroot(toolchain)),
    };
    (sources_there && stamp_text(toolchain, &tools).ok()? == text).then_some(tools)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(sysroot: &Path) -> Toolchain {
        Toolchain {
            release: "1.95.0".into(),
            commit: "abc".into(),
            host: "x86_64-unknown-linux-gnu".into(),
            llvm_major: 22,
            sysroot: sysroot.to_path_buf(),
        }
    }

    fn library_in(dir: &Path) -> PathBuf {
        let library = dir.join("library");
        fs::create_dir_all(library.join("core/src")).unwrap();
        fs::write(library.join("core/src/lib.rs"), "").unwrap();
        fs::write(library.join("Cargo.lock"), "").unwrap();
        library
    }

    #[test]
    fn takes_the_stamp_while_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let toolchain = toolchain(dir.path());
        let linker = dir.path().join("bpf-linker");
        fs::write(&linker, "one").unwrap();
        let tools = BpfTools { linker: linker.clone(), library: Some(library_in(dir.path())) };
        let stamp = dir.path().join("stamp");
        fs::write(&stamp, stamp_text(&toolchain, &tools).unwrap()).unwrap();

        assert_eq!(read_stamp(&stamp, &toolchain), Some(tools));

        let other = Toolchain { commit: "def".into(), ..toolchain.clone() };
        assert_eq!(read_stamp(&stamp, &other), None, "another compiler");
        fs::write(&linker, "other").unwrap();
        assert_eq!(read_stamp(&stamp, &toolchain), None, "another linker");
    }

    #[test]
    fn drops_the_stamp_when_the_sources_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let toolchain = toolchain(dir.path());
        let linker = dir.path().join("bpf-linker");
        fs::write(&linker, "one").unwrap();
        let stamp = dir.path().join("stamp");
        // "In the sysroot", where there are none.
        let tools = BpfTools { linker, library: None };
        fs::write(&stamp, stamp_text(&toolchain, &tools).unwrap()).unwrap();
        assert_eq!(read_stamp(&stamp, &toolchain), None);
    }
}
