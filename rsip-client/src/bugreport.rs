//! `rsip-client bugreport`: what somebody who is to help has to know, in one file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser as _};
use flate2::Compression;
use flate2::write::GzEncoder;
use rsip_sys::bpf::{self, CgroupHook};
use rsip_sys::cgroup;
use rsip_sys::exit::{ExitCode, Failure};

use crate::agent::start::run_directory;
use crate::calls::{ask, say};
use crate::cli::{Cli, RunDir};
use crate::control::{Request, Response};
use crate::state;

/// Examples of `rsip-client bugreport --help`.
pub const EXAMPLES: &str = "\
Examples:
  rsip-client bugreport                           # rsip-client-bugreport-TIME.tar.gz in this folder
  rsip-client bugreport --output /tmp/report.tar.gz
  rsip-client bugreport --output - | tar tzv
  rsip-client bugreport --no-doctor               # without the tests that talk to the gateway

It holds addresses, ports, routes, rules, settings and the names of programs; look through it before you give it away. Values of
settings whose names speak of passwords, keys, secrets or tokens are left out.";

/// A tool that hangs is not waited for any longer.
const TOOL: Duration = Duration::from_secs(10);
/// Longest output of one tool.
const MOST: usize = 4 << 20;
/// The configuration file.
const CONFIGURATION: &str = "/etc/rsip/rsip-client.conf";

/// `rsip-client bugreport`.
#[derive(Clone, Debug, Args)]
pub struct Bugreport {
    /// Where to write it; `-`: to standard output [default: rsip-client-bugreport-TIME.tar.gz in the current folder]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Leave the doctor's tests out.
    #[arg(long)]
    pub no_doctor: bool,
    /// Where the agent is found.
    #[command(flatten)]
    pub run_dir: RunDir,
}

/// Collects and writes.
///
/// # Errors
///
/// The file cannot be written.
pub fn bugreport(arguments: &Bugreport) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = format!("rsip-client-bugreport-{now}");
    let parts = collect(arguments)?;
    let path = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let cannot = |error: io::Error| {
        Failure::new(ExitCode::Failure, format!("cannot write {}", path.display())).why(error.to_string())
    };
    if path == Path::new("-") {
        pack(&name, &parts, now, io::stdout()).map_err(cannot)?;
        return Ok(());
    }
    write_file(&path, &name, &parts, now).map_err(cannot)?;
    let list: Vec<&str> = parts.iter().map(|(file, _)| file.as_str()).collect();
    say(&format!("{}: {}", path.display(), list.join(", ")));
    say("look through it before you give it away: it names addresses and programs of this host");
    Ok(())
}

/// For its owner's eyes; a file that is there is not overwritten with somebody else's rights.
fn write_file(path: &Path, name: &str, parts: &[(String, String)], now: u64) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let file = pack(name, parts, now, file)?;
    file.sync_all()
}

