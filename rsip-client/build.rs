//! Lays the eBPF object where this crate embeds it from. Without one the crate still compiles, with an empty object, so
//! that editors, checks and plain `cargo build` need no eBPF tool chain; the program says at run time what to do.

use std::{env, error::Error, fs, io, path::Path};

/// Built by `cargo xtask build-ebpf`, under the same name.
const OBJECT: &str = "rsip-host";

/// A folder with objects, in place of the work tree's `target/bpf`.
const FOLDER_VARIABLE: &str = "RSIP_BPF_DIR";

fn main() -> Result<(), Box<dyn Error>> {
    let crate_dir = env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo does not say where this crate is")?;
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo does not say where to write")?;
    let root = Path::new(&crate_dir).parent().ok_or("this crate stands in no workspace")?;
    let folder = env::var_os(FOLDER_VARIABLE).unwrap_or_else(|| "target/bpf".into());
    let object = root.join(folder).join(OBJECT);

    // While the file is missing cargo runs this script at every build, and so notices when it appears.
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-env-changed={FOLDER_VARIABLE}");

    let bytes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("cannot read {}: {error}", object.display()).into()),
    };
    fs::write(Path::new(&out_dir).join(OBJECT), bytes)?;
    Ok(())
}
