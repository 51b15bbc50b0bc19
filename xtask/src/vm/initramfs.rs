//! What a virtual machine starts from: busybox, the few modules that the root file system takes, two scripts.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{exec, setup::kernels::Kernel};

/// Found by the machine's own modprobe, with what each needs. Which are built in differs.
const MODULES: [&str; 4] = ["virtio_pci", "virtiofs", "overlay", "virtio_mmio"];

/// Packs it into the file `to`. `mark` begins the lines that are for us in what the machine says.
pub(super) fn pack(kernel: &Kernel, mark: &str, to: &Path) -> Result<()> {
    let folder = to.with_extension("folder");
    remove(&folder)?;
    for inside in ["bin", "modules"] {
        fs::create_dir_all(folder.join(inside))
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::copy(busybox()?, folder.join("bin/busybox")).context("cannot copy busybox")?;
    for (number, module) in modules(kernel)?.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split(".ko").next().unwrap_or_default();
        // Loaded in the order of their names.
        fs::write(folder.join(format!("modules/{number:02}-{name}.ko")), unpacked(module)?)?;
    }
    fs::write(folder.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(folder.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(folder.join("guest"), include_str!("guest.sh"))?;
    let modules = kernel.tree.join("lib/modules");
    let settings = format!("MARK={}\nMODULES={}\n", quoted(mark), quoted(&modules.to_string_lossy()));
    fs::write(folder.join("settings"), settings)?;
    archive(&folder, to)?;
    remove(&folder)
}

/// A word of the shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn busybox() -> Result<PathBuf> {
    let busybox = exec::find_program("busybox").context("there is no `busybox`: run `cargo xtask setup`")?;
    let program = fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    // A program that wants a loader names it.
    if program.windows(10).any(|part| part == b"/ld-linux-" || part == b"ld-musl-x8") {
        bail!(
            "{} needs libraries, which a virtual machine does not have at its start: `apt-get install busybox-static`",
            busybox.display()
        );
    }
    Ok(busybox)
}

/// The files of [`MODULES`] and all they need, each after those it needs.
fn modules(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let modprobe =
        exec::find_program("modprobe").context("there is no `modprobe`: run `cargo xtask setup`")?;
    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut command = Command::new(&modprobe);
        command.arg("-d").arg(&kernel.tree).args(["-S", &kernel.release, "--show-depends", module]);
        let said = exec::output(&mut command)
            .with_context(|| format!("the kernel {} has no module {module}", kernel.release))?;
        for line in said.lines() {
            // `insmod FILE PARAMETERS`, or `builtin NAME`.
            let Some(file) = line.strip_prefix("insmod ") else { continue };
            let file = PathBuf::from(file.trim());
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A module as `insmod` takes it.
fn unpacked(module: &Path) -> Result<Vec<u8>> {
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return fs::read(module).with_context(|| format!("cannot read {}", module.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{} is packed in an unknown way", module.display()),
    };
    let mut command = Command::new(program);
    command.arg("-dc").arg(module).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", exec::shown(&command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", exec::shown(&command), output.status);
    }
    Ok(output.stdout)
}

fn archive(folder: &Path, to: &Path) -> Result<()> {
    let mut names = String::from(".\n");
    for inside in ["", "bin/", "modules/"] {
        for entry in fs::read_dir(folder.join(inside))? {
            names += &format!("{inside}{}\n", entry?.file_name().to_string_lossy());
        }
    }
    let file = fs::File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    let mut command = Command::new("cpio");
    command.current_dir(folder).args(["--quiet", "-o", "-H", "newc"]).stdin(Stdio::piped()).stdout(file);
    let mut child =
        command.spawn().context("cannot start `cpio`: `cargo xtask setup` installs what is missing")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(names.as_bytes()).context("`cpio` does not take its list")?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`cpio` failed ({status})");
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_for_the_shell() {
        for text in ["plain", "with space", "it's $HOME", ""] {
            let said = exec::output(Command::new("sh").args(["-c", &format!("printf %s {}", quoted(text))]));
            assert_eq!(said.unwrap(), text);
        }
    }
}
