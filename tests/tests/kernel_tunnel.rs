//! The kernel's own tunnel devices where it has them, and a clear word where it has not. Debian's kernels have both, and
//! `tests/vm.toml` says so by the variable; what runs on the machine's own kernel finds out.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_lab::lab::agent::{self, Agent, TUNNEL};
use rsip_lab::lab::process::Process;
use rsip_lab::lab::system::{NOTICE, Options, System};
use rsip_lab::lab::topology::Lab;
use rsip_lab::lab::topology::{GATEWAY, HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::{Host, arp, binaries, exec, probe};

/// Set where the kernel must have the devices.
const WANTED: &str = "RSIP_KERNEL_TUNNELS";
const SERVER: SocketAddrV4 = SocketAddrV4::new(INTERNET, 9000);

/// Whether new namespaces go without the devices that the modules bring into every one (`tunl0`, `gre0`).
const FALLBACK: &str = "/proc/sys/net/core/fb_tunnels_only_for_init_net";

/// Whether this kernel has devices of this type, with their modules loaded.
fn kernel_has(kind: &str) -> bool {
    // A virtual machine, where nobody else uses the setting.
    if std::env::var_os(WANTED).is_some() && std::path::Path::new(FALLBACK).exists() {
        std::fs::write(FALLBACK, "1\n").unwrap();
    }
    for module in ["ipip", "ip_gre"] {
        let mut command = std::process::Command::new("modprobe");
        // A kernel without modules has no such program, or fails.
        let _absent = exec::run(command.arg(module), exec::SHORT);
    }
    let lab = Lab::new().unwrap();
    let host = lab.host(Host::A);
    let made =
        host.ip(&["link", "add", "try", "type", kind, "local", "192.0.2.9", "remote", "192.0.2.8"]).is_ok();
    assert!(
        made || std::env::var_os(WANTED).is_none(),
        "{WANTED} is set, and the kernel has no {kind} devices"
    );
    made
}

fn up(tunnel: &str, more: &[&str]) -> Vec<String> {
    let fixed = ["--tunnel-device", "kernel", "--tunnel", tunnel];
    fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// Without the devices: nothing is changed, and the operator knows what to do.
fn is_refused(tunnel: &str) {
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let mut agent = Agent::launch(&system.lab, Host::A, &up(tunnel, &["--no-hooks"])).unwrap();
    assert_eq!(agent.process.wait(Duration::from_secs(20)).unwrap(), 5);
    let said = agent.process.output();
    assert!(said.contains("this kernel has no") && said.contains("--tunnel-device ebpf"), "{said}");
    system.finish().unwrap();
}

fn carries(tunnel: &str, kind: &str, mtu: u32, hooks: bool) {
    let mut system =
        System::new(Options { gateway: "TUNNEL = [\"IP-IP\", \"GRE\"]".into(), ..Options::default() })
            .unwrap();
    system.start_gateway().unwrap();
    let more: &[&str] = if hooks { &[] } else { &["--no-hooks", "--listen", "8080"] };
    let mut agent = Agent::start(&system.lab, Host::A, &up(tunnel, more)).unwrap();
    let lab = &system.lab;
    let link = lab.host(Host::A).ip(&["-d", "link", "show", TUNNEL]).unwrap();
    assert!(link.contains(&format!("mtu {mtu} ")) && link.contains(kind), "{link}");
    let status = system.status(Host::A).unwrap();
    assert!(status.contains(&format!("rsip mtu {mtu} ")), "{status}");

    let outside = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    let datagrams = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    assert_eq!(probe::ask(lab.host(Host::A), SERVER, &[]).unwrap().peer.ip(), &PUBLIC);
    for size in [1, 1400, 1472, 4000] {
        let arguments = ["--udp", "--size", &size.to_string()];
        assert_eq!(probe::ask(lab.host(Host::A), SERVER, &arguments).unwrap().peer.ip(), &PUBLIC, "{size}");
    }
    let inside = probe::serve(lab, lab.host(Host::A), &["0.0.0.0:8080"]).unwrap();
    system.gateway_sees_listening(Host::A, &[8080]).unwrap();
    probe::ask(&lab.internet, SocketAddrV4::new(PUBLIC, 8080), &[]).unwrap();
    // The private network does not hear of the leased address, programs or not.
    let wait = Duration::from_millis(500);
    let answered = arp::who_has(lab.host(Host::B), HOST_IF, Host::B.address(), PUBLIC, wait).unwrap();
    let own = lab.host(Host::A).ip(&["link", "show", HOST_IF]).unwrap();
    let of_host: Vec<String> =
        answered.iter().map(|mac| format!("{mac:?}")).filter(|mac| own.contains(mac)).collect();
    assert!(of_host.is_empty(), "the host answers ARP requests for the leased address: {of_host:?}");
    drop((outside, datagrams, inside));
    assert_eq!(agent.process.stop().unwrap(), 0);
    system.finish().unwrap();
}

#[test]
fn an_ipip_device_carries_it_or_is_refused() {
    if kernel_has("ipip") {
        carries("ip-ip", "ipip", 1480, true);
        carries("ip-ip", "ipip", 1480, false);
    } else {
        is_refused("ip-ip");
    }
}

#[test]
fn a_gre_device_carries_it_or_is_refused() {
    if kernel_has("gre") {
        carries("gre", "gre", 1476, true);
        carries("gre", "gre", 1476, false);
    } else {
        is_refused("gre");
    }
}

/// The whole user-mode client with nothing but the right to change the network, and what a crash leaves of it.
#[test]
fn without_hooks_and_programs_one_capability_is_enough() {
    if !kernel_has("ipip") {
        return is_refused("ip-ip");
    }
    let mut system = System::new(Options::default()).unwrap();
    system.start_gateway().unwrap();
    let lab = &system.lab;
    let mut command = lab.host(Host::A).command("setpriv");
    command
        .args(["--bounding-set", "-all,+net_admin", "--"])
        .arg(binaries::under_test("rsip-client").unwrap())
        .args(["up", "--no-hooks", "--tunnel-device", "kernel", "--gateway", &GATEWAY.to_string()])
        .env_remove("RSIP_GATEWAY");
    let mut agent = Process::start("rsip-client", &mut command, &lab.folder().join("poor.log")).unwrap();
    agent.wait_for_output("rsip-client: up:", NOTICE).unwrap();
    let outside = probe::serve(lab, &lab.internet, &["0.0.0.0:9000"]).unwrap();
    assert_eq!(probe::ask(lab.host(Host::A), SERVER, &[]).unwrap().peer.ip(), &PUBLIC);
    drop(outside);
    agent.kill().unwrap();
    lab.host(Host::A).ip(&["link", "show", TUNNEL]).unwrap();
    agent::client(lab, Host::A, &["down"]).unwrap().success().unwrap();
    lab.host(Host::A).ip(&["link", "show", TUNNEL]).unwrap_err();
    system.finish().unwrap();
}

#[test]
fn a_lease_for_one_peer_needs_programs() {
    let lab = Lab::new().unwrap();
    let arguments = up("ip-ip", &["--no-hooks", "--remote", "198.51.100.2"]);
    let mut agent = Agent::launch(&lab, Host::A, &arguments).unwrap();
    assert_eq!(agent.process.wait(Duration::from_secs(20)).unwrap(), 2);
    assert!(agent.process.output().contains("--remote"), "{}", agent.process.output());
}
