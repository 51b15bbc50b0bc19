//! Debian packages that demo and tests use: real servers, clients and tools. They are for the lab's hosts only, so a
//! server that is installed here is neither started on this machine nor enabled for its next start.

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    exec::{self, Step},
    workspace::Workspace,
};

/// A package, known by a program that only it brings (with its full path where the lab starts it by that).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Package {
    name: &'static str,
    program: &'static str,
    /// The service it would start.
    service: Option<&'static str>,
    why: &'static str,
}

const fn tool(name: &'static str, program: &'static str, why: &'static str) -> Package {
    Package { name, program, service: None, why }
}

const fn server(
    name: &'static str,
    program: &'static str,
    service: &'static str,
    why: &'static str,
) -> Package {
    Package { name, program, service: Some(service), why }
}

/// Everything that demo and tests start and that is not built here.
const PACKAGES: [Package; 22] = [
    server("apache2", "apache2ctl", "apache2", "the server that gets port 80, as Debian ships it"),
    tool("bpftool", "bpftool", "sees what is loaded and attached, before and after"),
    tool("busybox-static", "busybox", "the first program of a virtual machine"),
    tool("cpio", "cpio", "packs what a virtual machine starts from"),
    tool("curl", "curl", "the client on the internet host"),
    tool("gdb", "gdb", "a debugger for programs that wait in bind()"),
    tool("iproute2", "ip", "network namespaces, addresses and routes of the lab"),
    tool("iputils-ping", "ping", "reaches through the lab's wires"),
    tool("kmod", "depmod", "finds the kernel modules that a virtual machine needs"),
    tool("netcat-openbsd", "nc.openbsd", "a server that takes a single connection"),
    tool("nftables", "nft", "compares the rule sets before and after"),
    server("nginx", "nginx", "nginx", "a server with one socket for IPv4 and one for IPv6"),
    server("openssh-server", "sshd", "ssh", "a server that takes one process per connection"),
    tool("procps", "sysctl", "kernel settings of the lab's hosts"),
    tool("python3", "/usr/bin/python3", "small servers and clients that bind in many ways"),
    tool("qemu-system-x86", "qemu-system-x86_64", "runs other kernels"),
    tool("socat", "socat", "a server on IPv4 alone"),
    tool("strace", "strace", "a tracer for programs that wait in bind()"),
    tool("systemd", "systemd-analyze", "reads the units"),
    tool("tcpdump", "tcpdump", "records packets on the lab's wires"),
    tool("tshark", "tshark", "decodes them, RSIP among them"),
    tool("xz-utils", "xz", "unpacks kernel modules"),
];

/// Installs what is missing.
pub(super) fn ensure(workspace: &Workspace) -> Result<()> {
    let missing = missing(&PACKAGES, |program| exec::find_program(program).is_some());
    if missing.is_empty() {
        return Ok(());
    }
    let list =
        missing.iter().map(|package| format!("  {}: {}", package.name, package.why)).collect::<Vec<_>>();
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let by_hand = format!("by hand, as root: apt-get install -y --no-install-recommends {}", names.join(" "));
    if exec::find_program("apt-get").is_none() {
        let programs: Vec<&str> = missing.iter().map(|package| package.program).collect();
        bail!(
            "demo and tests need programs that are missing: {}.\nThis machine has no `apt-get`: install them its own \
             way. Debian's packages are:\n{}",
            programs.join(", "),
            list.join("\n")
        );
    }
    if !exec::is_root() {
        bail!(
            "demo and tests need Debian packages, and installing takes root:\n{}\n{by_hand}",
            list.join("\n")
        );
    }
    exec::say(&format!("missing Debian packages:\n{}", list.join("\n")));
    install(workspace, &missing).with_context(|| format!("Debian packages are missing.\n{by_hand}\nwhy"))?;
    match self::missing(&missing, |program| exec::find_program(program).is_some()).first() {
        Some(package) => bail!("{} is installed but brings no `{}`", package.name, package.program),
        None => Ok(()),
    }
}

/// Those of `wanted` whose program is not there.
fn missing(wanted: &[Package], there: impl Fn(&str) -> bool) -> Vec<Package> {
    wanted.iter().filter(|package| !there(package.program)).copied().collect()
}

