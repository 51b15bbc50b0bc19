//! The places in the work tree that the verbs share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The work tree, by its root.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the work tree that this xtask belongs to.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets the variable at run time too; the compiled-in value serves a binary started by hand.
        let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .with_context(|| format!("{} has no parent folder", manifest_dir.display()))?
            .to_path_buf();
        Ok(Self { root })
    }

    /// A folder in place of the work tree.
    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// The root of the work tree.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What `setup` found or built: the linker, Rust's library sources, logs.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }

    /// The finished eBPF objects, where the daemons' build scripts look for them.
    pub(crate) fn bpf_objects(&self) -> PathBuf {
        match std::env::var_os("RSIP_BPF_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target/bpf"),
        }
    }

    /// Cargo's target folder for the eBPF programs. Apart from the main one: its flags differ, and the two would evict
    /// each other's results.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.root.join("target/bpf-build")
    }

    /// Where cargo puts the daemons and the lab's programs.
    pub(crate) fn programs(&self) -> PathBuf {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.root.join("target"),
        };
        target.join("debug")
    }
}
