//! What the kernel has: asked of it, not read from its version.

use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};

use super::finding::{Finding, Trouble};
use crate::hooks::wait::{self, Outcome, Way};
use crate::usage::diag::Snapshot;

/// The oldest kernel that has all that the hooks need.
const OLDEST: (u32, u32) = (5, 18);

/// All checks of the kernel.
pub(super) fn check(may_load: bool) -> Vec<Finding> {
    let mut findings = vec![version()];
    if may_load {
        findings.extend([programs(), helpers(), maps(), parking()]);
    } else {
        findings.push(Finding::warn(
            "bpf",
            "not permitted to load eBPF programs here",
            "the kernel's features cannot be tried",
            "run as root",
        ));
    }
    findings.extend([sock_diag(), tun(), kernel_tunnels()]);
    findings
}

fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// "6.1.0-18-amd64" is (6, 1).
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn version() -> Finding {
    let release = release();
    let saw = format!("Linux {release}");
    match numbers(&release) {
        Some(version) if version >= OLDEST => Finding::ok("kernel", saw),
        _ => Finding::fail(
            "kernel",
            saw,
            "the hooks need Linux 5.18 or later",
            "boot a newer kernel, or start with --no-hooks",
        ),
    }
}

fn programs() -> Finding {
    let wanted = [
        ("cgroup/sock", ProgramType::CgroupSock),
        ("cgroup/sock_addr", ProgramType::CgroupSockAddr),
        ("sched_cls", ProgramType::SchedClassifier),
    ];
    lacking("bpf programs", wanted.map(|(name, kind)| (name, is_program_supported(kind).ok())))
}

fn helpers() -> Finding {
    let helper = |kind, helper| is_helper_supported(kind, helper).ok();
    lacking(
        "bpf helpers",
        [
            ("bpf_set_retval", helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)),
            (
                "bpf_get_netns_cookie",
                helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_netns_cookie),
            ),
            ("bpf_loop", helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_loop)),
            ("bpf_redirect_neigh", helper(ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect_neigh)),
        ],
    )
}

fn maps() -> Finding {
    let wanted = [
        ("ring buffer", MapType::RingBuf),
        ("hash", MapType::Hash),
        ("array", MapType::Array),
        ("per-CPU array", MapType::PerCpuArray),
        ("LPM trie", MapType::LpmTrie),
    ];
    lacking("bpf maps", wanted.map(|(name, kind)| (name, is_map_supported(kind).ok())))
}

/// `None`: the kernel refuses to say.
fn lacking<const N: usize>(check: &'static str, features: [(&str, Option<bool>); N]) -> Finding {
    let names = |wanted: Option<bool>| {
        let named: Vec<&str> =
            features.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
        named.join(", ")
    };
    let (has, lacks, unknown) = (names(Some(true)), names(Some(false)), names(None));
    if !lacks.is_empty() {
        return Finding::fail(
            check,
            format!("missing: {lacks}"),
            "bind() and connect() of programs cannot be served by hooks",
            "use a kernel of 5.18 or later with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_NET_CLS_BPF, or --no-hooks",
        )
        .known_as_tunnel(lacks.contains("sched_cls"));
    }
    if !unknown.is_empty() {
        return Finding::warn(
            check,
            format!("the kernel does not let itself be asked for: {unknown}"),
            "something (a lockdown, a security module, a sandbox) restricts eBPF here",
            "look at `sysctl kernel.unprivileged_bpf_disabled`, /sys/kernel/security/lockdown and the kernel's log",
        );
    }
    Finding::ok(check, has)
}

impl Finding {
    fn known_as_tunnel(self, is: bool) -> Self {
        if is { self.known_as(Trouble::UnableToCreateTunnel) } else { self }
    }
}

