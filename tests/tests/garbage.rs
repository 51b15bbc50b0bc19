//! Whatever comes to the RSIP port, registered hosts do not notice.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use rsip_lab::lab::apache::Apache;
use rsip_lab::lab::system::System;
use rsip_lab::lab::topology::PUBLIC;
use rsip_lab::lab::{Host, gateway, probe, server};

const SERVICE: &str = "10.77.0.1:4555";

#[test]
fn garbage_from_another_host_does_not_disturb_a_registered_one() {
    let mut system = System::up().unwrap();
    system.has_strangers();
    let apache = Apache::shipped(&system.lab, Host::A).unwrap();
    apache.start().unwrap();
    let before = gateway::state(&system.lab).unwrap();
    // From B, and from A itself: another program of the host, on another connection.
    for (seed, from) in [("1", Host::B), ("2", Host::A)] {
        let sending = std::thread::spawn({
            let inside = system.lab.host(from).clone();
            move || probe::run(&inside, &["garbage", SERVICE, "--count", "300", "--seed", seed]).unwrap()
        });
        // Meanwhile everything works, and quickly.
        let mut worst = Duration::ZERO;
        for port in 6500..6510 {
            let (probe, bound) =
                probe::bind(&system.lab, system.lab.host(Host::A), &[&format!("0.0.0.0:{port}")]).unwrap();
            bound.expect_ok().unwrap();
            worst = worst.max(bound.took());
            drop(probe);
            server::page(&system.lab.internet, SocketAddrV4::new(PUBLIC, 80)).unwrap();
        }
        assert!(worst < Duration::from_secs(3), "a bind took {worst:?}");
        sending.join().unwrap();
    }
    system.gateway().unwrap().process.expect_running().unwrap();
    let after = system.gateway_sees_listening(Host::A, &[80]).unwrap();
    for host in Host::ALL {
        let id = |state: &gateway::State| state.client(host).unwrap().client_id;
        assert_eq!(id(&after), id(&before), "{} is registered as before", host.name());
        // Connections that A made take ports of its own, so it may have leased more of them.
        let held = after.block(host);
        let kept = before.block(host).iter().all(|port| held.contains(port));
        assert!(kept && !held.is_empty(), "{} holds what it held before", host.name());
    }
    apache.stop().unwrap();
    system.finish().unwrap();
}

#[test]
fn connections_that_say_nothing_take_no_place_from_hosts() {
    let mut system = System::up().unwrap();
    let before = gateway::state(&system.lab).unwrap().clients.len();
    let script = r"
import socket, time
kept = []
for _ in range(600):
    try:
        kept.append(socket.create_connection(('10.77.0.1', 4555), 1))
    except OSError:
        pass
print('open', flush=True)
time.sleep(60)
";
    let mut command = system.lab.host(Host::B).command("/usr/bin/python3");
    let log = system.lab.folder().join("idle.log");
    let mut idle =
        rsip_lab::lab::process::Process::start("idle", command.args(["-c", script]), &log).unwrap();
    idle.wait_for_output("open", Duration::from_secs(60)).unwrap();
    let start = Instant::now();
    let (_, bound) = probe::bind(&system.lab, system.lab.host(Host::A), &["0.0.0.0:6600"]).unwrap();
    bound.expect_ok().unwrap();
    assert!(start.elapsed() < Duration::from_secs(3));
    // A host that comes now is let in.
    assert_eq!(system.agent(Host::A).unwrap().process.stop().unwrap(), 0);
    system.start_agent(Host::A).unwrap();
    assert_eq!(gateway::state(&system.lab).unwrap().clients.len(), before);
    drop(idle);
    system.finish().unwrap();
}
