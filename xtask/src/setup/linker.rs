//! `bpf-linker`: links what the compiler makes of an eBPF crate. It reads the compiler's bitcode, so it has to be built
//! against the compiler's own LLVM, which every rustup tool chain brings as a shared library.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    exec::{self, Step},
    toolchain::Toolchain,
};

/// The release of bpf-linker for a compiler with this LLVM; `None`: not known here, the newest is the best guess.
fn release_for(llvm_major: u32) -> Option<&'static str> {
    match llvm_major {
        22 => Some("0.10.4"),
        23 => Some("0.13.0"),
        _ => None,
    }
}

/// Finds a linker that works with this compiler, or builds one into `tools`.
pub(super) fn ensure(tools: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let release = release_for(toolchain.llvm_major);
    let home = tools.join(format!("bpf-linker-{}-rust-{}", release.unwrap_or("newest"), toolchain.release));
    let own = home.join("bin/bpf-linker");
    if own.is_file() && try_linker(&own, tools).is_ok() {
        return Ok(own);
    }
    if let Some(found) = exec::find_program("bpf-linker") {
        match try_linker(&found, tools) {
            Ok(()) => {
                exec::say(&format!("using {}", found.display()));
                return Ok(found);
            }
            Err(_) => exec::say(&format!(
                "{} does not work with rustc {}, so another one is built",
                found.display(),
                toolchain.release
            )),
        }
    }
    build(tools, toolchain, release, &home).with_context(|| {
        format!(
            "bpf-linker is missing and cannot be built.\nby hand: put a bpf-linker that was built against LLVM {} on \
             PATH",
            toolchain.llvm_major
        )
    })?;
    try_linker(&own, tools).context("the bpf-linker just built does not work")?;
    Ok(own)
}

fn build(tools: &Path, toolchain: &Toolchain, release: Option<&str>, home: &Path) -> Result<()> {
    let llvm = llvm_prefix(tools, toolchain)?;
    if release.is_none() {
        exec::say(&format!(
            "no release of bpf-linker is known to fit LLVM {} (rustc {}): trying the newest",
            toolchain.llvm_major, toolchain.release
        ));
    }
    let step = Step::start("building bpf-linker against the compiler's LLVM", "75 s");
    let scratch = tools.join("bpf-linker.build");
    let mut command = exec::cargo();
    command
        .args(["install", "bpf-linker", "--locked", "--no-default-features", "--features"])
        .arg(format!("llvm-{}", toolchain.llvm_major));
    if let Some(release) = release {
        command.args(["--version", release]);
    }
    command
        .arg("--root")
        .arg(home)
        .arg("--target-dir")
        .arg(&scratch)
        .env("LLVM_PREFIX", &llvm)
        .env("CARGO_ENCODED_RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", llvm.join("lib").display()))
        // Cargo reminds of PATH otherwise, which is not how we find it.
        .env("PATH", path_with(&home.join("bin")));
    // Flags and targets meant for other builds must not leak into this one.
    for variable in ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "RUSTC_BOOTSTRAP"] {
        command.env_remove(variable);
    }
    exec::run(&mut command)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    step.done("bpf-linker is built");
    Ok(())
}

fn path_with(dir: &Path) -> std::ffi::OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(dir);
    path
}

/// Lays out the compiler's LLVM the way the linker's build script looks for one: a prefix with `bin/llvm-config` (only
/// looked at, never run) and the libraries in `lib` and `lib64`.
fn llvm_prefix(tools: &Path, toolchain: &Toolchain) -> Result<PathBuf> {
    let library = find_llvm(&toolchain.sysroot.join("lib"))?;
    let prefix = tools.join(format!("llvm-rust-{}", toolchain.release));
    let name = library.file_name().context("the LLVM library has no name")?;
    for folder in ["lib", "lib64"] {
        let folder = prefix.join(folder);
        fs::create_dir_all(&folder)?;
        // Under its own name too: that is what the loader will ask for.
        for link in [folder.join("libLLVM.so"), folder.join(name)] {
            if link.symlink_metadata().is_ok() {
                fs::remove_file(&link)?;
            }
            symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    fs::create_dir_all(prefix.join("bin"))?;
    fs::write(prefix.join("bin/llvm-config"), "")?;
    Ok(prefix)
}

/// The shared LLVM of a tool chain: `libLLVM.so.22.1-rust-1.95.0-stable`. Beside it lies `libLLVM-22-rust-….so`, a
/// linker script that the loader cannot use.
fn find_llvm(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("libLLVM.so.") {
            return Ok(entry.path());
        }
    }
    bail!(
        "this Rust tool chain has no shared LLVM in {} (those of rustup have one), so bpf-linker cannot be built \
         against it",
        folder.display()
    )
}

/// The smallest program that goes through all that the real ones need: bitcode of this compiler, debug info, BTF.
const PROBE: &str = "#![feature(no_core, lang_items)]\n#![no_core]\n\
    #[lang = \"pointee_sized\"] pub trait PointeeSized {}\n\
    #[lang = \"meta_sized\"] pub trait MetaSized: PointeeSized {}\n\
    #[lang = \"sized\"] pub trait Sized: MetaSized {}\n\
    #[unsafe(no_mangle)] #[unsafe(link_section = \"xdp\")] pub extern \"C\" fn probe() -> u32 { 2 }\n";

/// Whether `linker` starts, and links what this compiler makes.
fn try_linker(linker: &Path, tools: &Path) -> Result<()> {
    exec::run_logged(Command::new(linker).arg("--version"), &tools.join("bpf-linker.log"), None)?;
    let source = tools.join("probe.rs");
    fs::write(&source, PROBE).with_context(|| format!("cannot write {}", source.display()))?;
    let compile = || {
        let mut rustc = exec::rustc();
        rustc
            .env("RUSTC_BOOTSTRAP", "1")
            .args([
                "--target",
                "bpfel-unknown-none",
                "--crate-type",
                "cdylib",
                "-Copt-level=2",
                "-Cdebuginfo=2",
            ])
            .arg(&source);
        rustc
    };
    // The probe leans on the compiler's inner names, which change. Then the first real build is the probe.
    let metadata = tools.join("probe.rmeta");
    let mut check = compile();
    check.args(["--emit", "metadata", "-o"]).arg(metadata);
    if exec::run_logged(&mut check, &tools.join("probe.log"), None).is_err() {
        return Ok(());
    }
    let mut link = compile();
    link.arg(format!("-Clinker={}", linker.display()))
        .args(["-Clink-arg=--btf", "-o"])
        .arg(tools.join("probe.o"));
    exec::run_logged(&mut link, &tools.join("probe.log"), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_release_for_each_llvm() {
        assert_eq!(release_for(22), Some("0.10.4"));
        assert_eq!(release_for(23), Some("0.13.0"));
        assert_eq!(release_for(99), None);
    }

    #[test]
    fn tells_the_library_from_the_linker_script() {
        let dir = tempfile::tempdir().unwrap();
        let error = find_llvm(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no shared LLVM"), "{error}");
        fs::write(dir.path().join("libLLVM-22-rust-1.95.0-stable.so"), "INPUT(x)").unwrap();
        assert!(find_llvm(dir.path()).is_err());
        let library = dir.path().join("libLLVM.so.22.1-rust-1.95.0-stable");
        fs::write(&library, "").unwrap();
        assert_eq!(find_llvm(dir.path()).unwrap(), library);
    }
}