fn pack<W: Write>(folder: &str, parts: &[(String, String)], now: u64, out: W) -> io::Result<W> {
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (file, text) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).map_err(io::Error::other)?);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("{folder}/{file}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

/// Every part, and first of all what there is.
fn collect(arguments: &Bugreport) -> anyhow::Result<Vec<(String, String)>> {
    let directory = run_directory(arguments.run_dir.path.as_deref())?;
    let mut parts: Vec<(String, String)> = Vec::new();
    let mut add = |file: &str, text: String| parts.push((file.to_owned(), text));
    add("versions.txt", versions());
    add("config.txt", without_secrets(&read(Path::new(CONFIGURATION))));
    let status = ask(&arguments.run_dir, &Request::Status);
    match &status {
        Ok(Response::Status(status)) => {
            add("status.txt", status.to_string());
            add("status.json", serde_json::to_string_pretty(status)?);
        }
        Ok(_) => add("status.txt", "the agent's answer is not understood".to_owned()),
        Err(error) => add("status.txt", rsip_sys::exit::line(error)),
    }
    if let Ok(Response::Holders(holders)) = ask(&arguments.run_dir, &Request::Holders) {
        add("holders.json", serde_json::to_string_pretty(&holders)?);
    }
    add("state.json", read(&directory.join(state::FILE)));
    if !arguments.no_doctor {
        add("doctor.txt", doctor(&arguments.run_dir).unwrap_or_else(|error| rsip_sys::exit::line(&error)));
    }
    add("bpf.txt", programs());
    add("sysctls.txt", sysctls());
    for (file, program, arguments) in TOOLS {
        add(file, tool(program, arguments));
    }
    let list: Vec<String> =
        parts.iter().map(|(file, text)| format!("{file}  {} bytes", text.len())).collect();
    let readme = format!(
        "Made by rsip-client {} bugreport.\nPasswords, keys, secrets and tokens of the configuration are left out; addresses and names of programs are not.\n\n{}\n",
        env!("CARGO_PKG_VERSION"),
        list.join("\n")
    );
    parts.insert(0, ("README.txt".to_owned(), readme));
    Ok(parts)
}

/// Tools whose word is worth having, where they are installed.
const TOOLS: [(&str, &str, &[&str]); 11] = [
    ("links.txt", "ip", &["-details", "-statistics", "link", "show"]),
    ("addresses.txt", "ip", &["address", "show"]),
    ("rules.txt", "ip", &["rule", "show"]),
    ("routes.txt", "ip", &["route", "show", "table", "all"]),
    ("neighbours.txt", "ip", &["neighbour", "show"]),
    ("qdiscs.txt", "tc", &["-statistics", "qdisc", "show"]),
    ("sockets.txt", "ss", &["-tuanpe"]),
    ("nft.txt", "nft", &["list", "ruleset"]),
    ("bpf-net.txt", "bpftool", &["net", "show"]),
    ("kernel-log.txt", "dmesg", &["--level", "emerg,alert,crit,err,warn"]),
    (
        "journal.txt",
        "journalctl",
        &["--unit", "rsip-client", "--lines", "2000", "--no-pager", "--output", "short-iso-precise"],
    ),
];

fn read(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("{}: {error}\n", path.display()),
    }
}

fn versions() -> String {
    let kernel = nix::sys::utsname::uname().map_or_else(
        |error| error.to_string(),
        |name| {
            let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            format!(
                "{} {} {} {}",
                word(name.sysname()),
                word(name.release()),
                word(name.version()),
                word(name.machine())
            )
        },
    );
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    format!(
        "rsip-client {} ({program})\n{kernel}\nuptime {}\n{}",
        env!("CARGO_PKG_VERSION"),
        read(Path::new("/proc/uptime")).trim_end(),
        read(Path::new("/etc/os-release"))
    )
}

/// `key = value` lines whose key is about a secret lose their value.
fn without_secrets(text: &str) -> String {
    let secret = |line: &str| {
        let key = line.split('=').next().unwrap_or_default().to_lowercase();
        ["password", "passphrase", "secret", "token", "private_key", "psk"]
            .iter()
            .any(|word| key.contains(word))
    };
    let keep = |line: &str| match line.split_once('=') {
        Some((key, _)) if secret(line) => format!("{key}= (left out)"),
        _ => line.to_owned(),
    };
    text.lines().map(|line| keep(line) + "\n").collect()
}

fn doctor(run_dir: &RunDir) -> anyhow::Result<String> {
    let cli = Cli::try_parse_from(["rsip-client", "doctor", "--no-trial"])?;
    let crate::cli::Command::Doctor(mut arguments) = cli.command else {
        return Err(anyhow::anyhow!("the doctor has another name"));
    };
    arguments.run_dir = run_dir.clone();
    Ok(crate::doctor::lines(&arguments)? + "\n")
}

