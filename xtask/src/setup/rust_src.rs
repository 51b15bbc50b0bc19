//! The sources of Rust's `core`, which are compiled for the BPF target. They must be of exactly the compiler's version.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::apt;
use crate::{
    exec::{self, Step},
    toolchain::Toolchain,
};

/// rustup's server answers at once or not at all; where it cannot be reached, Debian's archive has the same sources.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// Where the sources are when they are part of the tool chain.
pub(super) fn in_sysroot(toolchain: &Toolchain) -> PathBuf {
    toolchain.sysroot.join("lib/rustlib/src/rust/library")
}

/// Whether `library` holds the sources in the shape that cargo's build-std needs.
pub(super) fn is_library(library: &Path) -> bool {
    library.join("Cargo.lock").is_file() && library.join("core/src/lib.rs").is_file()
}

fn require_library(library: &Path) -> Result<()> {
    if !is_library(library) {
        bail!("there is still no library in {}", library.display());
    }
    Ok(())
}

/// Finds the sources, or gets them by rustup, or from Debian's archive into `tools`. `None`: they are in the tool chain.
pub(super) fn ensure(tools: &Path, toolchain: &Toolchain) -> Result<Option<PathBuf>> {
    if is_library(&in_sysroot(toolchain)) {
        return Ok(None);
    }
    let library = tools.join(format!("rust-src-{}/library", toolchain.release));
    if is_library(&library) {
        return Ok(Some(library));
    }
    let by_rustup = match rustup(tools, toolchain) {
        Ok(()) => return Ok(None),
        Err(error) => format!("{error:#}"),
    };
    let by_debian = match debian(tools, toolchain, &library) {
        Ok(()) => return Ok(Some(library)),
        Err(error) => format!("{error:#}"),
    };
    bail!(
        "the sources of Rust's core library (rust-src {release}) are missing and cannot be had by themselves.\n\
         rustup: {by_rustup}\n\
         Debian's archive: {by_debian}\n\
         by hand: `rustup component add rust-src`, or put the folder `library` of exactly Rust {release}'s sources \
         at {library}",
        release = toolchain.release,
        library = library.display(),
    )
}

fn rustup(tools: &Path, toolchain: &Toolchain) -> Result<()> {
    if !toolchain.sysroot.join("lib/rustlib/multirust-channel-manifest.toml").is_file() {
        bail!("this tool chain was not installed by rustup");
    }
    let Some(program) = exec::find_program("rustup") else {
        bail!("there is no `rustup` on PATH");
    };
    let name = match env::var_os("RUSTUP_TOOLCHAIN") {
        Some(name) => name,
        None => toolchain.sysroot.file_name().context("the tool chain has no name")?.to_owned(),
    };
    let step = Step::start_quiet("getting Rust's library sources from rustup", "10 s");
    let mut command = std::process::Command::new(program);
    command.args(["component", "add", "rust-src", "--toolchain"]).arg(name);
    let added = exec::run_logged(&mut command, &tools.join("rustup.log"), Some(RUSTUP_LIMIT));
    match added.and_then(|()| require_library(&in_sysroot(toolchain))) {
        Ok(()) => {
            step.done("rust-src is in the tool chain");
            Ok(())
        }
        Err(error) => {
            step.done("not to be had there");
            Err(error)
        }
    }
}

fn debian(tools: &Path, toolchain: &Toolchain, library: &Path) -> Result<()> {
    let step = Step::start_quiet("getting Rust's library sources from Debian's archive", "20 s, 45 MB");
    let unpacked = tools.join("rust-src.unpacked");
    remove_dir(&unpacked)?;
    let version = apt::unpack(tools, "rust-src", &toolchain.release, &unpacked)?;
    let found = find_library(&unpacked.join("usr/src"))?;
    let home = library.parent().context("the library folder has no parent")?;
    remove_dir(home)?;
    fs::create_dir_all(home)?;
    // The package is a whole compiler's source tree; only the library is used.
    fs::rename(&found, library)
        .with_context(|| format!("cannot move the sources to {}", library.display()))?;
    remove_dir(&unpacked)?;
    step.done(&format!("rust-src {version} unpacked"));
    Ok(())
}

fn find_library(sources: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(sources)
        .with_context(|| format!("the package rust-src did not bring {}", sources.display()))?;
    for entry in entries {
        let library = entry?.path().join("library");
        if is_library(&library) {
            return Ok(library);
        }
    }
    bail!("no folder in {} holds a `library`", sources.display())
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