fn install(workspace: &Workspace, packages: &[Package]) -> Result<()> {
    let tools = workspace.tools();
    fs::create_dir_all(&tools).with_context(|| format!("cannot create {}", tools.display()))?;
    let step = Step::start_quiet("refreshing apt's package lists", "10 s");
    match exec::run_logged(apt().arg("update"), &tools.join("apt-update.log"), None) {
        Ok(()) => step.done("fresh"),
        // One source that cannot be reached fails the whole refresh; the packages may come from another.
        Err(error) => step.done(&format!("not all of them: {error:#}")),
    }
    let step = Step::start_quiet("installing Debian packages", "30 s");
    let no_services = NoServices::engage(Path::new(POLICY), std::process::id())?;
    let mut command = apt();
    command
        .args(["install", "-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confdef"])
        .args(["-o", "Dpkg::Options::=--force-confold", "-o", "Dpkg::Use-Pty=0"])
        .args(packages.iter().map(|package| package.name));
    exec::run_logged(&mut command, &tools.join("apt-install.log"), None)?;
    drop(no_services);
    for service in packages.iter().filter_map(|package| package.service) {
        keep_from_starting(service, &tools.join("services.log"));
    }
    step.done("installed");
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .env("LC_ALL", "C");
    command
}

/// Sees to it that a server which came with the lab's packages stays off the machine's own ports, now and after its
/// next start.
fn keep_from_starting(service: &str, log: &Path) {
    for (program, args) in [("update-rc.d", [service, "disable"]), ("invoke-rc.d", [service, "stop"])] {
        let Some(program) = exec::find_program(program) else { continue };
        if let Err(error) = exec::run_logged(Command::new(program).args(args), log, None) {
            exec::say(&format!("the service {service} may start with the machine: {error:#}"));
        }
    }
}

/// Asked by Debian's package scripts before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// First lines of a policy file of ours, by which a leftover is known.
const POLICY_MARK: &str = "#!/bin/sh\n# Written by `cargo xtask setup` of rsip";

/// While this lives, package scripts start no service. A policy that somebody else put there is left alone.
struct NoServices {
    ours: Option<PathBuf>,
}

impl NoServices {
    fn engage(path: &Path, pid: u32) -> Result<Self> {
        // An earlier set-up that was killed may have left its own.
        if fs::read_to_string(path).is_ok_and(|text| text.starts_with(POLICY_MARK)) {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        // Should this process be killed, the file it leaves behind forbids nothing any more.
        let script = format!(
            "{POLICY_MARK}: no service starts while that runs.\n\
             [ \"$(cat /proc/{pid}/comm 2>/dev/null)\" = xtask ] && exit 101\nexit 0\n"
        );
        match fs::File::options().write(true).create_new(true).mode(0o755).open(path) {
            Ok(mut file) => {
                use std::io::Write;
                // The mode above is cut by the umask.
                file.set_permissions(fs::Permissions::from_mode(0o755))?;
                file.write_all(script.as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(Self { ours: Some(path.to_path_buf()) })
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(Self { ours: None }),
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.ours
            && let Err(error) = fs::remove_file(path)
        {
            exec::say(&format!("cannot remove {}: {error}; remove it by hand", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_only_for_what_is_missing() {
        let names = |there: &[&str]| -> Vec<&str> {
            missing(&PACKAGES, |program| there.contains(&program))
                .iter()
                .map(|package| package.name)
                .collect()
        };
        let all: Vec<&str> = PACKAGES.iter().map(|package| package.program).collect();
        assert!(names(&all).is_empty());
        assert_eq!(names(&all[1..]), [PACKAGES[0].name]);
        assert_eq!(names(&[]).len(), PACKAGES.len());
    }

    #[test]
    fn forbids_services_only_while_the_setup_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy-rc.d");
        let answer = |path: &Path| Command::new("sh").arg(path).status().unwrap().code();

        // A process that is called otherwise: as after a kill, when the number was given away again.
        let policy = NoServices::engage(&path, 1).unwrap();
        assert_eq!(answer(&path), Some(0));
        std::mem::forget(policy);

        // A leftover is taken over, and goes away with the set-up.
        let policy = NoServices::engage(&path, std::process::id()).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("= xtask", &format!("= {}", own_name()));
        fs::write(&path, text).unwrap();
        assert_eq!(answer(&path), Some(101));
        drop(policy);
        assert!(!path.exists());
    }

    fn own_name() -> String {
        fs::read_to_string("/proc/self/comm").unwrap().trim().to_owned()
    }

    #[test]
    fn leaves_a_policy_of_others_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy-rc.d");
        fs::write(&path, "#!/bin/sh\nexit 101\n").unwrap();
        drop(NoServices::engage(&path, 1).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 101\n");
    }
}
