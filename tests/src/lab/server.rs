//! Other servers and clients, as Debian ships them.

use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::error::{IoContext, Result};
use super::exec::{self, Output};
use super::mountns::MountNs;
use super::netns::Inside;
use super::process::Process;
use super::topology::{Host, Lab};

/// How long curl may take for one page.
const PAGE: &str = "5";

/// nginx with its shipped configuration: port 80 over IPv4 and, on a socket of its own, over IPv6.
///
/// # Errors
/// Where it cannot be started; whether it binds its ports is in its output.
pub fn nginx(lab: &Lab, host: Host) -> Result<Process> {
    let folder = lab.subfolder(&format!("nginx/{}", host.name()))?;
    let mut overlays: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (part, place) in [("run", "/run"), ("log", "/var/log/nginx"), ("lib", "/var/lib/nginx")] {
        let path = folder.join(part);
        fs::create_dir_all(&path).cannot(|| format!("make {}", path.display()))?;
        overlays.push((path, place.into()));
    }
    let mounts = MountNs::new(&overlays)?;
    let mut command = lab.host(host).command_in("/usr/sbin/nginx", Some(&mounts));
    command.args(["-g", "daemon off;"]);
    start(lab, host, "nginx", &mut command)
}

/// Python's web server on a port of every address. It serves one page that contains the host's name.
///
/// # Errors
/// Where it cannot be started.
pub fn python(lab: &Lab, host: Host, port: u16) -> Result<Process> {
    let folder = lab.subfolder(&format!("python/{}", host.name()))?;
    let page = folder.join("index.html");
    fs::write(&page, format!("This is {}\n", host.name())).cannot(|| format!("write {}", page.display()))?;
    let mut command = lab.host(host).command("/usr/bin/python3");
    command.args(["-u", "-m", "http.server", &port.to_string(), "--directory"]).arg(folder);
    start(lab, host, "python", &mut command)
}

/// OpenSSH's server on a port of every address, with a host key of its own.
///
/// # Errors
/// Where the key cannot be made, or the server cannot be started.
pub fn sshd(lab: &Lab, host: Host, port: u16) -> Result<Process> {
    let folder = lab.subfolder(&format!("sshd/{}", host.name()))?;
    let key = folder.join("key");
    let mut keygen = Command::new("ssh-keygen");
    exec::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key), exec::SHORT)?.success()?;
    // It wants an empty folder to lock itself into.
    let run = folder.join("run");
    fs::create_dir_all(run.join("sshd")).cannot(|| format!("make {}", run.display()))?;
    let mounts = MountNs::new(&[(run, "/run".into())])?;
    let mut command = lab.host(host).command_in("/usr/sbin/sshd", Some(&mounts));
    command
        .args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string(), "-o", "PidFile=none", "-h"])
        .arg(key);
    start(lab, host, "sshd", &mut command)
}

/// socat that answers each connection to an IPv4 port with the host's name.
///
/// # Errors
/// Where it cannot be started.
pub fn socat(lab: &Lab, host: Host, port: u16) -> Result<Process> {
    let mut command = lab.host(host).command("socat");
    command
        .args([format!("TCP4-LISTEN:{port},reuseaddr,fork"), format!("SYSTEM:echo This is {}", host.name())]);
    start(lab, host, "socat", &mut command)
}

/// netcat that takes one connection to a port and prints what it is sent.
///
/// # Errors
/// Where it cannot be started.
pub fn netcat(lab: &Lab, host: Host, port: u16) -> Result<Process> {
    let mut command = lab.host(host).command("nc");
    command.args(["-4", "-n", "-v", "-l", "-p", &port.to_string()]);
    start(lab, host, "netcat", &mut command)
}

/// curl, with five seconds for everything; how it ended is for the caller to judge.
///
/// # Errors
/// Where it cannot be run.
pub fn curl(inside: &Inside, url: &str) -> Result<Output> {
    let mut command = inside.command("curl");
    command.args(["--silent", "--show-error", "--max-time", PAGE, url]);
    exec::run(&mut command, Duration::from_secs(20))
}

/// The page at a plain HTTP address.
///
/// # Errors
/// Where curl does not get it.
pub fn page(inside: &Inside, server: SocketAddrV4) -> Result<String> {
    curl(inside, &format!("http://{server}/"))?.success()
}

fn start(lab: &Lab, host: Host, name: &str, command: &mut Command) -> Result<Process> {
    Process::start(name, command, &lab.folder().join(format!("{name}-{}.log", host.name())))
}
