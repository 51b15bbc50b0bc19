//! Where the programs under test are.

use std::path::{Path, PathBuf};

use super::error::{IoContext, LabError, Result};

/// Names the folder of `rsipd`, `rsipdctl` and `rsip-client`.
pub const FOLDER: &str = "RSIP_BIN_DIR";

/// A program under test: in the folder that [`FOLDER`] names, else beside the running program.
///
/// # Errors
/// [`LabError::Missing`] where it is not there.
pub fn under_test(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os(FOLDER) {
        Some(folder) => PathBuf::from(folder),
        None => beside()?,
    };
    find(&folder, name)
}

/// A helper of the lab: beside the running program.
///
/// # Errors
/// [`LabError::Missing`] where it is not there.
pub fn own(name: &str) -> Result<PathBuf> {
    find(&beside()?, name)
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(LabError::Missing {
        program: path.display().to_string(),
        hint: "`cargo xtask test` and `cargo xtask demo` build everything first",
    })
}

/// Cargo puts tests into `deps`, and programs into the folder above.
fn beside() -> Result<PathBuf> {
    let running = std::env::current_exe().cannot(|| "find the running program".into())?;
    let folder = running.parent().unwrap_or(Path::new("/"));
    Ok(if folder.ends_with("deps") { folder.join("..") } else { folder.to_owned() })
}
