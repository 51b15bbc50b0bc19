//! `cargo xtask build-ebpf`: the eBPF programs, with BTF, laid where the daemons' build scripts pick them up.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    exec,
    setup::{self, BpfTools},
    toolchain::Toolchain,
    workspace::Workspace,
};

const TARGET: &str = "bpfel-unknown-none";

/// The programs of `rsip-ebpf`: one object per daemon. The daemons' build scripts look for these names.
const OBJECTS: [&str; 2] = ["rsip-host", "rsip-gateway"];

/// Separates flags in CARGO_ENCODED_RUSTFLAGS, so that a path may contain spaces.
const FLAG_SEPARATOR: &str = "\x1f";

/// Builds both objects, and sets up the tool chain for that where needed.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::detect()?;
    let tools = setup::bpf_tools(workspace, &toolchain)?;
    compile(workspace, &toolchain, &tools)?;
    let built = workspace.bpf_target().join(TARGET).join("release");
    let objects = workspace.bpf_objects();
    fs::create_dir_all(&objects).with_context(|| format!("cannot create {}", objects.display()))?;
    for name in OBJECTS {
        publish(&built.join(name), &objects.join(name))?;
    }
    Ok(())
}

fn compile(workspace: &Workspace, toolchain: &Toolchain, tools: &BpfTools) -> Result<()> {
    exec::say("building the eBPF programs (30 s the first time)");
    let flags = [
        // The linker as a flag rather than as a setting: cargo builds anew when it changes.
        format!("-Clinker={}", tools.linker.display()),
        // BTF is made from debug info.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Layouts of the running machine's registers, for the tracing programs.
        format!("--cfg=bpf_target_arch=\"{}\"", toolchain.host_arch()),
    ];
    let mut command = exec::cargo();
    command
        .current_dir(workspace.root())
        .args(["build", "--package", "rsip-ebpf", "--release", "--target", TARGET, "-Zbuild-std=core"])
        .args(OBJECTS.iter().flat_map(|name| ["--bin", name]))
        .arg("--target-dir")
        .arg(workspace.bpf_target())
        // A stable compiler does not offer build-std otherwise.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    if let Some(library) = &tools.library {
        command.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    exec::run(&mut command).context("the eBPF programs do not build")
}

/// Puts a finished object in place. One that did not change is left untouched: its time decides whether the daemons
/// are built anew.
fn publish(built: &Path, object: &PathBuf) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cargo built no {}", built.display()))?;
    if !is_bpf_with_btf(&bytes) {
        bail!("{} is not a BPF object with BTF: is the linker a bpf-linker?", built.display());
    }
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // Renamed into place, so that no build script ever sees half of it.
    let fresh = object.with_extension("new");
    fs::write(&fresh, &bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, object).with_context(|| format!("cannot write {}", object.display()))?;
    exec::say(&format!("built {} ({} KiB)", object.display(), bytes.len().div_ceil(1024)));
    Ok(())
}

/// ELF, for machine 247 (BPF), with sections for BTF.
fn is_bpf_with_btf(bytes: &[u8]) -> bool {
    // No zero in front: a linker may let the name end that of `.rel.BTF`.
    let section = b".BTF\0";
    bytes.starts_with(b"\x7fELF")
        && bytes.get(18..20) == Some(&[247, 0][..])
        && bytes.windows(section.len()).any(|window| window == section)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(machine: u8) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(18, 0);
        bytes.extend([machine, 0]);
        bytes.extend(b"\0.rel.BTF\0");
        bytes
    }

    #[test]
    fn knows_a_bpf_object_with_btf() {
        assert!(is_bpf_with_btf(&object(247)));
        assert!(!is_bpf_with_btf(&object(62)), "x86-64");
        assert!(!is_bpf_with_btf(&object(247)[..20]), "no BTF");
        assert!(!is_bpf_with_btf(b""));
    }

    #[test]
    fn leaves_an_unchanged_object_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (built, place) = (dir.path().join("built"), dir.path().join("place"));
        fs::write(&built, object(247)).unwrap();
        publish(&built, &place).unwrap();
        let first = fs::metadata(&place).unwrap().modified().unwrap();
        publish(&built, &place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().modified().unwrap(), first);

        let mut changed = object(247);
        changed.push(1);
        fs::write(&built, &changed).unwrap();
        publish(&built, &place).unwrap();
        assert_eq!(fs::read(&place).unwrap(), changed);
    }
}