/// Which way of waiting this kernel has: they are tried. Of no harm where it is not the best.
fn parking() -> Finding {
    let tried = wait::try_all();
    let said = tried.iter().map(|(way, outcome)| format!("{way}: {outcome}"));
    let saw = said.collect::<Vec<_>>().join("; ");
    if tried.iter().any(|(way, outcome)| *way != Way::Poll && *outcome == Outcome::Works) {
        Finding::ok("waiting", saw)
    } else if tried.iter().all(|(_, outcome)| *outcome != Outcome::Works) {
        Finding::warn(
            "waiting",
            saw,
            "a bind() that waits for the gateway may fail at its deadline with EADDRINUSE although the port is granted",
            "the second bind() of the port finds the lease; ports that are asked for in advance (rsip-client listen PORT) wait for nothing",
        )
    } else {
        Finding::warn(
            "waiting",
            saw,
            "a bind() that waits for the gateway polls, and holds a CPU while it does",
            "nothing has to be done; a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_FUNCTION_TRACER waits without it",
        )
    }
}

fn sock_diag() -> Finding {
    match Snapshot::take() {
        Ok(_) => Finding::ok("sock_diag", "the kernel lists its TCP and UDP sockets"),
        Err(error) => Finding::fail(
            "sock_diag",
            error.to_string(),
            "it cannot be known which ports are used, so no lease is ever given back",
            "the kernel needs CONFIG_INET_DIAG and CONFIG_INET_UDP_DIAG (modules inet_diag, tcp_diag, udp_diag)",
        ),
    }
}

fn tun() -> Finding {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    /// Major and minor number of the tun driver.
    const TUN: (u64, u64) = (10, 200);
    let path = "/dev/net/tun";
    let is_tun = std::fs::metadata(path).map(|file| {
        let device = file.rdev();
        file.file_type().is_char_device()
            && (nix::sys::stat::major(device), nix::sys::stat::minor(device)) == TUN
    });
    let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
    let trouble = |saw: String| {
        Finding::fail(
            "tun",
            saw,
            "the tunnel device cannot be made",
            "load the module (modprobe tun; CONFIG_TUN), and make the file: mkdir -p /dev/net && mknod /dev/net/tun c 10 200",
        )
        .known_as(Trouble::UnableToCreateTunnel)
    };
    match (is_tun, opened) {
        (Ok(true), Ok(_)) => Finding::ok("tun", format!("{path} opens")),
        (Ok(false), _) => trouble(format!("{path} is not the tun driver's device file")),
        (Err(error), _) | (_, Err(error)) => trouble(format!("{path}: {error}")),
    }
}

/// Asked of the file system: to ask the kernel is to load the module, which puts devices everywhere.
fn kernel_tunnels() -> Finding {
    let folder = format!("/lib/modules/{}", release());
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default();
    let files = read("modules.dep") + &read("modules.builtin");
    let word = |module: &str| {
        let file = format!("/{module}.ko");
        if Path::new("/sys/module").join(module).exists() {
            "loaded"
        } else if files.contains(&file) {
            "there"
        } else {
            "not there"
        }
    };
    Finding::ok(
        "kernel tunnels",
        format!("ipip: {}, gre: {} (needed only for kernel tunnel devices)", word("ipip"), word("ip_gre")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn reads_releases_of_all_kinds() {
        assert_eq!(numbers("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(numbers("5.18-rc1+"), Some((5, 18)));
        assert_eq!(numbers("7.3"), Some((7, 3)));
        for bad in ["", "six", "6"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_what_is_missing_before_what_is_unknown() {
        let features = [("a", Some(true)), ("b", Some(false)), ("c", None)];
        let finding = lacking("x", features);
        assert_eq!((finding.verdict, finding.saw.as_str()), (Verdict::Fail, "missing: b"));
        assert_eq!(lacking("x", [("a", Some(true)), ("c", None)]).verdict, Verdict::Warn);
        assert_eq!(lacking("x", [("a", Some(true)), ("c", Some(true))]).saw, "a, c");
        let tunnel = lacking("x", [("sched_cls", Some(false))]);
        assert_eq!(tunnel.trouble, Some(Trouble::UnableToCreateTunnel));
    }

    #[test]
    fn this_machine_has_what_the_hooks_need() {
        let findings = check(true);
        for finding in &findings {
            assert_ne!(finding.verdict, Verdict::Fail, "{finding}");
        }
        let waiting = findings.iter().find(|finding| finding.check == "waiting").expect("checked");
        assert_eq!(waiting.verdict, Verdict::Ok, "{waiting}");
        assert!(waiting.saw.ends_with(": works"), "{waiting}");
    }
}