/// What the kernel runs for this process, hook by hook.
fn programs() -> String {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut text = format!(
        "cgroup of this process: {}\n",
        own.lines().find(|line| line.starts_with("0::")).unwrap_or("-")
    );
    let names = match bpf::program_names() {
        Ok(names) => names,
        Err(error) => return format!("{text}loaded programs cannot be listed: {error}\n"),
    };
    match cgroup::open_root() {
        Ok(root) => {
            for hook in CgroupHook::ALL {
                let programs = bpf::effective(&root.directory, hook).map_or_else(
                    |error| error.to_string(),
                    |ids| {
                        let named = |id: &u32| format!("{} {id}", names.get(id).map_or("?", String::as_str));
                        ids.iter().map(named).collect::<Vec<_>>().join(", ")
                    },
                );
                text.push_str(&format!("{}: {programs}\n", hook.name()));
            }
        }
        Err(error) => text.push_str(&format!("{error}\n")),
    }
    text.push_str("\nloaded programs:\n");
    for (id, name) in names {
        text.push_str(&format!("{id} {name}\n"));
    }
    text
}

fn sysctls() -> String {
    const NAMES: [&str; 14] = [
        "kernel.unprivileged_bpf_disabled",
        "net.core.bpf_jit_enable",
        "net.ipv4.conf.all.arp_ignore",
        "net.ipv4.conf.all.forwarding",
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.all.send_redirects",
        "net.ipv4.ip_forward",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_no_pmtu_disc",
        "net.ipv4.ip_nonlocal_bind",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_mtu_probing",
        "net.ipv6.bindv6only",
    ];
    NAMES
        .iter()
        .map(|name| match rsip_sys::sysctl::read(name) {
            Ok(value) => format!("{name} = {value}\n"),
            Err(error) => format!("{name}: {error}\n"),
        })
        .collect()
}

/// What a tool prints, both streams, cut where it is very long. It is ended when it takes too long.
fn tool(program: &str, arguments: &[&str]) -> String {
    let mut output = match tempfile() {
        Ok(output) => output,
        Err(error) => return format!("no temporary file: {error}\n"),
    };
    let streams = || output.try_clone().map(Stdio::from);
    let (Ok(out), Ok(err)) = (streams(), streams()) else { return "no descriptor is free\n".to_owned() };
    let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(out).stderr(err).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return format!("{program}: {error}\n"),
    };
    let end = Instant::now() + TOOL;
    let mut late = false;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= end {
            late = true;
            drop(child.kill());
            drop(child.wait());
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut bytes = Vec::new();
    let read = io::Seek::rewind(&mut output)
        .and_then(|()| io::Read::read_to_end(&mut io::Read::take(&output, MOST as u64), &mut bytes));
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if let Err(error) = read {
        text.push_str(&format!("\n{error}\n"));
    }
    if late {
        text.push_str(&format!("\n(ended after {} s)\n", TOOL.as_secs()));
    }
    text
}

/// A file without a name.
fn tempfile() -> io::Result<fs::File> {
    let name = c"bugreport";
    let descriptor = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    Ok(fs::File::from(descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn secrets_stay_at_home() {
        let text = "gateway = \"10.0.0.1\"\n# password: none\nPASSWORD = \"one1\"\n[a]\nauth_token='two2' # three3\n";
        let kept = without_secrets(text);
        assert!(kept.contains("10.0.0.1") && kept.contains("# password: none"), "{kept}");
        assert!(["one1", "two2", "three3"].iter().all(|value| !kept.contains(value)), "{kept}");
        assert!(kept.contains("PASSWORD = (left out)"), "{kept}");
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let parts = [("a.txt".to_owned(), "one\n".to_owned()), ("b.json".to_owned(), "{}".to_owned())];
        let bytes = pack("report", &parts, 1_000_000_000, Vec::new()).expect("memory");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut seen = Vec::new();
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("whole");
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            seen.push((entry.path().expect("a name").display().to_string(), text));
        }
        assert_eq!(
            seen,
            [("report/a.txt".to_owned(), "one\n".to_owned()), ("report/b.json".to_owned(), "{}".to_owned())]
        );
    }

    #[test]
    fn a_tool_that_is_missing_or_says_much_is_no_trouble() {
        assert!(tool("no-such-program", &[]).starts_with("no-such-program: "));
        assert!(tool("sh", &["-c", "echo out; echo err >&2"]).contains("out\nerr\n"));
        assert!(tool("head", &["-c", "9000000", "/dev/zero"]).len() <= MOST);
    }
}
